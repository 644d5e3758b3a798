//! Before a flip: copies of live requests are asked of both colors, and what differs closes the gate.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

use super::harness::{Cutover, Setup, Upstream, eventually};

const CARD: &str = r#"{"id": 1, "tags": ["a"], "price": 2.5}"#;

/// A whole answer with these header lines (each with its CRLF).
fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn in_json(body: &str) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// Blue is active; every request is copied, and ten comparisons are enough.
fn rehearsed(blue: &Upstream, green: &Upstream, setup: impl FnOnce(Setup) -> Setup) -> Cutover {
    let setup_of = Setup::of(blue, green)
        .set("service.app.rehearse.share", "1.0")
        .set("service.app.rehearse.rate", "1000")
        .set("service.app.rehearse.timeout", "'3s'")
        .set("service.app.rehearse.min_requests", "10")
        .set("service.app.rehearse.max_differences", "0.1");
    setup(setup_of).start()
}

fn report(cutover: &Cutover) -> Value {
    let (status, report) = cutover.admin("GET", "/v1/services/app/rehearsal", &Value::Null);
    assert_eq!(status, 200, "{report}");
    report
}

/// Sends GETs until so many were compared.
fn compare(cutover: &Cutover, path: &str, compared: u64) -> Value {
    let mut last = Value::Null;
    eventually("enough is compared", || {
        cutover.get(path);
        last = report(cutover);
        last["compared"].as_u64().is_some_and(|n| n >= compared)
    });
    last
}

/// Refused with this in the message, by API and command; then forced.
fn refused_then_forced(cutover: &Cutover, want: &[&str]) {
    let (status, refused) = cutover.flip("green");
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("rehearsal_failed")), "{refused}");
    let message = refused["error"]["message"].as_str().unwrap().to_owned();
    assert!(want.iter().all(|part| message.contains(part)), "{want:?} in {message}");
    let (code, said) = cutover.cli_code(&["flip", "green"]);
    assert!(code == 3 && said.contains("--force"), "{code} {said}");
    assert_eq!(cutover.app()["active"], "blue");
    assert!(cutover.ledger().contains("code=rehearsal_failed"), "{}", cutover.ledger());
    let (code, said) = cutover.cli_code(&["flip", "green", "--force", "--no-wait"]);
    assert_eq!(code, 0, "{said}");
    assert!(cutover.ledger().contains("forced=true"), "{}", cutover.ledger());
}

#[test]
fn the_same_answers_leave_the_gate_open_and_count_for_nothing_else() {
    let (blue, green) = (Upstream::answering(in_json(CARD)), Upstream::answering(in_json(&CARD.replace("1,", "7,"))));
    let cutover = rehearsed(&blue, &green, |setup| setup);
    let found = compare(&cutover, "/cards/1", 30);
    assert_eq!((&found["different"], &found["noise"], &found["findings"]), (&json!(0), &json!(0), &json!([])));
    assert!(found["latency"]["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{found}");
    let app = cutover.app();
    assert_eq!(app["colors"]["green"]["requests"], 0, "no counter that a watch judges by: {app}");
    assert!(app["colors"]["blue"]["requests"].as_u64().unwrap() < found["compared"].as_u64().unwrap() + 20, "{app}");
    assert!(app["rehearsal"]["compared"].as_u64().is_some_and(|n| n >= 30), "{app}");
    let (code, said) = cutover.cli_code(&["status"]);
    assert!(code == 0 && said.contains("rehearsal: 0 of "), "{said}");
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let is_same = |line: &str| line.starts_with(r#"cutover_rehearsals_total{service="app",result="same"} "#);
    assert!(metrics.text().lines().any(|line| is_same(line) && !line.ends_with(" 0")), "{}", metrics.text());
    cutover.must_flip("green");
}

#[test]
fn another_status_closes_the_gate_and_names_the_request_without_its_values() {
    let (blue, green) = (Upstream::answering(in_json(CARD)), Upstream::answering(answer("404 Not Found", "", "gone")));
    let cutover = rehearsed(&blue, &green, |setup| setup);
    compare(&cutover, "/cards/4711?token=hunter2", 10);
    let (code, said) = cutover.cli_code(&["rehearsal"]);
    assert_eq!(code, 0, "{said}");
    for part in ["REFUSED", "GET /cards/*", "GET /cards/4711?token=*", "status was 200, is 404"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (code, said) = cutover.cli_code(&["rehearsal", "app", "--json"]);
    assert!(code == 0 && said.contains("\"findings\"") && !said.contains("hunter2"), "{said}");
    assert!(cutover.app()["summary"].as_str().is_some_and(|summary| summary.contains("failed its rehearsal")));
    refused_then_forced(&cutover, &["GET /cards/4711?token=*", "status was 200, is 404", "100%"]);
    let everything = [cutover.log(), cutover.ledger(), cutover.status().to_string()].concat();
    assert!(!everything.contains("hunter2"), "{everything}");
}

#[test]
fn another_header_closes_the_gate() {
    let to = |place: &str| answer("302 Found", &format!("Location: {place}\r\n"), "");
    let (blue, green) = (Upstream::answering(to("/in?next=1")), Upstream::answering(to("http://10.0.0.9/in?next=1")));
    let cutover = rehearsed(&blue, &green, |setup| setup);
    compare(&cutover, "/", 10);
    refused_then_forced(&cutover, &["header location was /in?next=*, is http://10.0.0.9/in?next=*"]);
}

#[test]
fn another_shape_closes_the_gate() {
    let (blue, green) =
        (Upstream::answering(in_json(CARD)), Upstream::answering(in_json(&CARD.replace("2.5", "\"2.5\""))));
    let cutover = rehearsed(&blue, &green, |setup| setup);
    compare(&cutover, "/", 10);
    refused_then_forced(&cutover, &["$.price was number, is string"]);
}

#[test]
fn an_idle_color_that_hangs_up_closes_the_gate() {
    let (blue, green) = (Upstream::answering(in_json(CARD)), Upstream::start(|conn| conn.request().map(drop)));
    let cutover = rehearsed(&blue, &green, |setup| setup);
    compare(&cutover, "/", 10);
    refused_then_forced(&cutover, &["status was 200, is no response"]);
}

#[test]
fn what_differs_on_the_active_color_too_is_noise() {
    let asked = AtomicU64::new(0);
    let blue = Upstream::start(move |conn| {
        loop {
            conn.request()?;
            let with_ad = asked.fetch_add(1, Relaxed).is_multiple_of(3);
            conn.send(in_json(if with_ad { r#"{"id": 1, "ad": {"image": "x"}}"# } else { r#"{"id": 1}"# }))?;
        }
    });
    let green = Upstream::answering(in_json(r#"{"id": 1, "ad": {"image": "x"}}"#));
    let cutover = rehearsed(&blue, &green, |setup| setup);
    let found = compare(&cutover, "/", 30);
    assert_eq!(found["different"], 0, "{found}");
    assert!(found["noise"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(found["noise_fields"], json!([{"route": "GET /", "field": "$.ad", "seen": "missing or object"}]));
    cutover.must_flip("green");
}

#[test]
fn a_slow_idle_color_delays_nobody() {
    let blue = Upstream::answering(in_json(CARD));
    // It never answers.
    let green = Upstream::start(|conn| {
        conn.request()?;
        conn.rest().map(drop)
    });
    let cutover = rehearsed(&blue, &green, |setup| setup.set("service.app.rehearse.timeout", "'1h'"));
    let mut client = cutover.client();
    for _ in 0..200 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n").status, 200);
    }
    let dropped = report(&cutover)["dropped"].as_u64().unwrap();
    assert!(dropped >= 100, "8 are under way and 32 wait: {dropped}");
    assert!(green.seen().len() <= 16, "{}", green.seen().len());
}

#[test]
fn only_safe_requests_without_a_body_are_copied_and_they_say_so() {
    let (blue, green) = (Upstream::answering(in_json(CARD)), Upstream::answering(in_json(CARD)));
    let cutover = rehearsed(&blue, &green, |setup| setup.set("service.app.rehearse.deny", "['/logout', '/admin/**']"));
    let mut client = cutover.client();
    for request in [
        "POST /post HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n",
        "DELETE /delete HTTP/1.1\r\nHost: app\r\n\r\n",
        "GET /body HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi",
        "GET /logout?now HTTP/1.1\r\nHost: app\r\n\r\n",
        "GET /admin/a/b HTTP/1.1\r\nHost: app\r\n\r\n",
        "GET /last HTTP/1.1\r\nHost: app\r\nCookie: id=1\r\nAccept-Encoding: gzip\r\nX-Cutover-Rehearsal: 0\r\n\r\n",
    ] {
        assert_eq!(client.ask(request).status, 200, "{request}");
    }
    eventually("the last is compared", || report(&cutover)["compared"] == 1);
    let seen = green.text().to_lowercase();
    assert!(seen.starts_with("get /last http/1.1\r\n"), "{seen}");
    assert!(seen.contains("cookie: id=1\r\n") && seen.contains("x-forwarded-for: 127.0.0.1\r\n"), "{seen}");
    assert!(seen.contains("x-cutover-rehearsal: 1\r\n") && !seen.contains("gzip"), "{seen}");
    assert_eq!(green.seen().len(), 1);
    let live = blue.text();
    assert!(!live.contains("X-Cutover-Rehearsal: 0"), "a client cannot pass its request off as a copy: {live}");
}

#[test]
fn nothing_is_copied_unless_it_is_configured() {
    let (blue, green) = (Upstream::answering(in_json(CARD)), Upstream::answering(in_json(CARD)));
    let cutover = Setup::of(&blue, &green).start();
    for _ in 0..50 {
        cutover.get("/");
    }
    assert_eq!(green.text(), "", "nothing but probes");
    assert_eq!((cutover.app()["rehearsal"].clone(), report(&cutover)["running"].clone()), (Value::Null, json!(false)));
    let (code, said) = cutover.cli_code(&["rehearsal"]);
    assert!(code == 0 && said.contains("rehearse.share"), "{said}");
    assert_eq!(cutover.admin("GET", "/v1/services/nobody/rehearsal", &Value::Null).0, 404);
}

#[test]
fn a_release_that_is_replaced_is_forgotten() {
    let (blue, green) = (Upstream::answering(in_json(CARD)), Upstream::answering(in_json("[]")));
    let cutover = rehearsed(&blue, &green, |setup| setup);
    compare(&cutover, "/", 10);
    assert_eq!(cutover.flip("green").0, 409);
    green.be_ready(false);
    cutover.until_app("green is down", |app| app["colors"]["green"]["ready"] == false);
    assert_eq!(report(&cutover)["running"], false);
    green.behave(|conn| conn.answer_all(&in_json(CARD)));
    green.be_ready(true);
    cutover.until_app("green is back", |app| app["colors"]["green"]["ready"] == true);
    assert_eq!(report(&cutover)["compared"], 0);
    let found = compare(&cutover, "/", 20);
    assert_eq!(found["different"], 0, "{found}");
    cutover.must_flip("green");
}

#[test]
fn it_rests_while_a_watch_runs() {
    let (blue, green) = (Upstream::answering(in_json(CARD)), Upstream::answering(in_json(CARD)));
    let cutover = rehearsed(&blue, &green, |setup| setup.set("service.app.watch.window", "'60s'"));
    compare(&cutover, "/", 10);
    cutover.must_flip("green");
    blue.forget();
    for _ in 0..20 {
        cutover.get("/");
    }
    let found = report(&cutover);
    assert_eq!((&found["running"], &found["compared"]), (&json!(false), &json!(0)), "{found}");
    assert!(found["why_not"].as_str().is_some_and(|why| why.contains("no watch")), "{found}");
    assert_eq!(blue.text(), "", "the standby is left in peace");
}
