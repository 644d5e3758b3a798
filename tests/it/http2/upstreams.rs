//! Upstreams that speak HTTP/2: one connection for many requests, and what is done when it takes no more.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::wire::*;
use crate::bad_days::limit_descriptors;
use crate::harness::{Cutover, PATIENCE, Setup, Upstream, eventually, free_port};

/// An application that speaks HTTP/2 only. `serve` is given each connection after the greetings, and which one it is.
struct Server {
    port: u16,
    /// What each request had, in order.
    seen: Arc<Mutex<Vec<Fields>>>,
}

/// Remembers a request.
type Note<'n> = &'n mut dyn FnMut(&Frame);

impl Server {
    fn start(serve: impl Fn(&mut Wire, usize, Note<'_>) + Send + Sync + 'static) -> Server {
        let serve = Arc::new(serve);
        let (port, seen) = (free_port(), Arc::<Mutex<Vec<_>>>::default());
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let notes = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut nth = 0;
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(mut wire) = greet(stream) else { continue };
                let (notes, serve) = (Arc::clone(&notes), Arc::clone(&serve));
                if is_probe(&mut wire) {
                    continue;
                }
                nth += 1;
                let nth = nth;
                std::thread::spawn(move || {
                    let mut note = |frame: &Frame| notes.lock().unwrap().push(fields(&frame.payload));
                    serve(&mut wire, nth, &mut note);
                });
            }
        });
        Server { port, seen }
    }

    fn cutover(&self) -> Cutover {
        let ports = [self.port, free_port()].map(|port| port.to_string());
        let cutover = Setup::in_front_of(&Upstream::stopped())
            .set("service.app.blue", &ports[0])
            .set("service.app.green", &ports[1])
            .set("service.app.upstream.protocol", "'h2c'")
            .set("proxy.workers", 1);
        cutover.start()
    }
}

/// The server's side of the greetings.
pub fn greet(stream: TcpStream) -> Option<Wire> {
    let mut wire = Wire::of(stream);
    let preface = wire.exactly(PREFACE.len())?;
    assert_eq!(preface, PREFACE);
    wire.frame(|frame| frame.kind == SETTINGS)?;
    wire.settings(&[]).send(SETTINGS, END, 0, &[]);
    Some(wire)
}

/// Answers a probe; a connection for requests is left as it is.
fn is_probe(wire: &mut Wire) -> bool {
    let Some(head) = wire.peek(|frame| frame.kind == HEADERS) else { return true };
    let is_probe = value(&fields(&head.payload), ":path") == Some("/readyz");
    if is_probe {
        wire.headers(head.stream, END, &[(":status", "200")]);
        wire.end();
    }
    is_probe
}

/// Answers every request, in the order they come.
fn answer_all(wire: &mut Wire, note: Note<'_>) {
    while let Some(request) = wire.frame(|frame| frame.kind == HEADERS) {
        note(&request);
        wire.headers(request.stream, 0, &[(":status", "200"), ("content-length", "2")]).send(
            DATA,
            END,
            request.stream,
            b"ok",
        );
    }
}

fn post(cutover: &Cutover) -> u16 {
    cutover.client().ask("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi").status
}

#[test]
fn requests_share_a_connection_and_are_rebuilt_for_it() {
    let server = Server::start(|wire, _, note| answer_all(wire, note));
    let cutover = server.cutover();
    let mut client = cutover.client();
    for _ in 0..3 {
        let answer = client
            .ask("GET /a HTTP/1.1\r\nHost: app\r\nX-Mine: 1\r\nConnection: keep-alive, te\r\nTE: trailers\r\n\r\n");
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    let of = |name| value(&seen[0], name);
    assert_eq!(
        (of(":method"), of(":scheme"), of(":path"), of(":authority")),
        (Some("GET"), Some("http"), Some("/a"), Some("app"))
    );
    assert_eq!((of("x-mine"), of("te"), of("connection"), of("host")), (Some("1"), Some("trailers"), None, None));
    assert!(of("x-request-id").is_some() && of("x-forwarded-for") == Some("127.0.0.1"));
}

#[test]
fn what_was_refused_is_sent_again_whatever_it_is() {
    let server = Server::start(|wire, nth, note| {
        if nth == 1 {
            let request = wire.frame(|frame| frame.kind == HEADERS).unwrap();
            wire.reset(request.stream, 7);
        }
        answer_all(wire, note);
    });
    assert_eq!(post(&server.cutover()), 200);
    let goes_away = Server::start(|wire, nth, note| {
        if nth == 1 {
            wire.frame(|frame| frame.kind == HEADERS).unwrap();
            wire.send(GOAWAY, 0, 0, &[0; 8]);
            wire.end();
        }
        answer_all(wire, note);
    });
    assert_eq!(post(&goes_away.cutover()), 200);
    let never = Server::start(|wire, _, _| {
        while let Some(request) = wire.frame(|frame| frame.kind == HEADERS) {
            wire.reset(request.stream, 7);
        }
    });
    assert_eq!(post(&never.cutover()), 502, "not for ever");
}

#[test]
fn what_may_have_been_done_is_not_sent_again() {
    let server = Server::start(|wire, nth, note| {
        if nth == 1 {
            let request = wire.frame(|frame| frame.kind == DATA).unwrap();
            wire.reset(request.stream, 2);
        }
        answer_all(wire, note);
    });
    let cutover = server.cutover();
    assert_eq!(post(&cutover), 502);
    assert_eq!(server.seen.lock().unwrap().len(), 0);
    assert_eq!(post(&cutover), 200);
}

/// Answers the first request with these fields and frames, which are for its stream.
fn answering(head: &'static [(&'static str, &'static str)], frames: &'static [(u8, u8, &'static [u8])]) -> Server {
    Server::start(move |wire, _, _| {
        let Some(request) = wire.frame(|frame| frame.kind == HEADERS) else { return };
        wire.headers(request.stream, 0, head);
        for (kind, flags, payload) in frames {
            wire.send(*kind, *flags, request.stream, payload);
        }
        wire.end();
    })
}

#[test]
fn an_answer_that_is_none_is_a_bad_gateway() {
    for (case, head) in [
        ("no status", &[("a", "b")][..]),
        ("an upgrade", &[(":status", "101")]),
        ("upper case", &[(":status", "200"), ("X", "y")]),
        ("a field of a connection", &[(":status", "200"), ("connection", "x")]),
        ("a line end in a value", &[(":status", "200"), ("x", "a\r\nb: c")]),
        ("a status behind a field", &[("a", "b"), (":status", "200")]),
        ("two lengths", &[(":status", "200"), ("content-length", "1"), ("content-length", "1")]),
    ] {
        let cutover = answering(head, &[]).cutover();
        assert_eq!(post(&cutover), 502, "{case}");
    }
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    const HALF: &[u8] = b"half";
    const ALL: &[u8] = b"0123456789";
    const CANCEL: &[u8] = &[0, 0, 0, 8];
    for (case, frames) in [
        ("it is cut", &[(DATA, 0, HALF), (RST_STREAM, 0, CANCEL)][..]),
        ("less than announced", &[(DATA, END, HALF)]),
        ("more than announced", &[(DATA, END, b"0123456789a")]),
        ("its end is missing", &[(DATA, 0, ALL), (RST_STREAM, 0, CANCEL)]),
    ] {
        let cutover = answering(&[(":status", "200"), ("content-length", "10")], frames).cutover();
        let mut client = cutover.client();
        client.send("GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
        let (text, _) = client.rest();
        let text = String::from_utf8_lossy(&text);
        assert!(
            text.starts_with("HTTP/1.1 502") || (text.starts_with("HTTP/1.1 200") && !text.ends_with("0123456789")),
            "{case}: {text}"
        );
    }
    let whole =
        answering(&[(":status", "200"), ("content-length", "10")], &[(DATA, 0, ALL), (DATA, END, b"")]).cutover();
    assert_eq!(whole.get("/").text(), "0123456789");
}

#[test]
fn a_silent_application_is_given_up_with_its_connection() {
    let server = Server::start(|wire, nth, note| {
        if nth == 1 {
            wire.frame(|frame| frame.kind == HEADERS).unwrap();
            // As if its machine had gone: nothing is answered, not even a PING.
            std::thread::sleep(PATIENCE);
        }
        answer_all(wire, note);
    });
    let mut cutover = server.cutover();
    cutover.configure("service.app.upstream.response_timeout", "'200ms'");
    assert_eq!(cutover.admin("POST", "/v1/reload", &serde_json::Value::Null).0, 200);
    assert_eq!(post(&cutover), 504);
    eventually("another connection is made", || post(&cutover) == 200);
}

#[test]
fn an_application_that_pauses_loses_no_request_to_a_client_that_left() {
    let server = Server::start(|wire, nth, note| {
        if nth > 1 {
            return answer_all(wire, note);
        }
        let first = wire.frame(|frame| frame.kind == HEADERS).unwrap();
        note(&first);
        let second = wire.frame(|frame| frame.kind == HEADERS).unwrap();
        note(&second);
        wire.frame(|frame| frame.kind == PING).expect("a question whether anybody is there");
        std::thread::sleep(Duration::from_secs(3)); // as in a collection of garbage
        wire.headers(second.stream, END, &[(":status", "204")]);
        wire.end();
    });
    let cutover = server.cutover();
    let (mut leaves, mut stays) = (cutover.client(), cutover.client());
    leaves.send("POST /1 HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi");
    eventually("the first is there", || server.seen.lock().unwrap().len() == 1);
    stays.send("POST /2 HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi");
    eventually("the second is there", || server.seen.lock().unwrap().len() == 2);
    socket2::SockRef::from(leaves.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(leaves); // a reset
    assert_eq!(stays.answer().status, 204);
    assert_eq!(post(&cutover), 200, "on another connection");
}

#[test]
fn want_of_descriptors_is_no_fault_of_the_application() {
    let server = Server::start(|wire, _, note| answer_all(wire, note));
    let cutover = server.cutover();
    let mut client = cutover.client();
    eventually("it is accepted", || cutover.status()["connections"] == 1);
    limit_descriptors(&cutover, 10);
    let answer = client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    assert_eq!(answer.status, 503, "{answer:?}");
    limit_descriptors(&cutover, 4096);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n").status, 200);
}

#[test]
fn an_application_that_speaks_http1_is_not_reached() {
    let upstream = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&upstream).set("service.app.upstream.protocol", "'h2c'").start_unready();
    assert_eq!(cutover.get("/").status, 502);
}
