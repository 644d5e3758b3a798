//! WebSockets over HTTP/2 (RFC 8441), to an application that speaks HTTP/1.

use std::time::Duration;

use super::wire::*;
use crate::harness::{Setup, Upstream};

fn connect(path: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "app"),
        ("sec-websocket-version", "13"),
    ]
}

/// Upgrades `/socket`, says back what it hears until the client ends, then a last word; refuses the rest.
fn application() -> Upstream {
    Upstream::start(|conn| {
        let request = conn.request()?;
        let is_upgrade = request.head.contains("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
        let has_key = request.head.contains("\r\nSec-WebSocket-Key: ");
        if !(is_upgrade && has_key && request.head.starts_with("GET /socket ")) {
            return conn.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        }
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")?;
        let mut piece = [0; 4096];
        loop {
            match conn.some(&mut piece)? {
                0 => return conn.send("bye"),
                n => conn.send(&piece[..n])?,
            }
        }
    })
}

#[test]
fn a_socket_is_a_stream() {
    let upstream = application();
    let cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::greeted(cutover.port());
    assert_eq!(wire.setting(8), Some(1), "RFC 8441 3");
    wire.headers(1, 0, &connect("/socket"));
    let head = wire.frame(|frame| frame.kind == HEADERS).unwrap();
    let head = fields(&head.payload);
    assert_eq!(value(&head, ":status"), Some("200"));
    assert_eq!(
        (value(&head, "upgrade"), value(&head, "connection"), value(&head, "sec-websocket-accept")),
        (None, None, None)
    );
    cutover.until_app("it is in flight", |app| app["colors"]["blue"]["in_flight"] == 1);
    for word in [&b"hello"[..], b"world"] {
        wire.send(DATA, 0, 1, word);
        assert_eq!(wire.frame(|frame| frame.kind == DATA).unwrap().payload, word);
    }
    wire.headers(3, END, &get("/"));
    assert_eq!(wire.answer(3).status(), 403, "other streams go on");
    wire.send(DATA, END, 1, &[]);
    let whole = wire.answer(1);
    assert_eq!((whole.text(), whole.is_whole), ("helloworldbye".into(), true));
    cutover.until_app("it is over", |app| app["colors"]["blue"]["in_flight"] == 0);
}

#[test]
fn a_socket_that_is_refused_is_an_answer() {
    let upstream = application();
    let cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, 0, &connect("/other"));
    let answer = wire.answer(1);
    assert_eq!((answer.status(), answer.text(), answer.is_whole), (403, "no".into(), true));
    assert!(wire.is_alive());
}

#[test]
fn a_client_that_leaves_ends_the_socket_upstream() {
    let upstream = application();
    let cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, 0, &connect("/socket"));
    wire.frame(|frame| frame.kind == HEADERS).unwrap();
    wire.reset(1, 8);
    cutover.until_app("it is over", |app| app["colors"]["blue"]["in_flight"] == 0);
    assert!(wire.is_alive());
}

#[test]
fn a_slow_reader_gets_what_the_application_said_before_it_closed() {
    const MUCH: usize = 60_000;
    let upstream = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        conn.send(vec![b'x'; MUCH])
    });
    let cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::with_settings(cutover.port(), &[(4, 1000)]);
    wire.headers(1, 0, &connect("/socket"));
    wire.frame(|frame| frame.kind == DATA).unwrap();
    for word in [&b"still"[..], b"there", b"?"] {
        wire.send(DATA, 0, 1, word); // the first one is answered by a reset, and what follows it cannot be sent
        std::thread::sleep(Duration::from_millis(100));
    }
    wire.window_update(1, MUCH as u32);
    let whole = wire.answer(1);
    assert_eq!((whole.body.len(), whole.is_whole), (MUCH, true), "reset: {:?}", whole.reset);
    cutover.until_app("it is over", |app| app["colors"]["blue"]["in_flight"] == 0);
}
