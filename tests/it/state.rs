//! What survives: `kill -9` at any instant, a torn file, a newer one, a restart in the middle of a watch.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Client, Cutover, Setup, Upstream, eventually, plain};

const STATE: &str = "state/app.json";

fn pair() -> (Upstream, Upstream) {
    (Upstream::saying("blue"), Upstream::saying("green"))
}

/// The color and the epoch that were last acknowledged, and the color of a flip whose answer is awaited.
struct Known {
    active: String,
    epoch: u64,
    asked: Option<&'static str>,
}

#[test]
fn kill_9_in_a_flip_storm_loses_no_acknowledged_flip() {
    let (blue, green) = pair();
    let mut cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    let mut known = Known { active: "blue".into(), epoch: 1, asked: None };
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..15 {
        let delay = Duration::from_micros(random.u64(0..60_000));
        known = storm(&mut cutover, known, delay);
        cutover.run();
        let app = cutover.app();
        let (active, epoch) = (app["active"].as_str().unwrap().to_owned(), app["epoch"].as_u64().unwrap());
        let is_last = (&active, epoch) == (&known.active, known.epoch);
        let is_asked = known.asked == Some(active.as_str()) && epoch == known.epoch + 1;
        assert!(
            is_last || is_asked,
            "{active} epoch {epoch}, acknowledged {} epoch {}, asked {:?}; seed {seed}, round {round}",
            known.active,
            known.epoch,
            known.asked
        );
        assert_eq!(cutover.status()["problems"], json!([]), "nothing was torn; seed {seed}, round {round}");
        assert_eq!(cutover.get("/").text(), active, "and it serves");
        known = Known { active, epoch, asked: None };
        cutover.until_app("both are ready", |app| {
            app["colors"]["blue"]["ready"] == true && app["colors"]["green"]["ready"] == true
        });
    }
}

/// Flips as fast as it goes and kills the proxy after `delay`.
fn storm(cutover: &mut Cutover, known: Known, delay: Duration) -> Known {
    let known = Mutex::new(known);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let to = if known.lock().unwrap().active == "blue" { "green" } else { "blue" };
                known.lock().unwrap().asked = Some(to);
                let Some(epoch) = try_flip(cutover, to) else { return };
                *known.lock().unwrap() = Known { active: to.to_owned(), epoch, asked: None };
            }
        });
        std::thread::sleep(delay);
        cutover.signal(libc::SIGKILL);
        over.store(true, Relaxed);
    });
    cutover.kill();
    known.into_inner().unwrap()
}

/// The epoch of an acknowledged flip.
fn try_flip(cutover: &Cutover, to: &str) -> Option<u64> {
    let mut client = Client::try_connect(("127.0.0.1", cutover.setup.admin_port)).ok()?;
    let body = json!({ "to": to }).to_string();
    let head = "POST /v1/services/app/flip HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    client.try_send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()?;
    let answer = client.try_answer(false).ok()?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice::<Value>(&answer.body).unwrap()["epoch"].as_u64()
}

#[test]
fn the_config_s_active_is_only_the_beginning() {
    let (blue, green) = pair();
    let mut cutover = Setup::of(&blue, &green).set("service.app.active", "'green'").start();
    assert_eq!(cutover.get("/").text(), "green");
    cutover.must_flip("blue");
    cutover.kill();
    cutover.run();
    assert_eq!((&cutover.app()["active"], &cutover.app()["epoch"]), (&json!("blue"), &json!(2)));
}

#[test]
fn an_active_that_was_changed_while_nobody_ran_is_a_flip() {
    let (blue, green) = pair();
    let mut cutover = Setup::of(&blue, &green).set("service.app.active", "'blue'").start();
    cutover.kill();
    cutover.configure("service.app.active", "'green'");
    cutover.run();
    cutover.until_app("green is active", |app| app["active"] == "green");
    // Nobody waits for this flip, so its line may come a moment later.
    eventually("the ledger says why", || cutover.ledger().contains("reason=config"));
}

#[test]
fn an_entry_that_cannot_be_read_costs_only_its_service() {
    let whole = |version: u32| {
        format!(
            r#"{{"version":{version},"active":"green","epoch":7,"previous":"blue","config_active":"blue","watch_until_unix_ms":null,"rolled_back":null}}"#
        )
    };
    for (case, content) in [
        ("torn", whole(1)[..40].to_owned()),
        ("empty", String::new()),
        ("not JSON", "\0\u{1}\u{2}garbage".to_owned()),
        ("newer", whole(99)),
        ("another shape", "[]".to_owned()),
    ] {
        let (blue, green) = pair();
        let setup = Setup::of(&blue, &green).service("other", &[&blue], &[&green]);
        let mut cutover = setup.set("service.other.hosts", "['other.example']").start();
        assert_eq!(cutover.admin("POST", "/v1/services/other/flip", &json!({"to": "green"})).0, 200);
        cutover.must_flip("green");
        cutover.kill();
        fs::write(cutover.path(STATE), &content).unwrap();
        cutover.run();
        let status = cutover.status();
        assert_eq!(status["services"]["app"]["active"], "blue", "{case}: the config decides");
        assert_eq!(status["services"]["other"]["active"], "green", "{case}: the other is restored");
        assert_eq!(status["services"]["other"]["epoch"], 2, "{case}");
        assert!(status["problems"].to_string().contains("app.json"), "{case}: {status}");
        assert_eq!(
            fs::read_to_string(cutover.path("state/app.json.unreadable")).unwrap(),
            content,
            "{case}: it is kept"
        );
    }
}

#[test]
fn a_flip_that_cannot_be_saved_is_not_made() {
    // Root may write anywhere, so a folder takes the place of the file instead of a missing permission.
    let (blue, green) = pair();
    let cutover = Setup::of(&blue, &green).start();
    let _ = fs::remove_file(cutover.path(STATE));
    fs::create_dir_all(cutover.path(STATE).join("in the way")).unwrap();
    let (status, refused) = cutover.flip("green");
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("state_unwritable")), "{refused}");
    assert_eq!(cutover.get("/").text(), "blue");
    assert_eq!(cutover.app()["epoch"], 1);
    let (code, said) = cutover.cli_code(&["flip", "green"]);
    assert_eq!(code, 1, "{said}");
    fs::remove_dir_all(cutover.path(STATE)).unwrap();
    cutover.must_flip("green");
    assert_eq!(cutover.get("/").text(), "green");
}

#[test]
fn a_rollback_does_not_wait_for_the_disk() {
    let (blue, green) = pair();
    let cutover = Setup::of(&blue, &green).start();
    cutover.must_flip("green");
    let _ = fs::remove_file(cutover.path(STATE));
    fs::create_dir_all(cutover.path(STATE).join("in the way")).unwrap();
    let (status, changed) = cutover.admin("POST", "/v1/services/app/rollback", &Value::Null);
    assert_eq!(status, 200, "{changed}");
    assert_eq!(cutover.get("/").text(), "blue");
    eventually("the status says that it is not saved", || {
        cutover.status()["problems"].as_array().is_some_and(|problems| !problems.is_empty())
    });
}

#[test]
fn a_watch_goes_on_after_a_restart() {
    let (blue, green) = pair();
    let mut cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'60s'").start();
    cutover.must_flip("green");
    let before = cutover.app();
    assert_eq!(before["phase"], "watching");
    cutover.kill();
    cutover.run();
    let after = cutover.until_app("it watches", |app| app["phase"] == "watching");
    let remaining = |app: &Value| app["watch"]["remaining_seconds"].as_f64().unwrap();
    assert!(remaining(&after) <= remaining(&before), "the window is not longer than it was: {after}");
    assert_eq!(after["epoch"], 2);
    // Blue must be known to be up before traffic can go back to it.
    cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
    green.behave(|conn| conn.answer_all(&plain("500 Broken", "broken")));
    green.stop_connections();
    for _ in 0..60 {
        cutover.get("/");
    }
    cutover.until_app("it is taken back", |app| app["active"] == "blue" && app["phase"] == "rolled_back");
}

#[test]
fn a_second_proxy_does_not_work_on_the_same_state() {
    let (blue, green) = pair();
    let mut first = Setup::of(&blue, &green).start();
    first.must_flip("green");
    let folder = first.path("state");
    let mut second = Setup::of(&blue, &green).set("state.dir", format!("'{}'", folder.display())).prepared();
    let refused = |second: &mut Cutover, holder: u32| {
        second.spawn();
        assert_eq!(second.ended().code(), Some(1), "{}", second.log());
        let said = format!("is in use by another cutover: process {holder}");
        assert!(second.log().contains(&said), "{}", second.log());
    };
    refused(&mut second, first.pid());
    assert_eq!(first.app()["active"], "green");
    first.kill();
    first.run();
    refused(&mut second, first.pid());
    first.kill();
    second.run();
    assert_eq!(second.app()["active"], "green", "a lock does not outlive its process");
}
