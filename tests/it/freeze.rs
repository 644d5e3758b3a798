//! Freeze and thaw: who waits, for how long, where they go then, and that nothing is lost on the way.

use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Cutover, Load, Setup, Upstream, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody")
}

fn freeze(cutover: &Cutover, request: &Value) -> (u16, Value) {
    cutover.admin("POST", "/v1/services/app/freeze", request)
}

fn must_freeze(cutover: &Cutover, request: &Value) -> Value {
    let (status, frozen) = freeze(cutover, request);
    assert_eq!(status, 200, "{frozen}");
    frozen
}

fn thaw(cutover: &Cutover) -> Value {
    let (status, thawed) = cutover.admin("POST", "/v1/services/app/thaw", &Value::Null);
    assert_eq!(status, 200, "{thawed}");
    thawed
}

fn until_held(cutover: &Cutover, n: u64) {
    cutover.until_app("requests are held", |app| app["freeze"]["held"] == n);
}

/// A client whose request, the `n`th, is held.
fn waiting(cutover: &Cutover, request: &str, n: u64) -> Client {
    let mut client = cutover.client();
    client.send(request);
    until_held(cutover, n);
    client
}

fn metric(cutover: &Cutover, sample: &str) -> f64 {
    let text = cutover.admin_with("GET", "/metrics", "", "").text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    line.unwrap_or_else(|| panic!("{sample} in {text}")).trim().parse().unwrap()
}

fn ended(cutover: &Cutover, end: &str) -> f64 {
    metric(cutover, &format!("cutover_held_requests_ended_total{{service=\"app\",end=\"{end}\"}}"))
}

#[test]
fn writes_wait_and_reads_flow() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue).start();
    let frozen = must_freeze(&cutover, &json!({ "for": "60s", "by": "ann", "why": "a test" }));
    assert_eq!((&frozen["what"], &frozen["quiet"]), (&json!("writes"), &json!(true)), "{frozen}");
    let upgrade = "GET /ws HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let mut held: Vec<Client> =
        (1..).zip([&*post("/w"), upgrade]).map(|(n, request)| waiting(&cutover, request, n)).collect();
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(cutover.client().ask(&format!("{method} /r HTTP/1.1\r\nHost: app\r\n\r\n")).status, 200, "{method}");
    }
    assert!(!blue.text().contains("/w"), "{}", blue.text());
    // The last read is over for its client a moment before it is for its lane.
    let app = cutover.until_app("what is held is no lease", |app| app["colors"]["blue"]["in_flight"] == 0);
    assert_eq!((&app["freeze"]["by"], &app["freeze"]["why"]), (&json!("ann"), &json!("a test")), "{app}");
    assert_eq!(metric(&cutover, "cutover_held_requests{service=\"app\"}"), 2.0);
    assert_eq!(metric(&cutover, "cutover_frozen{service=\"app\",what=\"writes\"}"), 1.0);
    assert_eq!(thaw(&cutover)["held"], 2);
    held.iter_mut().for_each(|client| assert_eq!(client.answer().text(), "blue"));
    assert!(cutover.app()["freeze"].is_null());
    assert_eq!((ended(&cutover, "released"), ended(&cutover, "gone")), (2.0, 0.0));
    let ledger = cutover.ledger();
    assert!(ledger.contains("] freeze app: writes for=\"1m 0s\" by=ann why=\"a test\""), "{ledger}");
    assert!(ledger.contains("] thaw app: writes reason=thawed by=api seconds="), "{ledger}");
}

#[test]
fn all_is_reads_as_well_and_the_owner_may_change_it() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue).start();
    must_freeze(&cutover, &json!({ "what": "all" }));
    let mut read = waiting(&cutover, GET, 1);
    let mut write = waiting(&cutover, &post("/w"), 2);
    must_freeze(&cutover, &json!({ "what": "writes" }));
    assert_eq!(read.answer().text(), "blue", "reads flow again");
    until_held(&cutover, 1);
    thaw(&cutover);
    assert_eq!(write.answer().text(), "blue");
    assert_eq!(ended(&cutover, "released"), 2.0, "each is counted once");
}

#[test]
fn held_requests_go_to_the_color_that_is_active_then_in_the_order_in_which_they_came() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green).set("proxy.workers", 1).set("service.app.freeze.release_spread", "'300ms'");
    let cutover = setup.start();
    must_freeze(&cutover, &json!({}));
    let mut held: Vec<Client> = (1..=6).map(|n| waiting(&cutover, &post(&format!("/{n}")), n)).collect();
    let changed = cutover.must_flip("green");
    assert_eq!(changed["drain"]["cut"], 0, "nobody waits for what is held: {changed}");
    until_held(&cutover, 6);
    let thawed = Instant::now();
    thaw(&cutover);
    held.iter_mut().for_each(|client| assert_eq!(client.answer().text(), "green"));
    assert!(thawed.elapsed() >= Duration::from_millis(240), "they were spread: {:?}", thawed.elapsed());
    let targets = |upstream: &Upstream| {
        let text = upstream.text();
        let lines = text.lines().filter_map(|line| line.split_once("POST /"));
        lines.map(|(_, rest)| rest[..1].to_owned()).collect::<String>()
    };
    assert_eq!((targets(&blue).as_str(), targets(&green).len()), ("", 6));
    // Kept connections are seen one after the other, each with what came on it: the first of each is in order.
    let firsts: Vec<String> = green.seen().iter().map(|seen| String::from_utf8_lossy(&seen[6..7]).into()).collect();
    assert!(firsts.is_sorted(), "{firsts:?}");
}

#[test]
fn past_a_bound_the_client_is_told_to_come_back() {
    let blue = Upstream::saying("blue");
    for (case, key, value, room, end) in [
        ("time", "hold", "'300ms'", 0, "timed_out"),
        ("number", "max_requests", "2", 2, "refused"),
        ("bytes", "max_bytes", "'1MiB'", 64, "refused"),
    ] {
        let cutover = Setup::in_front_of(&blue).set(&format!("service.app.freeze.{key}"), value).start();
        must_freeze(&cutover, &json!({}));
        let mut held: Vec<Client> = (1..=room).map(|n| waiting(&cutover, &post("/w"), n)).collect();
        let asked = Instant::now();
        let answer = cutover.client().ask(&post("/w"));
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{case}");
        assert!(case != "time" || asked.elapsed() >= Duration::from_millis(300), "{case}");
        assert_eq!(ended(&cutover, end), 1.0, "{case}");
        // Who left makes room.
        if held.pop().is_some() {
            until_held(&cutover, room - 1);
            held.push(waiting(&cutover, &post("/w"), room));
        }
        thaw(&cutover);
        held.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200, "{case}"));
        assert_eq!(cutover.client().ask(&post("/w")).status, 200, "{case}");
    }
}

#[test]
fn a_client_that_leaves_is_let_go_and_its_request_dropped() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue).start();
    must_freeze(&cutover, &json!({}));
    drop(waiting(&cutover, &post("/gone"), 1));
    until_held(&cutover, 0);
    thaw(&cutover);
    assert_eq!(cutover.client().ask(&post("/here")).status, 200);
    assert!(!blue.text().contains("/gone"));
    assert_eq!(ended(&cutover, "gone"), 1.0);
}

#[test]
fn a_body_is_not_asked_for_while_its_request_waits_and_comes_whole_afterwards() {
    let blue = Upstream::start(|conn| {
        loop {
            let request = conn.request()?;
            if request.header("expect").is_some() {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let body = conn.body(&request)?.len().to_string();
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))?;
        }
    });
    let cutover = Setup::in_front_of(&blue).start();
    must_freeze(&cutover, &json!({}));
    let head = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3000000\r\n";
    let mut polite = waiting(&cutover, &format!("{head}Expect: 100-continue\r\n\r\n"), 1);
    let mut eager = waiting(&cutover, &format!("{head}\r\n"), 2);
    polite.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let early = polite.try_answer(false).unwrap_err().kind();
    assert!(matches!(early, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{early:?}");
    polite.stream().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let before = cutover.rss_kib();
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| eager.send(vec![b'x'; 3_000_000]).answer());
        std::thread::sleep(Duration::from_millis(200));
        assert!(cutover.rss_kib() < before + 1024, "its body stays where it is");
        assert!(!sent.is_finished());
        thaw(&cutover);
        assert_eq!(polite.answer().status, 100);
        assert_eq!(polite.send(vec![b'x'; 3_000_000]).answer().text(), "3000000");
        assert_eq!(sent.join().unwrap().text(), "3000000");
    });
}

#[test]
fn term_ends_it() {
    let blue = Upstream::saying("blue");
    let mut cutover = Setup::in_front_of(&blue).start();
    must_freeze(&cutover, &json!({ "by": "ann" }));
    let mut held = waiting(&cutover, &post("/w"), 1);
    cutover.signal(libc::SIGTERM);
    let answer = held.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(!blue.text().contains("/w"));
    assert!(cutover.ledger().contains("] thaw app: writes reason=stopped of=ann"), "{}", cutover.ledger());
}

#[test]
fn it_ends_by_itself_when_its_owner_does_not_renew_it() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue).start();
    let mine = json!({ "for": "3s", "by": "deploy", "wait": false });
    let renewal = json!({ "for": "3s", "by": "deploy", "renew": true, "wait": false });
    must_freeze(&cutover, &mine);
    let mut held = waiting(&cutover, &post("/w"), 1);
    let mut last = Instant::now();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(500));
        last = Instant::now();
        must_freeze(&cutover, &renewal);
    }
    assert_eq!(held.answer().status, 200);
    assert!(last.elapsed() >= Duration::from_secs(3), "after {:?}", last.elapsed());
    let (status, refused) = freeze(&cutover, &renewal);
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("not_frozen")), "{refused}");
    eventually("the ledger says so", || cutover.ledger().contains("] thaw app: writes reason=expired of=deploy"));
    assert_eq!(cutover.ledger().matches("] freeze app").count(), 1, "renewals are no news");
}

#[test]
fn no_renewal_goes_past_the_limit() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue).set("service.app.freeze.max", "'1s'").start();
    must_freeze(&cutover, &json!({}));
    let mut held = waiting(&cutover, &post("/w"), 1);
    eventually("it is renewed no more", || freeze(&cutover, &json!({ "renew": true, "wait": false })).0 != 200);
    assert_eq!(held.answer().status, 200);
    eventually("the ledger says so", || cutover.ledger().contains("reason=limit"));
    let (status, refused) = freeze(&cutover, &json!({ "for": "2s" }));
    assert!(status == 400 && refused["error"]["message"].as_str().unwrap().contains("freeze.max"), "{refused}");
}

#[test]
fn it_is_in_force_when_the_writes_before_it_have_ended() {
    let (go, gone) = channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let blue = Upstream::start(move |conn| {
        loop {
            let request = conn.request()?;
            conn.body(&request)?;
            if request.target() == "/slow" {
                let _ = gone.lock().unwrap().recv();
            }
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
    });
    let cutover = Setup::in_front_of(&blue).set("service.app.freeze.finish", "'300ms'").start();
    let mut slow = cutover.client();
    slow.send(post("/slow"));
    eventually("it has arrived", || blue.text().contains("/slow"));
    assert_eq!(must_freeze(&cutover, &json!({}))["quiet"], false, "it goes on");
    std::thread::scope(|scope| {
        let again = scope.spawn(|| must_freeze(&cutover, &json!({})));
        go.send(()).unwrap();
        assert_eq!(slow.answer().status, 200);
        again.join().unwrap();
    });
    assert_eq!(must_freeze(&cutover, &json!({}))["quiet"], true, "it is over");
}

#[test]
fn the_verbs_say_who_holds_what_and_until_when() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue).start();
    let (code, said) = cutover.cli_code(&["freeze", "--for", "60s", "--dry-run"]);
    assert!(code == 0 && said.contains("would hold writes for 60s"), "{code} {said}");
    assert!(cutover.app()["freeze"].is_null());
    for _ in 0..2 {
        let (code, said) = cutover.cli_code(&["freeze", "--for", "60s", "--why", "a test"]);
        assert!(code == 0 && said.contains("writes are held for 60s"), "{code} {said}");
    }
    let (code, said) = cutover.cli_code(&["status"]);
    assert!(code == 0 && said.contains("FROZEN (writes) for ") && said.contains("(a test): 0 held"), "{said}");
    let (status, refused) = freeze(&cutover, &json!({ "by": "somebody else" }));
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(status == 409 && message.contains("frozen already (writes) by cli:tester (a test)"), "{refused}");
    let (code, said) = cutover.cli_code(&["thaw", "--dry-run"]);
    assert!(code == 0 && said.contains("would let 0 held requests go"), "{code} {said}");
    for want in ["thawed, 0 held", "not frozen"] {
        let (code, said) = cutover.cli_code(&["thaw"]);
        assert!(code == 0 && said.contains(want), "{code} {said}");
    }
    let (code, said) = cutover.cli_code(&["freeze", "--for", "1h"]);
    assert!(code == 2 && said.contains("freeze.max"), "{code} {said}");
    assert_eq!(cutover.admin("GET", "/v1/services/app/freeze", &Value::Null).0, 405);
}

#[test]
fn a_reload_keeps_it_and_the_removal_of_the_service_ends_it() {
    let blue = Upstream::saying("blue");
    let mut cutover = Setup::in_front_of(&blue).start();
    must_freeze(&cutover, &json!({}));
    let mut held = waiting(&cutover, &post("/w"), 1);
    cutover.configure("service.app.upstream.response_timeout", "'7s'");
    cutover.write_config();
    assert_eq!(cutover.cli_code(&["reload"]).0, 0);
    let mut second = waiting(&cutover, &post("/w"), 2);
    thaw(&cutover);
    assert_eq!((held.answer().status, second.answer().status), (200, 200));
    must_freeze(&cutover, &json!({ "what": "all" }));
    let mut held = waiting(&cutover, GET, 1);
    let text = cutover.file("cutover.toml").replace("service.app", "service.other");
    cutover.write("cutover.toml", &text);
    assert_eq!(cutover.cli_code(&["reload"]).0, 0);
    assert_eq!(held.answer().status, 200, "by whichever service takes it now");
}

#[test]
fn nothing_is_lost_and_nothing_is_made_twice_under_load() {
    let (blue, green) = (Upstream::saying("x"), Upstream::saying("x"));
    let cutover = Setup::of(&blue, &green)
        .set("service.app.watch.window", "'0s'")
        .set("service.app.freeze.release_spread", "'50ms'")
        .start();
    let load = Load::start(cutover.port(), 16);
    for round in 0..12 {
        let what = if round % 3 == 0 { "all" } else { "writes" };
        must_freeze(&cutover, &json!({ "what": what }));
        until_some_wait(&cutover);
        cutover.must_flip(if round % 2 == 0 { "green" } else { "blue" });
        assert!(thaw(&cutover)["held"].as_u64() > Some(0));
        let before = load.answered();
        eventually("it flows", || load.answered() > before + 100);
    }
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{} of {answered}: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
    let count = |upstream: &Upstream| {
        let text = upstream.text();
        (text.matches(" HTTP/1.1\r\n").count()) as u64
    };
    assert_eq!(count(&blue) + count(&green), answered, "each request arrived once");
    assert_eq!(metric(&cutover, "cutover_held_requests{service=\"app\"}"), 0.0);
}

fn until_some_wait(cutover: &Cutover) {
    cutover.until_app("some wait", |app| app["freeze"]["held"].as_u64() > Some(4));
}
