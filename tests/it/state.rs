//! What survives: the color, the epoch, the watch. And what a broken state file costs.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cutover, Setup, Upstream, eventually};

fn two() -> (Upstream, Upstream, Setup) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green);
    (blue, green, setup)
}

/// The active color and the epoch.
fn standing(cutover: &Cutover) -> (String, u64) {
    let app = cutover.app();
    (app["active"].as_str().unwrap().to_owned(), app["epoch"].as_u64().unwrap())
}

#[test]
fn a_kill_at_any_instant_keeps_the_last_acknowledged_color_or_the_one_under_way() {
    let (_blue, _green, setup) = two();
    let mut cutover = setup.start();
    let (_, mut acknowledged) = standing(&cutover);
    for round in 0..12 {
        let (acked, killed) = (AtomicU64::new(acknowledged), AtomicBool::new(false));
        let port = cutover.setup.admin_port;
        std::thread::scope(|scope| {
            let storm = scope.spawn(|| {
                while !killed.load(Relaxed) {
                    let to = if acked.load(Relaxed) % 2 == 1 { "green" } else { "blue" };
                    if flip_on(port, to) == Some(200) {
                        acked.fetch_add(1, Relaxed);
                    }
                }
            });
            eventually("the storm blows", || acked.load(Relaxed) > acknowledged + 3);
            std::thread::sleep(Duration::from_micros(round * 700)); // another instant in each round
            cutover.kill();
            killed.store(true, Relaxed);
            storm.join().unwrap();
        });
        let known = acked.into_inner();
        cutover.run();
        cutover.until_app("both are ready", |app| {
            app["colors"]["blue"]["ready"] == true && app["colors"]["green"]["ready"] == true
        });
        let (active, epoch) = standing(&cutover);
        assert!(epoch == known || epoch == known + 1, "acknowledged {known}, restored {epoch}");
        assert_eq!(active, if epoch % 2 == 1 { "blue" } else { "green" }, "epoch {epoch}");
        assert_eq!(cutover.get("/").text(), active);
        assert_eq!(cutover.status()["problems"], json!([]));
        acknowledged = epoch;
    }
    let ledger = cutover.ledger();
    assert!(ledger.lines().all(|line| line.starts_with("[20")), "no torn line stays unclosed: {ledger}");
}

/// One flip; `None` when nobody answers any more.
fn flip_on(port: u16, to: &str) -> Option<u16> {
    let mut client = crate::harness::Client::try_connect(("127.0.0.1", port)).ok()?;
    let body = format!("{{\"to\":\"{to}\"}}");
    let head =
        format!("POST /v1/services/app/flip HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    client.try_send(format!("{head}{body}").as_bytes()).ok()?;
    client.try_answer(false).ok().map(|answer| answer.status)
}

#[test]
fn a_restart_keeps_the_flip_although_the_config_says_otherwise() {
    let (_blue, _green, setup) = two();
    let mut cutover = setup.start();
    cutover.must_flip("green");
    cutover.signal(libc::SIGTERM);
    assert!(cutover.ended().success());
    cutover.run();
    assert_eq!(standing(&cutover), ("green".into(), 2));
    eventually("green serves", || cutover.get("/").text() == "green");
}

#[test]
fn a_config_whose_active_changed_while_it_was_down_is_a_flip() {
    let (_blue, _green, setup) = two();
    let mut cutover = setup.start();
    cutover.kill();
    cutover.configure("service.app.active", "'green'");
    cutover.run();
    cutover.until_app("green is active", |app| app["active"] == "green");
}

#[test]
fn a_running_watch_survives_a_restart() {
    let (_blue, green, setup) = two();
    let mut cutover = setup.set("service.app.watch.window", "'5m'").start();
    cutover.must_flip("green");
    cutover.kill();
    cutover.run();
    let app = cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
    assert_eq!(app["phase"], "watching", "{app}");
    let left = app["watch"]["remaining_seconds"].as_f64().unwrap();
    assert!(left > 200.0 && left < 300.0, "{app}");
    green.behave(|conn| conn.answer_all(&crate::harness::plain("500 Internal Server Error", "no")));
    for _ in 0..1000 {
        cutover.get("/");
        if cutover.app()["phase"] == "rolled_back" {
            break;
        }
    }
    assert_eq!(standing(&cutover), ("blue".into(), 3), "it judges as before");
    // And so does its end.
    cutover.kill();
    cutover.run();
    let app = cutover.app();
    assert_eq!((&app["phase"], &app["active"]), (&json!("rolled_back"), &json!("blue")), "{app}");
    assert!(app["summary"].as_str().is_some_and(|why| why.contains("requests failed")), "{app}");
}

#[test]
fn a_rollback_is_possible_after_a_restart() {
    let (_blue, _green, setup) = two();
    let mut cutover = setup.start();
    cutover.must_flip("green");
    cutover.kill();
    cutover.run();
    cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
    assert_eq!(cutover.cli_code(&["rollback"]).0, 0);
    assert_eq!(standing(&cutover), ("blue".into(), 3));
}

#[test]
fn a_broken_file_costs_only_its_own_service() {
    let (blue, green, setup) = two();
    let mut cutover =
        setup.service("other", &[&blue], &[&green]).set("service.other.hosts", "['other.example']").start();
    cutover.must_flip("green");
    let (status, _) = cutover.admin("POST", "/v1/services/other/flip", &json!({"to": "green"}));
    assert_eq!(status, 200);
    let file = cutover.path("state/app.json");
    let whole = fs::read_to_string(&file).unwrap();
    let newer = {
        let mut entry: Value = serde_json::from_str(&whole).unwrap();
        entry["version"] = json!(99);
        entry.to_string()
    };
    for (case, content) in [
        ("torn", &whole.as_bytes()[..whole.len() / 2]),
        ("empty", b"".as_slice()),
        ("garbage", b"\0\xff not JSON \n".as_slice()),
        ("of a newer version", newer.as_bytes()),
        ("another shape", b"[1, 2]".as_slice()),
    ] {
        cutover.kill();
        fs::write(&file, content).unwrap();
        cutover.run();
        let status = cutover.status();
        let active = |name: &str| status["services"][name]["active"].clone();
        assert_eq!((active("app"), active("other")), (json!("blue"), json!("green")), "{case}: {status}");
        let problems = status["problems"].to_string();
        assert!(problems.contains("app.json") && !problems.contains("other.json"), "{case}: {problems}");
        let kept = fs::read_dir(cutover.path("state")).unwrap().filter_map(Result::ok);
        let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains("unreadable"));
        assert!(kept.map(|entry| fs::read(entry.path()).unwrap()).any(|kept| kept == content), "{case}: it is kept");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_said_at_start() {
    let (_blue, _green, setup) = two();
    let mut cutover = setup.start();
    cutover.kill();
    fs::remove_dir_all(cutover.path("state")).unwrap();
    fs::write(cutover.path("state"), "a file").unwrap();
    cutover.spawn();
    assert_eq!(cutover.ended().code(), Some(1));
    let log = cutover.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains("cannot start") && last.contains("state"), "{last}");
}

#[test]
fn a_flip_that_cannot_be_saved_is_refused() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    cutover.must_flip("green");
    fs::remove_dir_all(cutover.path("state")).unwrap();
    fs::write(cutover.path("state"), "a file").unwrap();
    let (status, refused) = cutover.flip("blue");
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("state_unwritable")), "{refused}");
    assert_eq!(cutover.get("/").text(), "green");
    let (code, said) = cutover.cli_code(&["flip", "blue"]);
    assert!(code == 1 && said.contains("could not be saved"), "{code} {said}");
    assert!(cutover.status()["problems"].to_string().contains("not saved"), "{}", cutover.status()["problems"]);
    // The way back is open all the same.
    assert_eq!(cutover.cli_code(&["rollback"]).0, 0);
    assert_eq!(cutover.get("/").text(), "blue");
}
