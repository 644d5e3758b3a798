//! Flips that end on the old color: by the watch while somebody waits, and by hand.

use serde_json::json;

use super::{colors, held, holding};
use crate::harness::{Cutover, Setup, Upstream, plain};

/// Sends requests until traffic is back on blue.
fn requests_until_taken_back(cutover: &Cutover, case: &str) {
    for _ in 0..300 {
        let _ = cutover.client().send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").try_answer(false);
        let app = cutover.app();
        if app["phase"] == "rolled_back" {
            assert_eq!(app["active"], "blue", "{case}: {app}");
            return;
        }
    }
    panic!("{case}: three hundred failures, and nobody takes it back: {}", cutover.app());
}

#[test]
fn the_command_that_waits_is_told() {
    let (blue, go) = holding("blue");
    let green = Upstream::answering(plain("500 Internal Server Error", "no"));
    let cutover = Setup::of(&blue, &green).start();
    let mut client = held(&cutover);
    std::thread::scope(|scope| {
        let flip = scope.spawn(|| cutover.cli_code(&["flip", "green"]));
        cutover.until_app("green is active", |app| app["active"] == "green");
        requests_until_taken_back(&cutover, "500");
        assert!(!flip.is_finished(), "blue still holds a request of the epoch before");
        go.send(()).unwrap();
        let (code, said) = flip.join().unwrap();
        assert!(code == 4 && said.contains("requests failed") && said.contains("evidence/20"), "{code} {said}");
    });
    assert_eq!(client.answer().text(), "blue");
}

#[test]
fn a_color_that_is_gone_or_silent_is_taken_back() {
    for case in ["gone", "silent"] {
        let (blue, mut green) = (
            Upstream::saying("blue"),
            Upstream::start(|conn| {
                conn.request()?;
                conn.rest().map(drop)
            }),
        );
        // Probes go on finding it ready: only requests tell.
        let cutover = Setup::of(&blue, &green)
            .set("service.app.upstream.response_timeout", "'100ms'")
            .set("service.app.health.fall", 1000)
            .start();
        cutover.must_flip("green");
        if case == "gone" {
            green.stop();
        }
        requests_until_taken_back(&cutover, case);
    }
}

#[test]
fn a_watch_of_zero_length_takes_nothing_back() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::answering(plain("500 Internal Server Error", "no")));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    cutover.must_flip("green");
    for _ in 0..100 {
        assert_eq!(cutover.get("/").status, 500);
    }
    let app = cutover.until_app("all were counted", |app| app["colors"]["green"]["errors"] == 100);
    assert_eq!((&app["phase"], &app["active"]), (&json!("steady"), &json!("green")), "{app}");
}

#[test]
fn after_a_restart_it_is_still_said_why() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::answering(plain("500 Internal Server Error", "no")));
    let mut cutover = Setup::of(&blue, &green).start();
    cutover.must_flip("green");
    requests_until_taken_back(&cutover, "500");
    crate::harness::eventually("it is saved", || cutover.file("state/app.json").contains("requests failed"));
    cutover.kill();
    cutover.run();
    let app = cutover.app();
    assert_eq!((&app["phase"], &app["active"], &app["epoch"]), (&json!("rolled_back"), &json!("blue"), &json!(3)));
    assert!(app["summary"].as_str().is_some_and(|why| why.contains("requests failed")), "{app}");
}

#[test]
fn a_rollback_to_a_dead_color_needs_force() {
    let (mut blue, green) = colors();
    let cutover = Setup::of(&blue, &green).start();
    cutover.must_flip("green");
    blue.stop();
    cutover.until_app("blue is known to be down", |app| app["colors"]["blue"]["ready"] == false);
    let (code, said) = cutover.cli_code(&["rollback"]);
    assert!(code == 3 && said.contains("blue is not ready"), "{code} {said}");
    assert_eq!(cutover.get("/").text(), "green");
    assert_eq!(cutover.cli_code(&["rollback", "--force"]).0, 0);
    assert_eq!(cutover.app()["active"], "blue");
}
