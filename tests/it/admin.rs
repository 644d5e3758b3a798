//! The admin API: who may ask, what it answers, and what an operator's tools read there.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::harness::{Cutover, Setup, Upstream};

fn two() -> (Upstream, Upstream, Setup) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green);
    (blue, green, setup)
}

fn code(answer: &crate::harness::Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("JSON in {answer:?}"));
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    body["error"]["code"].as_str().unwrap().to_owned()
}

const FLIP: &str = "/v1/services/app/flip";
const TO_GREEN: &str = "{\"to\":\"green\"}";

#[test]
fn turns_pages_of_other_origins_away() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    let own = format!("Origin: http://localhost:{0}\r\nHost: localhost:{0}\r\n", cutover.setup.admin_port);
    for (case, headers, want) in [
        ("another Host", "Host: evil.example\r\n", 403),
        ("a Host that begins like ours", "Host: localhost.evil.example\r\n", 403),
        ("another Origin", "Origin: http://evil.example\r\n", 403),
        ("a sandboxed page", "Origin: null\r\n", 403),
        ("a cross-site fetch", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("a form of our own page's origin", &format!("{own}Content-Type: text/plain\r\n"), 415),
    ] {
        let answer = cutover.admin_with("POST", FLIP, headers, TO_GREEN);
        assert_eq!(answer.status, want, "{case}: {answer:?}");
        code(&answer);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{case}");
    }
    assert_eq!(cutover.app()["active"], "blue");
    let read = cutover.admin_with("GET", "/v1/status", "Host: evil.example\r\n", "");
    assert_eq!(read.status, 403, "nor may a rebound name read: {read:?}");
    let own = format!("{own}Content-Type: application/json\r\n");
    assert_eq!(cutover.admin_with("POST", FLIP, &own, TO_GREEN).status, 200);
}

#[test]
fn asks_for_the_token_where_there_is_one() {
    let (_blue, _green, setup) = two();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let cutover = setup.set("admin.token_file", format!("'{}'", file.display())).start_unready();
    for (case, headers, want) in [
        ("none", "", 401),
        ("a wrong one", "Authorization: Bearer s3cre\r\n", 401),
        ("a longer one", "Authorization: Bearer s3cretx\r\n", 401),
        ("another scheme", "Authorization: Basic s3cret\r\n", 401),
        ("the right one", "Authorization: Bearer s3cret\r\n", 200),
    ] {
        for path in ["/v1/status", "/metrics"] {
            assert_eq!(cutover.admin_with("GET", path, headers, "").status, want, "{case} {path}");
        }
    }
    let refused = cutover.admin_with("POST", FLIP, "", TO_GREEN);
    assert_eq!((refused.status, code(&refused).as_str()), (401, "unauthorized"));
    for path in ["/healthz", "/version"] {
        assert_eq!(cutover.admin_with("GET", path, "", "").status, 200, "{path} is for load balancers");
    }
    let (exit, said) = cutover.cli_code(&["status"]);
    assert_eq!(exit, 0, "the command knows the token: {said}");
}

#[test]
fn takes_changes_by_post_only() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    for path in [FLIP, "/v1/services/app/rollback", "/v1/services/app/drain", "/v1/reload"] {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = cutover.admin_with(method, path, "", "");
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method} {path}");
            assert_eq!(code(&answer), "method_not_allowed");
        }
    }
    assert_eq!(cutover.admin_with("POST", "/v1/status", "", "").status, 405);
    assert_eq!(cutover.app()["epoch"], 1);
}

#[test]
fn says_what_was_not_understood() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    for (case, path, body, status, want) in [
        ("no such path", "/v1/nothing", "", 404, "not_found"),
        ("no such service", "/v1/services/nobody/flip", TO_GREEN, 404, "unknown_service"),
        ("not JSON", FLIP, "green", 400, "bad_request"),
        ("no color", FLIP, "{}", 400, "bad_request"),
        ("another color", FLIP, "{\"to\":\"red\"}", 400, "bad_request"),
        ("an unknown key", FLIP, "{\"to\":\"green\",\"too\":1}", 400, "bad_request"),
        ("a color for a rollback", "/v1/services/app/rollback", TO_GREEN, 400, "bad_request"),
    ] {
        let answer = cutover.admin_with("POST", path, "", body);
        assert_eq!((answer.status, code(&answer).as_str()), (status, want), "{case}");
    }
    let long = format!("{{\"by\":\"{}\"}}", "a".repeat(100_000));
    assert_eq!(cutover.admin_with("POST", FLIP, "", &long).status, 400);
    assert_eq!(cutover.app()["epoch"], 1);
}

#[test]
fn listens_on_a_socket_for_its_owner_only() {
    let (_blue, _green, setup) = two();
    let cutover = setup.set("admin.socket", "'admin.sock'").start();
    let path = cutover.path("admin.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut socket = UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let request = format!(
        "POST {FLIP} HTTP/1.1\r\nHost: anything\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{TO_GREEN}",
        TO_GREEN.len()
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(cutover.app()["active"], "green");
}

#[test]
fn survives_its_own_socket_of_a_killed_process() {
    let (_blue, _green, setup) = two();
    let mut cutover = setup.set("admin.socket", "'admin.sock'").start();
    cutover.kill();
    assert!(cutover.path("admin.sock").exists());
    cutover.run();
    assert!(UnixStream::connect(cutover.path("admin.sock")).is_ok());
}

#[test]
fn shows_every_metric_of_the_contract() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    for request in ["GET", "POST", "BREW"] {
        cutover.client().ask(&format!("{request} /private/path HTTP/1.1\r\nHost: secret.example\r\n\r\n"));
    }
    cutover.must_flip("green");
    cutover.get("/");
    let answer = cutover.admin_with("GET", "/metrics", "", "");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{}", answer.head);
    let page = answer.text();
    for line in [
        "cutover_requests_total{service=\"app\",color=\"blue\",code_class=\"2xx\",method=\"GET\"} 1",
        "cutover_requests_total{service=\"app\",color=\"blue\",code_class=\"2xx\",method=\"OTHER\"} 1",
        "cutover_requests_total{service=\"app\",color=\"green\",code_class=\"2xx\",method=\"GET\"} 1",
        "cutover_request_duration_seconds_count{service=\"app\",color=\"blue\"} 3",
        "cutover_in_flight{service=\"app\",color=\"blue\"} 0",
        "cutover_active{service=\"app\",color=\"blue\"} 0",
        "cutover_active{service=\"app\",color=\"green\"} 1",
        "cutover_epoch{service=\"app\"} 2",
        "cutover_flips_total{service=\"app\",to=\"green\",reason=\"operator\"} 1",
        "cutover_watch_state{service=\"app\",state=\"watching\"} 1",
        "cutover_watch_evidence{service=\"app\"} 0",
        "cutover_upstream_up{service=\"app\",color=\"blue\",upstream=\"127.0.0.1:",
        "cutover_config_reloads_total{result=\"",
        "cutover_connections ",
        "cutover_build_info{",
    ] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line} in\n{page}");
    }
    assert!(!page.contains("secret.example") && !page.contains("private") && !page.contains("BREW"), "{page}");
    let typed = page.lines().filter(|line| line.starts_with("# TYPE cutover_")).count();
    assert!(typed >= 11, "{page}");
}

#[test]
fn says_how_it_is() {
    let (mut blue, _green, setup) = two();
    let cutover = setup.start();
    assert_eq!(cutover.admin_with("GET", "/healthz", "", "").text(), "ok\n");
    let (status, ready) = cutover.admin("GET", "/readyz", &Value::Null);
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    let (_, version) = cutover.admin("GET", "/version", &Value::Null);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let page = cutover.admin_with("GET", "/", "", "");
    assert!(page.status == 200 && page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    blue.stop();
    cutover.until_app("blue is down", |app| app["colors"]["blue"]["ready"] == false);
    let (status, ready) = cutover.admin("GET", "/readyz", &Value::Null);
    assert_eq!((status, &ready["ready"], &ready["not_ready"]), (503, &json!(false), &json!(["app"])));
    assert_eq!(cutover.admin_with("GET", "/healthz", "", "").status, 200, "the proxy itself is well");
}

#[test]
fn says_everything_in_its_status() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::stopped());
    let cutover = Setup::of(&blue, &green).start_unready();
    std::fs::write(
        cutover.path("green.env"),
        format!(
            "export HOST_PORT=\"{}\"\r\n# a comment\r\nIMAGE_TAG='sha-1' # c\r\nCOMPOSE_PROJECT_NAME=app-green\r\n",
            green.port
        ),
    )
    .unwrap();
    let mut cutover = cutover;
    cutover.configure("service.app.green", "{ env_file = 'green.env' }");
    assert_eq!(cutover.admin("POST", "/v1/reload", &json!({})).0, 200);
    cutover.get("/");
    let app = cutover.until_app("both were probed", |app| {
        app["colors"]["blue"]["ready"] == true && app["colors"]["green"]["upstreams"][0]["reason"].is_string()
    });
    let colors = &app["colors"];
    assert_eq!(colors["green"]["upstreams"][0]["address"], format!("127.0.0.1:{}", green.port));
    assert_eq!(colors["green"]["upstreams"][0]["reason"], "connection refused");
    assert_eq!((&colors["green"]["image_tag"], &colors["green"]["project"]), (&json!("sha-1"), &json!("app-green")));
    assert_eq!((&colors["blue"]["requests"], &colors["blue"]["in_flight"]), (&json!(1), &json!(0)));
    assert_eq!((&app["phase"], &app["epoch"]), (&json!("steady"), &json!(1)));
    let status = cutover.status();
    assert_eq!(status["pid"], cutover.pid());
    assert!(status["started"].as_str().is_some_and(|started| started.ends_with('Z')), "{status}");
}

#[test]
fn tells_of_a_flip_as_it_happens() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    let mut events = crate::harness::Client::connect(cutover.setup.admin_port);
    events.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(events.head().unwrap().to_lowercase().contains("content-type: text/event-stream"));
    events.chunk().unwrap(); // what it begins with: from here on it is subscribed
    cutover.must_flip("green");
    let mut told = String::new();
    while !told.contains("event: drained") {
        told.push_str(&String::from_utf8(events.chunk().unwrap()).unwrap());
    }
    let flip = told.split("\n\n").find(|event| event.starts_with("event: flip\n")).expect("a flip event");
    let data: Value = serde_json::from_str(flip.split_once("data: ").unwrap().1).unwrap();
    assert_eq!((&data["kind"], &data["service"]), (&json!("flip"), &json!("app")), "{data}");
    assert!(data["message"].as_str().is_some_and(|message| message.contains("blue -> green")), "{data}");
    ends_although_it_is_open(cutover);
}

/// An event stream is for ever, a stop is not.
fn ends_although_it_is_open(mut cutover: Cutover) {
    cutover.signal(libc::SIGTERM);
    assert!(cutover.ended().success());
}

#[test]
fn sees_a_probe_s_reason_in_words() {
    for (answer, want) in [
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"ready\":false}", "\"ready\": false"),
        ("", "timed out after 200ms"),
    ] {
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        green.answer_probes(answer);
        let cutover = Setup::of(&blue, &green).set("service.app.health.timeout", "'200ms'").start_unready();
        cutover.until_app(want, |app| app["colors"]["green"]["upstreams"][0]["reason"] == want);
    }
}
