//! Tests of the server and its client over real sockets, with a stand-in for the control task.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;

use super::context::AdminLimits;
use super::server::serve_within;
use crate::api::client::{Client, ClientError};
use crate::api::*;
use crate::config;
use crate::control::{Command, Handle, StatusSnapshot};
use crate::domain::Color;

/// This is far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(5);

struct Served {
    address: SocketAddr,
    config: config::Admin,
    events: broadcast::Sender<Event>,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

fn service(active: Color, ready: bool) -> ServiceStatus {
    let color = |port| ColorStatus {
        ready,
        in_flight: 0,
        long_lived: Default::default(),
        requests: 1,
        errors: 0,
        image_tag: None,
        project: None,
        upstreams: vec![UpstreamStatus { address: format!("127.0.0.1:{port}"), ready, reason: None }],
    };
    ServiceStatus {
        active,
        epoch: 3,
        flip_pending: false,
        phase: Phase::Steady,
        summary: "a summary".into(),
        watch: None,
        last_verdict: None,
        evidence_file: None,
        verdict: None,
        rehearsal: None,
        freeze: None,
        colors: [(Color::Blue, color(8000)), (Color::Green, color(8001))].into(),
    }
}

fn observation(ready: bool) -> StatusSnapshot {
    let status = Status {
        version: "0.1.0".into(),
        pid: 1,
        started: "2026-01-01T00:00:00Z".into(),
        config: "/etc/cutover.toml".into(),
        connections: 0,
        problems: vec![],
        services: [("recall".to_owned(), service(Color::Blue, ready))].into(),
        certificates: vec![],
        ledger: vec![],
    };
    StatusSnapshot {
        status,
        stats: vec![],
        rehearsals: vec![],
        held: vec![],
        flips: vec![],
        watch_ends: vec![],
        ledger_ok: true,
        certificates: vec![],
        handshakes: vec![],
        http2_ends: vec![],
        refusals: vec![],
        reloads_ok: 0,
        reloads_failed: 0,
    }
}

/// Responds like a control task with one service at epoch 3 and blue active; `ready` tells whether its upstreams are.
async fn stand_in(mut commands: mpsc::Receiver<Command>, ready: bool) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Observe(answer) => drop(answer.send(observation(ready))),
            Command::Flip(change, answer) => {
                let refused = |code| Err(Refusal { code, message: format!("refused {}", change.service) });
                let to = change.request.to.expect("the server checks this");
                let changed = Changed {
                    service: change.service.clone(),
                    from: to.other(),
                    to,
                    epoch: 4,
                    dry_run: change.request.dry_run,
                    drain: None,
                };
                drop(answer.send(match change.if_epoch {
                    Some(epoch) if epoch != 3 => refused(RefusalCode::StaleEpoch),
                    Some(_) | None if change.service != "recall" => refused(RefusalCode::UnknownService),
                    Some(_) | None if to == Color::Blue => refused(RefusalCode::AlreadyActive),
                    Some(_) | None => Ok(changed),
                }));
            }
            Command::Rollback(change, answer) => {
                let message = format!("asked by {:?}", change.request.by);
                drop(answer.send(Err(Refusal { code: RefusalCode::NothingToRollBack, message })));
            }
            Command::Drain(_, answer) => drop(answer.send(Ok(Drained { seconds: 0.5, cut: 0 }))),
            Command::Freeze(service, request, answer) => {
                let (what, for_seconds, dry_run) = (request.what, 60.0, request.dry_run);
                drop(answer.send(Ok(Frozen { service, what, for_seconds, quiet: None, dry_run })));
            }
            Command::Thaw(service, request, answer) => {
                let was_frozen = request.of.is_none();
                drop(answer.send(Ok(Thawed { service, was_frozen, held: 0, dry_run: request.dry_run })));
            }
            Command::Rehearsal(_, answer) => {
                let message = "none in this stand-in".into();
                drop(answer.send(Err(Refusal { code: RefusalCode::UnknownService, message })));
            }
            Command::Preview(service, lasting, by, answer) => drop(answer.send(Ok(Pass {
                service,
                color: Color::Green,
                token: format!("{}s for {by}", lasting.as_secs()),
                expires: String::new(),
                door: String::new(),
            }))),
            Command::Upgrade { answer, .. } => {
                let refusal = Refusal { code: RefusalCode::UpgradeFailed, message: "none in this stand-in".into() };
                drop(answer.send(Err(refusal)));
            }
            Command::HandOver(_) | Command::UpgradeEnded(_) | Command::Judge | Command::Alone => {}
            Command::Reload { by, answer } => drop(answer.send(Ok(Reloaded { changes: vec![by] }))),
        }
    }
}

/// No test reaches these limits by accident.
const LIMITS: AdminLimits = AdminLimits { head: PATIENCE, body: PATIENCE, write: PATIENCE };

fn serve(token: Option<&str>, socket: Option<PathBuf>, ready: bool) -> Served {
    serve_limited(LIMITS, token, socket, ready)
}

fn serve_limited(limits: AdminLimits, token: Option<&str>, socket: Option<PathBuf>, ready: bool) -> Served {
    let listen = "127.0.0.1:0".parse().unwrap();
    let mut config = config::Admin { listen, token: token.map(str::to_owned), socket };
    let bound = super::bind(&config, &mut crate::handover::Inherited::default()).unwrap();
    config.listen = bound.address();
    let (commands, asked) = mpsc::channel(8);
    let (events, _) = broadcast::channel(256);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(stand_in(asked, ready));
    let handle = Handle { commands, events: events.clone() };
    let server = tokio::spawn(serve_within(limits, bound, config.token.clone(), handle, stopped));
    Served { address: config.listen, config, events, stop, server }
}

/// One answer: its status, its head in lower case, its body.
struct AdminResponse {
    status: u16,
    head: String,
    body: String,
}

impl AdminResponse {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error has a code").to_owned()
    }
}

/// Sends `text` and reads until the server closes.
async fn raw(address: SocketAddr, text: &str) -> AdminResponse {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    AdminResponse { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A request with a good `Host`, the header lines of `more` and a body.
async fn ask(served: &Served, line: &str, more: &str, body: &str) -> AdminResponse {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}{length}\r\n{body}");
    raw(served.address, &text).await
}

#[tokio::test]
async fn reads_are_answered_and_never_cached() {
    let served = serve(None, None, true);
    for (path, kind, part) in [
        ("/healthz", "text/plain", "ok\n"),
        ("/readyz", "application/json", "{\"ready\":true}"),
        ("/version", "application/json", "\"service\":\"cutover\""),
        ("/v1/status", "application/json", "\"epoch\":3"),
        ("/v1/services/recall", "application/json", "\"active\":\"blue\""),
        ("/metrics", "text/plain; version=0.0.4", "cutover_epoch{service=\"recall\"} 3"),
        ("/", "text/html", "<title>"),
    ] {
        let answer = ask(&served, &format!("GET {path}"), "", "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.contains(part), "{path}: {}", answer.body);
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{path}: {}", answer.head);
        assert!(answer.head.contains("cache-control: no-store"), "{path}");
        let head = ask(&served, &format!("HEAD {path}"), "", "").await;
        assert_eq!((head.status, &*head.body), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn readiness_names_who_is_not() {
    let served = serve(None, None, false);
    let answer = ask(&served, "GET /readyz", "", "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json(), serde_json::json!({ "ready": false, "not_ready": ["recall"] }));
}

#[tokio::test]
async fn a_flip_answers_with_the_new_epoch_as_etag() {
    let served = serve(None, None, true);
    let answer = ask(&served, "POST /v1/services/recall/flip", "If-Match: \"3\"\r\n", "{\"to\":\"green\"}").await;
    assert_eq!((answer.status, answer.json()["epoch"].as_u64()), (200, Some(4)));
    assert!(answer.head.contains("etag: \"4\""), "{}", answer.head);
    let dry = ask(&served, "POST /v1/services/recall/flip", "", "{\"to\":\"green\",\"dry_run\":true}").await;
    assert!(dry.status == 200 && !dry.head.contains("etag"), "{}", dry.head);
    let service = ask(&served, "GET /v1/services/recall", "", "").await;
    assert!(service.head.contains("etag: \"3\""), "{}", service.head);
}

#[tokio::test]
async fn every_refusal_has_its_status_and_code() {
    let served = serve(None, None, true);
    let (flip, green) = ("POST /v1/services/recall/flip", "{\"to\":\"green\"}");
    let long = format!("{{\"to\":\"green\",\"by\":\"{}\"}}", "x".repeat(70_000));
    for (line, more, body, status, code) in [
        (flip, "If-Match: \"2\"\r\n", green, 412, "stale_epoch"),
        (flip, "If-Match: 3\r\n", green, 400, "bad_request"),
        (flip, "", "{\"to\":\"blue\"}", 409, "already_active"),
        (flip, "", "{\"to\":\"red\"}", 400, "bad_request"),
        (flip, "", "{\"to\":\"green\",\"force_\":true}", 400, "bad_request"),
        (flip, "", "{\"to\":", 400, "bad_request"),
        (flip, "", "", 400, "bad_request"),
        (flip, "", &*long, 413, "too_large"),
        (flip, "Content-Type: text/plain\r\n", green, 415, "unsupported_media_type"),
        (
            flip,
            "Content-Type: application/x-www-form-urlencoded\r\n",
            "%7B%22to%22%3A%22green%22%7D=",
            400,
            "bad_request",
        ),
        (flip, "Origin: http://evil.example\r\n", green, 403, "foreign_origin"),
        (flip, "Sec-Fetch-Site: same-site\r\n", green, 403, "foreign_origin"),
        ("POST /v1/services/nobody/flip", "", green, 404, "unknown_service"),
        ("GET /v1/services/nobody", "", "", 404, "unknown_service"),
        ("POST /v1/services/recall/rollback", "", "", 409, "nothing_to_roll_back"),
        ("POST /v1/services/recall/rollback", "", green, 400, "bad_request"),
        ("POST /v1/reload", "If-Match: \"3\"\r\n", "", 400, "bad_request"),
        ("GET /v1/services/recall/flip", "", "", 405, "method_not_allowed"),
        ("GET /v1/reload", "", "", 405, "method_not_allowed"),
        ("POST /v1/status", "", "{}", 405, "method_not_allowed"),
        ("DELETE /v1/services/recall", "", "", 405, "method_not_allowed"),
        ("OPTIONS /v1/services/recall/flip", "", "", 405, "method_not_allowed"),
        ("POST /v1/services/recall/freeze", "", green, 400, "bad_request"),
        ("POST /v1/services/recall/freeze", "If-Match: 3\r\n", "", 400, "bad_request"),
        ("POST /v1/services/recall/thaw", "", "{\"for\":\"1s\"}", 400, "bad_request"),
        ("POST /v1/services/recall/explode", "", "", 404, "not_found"),
        ("GET /favicon.ico", "", "", 404, "not_found"),
    ] {
        let answer = ask(&served, line, more, body).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{line} {more}{}", answer.body);
        assert_eq!(answer.head.contains("\nallow: "), status == 405, "{line}: {}", answer.head);
    }
    let unknown = ask(&served, flip, "", "{\"to\":\"green\",\"force_\":true}").await;
    assert!(unknown.body.contains("force_"), "an unknown field is named: {}", unknown.body);
}

#[tokio::test]
async fn an_empty_body_is_enough_where_nothing_is_needed() {
    let served = serve(None, None, true);
    let drained = ask(&served, "POST /v1/services/recall/drain", "", "").await;
    assert_eq!((drained.status, drained.json()["seconds"].as_f64()), (200, Some(0.5)));
    let reloaded = ask(&served, "POST /v1/reload", "", "").await;
    assert_eq!((reloaded.status, reloaded.json()["changes"][0].as_str()), (200, Some("api")));
}

#[tokio::test]
async fn a_rebound_name_gets_nothing() {
    let served = serve(None, None, true);
    for host in ["Host: evil.example\r\n", "", "Host: localhost\r\nHost: localhost\r\n"] {
        let answer = raw(served.address, &format!("GET /v1/status HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await;
        assert_eq!((answer.status, &*answer.code()), (403, "foreign_host"), "{host}");
    }
    let target = "GET http://evil.example/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(served.address, target).await.status, 403);
}

#[tokio::test]
async fn a_token_guards_everything_but_what_is_open() {
    let served = serve(Some("secret"), None, true);
    for (path, open) in [
        ("/healthz", true),
        ("/readyz", true),
        ("/version", true),
        ("/", true),
        ("/metrics", false),
        ("/v1/status", false),
        ("/v1/events", false),
        ("/v1/services/recall", false),
        ("/nowhere", false),
    ] {
        let answer = ask(&served, &format!("GET {path}"), "", "").await;
        assert_eq!(answer.status, if open { 200 } else { 401 }, "{path}");
        assert_eq!(answer.head.contains("www-authenticate: bearer"), !open, "{path}");
    }
    let wrong = ask(&served, "GET /v1/status", "Authorization: Bearer secreT\r\n", "").await;
    assert_eq!((wrong.status, &*wrong.code()), (401, "unauthorized"));
    let right = ask(&served, "GET /v1/status", "Authorization: Bearer secret\r\n", "").await;
    assert_eq!(right.status, 200);
}

#[tokio::test]
async fn the_dashboard_runs_its_own_script_only_and_cannot_be_framed() {
    let served = serve(None, None, true);
    let linked = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    let (one, two) = (ask(&served, "GET /", linked, "").await, ask(&served, "GET /", "", "").await);
    assert_eq!(one.status, 200, "a link from elsewhere is fine");
    let nonce = |answer: &AdminResponse| {
        let (_, rest) = answer.head.split_once("script-src 'nonce-").expect("a nonce in the policy");
        rest[..32].to_owned()
    };
    assert_ne!(nonce(&one), nonce(&two));
    assert!(one.body.contains(&format!("<script nonce=\"{}\">", nonce(&one))));
    assert!(one.head.contains("frame-ancestors 'none'") && one.head.contains("default-src 'none'"));
    for outside in ["src=", "http://", "https://", "@import", "innerHTML"] {
        assert!(!one.body.contains(outside), "the page holds {outside}");
    }
}

#[tokio::test]
async fn events_are_told_as_they_happen_and_end_with_the_server() {
    let served = serve(None, None, true);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    let mut read_until = async |stream: &mut TcpStream, seen: &mut String, what: &str| {
        while !seen.contains(what) {
            let n = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("it comes").unwrap();
            assert!(n > 0, "closed before {what:?}: {seen}");
            seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    };
    read_until(&mut stream, &mut seen, ": still here\n\n").await;
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    let event = Event {
        at: "2026-01-01T00:00:00Z".into(),
        kind: EventKind::Rollback,
        service: Some("recall".into()),
        message: "back\nto blue".into(),
    };
    served.events.send(event.clone()).unwrap();
    read_until(&mut stream, &mut seen, "}\n\n").await;
    let (_, data) = seen.split_once("event: rollback\ndata: ").expect("an event with its name");
    let (data, _) = data.split_once("\n\n").unwrap();
    assert_eq!(serde_json::from_str::<Event>(data).unwrap(), event);
    served.stop.send(true).unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the stream ends").unwrap();
    timeout(PATIENCE, served.server).await.expect("the server ends").unwrap();
}

#[tokio::test]
async fn a_client_that_sends_nothing_or_half_is_closed() {
    let soon = Duration::from_millis(50);
    let served = serve_limited(AdminLimits { head: soon, body: soon, ..LIMITS }, None, None, true);
    for half in ["", "GET /v1/status HTTP/1.1\r\nHost: local", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        // Reads until the server closes, and fails when it does not.
        raw(served.address, half).await;
    }
    let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{";
    let answer = raw(served.address, head).await;
    assert_eq!((answer.status, &*answer.code()), (408, "too_slow"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed() {
    let served = serve_limited(AdminLimits { write: Duration::from_millis(50), ..LIMITS }, None, None, true);
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (mut answers, mut requests) = stream.into_split();
    // Until the buffers of both ends are full of answers that nobody takes.
    let flood = async { while requests.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("the server gives up on it");
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, answers.read_to_end(&mut rest)).await.expect("what was sent ends");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_are_served() {
    let socket = tempfile::tempdir().unwrap();
    let served = serve(None, Some(socket.path().join("admin.sock")), true);
    let mut idle = Vec::new();
    for _ in 0..256 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        idle.push(stream);
    }
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let ended = timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it is closed at once");
    assert!(matches!(ended, Ok(0) | Err(_)));
    assert!(Client::new(&served.config).status().await.is_ok(), "the operator's socket is not affected");
    drop(idle.pop());
    let mut client = served.config.clone();
    client.socket = None;
    let served_again = async {
        while Client::new(&client).status().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, served_again).await.expect("a place that got free is taken");
}

#[tokio::test]
async fn the_socket_needs_neither_token_nor_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let _served = serve(Some("secret"), Some(path.clone()), true);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

mod client {
    use super::*;

    #[tokio::test]
    async fn asks_over_either_door() {
        let folder = tempfile::tempdir().unwrap();
        let mut served = serve(Some("secret"), Some(folder.path().join("admin.sock")), true);
        let request = ChangeRequest { to: Some(Color::Green), ..ChangeRequest::default() };
        for endpoint in ["socket", "tcp"] {
            let client = Client::new(&served.config);
            assert_eq!(client.status().await.unwrap().services["recall"].epoch, 3, "{endpoint}");
            assert_eq!(client.flip("recall", &request, Some(3)).await.unwrap().epoch, 4, "{endpoint}");
            assert!((client.drain("recall").await.unwrap().seconds - 0.5).abs() < f64::EPSILON, "{endpoint}");
            assert_eq!(client.reload("cli:ann").await.unwrap().changes, ["cli:ann"], "{endpoint}");
            served.config.socket = None;
        }
    }

    #[tokio::test]
    async fn hears_why_it_was_refused() {
        let mut served = serve(Some("secret"), None, true);
        let request = ChangeRequest { by: Some("cli".into()), ..ChangeRequest::default() };
        let refused = Client::new(&served.config).rollback("recall", &request, None).await.unwrap_err();
        let ClientError::Refused(refusal) = &refused else { panic!("{refused:?}") };
        assert_eq!(refusal.code, RefusalCode::NothingToRollBack);
        assert_eq!(refused.to_string(), "asked by Some(\"cli\")");
        served.config.token = Some("wrong".into());
        let denied = Client::new(&served.config).status().await.unwrap_err();
        assert!(matches!(&denied, ClientError::Denied(why) if why.contains("token")), "{denied:?}");
    }

    #[tokio::test]
    async fn says_when_nobody_answers() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = config::Admin { listen: free, token: None, socket: Some("/no/such/socket".into()) };
        let error = Client::new(&config).status().await.unwrap_err();
        assert!(matches!(error, ClientError::NoAnswer { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&free.to_string()) && text.contains("is `cutover serve` running?"), "{text}");
    }

    #[tokio::test]
    async fn does_not_take_a_stranger_for_the_proxy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        });
        let error = Client::new(&config::Admin { listen, token: None, socket: None }).status().await.unwrap_err();
        assert!(matches!(error, ClientError::Strange { .. }), "{error:?}");
    }
}
