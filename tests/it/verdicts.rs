//! What a verdict costs the users, what it says, and what must never be evidence.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;

use super::harness::{Cutover, Load, Setup, Upstream, eventually, plain};

const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// Both colors good, with some good traffic behind blue, which is the yardstick.
fn start() -> (Cutover, Upstream, Upstream) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).start();
    for _ in 0..50 {
        assert_eq!(cutover.get("/").text(), "blue");
    }
    (cutover, blue, green)
}

fn break_it(upstream: &Upstream) {
    upstream.behave(|conn| conn.answer_all(&plain("500 Internal Server Error", "broken")));
    upstream.stop_connections();
}

#[test]
fn are_reached_under_load_and_nobody_fails_after() {
    let (cutover, _blue, green) = start();
    let load = Load::start(cutover.port(), 4);
    break_it(&green);
    cutover.must_flip("green");
    cutover.until_app("it is taken back", |app| app["phase"] == "rolled_back");
    let (_, failures) = load.end();
    assert!(failures.iter().all(|failure| failure.contains("500 Internal Server Error")), "{failures:?}");
    let after = Load::start(cutover.port(), 4);
    eventually("some more were answered", || after.answered() > 200);
    assert_eq!(after.end().1, Vec::<String>::new());
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let counted = r#"cutover_flips_total{service="app",to="blue",reason="verdict"} 1"#;
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

#[test]
fn find_a_color_that_answers_garbage() {
    let (cutover, _blue, green) = start();
    green.behave(|conn| {
        conn.request()?;
        conn.send("SSH-2.0-OpenSSH_9.6\r\n\r\n")
    });
    green.stop_connections();
    cutover.must_flip("green");
    eventually("it is taken back", || {
        cutover.get("/");
        cutover.app()["phase"] == "rolled_back"
    });
    assert_eq!(cutover.get("/").text(), "blue");
}

#[test]
fn are_carried_out_as_soon_as_there_is_somewhere_to_go() {
    let (cutover, mut blue, green) = start();
    cutover.must_flip("green");
    blue.stop();
    cutover.until_app("blue is down", |app| app["colors"]["blue"]["ready"] == false);
    break_it(&green);
    for _ in 0..60 {
        assert_eq!(cutover.get("/").status, 500);
    }
    let app = cutover.until_app("all were counted", |app| app["watch"]["failed"] == 60);
    assert_eq!(app["active"], "green");
    blue.restart();
    cutover.until_app("it is taken back", |app| app["phase"] == "rolled_back");
}

#[test]
fn do_not_count_4xx_or_clients_that_leave() {
    let (cutover, _blue, green) = start();
    let arrived = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&arrived);
    green.behave(move |conn| -> io::Result<()> {
        loop {
            if conn.request()?.target() == "/slow" {
                counted.fetch_add(1, Relaxed);
                conn.rest()?;
            }
            conn.send(plain("404 Not Found", ""))?;
        }
    });
    green.stop_connections();
    cutover.must_flip("green");
    for _ in 0..50 {
        assert_eq!(cutover.get("/").status, 404);
    }
    for n in 1..=30 {
        let mut client = cutover.client();
        client.send("GET /slow HTTP/1.1\r\nHost: app\r\n\r\n");
        eventually("it has arrived", || arrived.load(Relaxed) == n);
        // A reset: a client that has only closed its side might still read.
        socket2::SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let app = cutover.until_app("their leases are given back", |app| app["colors"]["green"]["in_flight"] == 0);
    assert_eq!((&app["watch"]["failed"], &app["phase"]), (&json!(0), &json!("watching")), "{app}");
}

#[test]
fn of_the_operator_stand_after_a_reload() {
    let (cutover, _blue, green) = start();
    break_it(&green);
    cutover.must_flip("green");
    eventually("it was taken back", || {
        cutover.client().ask(GET);
        cutover.app()["phase"] == "rolled_back"
    });
    let (status, refused) = cutover.admin("POST", "/v1/services/app/rollback", &json!({}));
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("nothing_to_roll_back")), "not to the bad one");
    assert_eq!(cutover.admin("POST", "/v1/reload", &json!({})).0, 200);
    assert_eq!(cutover.app()["active"], "blue");
}

#[test]
fn are_not_cut_short_by_a_flip_to_the_color_that_is_watched() {
    let (cutover, _blue, _green) = start();
    cutover.must_flip("green");
    let (status, refused) = cutover.flip("green");
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("cutover_under_way")), "{refused}");
    assert_eq!(cutover.cli_code(&["flip", "green"]).0, 5);
    cutover.must_flip("blue");
    assert_eq!(cutover.get("/").text(), "blue");
}
