//! The admin API from outside: who may ask, what is answered, over TCP and over the unix socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::harness::{Client, Cutover, Setup, Upstream, eventually, have};

const JSON: &str = "Content-Type: application/json\r\n";

fn start(set: impl FnOnce(Setup) -> Setup) -> (Cutover, Upstream, Upstream) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'");
    (set(setup).start(), blue, green)
}

/// Asks over the unix socket; the whole answer as text.
fn over_socket(cutover: &Cutover, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(cutover.path("admin.sock")).expect("the socket accepts");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n{JSON}Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn reads_are_get_and_changes_are_post() {
    let (cutover, _blue, _green) = start(|setup| setup);
    for path in ["/v1/services/app/flip", "/v1/services/app/rollback", "/v1/services/app/drain", "/v1/reload"] {
        let answer = cutover.admin_with("GET", path, "", "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
    }
    for path in ["/v1/status", "/metrics", "/healthz", "/readyz", "/version", "/v1/services/app", "/"] {
        assert_eq!(cutover.admin_with("POST", path, "", "").status, 405, "{path}");
        assert_eq!(cutover.admin_with("GET", path, "", "").status, 200, "{path}");
    }
    for path in ["/v2/status", "/v1/services/nobody", "/v1/services/app/explode", "/etc/passwd", "/v1/status/"] {
        assert_eq!(cutover.admin_with("GET", path, "", "").status, 404, "{path}");
    }
    assert_eq!(cutover.app()["epoch"], 1, "none of these was a change");
}

#[test]
fn a_body_it_does_not_understand_changes_nothing() {
    let (cutover, _blue, _green) = start(|setup| setup);
    for body in [
        "{",
        "[]",
        "{}",
        r#"{"to":"red"}"#,
        r#"{"too":"green"}"#,
        r#"{"to":"green","force":"yes"}"#,
        r#"{"to":"green"} {}"#,
    ] {
        let answer = cutover.admin_with("POST", "/v1/services/app/flip", JSON, body);
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &error["error"]["code"]), (400, &json!("bad_request")), "{body}");
        assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    }
    let (status, refused) = cutover.admin("POST", "/v1/services/nobody/flip", &json!({"to": "green"}));
    assert_eq!((status, &refused["error"]["code"]), (404, &json!("unknown_service")));
    let huge = format!(r#"{{"to":"green","by":"{}"}}"#, "x".repeat(100_000));
    let answer = cutover.admin_with("POST", "/v1/services/app/flip", JSON, &huge);
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert_eq!(cutover.app()["epoch"], 1);
}

#[test]
fn the_epoch_is_an_etag() {
    let (cutover, _blue, _green) = start(|setup| setup);
    let etag = |cutover: &Cutover| {
        let answer = cutover.admin_with("GET", "/v1/services/app", "", "");
        answer.header("etag").expect("an ETag").to_owned()
    };
    let seen = etag(&cutover);
    assert_eq!(seen, "\"1\"");
    let flip = |etag: &str, to: &str| {
        let headers = format!("{JSON}If-Match: {etag}\r\n");
        cutover.admin_with("POST", "/v1/services/app/flip", &headers, &format!(r#"{{"to":"{to}"}}"#))
    };
    assert_eq!(flip(&seen, "green").status, 200);
    let stale = flip(&seen, "blue");
    assert_eq!(stale.status, 412);
    assert!(stale.text().contains("stale_epoch"), "{}", stale.text());
    assert_eq!((etag(&cutover).as_str(), cutover.get("/").text()), ("\"2\"", "green"));
    assert_eq!(flip("\"2\"", "blue").status, 200);
    assert_eq!(flip("rubbish", "green").status, 400);
    assert_eq!(cutover.get("/").text(), "blue");
}

mod guard {
    use super::*;

    #[test]
    fn a_page_of_another_origin_cannot_flip_or_read() {
        let (cutover, _blue, _green) = start(|setup| setup);
        let own = format!("127.0.0.1:{}", cutover.setup.admin_port);
        for (case, headers) in [
            ("another origin", format!("{JSON}Host: {own}\r\nOrigin: http://evil.example\r\n")),
            ("no origin to speak of", format!("{JSON}Host: {own}\r\nOrigin: null\r\n")),
            ("a name that resolves here", format!("{JSON}Host: evil.example:{}\r\n", cutover.setup.admin_port)),
            ("a form", format!("Content-Type: text/plain\r\nHost: {own}\r\nSec-Fetch-Site: cross-site\r\n")),
            ("another site", format!("{JSON}Host: {own}\r\nSec-Fetch-Site: same-site\r\n")),
        ] {
            let answer = cutover.admin_with("POST", "/v1/services/app/flip", &headers, r#"{"to":"green"}"#);
            assert_eq!(answer.status, 403, "{case}: {}", answer.text());
        }
        assert_eq!(cutover.admin_with("GET", "/v1/status", "Host: evil.example\r\n", "").status, 403);
        assert_eq!(cutover.app()["epoch"], 1);
        let dashboard = format!("{JSON}Host: {own}\r\nOrigin: http://{own}\r\nSec-Fetch-Site: same-origin\r\n");
        assert_eq!(cutover.admin_with("POST", "/v1/services/app/flip", &dashboard, r#"{"to":"green"}"#).status, 200);
    }

    #[test]
    fn a_token_is_asked_of_everybody_but_health_checks() {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, "open sesame\n").unwrap();
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        let setup = Setup::of(&blue, &green).set("admin.token_file", format!("'{}'", token_file.display()));
        let cutover = setup.start_unready();
        for path in ["/v1/status", "/metrics", "/v1/events", "/v1/services/app"] {
            for shown in ["", "Authorization: Bearer open\r\n", "Authorization: Basic open sesame\r\n"] {
                let answer = cutover.admin_with("GET", path, shown, "");
                assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path} {shown}");
            }
        }
        let flip = cutover.admin_with("POST", "/v1/services/app/flip", JSON, r#"{"to":"green","force":true}"#);
        assert_eq!(flip.status, 401);
        for path in ["/healthz", "/readyz", "/version"] {
            assert!(matches!(cutover.admin_with("GET", path, "", "").status, 200 | 503), "{path}");
        }
        let shown = "Authorization: Bearer open sesame\r\n";
        let answer = cutover.admin_with("GET", "/v1/status", shown, "");
        assert!(answer.status == 200 && answer.text().contains("\"blue\""), "{}", answer.text());
        let (code, said) = cutover.cli_code(&["status"]);
        assert_eq!(code, 0, "the verbs read the token themselves: {said}");
        assert!(!cutover.log().contains("sesame"), "a token is not logged");
    }
}

mod socket {
    use super::*;

    #[test]
    fn is_for_its_owner_only_and_does_everything() {
        let (cutover, _blue, _green) = start(|setup| setup.set("admin.socket", "'admin.sock'"));
        let mode = std::fs::metadata(cutover.path("admin.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let status = over_socket(&cutover, "GET", "/v1/status", "");
        assert!(status.starts_with("HTTP/1.1 200") && status.contains("\"blue\""), "{status}");
        let flipped = over_socket(&cutover, "POST", "/v1/services/app/flip", r#"{"to":"green"}"#);
        assert!(flipped.starts_with("HTTP/1.1 200"), "{flipped}");
        assert_eq!(cutover.get("/").text(), "green");
    }

    #[test]
    fn of_a_crashed_process_is_replaced_and_of_a_living_one_is_not() {
        let (mut cutover, blue, green) = start(|setup| setup.set("admin.socket", "'admin.sock'"));
        cutover.kill();
        assert!(cutover.path("admin.sock").exists(), "a crash leaves it behind");
        cutover.run();
        assert!(over_socket(&cutover, "GET", "/healthz", "").starts_with("HTTP/1.1 200"));
        let socket = cutover.path("admin.sock");
        let other = Setup::of(&blue, &green).set("admin.socket", format!("'{}'", socket.display()));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cutover.toml"), other.text()).unwrap();
        let binary = env!("CARGO_BIN_EXE_cutover");
        let second = Command::new(binary).arg("serve").current_dir(folder.path()).output().unwrap();
        assert_eq!(second.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&second.stderr).contains("admin.sock"));
        assert!(over_socket(&cutover, "GET", "/healthz", "").starts_with("HTTP/1.1 200"), "the first is unharmed");
    }
}

#[test]
fn readyz_is_about_the_active_colors() {
    let (cutover, blue, green) = start(|setup| setup.set("service.app.health.fall", "1"));
    assert_eq!(cutover.admin_with("GET", "/readyz", "", "").status, 200);
    green.be_ready(false);
    cutover.until_app("green is not ready", |app| app["colors"]["green"]["ready"] == false);
    assert_eq!(cutover.admin_with("GET", "/readyz", "", "").status, 200, "the idle color is not needed");
    blue.be_ready(false);
    eventually("readyz follows", || cutover.admin_with("GET", "/readyz", "", "").status == 503);
    assert_eq!(cutover.admin_with("GET", "/healthz", "", "").status, 200, "the proxy itself is well");
    let version = cutover.admin("GET", "/version", &Value::Null).1;
    assert_eq!(version, json!({"service": "cutover", "version": env!("CARGO_PKG_VERSION")}));
}

#[test]
fn events_tell_a_flip_while_it_happens() {
    let (cutover, _blue, _green) = start(|setup| setup);
    let mut reader = Client::connect(cutover.setup.admin_port);
    reader.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = reader.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("text/event-stream"), "{head}");
    cutover.must_flip("green");
    let mut heard = String::new();
    while !heard.contains("event: drained") {
        heard.push_str(&String::from_utf8_lossy(&reader.chunk().unwrap()));
    }
    let flip = heard.find("event: flip").expect("the flip is told");
    assert!(flip < heard.find("event: drained").unwrap(), "{heard}");
    let data = heard[flip..].lines().find_map(|line| line.strip_prefix("data:")).expect("data");
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&data["kind"], &data["service"]), (&json!("flip"), &json!("app")));
    assert!(data["message"].to_string().contains("blue -> green"), "{data}");
}

mod metrics {
    use super::*;

    const NAMES: [&str; 15] = [
        "cutover_requests_total",
        "cutover_request_duration_seconds",
        "cutover_in_flight",
        "cutover_active",
        "cutover_epoch",
        "cutover_flips_total",
        "cutover_watch_state",
        "cutover_watch_evidence",
        "cutover_upstream_up",
        "cutover_config_reloads_total",
        "cutover_connections",
        "cutover_ledger_ok",
        "cutover_problems",
        "cutover_watch_ends_total",
        "cutover_build_info",
    ];

    fn page(cutover: &Cutover) -> String {
        let answer = cutover.admin_with("GET", "/metrics", "", "");
        assert_eq!(answer.status, 200);
        answer.text().to_owned()
    }

    /// The value of the first sample whose name and labels contain all of these.
    fn value(page: &str, parts: &[&str]) -> f64 {
        let line = page.lines().find(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
        let line = line.unwrap_or_else(|| panic!("no sample with {parts:?} in\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn count_what_was_served_and_by_whom() {
        let (cutover, _blue, _green) = start(|setup| setup);
        let mut client = cutover.client();
        for _ in 0..5 {
            client.ask("GET /a/private/path HTTP/1.1\r\nHost: private.example\r\n\r\n");
        }
        client.ask("BREW /a/private/path HTTP/1.1\r\nHost: private.example\r\n\r\n");
        cutover.must_flip("green");
        client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        // A request is recorded after its last byte has left.
        cutover.until_app("all is recorded", |app| app["colors"]["green"]["requests"] == 1);
        let page = page(&cutover);
        for name in NAMES {
            assert!(page.contains(&format!("# TYPE {name} ")), "{name} is there:\n{page}");
        }
        let requests = "cutover_requests_total{";
        assert_eq!(value(&page, &[requests, "color=\"blue\"", "code_class=\"2xx\"", "method=\"GET\""]), 5.0);
        assert_eq!(value(&page, &[requests, "color=\"blue\"", "method=\"OTHER\""]), 1.0);
        assert_eq!(value(&page, &[requests, "color=\"green\"", "method=\"POST\""]), 1.0);
        assert_eq!(value(&page, &["cutover_request_duration_seconds_count", "blue"]), 6.0);
        assert_eq!(value(&page, &["cutover_active{", "color=\"blue\""]), 0.0);
        assert_eq!(value(&page, &["cutover_active{", "color=\"green\""]), 1.0);
        assert_eq!(value(&page, &["cutover_epoch{"]), 2.0);
        assert_eq!(value(&page, &["cutover_flips_total{", "reason=\"operator\"", "to=\"green\""]), 1.0);
        assert_eq!(value(&page, &["cutover_watch_state{", "state=\"steady\""]), 1.0);
        assert_eq!(value(&page, &["cutover_upstream_up{", "color=\"green\""]), 1.0);
        assert_eq!(value(&page, &["cutover_connections "]), 1.0);
        assert!(!page.contains("private"), "no label holds a path or a host:\n{page}");
    }

    #[test]
    fn agree_with_the_status_about_reloads_and_errors() {
        let (blue, green) = (Upstream::answering(super::super::harness::plain("500 No", "")), Upstream::saying(""));
        let cutover = Setup::of(&blue, &green).start();
        assert_eq!(cutover.get("/").status, 500);
        assert_eq!(cutover.admin("POST", "/v1/reload", &Value::Null).0, 200);
        let good = cutover.file("cutover.toml");
        std::fs::write(cutover.path("cutover.toml"), "nonsense").unwrap();
        assert_eq!(cutover.admin("POST", "/v1/reload", &Value::Null).0, 422);
        std::fs::write(cutover.path("cutover.toml"), good).unwrap();
        cutover.until_app("all is recorded", |app| app["colors"]["blue"]["requests"] == 1);
        let page = page(&cutover);
        assert!(value(&page, &["cutover_config_reloads_total", "result=\"ok\""]) >= 1.0);
        assert!(value(&page, &["cutover_config_reloads_total", "result=\"failed\""]) >= 1.0);
        assert_eq!(value(&page, &["cutover_requests_total{", "code_class=\"5xx\""]), 1.0);
        let blue = &cutover.app()["colors"]["blue"];
        assert_eq!((&blue["requests"], &blue["errors"]), (&json!(1), &json!(1)));
    }

    /// A proxy whose page has a sample of each kind.
    fn with_every_metric() -> Cutover {
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        let setup = Setup::of(&blue, &green).set("service.app.rehearse.share", "1.0");
        let cutover = setup.with_tls().0.start();
        cutover.get("/");
        cutover.must_flip("green");
        green.behave(|conn| conn.answer_all(&super::super::harness::plain("500 No", "")));
        green.stop_connections();
        assert_eq!(cutover.get("/").text(), "blue", "it is replayed");
        cutover
    }

    #[test]
    fn have_the_names_that_are_documented() {
        let page = page(&with_every_metric());
        let named: std::collections::BTreeSet<_> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let documented = include_str!("../../docs/metrics.md").lines();
        let documented = documented.filter_map(|line| line.strip_prefix("| `cutover_")?.split('`').next());
        let documented: Vec<_> = documented.map(|name| format!("cutover_{name}")).collect();
        assert_eq!(named, documented.iter().map(String::as_str).collect());
    }

    #[test]
    fn please_promtool() {
        if !have("promtool") {
            return;
        }
        let cutover = with_every_metric();
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = promtool.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(page(&cutover).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }
}

#[test]
fn strangers_do_not_keep_the_operator_out() {
    let (cutover, blue, green) = start(|setup| setup);
    let _silent: Vec<_> = (0..300).map(|_| Client::connect(cutover.setup.admin_port)).collect();
    assert_eq!(cutover.status()["services"]["app"]["active"], "blue", "the oldest silent one makes room");
    let setup = Setup::of(&blue, &green).file("token", "open sesame\n").set("admin.token_file", "'token'");
    let guarded = setup.start_unready();
    let talk = || {
        let mut client = Client::connect(guarded.setup.admin_port);
        assert_eq!(client.ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
        client
    };
    let _talking: Vec<_> = (0..300).map(|_| talk()).collect();
    let (code, said) = guarded.cli_code(&["status"]);
    assert_eq!(code, 0, "so does one that talks without the token: {said}");
}
