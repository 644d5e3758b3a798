//! After a flip: a bad release is taken back by itself, and nothing else is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::harness::{Cutover, Load, Setup, Upstream, eventually, plain};

fn failing() -> Upstream {
    Upstream::answering(plain("500 Internal Server Error", "no"))
}

fn failing_until(fixed: &Arc<AtomicBool>) -> Upstream {
    let fixed = Arc::clone(fixed);
    Upstream::start(move |conn| {
        loop {
            conn.request()?;
            let status = if fixed.load(Relaxed) { "200 OK" } else { "500 Internal Server Error" };
            conn.send(plain(status, "green"))?;
        }
    })
}

/// Sends so many requests, one after the other.
fn requests(cutover: &Cutover, count: usize) {
    let mut client = cutover.client();
    for _ in 0..count {
        client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    }
}

/// Sends requests until traffic was taken back, a thousand at most.
fn requests_until_taken_back(cutover: &Cutover) -> Value {
    let mut client = cutover.client();
    let mut app = Value::Null;
    for _ in 0..100 {
        for _ in 0..10 {
            client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
        }
        app = cutover.app();
        if app["phase"] != "watching" {
            break;
        }
    }
    assert_eq!((&app["phase"], &app["active"]), (&json!("rolled_back"), &json!("blue")), "{app}");
    app
}

fn is_kept(cutover: &Cutover, word: &str) -> Value {
    let app = cutover.until_app("the watch is over", |app| app["phase"] == "steady");
    assert_eq!((&app["active"], &app["epoch"]), (&json!("green"), &json!(2)), "{app}");
    assert!(app["last_verdict"].as_str().is_some_and(|verdict| verdict.contains(word)), "{word} in {app}");
    assert!(!cutover.ledger().contains("rollback"), "{}", cutover.ledger());
    app
}

#[test]
fn takes_traffic_back_from_a_color_that_answers_500() {
    let fixed = Arc::new(AtomicBool::new(false));
    let (blue, green) = (Upstream::saying("blue"), failing_until(&fixed));
    let cutover = Setup::of(&blue, &green).start();
    requests(&cutover, 100);
    cutover.must_flip("green");
    let app = requests_until_taken_back(&cutover);
    assert_eq!(app["epoch"], 3);
    let why = app["summary"].as_str().unwrap();
    assert!(why.contains("requests failed"), "{why}");
    assert!(app["last_verdict"].as_str().is_some_and(|verdict| verdict.contains("green -> blue")), "{app}");
    let ledger = cutover.ledger();
    let line = ledger.lines().find(|line| line.contains("rollback")).unwrap();
    assert!(line.contains("] rollback app: green -> blue epoch=3 reason=verdict by=cutover answered="), "{line}");
    assert!(line.contains("why=\"") && line.contains("requests failed"), "{line}");
    assert_eq!(cutover.get("/").text(), "blue");
    let (code, said) = cutover.cli_code(&["status"]);
    assert!(code == 0 && said.contains("rolled back") && said.contains("requests failed"), "{said}");
    // It stays so, until an operator says otherwise.
    fixed.store(true, Relaxed);
    requests(&cutover, 50);
    assert_eq!(cutover.app()["active"], "blue");
    cutover.must_flip("green");
    assert_eq!(cutover.app()["phase"], "watching");
    requests(&cutover, 50);
    assert_eq!(cutover.app()["active"], "green");
}

#[test]
fn takes_traffic_back_from_a_color_that_does_not_answer() {
    for case in ["gone", "mute", "broken", "silent"] {
        let (blue, mut green) = (Upstream::saying("blue"), Upstream::stopped());
        green.behave(move |conn| {
            conn.request()?;
            match case {
                "broken" => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
                "silent" => conn.rest().map(drop),
                _ => Ok(()), // nothing, and the close
            }
        });
        green.restart();
        let setup = Setup::of(&blue, &green).set("service.app.upstream.response_timeout", "'100ms'");
        let cutover = setup.start();
        requests(&cutover, 100);
        cutover.must_flip("green");
        if case == "gone" {
            green.stop();
        }
        let mut taken_back = false;
        for _ in 0..200 {
            let answer = cutover.client().send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").try_answer(false);
            if answer.is_ok_and(|answer| answer.status == 200) {
                taken_back = true;
                break;
            }
        }
        let app = cutover.app();
        assert!(taken_back, "{case}: two hundred failures, and nobody takes it back: {app}");
        assert_eq!(app["phase"], "rolled_back", "{case}: {app}");
    }
}

#[test]
fn tells_the_command_that_waits_that_it_was_taken_back() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let blue = Upstream::start(move |conn| {
        loop {
            if conn.request()?.target() == "/hold" {
                let _ = gone.lock().unwrap().recv();
            }
            conn.send(plain("200 OK", "blue"))?;
        }
    });
    let green = failing();
    let cutover = Setup::of(&blue, &green).start();
    requests(&cutover, 100);
    let mut held = cutover.client();
    held.send("GET /hold HTTP/1.1\r\nHost: app\r\n\r\n");
    cutover.until_app("a request is held", |app| app["colors"]["blue"]["in_flight"] == 1);
    std::thread::scope(|scope| {
        let flip = scope.spawn(|| cutover.cli_code(&["flip", "green"]));
        cutover.until_app("green is active", |app| app["active"] == "green");
        requests_until_taken_back(&cutover);
        go.send(()).unwrap();
        let (code, said) = flip.join().unwrap();
        assert!(code == 4 && said.contains("requests failed"), "{code} {said}");
    });
    assert_eq!(held.answer().text(), "blue");
}

#[test]
fn never_takes_back_without_traffic() {
    let (blue, green) = (Upstream::saying("blue"), failing());
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'400ms'").start();
    cutover.must_flip("green");
    assert_eq!(cutover.app()["phase"], "watching");
    is_kept(&cutover, "not enough traffic");
    eventually("the ledger says so", || cutover.ledger().contains("] verdict app: green not-enough-traffic epoch=2"));
}

#[test]
fn never_takes_back_for_two_failures() {
    let (blue, green) = (Upstream::saying("blue"), failing());
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'600ms'").start();
    requests(&cutover, 100);
    cutover.must_flip("green");
    requests(&cutover, 2);
    is_kept(&cutover, "not enough traffic");
}

#[test]
fn keeps_a_color_that_was_good() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'1s'").start();
    let load = Load::start(cutover.port(), 2);
    cutover.must_flip("green");
    let watched = cutover.until_app("the watch counts", |app| app["watch"]["answered"].as_u64() > Some(50));
    assert!(watched["watch"]["remaining_seconds"].as_f64() > Some(0.0), "{watched}");
    is_kept(&cutover, "kept");
    let (_, failures) = load.end();
    assert!(failures.is_empty(), "{failures:?}");
    eventually("the ledger says so", || cutover.ledger().contains("] verdict app: green keep epoch=2"));
}

#[test]
fn does_not_hold_clients_faults_against_a_color() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::answering(plain("404 Not Found", "none")));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'1s'").start();
    requests(&cutover, 50);
    cutover.must_flip("green");
    for _ in 0..30 {
        cutover.client().send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 100\r\n\r\nhalf");
    }
    requests(&cutover, 100);
    is_kept(&cutover, "kept");
    assert_eq!(cutover.app()["colors"]["green"]["errors"], 0);
}

#[test]
fn never_goes_to_a_color_that_is_no_better() {
    let (blue, green) = (failing(), failing());
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'2s'").start();
    requests(&cutover, 300);
    cutover.must_flip("green");
    requests(&cutover, 300);
    let app = cutover.until_app("the watch is over", |app| app["phase"] != "watching");
    assert_eq!(app["active"], "green", "blue failed as much: {app} {}", cutover.ledger());
}

#[test]
fn never_goes_to_a_color_that_is_down() {
    let (mut blue, green) = (Upstream::saying("blue"), failing());
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'1s'").start();
    requests(&cutover, 100);
    cutover.must_flip("green");
    blue.stop();
    cutover.until_app("blue is known to be down", |app| app["colors"]["blue"]["ready"] == false);
    requests(&cutover, 100);
    is_kept(&cutover, "not up to go back to");
    assert!(cutover.ledger().contains("verdict app: green nowhere-to-go"), "{}", cutover.ledger());
}

#[test]
fn of_zero_length_judges_nobody() {
    let (blue, green) = (Upstream::saying("blue"), failing());
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    requests(&cutover, 100);
    cutover.must_flip("green");
    requests(&cutover, 100);
    assert_eq!((&cutover.app()["phase"], &cutover.app()["active"]), (&json!("steady"), &json!("green")));
}

#[test]
fn ends_with_a_rollback_by_hand() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).start();
    assert_eq!(cutover.cli_code(&["rollback"]).0, 3, "there is nothing to roll back to");
    cutover.must_flip("green");
    let (code, said) = cutover.cli_code(&["rollback"]);
    assert!(code == 0 && said.contains("green -> blue"), "{code} {said}");
    assert_eq!(cutover.get("/").text(), "blue");
    let app = cutover.app();
    assert_eq!((&app["phase"], &app["epoch"]), (&json!("steady"), &json!(3)), "{app}");
    assert!(cutover.ledger().contains("] rollback app: green -> blue epoch=3 reason=operator by=cli:tester"));
    let (status, refused) = cutover.admin("POST", "/v1/services/app/rollback", &json!({}));
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("nothing_to_roll_back")), "{refused}");
}

#[test]
fn leaves_a_rollback_to_a_dead_color_to_force() {
    let (mut blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
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
