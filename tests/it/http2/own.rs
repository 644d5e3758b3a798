//! What the proxy and its verbs ask an application themselves, of applications that speak HTTP/2 only.

use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::grpc;
use super::upstreams::greet;
use super::wire::*;
use crate::harness::{Cutover, Setup, Upstream, eventually, free_port};

/// An application that speaks HTTP/2 only, and answers 200 with what `answer` makes of a path.
struct App {
    port: u16,
    /// What each request had, in order.
    seen: Arc<Mutex<Vec<Fields>>>,
}

impl App {
    fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> App {
        let (port, seen, answer) = (free_port(), Arc::<Mutex<Vec<_>>>::default(), Arc::new(answer));
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let notes = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (notes, answer) = (Arc::clone(&notes), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(mut wire) = greet(stream) else { return };
                    while let Some(request) = wire.frame(|frame| frame.kind == HEADERS) {
                        let request_fields = fields(&request.payload);
                        let body = answer(value(&request_fields, ":path").unwrap());
                        notes.lock().unwrap().push(request_fields);
                        wire.headers(request.stream, 0, &[(":status", "200"), ("content-type", "application/json")])
                            .send(DATA, END, request.stream, body.as_bytes());
                    }
                });
            }
        });
        App { port, seen }
    }

    fn has_seen(&self, path: &str, name: &str, wanted: &str) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.iter().any(|fields| value(fields, ":path") == Some(path) && value(fields, name) == Some(wanted))
    }
}

fn in_front_of(blue: &App, green: &App, setup: impl FnOnce(Setup) -> Setup) -> Cutover {
    let setup_of = Setup::in_front_of(&Upstream::stopped())
        .set("service.app.blue", blue.port.to_string())
        .set("service.app.green", green.port.to_string())
        .set("service.app.upstream.protocol", "'h2c'");
    setup(setup_of).start()
}

/// What `cutover smoke` says of `url`, and its exit code.
fn smoke(url: &str, args: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.current_dir(&folder).args(["smoke", url, "--timeout", "2s"]).args(args).env_remove("CUTOVER_CONFIG");
    let output = command.output().expect("the binary starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let ledger = std::fs::read_to_string(folder.path().join("deploy/releases.log")).unwrap_or_default();
    (output.status.code().unwrap_or(-1), said, ledger)
}

mod smoke_tests {
    use super::*;

    fn app(version: &'static str) -> App {
        App::start(move |path| match path {
            "/readyz" => r#"{"ready": true}"#.into(),
            "/version" => json!({ "service": "recall", "version": version }).to_string(),
            _ => String::new(),
        })
    }

    #[test]
    fn ask_over_http2() {
        let app = app("sha-1");
        let url = format!("h2c://127.0.0.1:{}", app.port);
        let (code, said, ledger) = smoke(&url, &["--expect-version", "sha-1"]);
        assert_eq!(code, 0, "{said}");
        assert!(ledger.contains(&format!("smoke {url}: passed service=recall version=sha-1")), "{ledger}");
        assert!(app.has_seen("/version", "user-agent", "cutover-smoke"));
        let (code, said, _) = smoke(&url, &["--expect-version", "sha-2"]);
        assert!(code == 1 && said.contains("/version says version \"sha-1\", expected \"sha-2\""), "{code} {said}");
        let (code, said, _) = smoke(&format!("http://127.0.0.1:{}", app.port), &[]);
        assert!(code == 1 && said.contains("not ready within 2s"), "HTTP/1 is not what it speaks: {code} {said}");
    }

    #[test]
    fn ask_the_health_check_of_grpc() {
        let Some((_apps, cutover)) = grpc::stage() else { return };
        let status = cutover.app();
        let address = status["colors"]["blue"]["upstreams"][0]["address"].as_str().unwrap().to_owned();
        let (code, said, ledger) = smoke(&format!("grpc://{address}"), &[]);
        assert!(code == 0 && said.contains("The health check says it serves"), "{code} {said}");
        assert!(ledger.contains(&format!("smoke grpc://{address}: passed by=")), "{ledger}");
        let (code, said, _) = smoke(&format!("grpc://127.0.0.1:{}", free_port()), &[]);
        assert!(code == 1 && said.contains("connection refused"), "{code} {said}");
        let (code, said, _) = smoke(&format!("grpc://{address}"), &["--expect-version", "sha-1"]);
        assert!(code == 2 && said.contains("gRPC has no /version"), "{code} {said}");
    }
}

#[test]
fn a_rehearsal_asks_both_colors_over_http2() {
    let blue = App::start(|_| r#"{"id": 1}"#.into());
    let green = App::start(|path| if path == "/readyz" { String::new() } else { r#"{"name": "x"}"#.into() });
    let cutover = in_front_of(&blue, &green, |setup| {
        setup
            .set("service.app.rehearse.share", "1.0")
            .set("service.app.rehearse.rate", "1000")
            .set("service.app.rehearse.min_requests", "10")
    });
    eventually("enough is compared", || {
        cutover.get("/card");
        let (_, report) = cutover.admin("GET", "/v1/services/app/rehearsal", &Value::Null);
        report["compared"].as_u64() >= Some(10)
    });
    let (status, refused) = cutover.flip("green");
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("rehearsal_failed")), "{refused}");
    assert!(green.has_seen("/card", "x-cutover-rehearsal", "1"));
}

#[test]
fn a_service_without_traffic_is_judged_by_requests_over_http2() {
    let blue = App::start(|_| "{}".into());
    let green = App::start(|_| "{}".into());
    let cutover = in_front_of(&blue, &green, |setup| {
        setup
            .set("service.app.watch.window", "'60s'")
            .set("service.app.watch.synthetic", "{ path = '/check', interval = '20ms' }")
    });
    cutover.must_flip("green");
    let app = cutover.until_app("both are asked", |app| {
        let synthetic = &app["watch"]["synthetic"];
        [&synthetic["new_color"], &synthetic["old_color"]].iter().all(|side| side["answered"].as_u64() > Some(5))
    });
    assert_eq!(app["watch"]["synthetic"]["new_color"]["failed"], 0, "{app}");
    assert!(green.has_seen("/check", "x-cutover-synthetic", "1"));
}
