//! An application that is down, silent, broken or cut off: the client is told, or sees the cut. Never a part for the
//! whole.

use std::sync::{Arc, Barrier};

use super::GET;
use crate::harness::{Answer, Client, End, Setup, Upstream};

fn is_a_plain_502(answer: &Answer) {
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.header("x-request-id").is_some_and(|id| answer.text().contains(id)), "{answer:?}");
    assert!(!answer.text().contains("127.0.0.1"), "nothing about the inside: {answer:?}");
}

#[test]
fn a_refused_connection_is_502() {
    let blue = Upstream::stopped();
    let cutover = Setup::in_front_of(&blue).start_unready();
    let mut client = cutover.client();
    is_a_plain_502(&client.ask(GET));
    let head = client.ask("HEAD / HTTP/1.1\r\nHost: app\r\n\r\n");
    assert_eq!(head.status, 502);
    assert_eq!(client.ask(GET).status, 502, "the connection outlives it");
    is_a_plain_502(&cutover.client().ask("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nab"));
}

#[test]
fn a_body_that_no_application_took_is_no_request() {
    // It resets when the body comes. Which of both the proxy sees first is a race: now and then it is the reset, with
    // the body read and not written.
    let both = Arc::new(Barrier::new(2));
    let now = Arc::clone(&both);
    let blue = Upstream::start(move |conn| {
        conn.request()?;
        now.wait();
        conn.reset();
        Ok(())
    });
    let cutover = Setup::in_front_of(&blue).start();
    let body = "GET /hidden HTTP/1.1\r\nHost: app\r\n\r\n".repeat(500);
    let head = format!("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: {}\r\n\r\n", body.len());
    for _ in 0..1000 {
        let mut client = cutover.client();
        client.send(&head);
        both.wait();
        client.send(&body);
        is_a_plain_502(&client.answer());
        client.close_sending();
        let (rest, _) = client.rest();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn garbage_is_502() {
    for (case, garbage) in [
        ("no HTTP at all", "hello world\r\n\r\n"),
        ("another version", "HTTP/2.0 200 OK\r\n\r\n"),
        ("a status that is none", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        ("both framings", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("different lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        ("a 101 nobody asked for", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        ("a bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-"),
        ("nothing", ""),
    ] {
        let blue = Upstream::closing_after(garbage);
        let cutover = Setup::in_front_of(&blue).start();
        let mut client = cutover.client();
        is_a_plain_502(&client.ask(GET));
        blue.behave(|conn| conn.answer_all(super::OK.as_bytes()));
        assert_eq!(client.ask(GET).status, 200, "{case}: the client's connection is whole");
    }
}

#[test]
fn silence_is_504_and_within_an_answer_a_cut() {
    let blue = Upstream::start(|conn| {
        let request = conn.request()?;
        if request.target() == "/half" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")?;
        }
        conn.rest().map(drop)
    });
    let cutover = Setup::in_front_of(&blue).set("service.app.upstream.response_timeout", "'300ms'").start();
    let mut client = cutover.client();
    assert_eq!(client.ask(GET).status, 504);
    client.send("GET /half HTTP/1.1\r\nHost: app\r\n\r\n");
    assert!(client.try_answer(false).is_err());
}

#[test]
fn a_client_that_does_not_finish_is_408() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.rest().map(drop)
    });
    let cutover =
        Setup::in_front_of(&blue).set("proxy.header_timeout", "'200ms'").set("proxy.body_timeout", "'200ms'").start();
    for (case, bytes) in [
        ("half a head", "GET / HTTP/1.1\r\nHo"),
        ("half a body", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nabc"),
        ("half a chunk", "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
    ] {
        let mut client = cutover.client();
        let answer = client.send(bytes).answer();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{case}");
        assert_eq!(client.rest().0, b"", "{case}");
    }
    let app = cutover.until_app("no lease is left", |app| app["colors"]["blue"]["in_flight"] == 0);
    assert_eq!(app["colors"]["blue"]["errors"], 0, "a slow client is no error of the color: {app}");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).set("proxy.idle_timeout", "'200ms'").start();
    let mut client = cutover.client();
    client.ask(GET);
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
}

#[test]
fn an_answer_that_breaks_off_is_a_cut() {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (case, part, then, request) in [
        ("a length", LENGTH, "", GET),
        ("chunks", CHUNKS, "", GET),
        ("within a chunk", CHUNKS, "5\r\nab", GET),
        ("within the trailers", CHUNKS, "0\r\nA: b\r\n", GET),
        ("a bad chunk", CHUNKS, "3\r\nabcd\r\n0\r\n\r\n", GET),
        ("a length for HTTP/1.0", LENGTH, "", "GET / HTTP/1.0\r\n\r\n"),
        ("chunks for HTTP/1.0, whose only end is the close", CHUNKS, "", "GET / HTTP/1.0\r\n\r\n"),
    ] {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = std::sync::Mutex::new(gone);
        let blue = Upstream::start(move |conn| {
            conn.request()?;
            conn.send(part)?;
            let _ = gone.lock().unwrap().recv();
            conn.send(then)
        });
        let cutover = Setup::in_front_of(&blue).start();
        let mut client = cutover.client();
        let head = client.send(request).head().unwrap();
        go.send(()).unwrap();
        let (rest, end) = client.rest();
        let rest = String::from_utf8_lossy(&rest);
        if head.contains("chunked") {
            assert!(!rest.ends_with("0\r\n\r\n"), "{case}: a part was taken for the whole: {rest}");
        } else if head.contains("Content-Length") {
            assert!(rest.len() < 10, "{case}: {rest}");
        } else {
            assert_eq!(end, End::Reset, "{case}: a close would be the end of a whole answer");
        }
    }
}

#[test]
fn a_reset_before_an_answer_to_a_new_connection_is_502() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.reset();
        Ok(())
    });
    let cutover = Setup::in_front_of(&blue).start();
    is_a_plain_502(&cutover.client().ask(GET));
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")?;
        conn.rest().map(drop)
    });
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3000000\r\n\r\n");
    let mut sender = Client::of(client.stream().try_clone().unwrap());
    let sending = std::thread::spawn(move || {
        let piece = [b'a'; 10_000];
        for _ in 0..300 {
            if sender.try_send(&piece).is_err() {
                return;
            }
        }
    });
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "no"));
    drop(client);
    sending.join().unwrap();
}
