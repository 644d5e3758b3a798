//! What a flip must pass: readiness, one at a time, the epoch that was seen.

use serde_json::{Value, json};

use super::{colors, held, holding, two_colors};
use crate::harness::{Cutover, Setup, Upstream};

/// Green is known not to be ready.
fn green_down() -> (Upstream, Upstream, Cutover) {
    let (blue, green) = colors();
    green.be_ready(false);
    let cutover = Setup::of(&blue, &green).start_unready();
    cutover.until_app("green was found not ready", |app| {
        app["colors"]["blue"]["ready"] == true && app["colors"]["green"]["upstreams"][0]["reason"].is_string()
    });
    (blue, green, cutover)
}

#[test]
fn a_color_that_is_not_ready_is_refused_and_nothing_changes() {
    let (_blue, _green, cutover) = green_down();
    let (status, refused) = cutover.flip("green");
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("not_ready")), "{refused}");
    assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("503")), "the probe's reason: {refused}");
    let (code, said) = cutover.cli_code(&["flip", "green"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("green is not ready") && said.contains("503") && said.contains("--force"), "{said}");
    let app = cutover.app();
    assert_eq!((&app["active"], &app["epoch"]), (&json!("blue"), &json!(1)), "{app}");
    assert_eq!(cutover.get("/").text(), "blue");
    assert_eq!(
        cutover.ledger().matches("] refused app: flip to green code=not_ready").count(),
        2,
        "{}",
        cutover.ledger()
    );
}

#[test]
fn force_goes_past_readiness_and_the_ledger_says_so() {
    let (_blue, _green, cutover) = green_down();
    let (code, said) = cutover.cli_code(&["flip", "green", "--force"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cutover.get("/").text(), "green");
    assert!(cutover.ledger().contains("reason=operator by=cli:tester forced=true"), "{}", cutover.ledger());
    let (status, _) = cutover.admin("POST", "/v1/services/app/flip", &json!({"to": "blue", "force": true}));
    assert_eq!(status, 200);
    assert_eq!(cutover.ledger().matches("forced=true").count(), 1, "blue was ready: {}", cutover.ledger());
}

#[test]
fn the_config_s_way_in_has_the_same_gate_and_is_not_made_up_for_later() {
    let (_blue, green, mut cutover) = green_down();
    cutover.configure("service.app.active", "'green'");
    cutover.signal(libc::SIGHUP);
    crate::harness::eventually("it was refused", || cutover.ledger().contains("code=not_ready reason=config"));
    green.be_ready(true);
    cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
    let reloads = cutover.log().matches("config read again").count();
    cutover.signal(libc::SIGHUP);
    crate::harness::eventually("another reload", || cutover.log().matches("config read again").count() > reloads);
    assert_eq!(cutover.app()["active"], "blue");
}

#[test]
fn a_dry_run_changes_nothing() {
    let (_blue, _green, cutover) = two_colors();
    let (code, said) = cutover.cli_code(&["flip", "green", "--dry-run"]);
    assert!(code == 0 && said.contains("would"), "{code} {said}");
    assert_eq!(cutover.app()["epoch"], 1);
    assert!(!cutover.ledger().contains("flip"), "{}", cutover.ledger());
}

#[test]
fn the_active_color_is_refused() {
    let (_blue, _green, cutover) = two_colors();
    let (status, refused) = cutover.flip("blue");
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("already_active")), "{refused}");
    assert_eq!(cutover.cli_code(&["flip", "blue"]).0, 3);
}

#[test]
fn of_many_at_once_exactly_one_wins() {
    let (_blue, _green, cutover) = two_colors();
    let results: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| cutover.flip("green"))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|(status, _)| *status == 200).count(), 1, "{results:?}");
    let lost =
        results.iter().filter(|(status, answer)| *status == 409 && answer["error"]["code"] == "cutover_under_way");
    assert_eq!(lost.count(), 7, "{results:?}");
    assert_eq!(cutover.app()["epoch"], 2);
}

#[test]
fn of_many_commands_at_once_exactly_one_wins() {
    let (_blue, _green, cutover) = two_colors();
    let mut codes: Vec<i32> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| cutover.cli_code(&["flip", "green"]).0)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    codes.sort_unstable();
    assert_eq!(codes, [0, 5, 5, 5]);
}

#[test]
fn a_flip_while_another_is_waited_for_is_refused() {
    let (blue, go) = holding("blue");
    let green = Upstream::saying("green");
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    let mut client = held(&cutover);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| cutover.flip("green"));
        cutover.until_app("green is active", |app| app["active"] == "green");
        let (status, refused) = cutover.flip("green");
        assert_eq!((status, &refused["error"]["code"]), (409, &json!("cutover_under_way")), "{refused}");
        assert_eq!(cutover.app()["phase"], "draining");
        go.send(()).unwrap();
        assert_eq!(first.join().unwrap().0, 200);
    });
    assert_eq!(client.answer().text(), "blue");
    assert_eq!(cutover.app()["phase"], "steady");
}

#[test]
fn a_stale_epoch_is_412() {
    let (_blue, _green, cutover) = two_colors();
    let seen = cutover.admin_with("GET", "/v1/services/app", "", "");
    assert_eq!(seen.header("etag"), Some("\"1\""));
    let flip = |epoch: &str, to: &str| {
        let headers = format!("If-Match: {epoch}\r\nContent-Type: application/json\r\n");
        let answer = cutover.admin_with("POST", "/v1/services/app/flip", &headers, &json!({ "to": to }).to_string());
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, body["error"]["code"].clone())
    };
    assert_eq!(flip("\"1\"", "green"), (200, Value::Null));
    assert_eq!(flip("\"1\"", "blue"), (412, json!("stale_epoch")));
    assert_eq!(cutover.app()["active"], "green");
    assert_eq!(flip("\"2\"", "blue"), (200, Value::Null));
    assert_eq!(flip("two", "green"), (400, json!("bad_request")));
}
