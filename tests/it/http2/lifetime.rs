//! How long connections last: through flips, to the end of a stop, and while nothing happens.

use std::sync::mpsc::channel;

use super::wire::*;
use crate::harness::{Setup, Upstream, eventually};

#[test]
fn a_flip_closes_no_connection_and_moves_the_next_request() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    let mut wire = Wire::greeted(cutover.port());
    for (stream, color) in (0..20).map(|n| (n * 2 + 1, ["blue", "green"][n as usize % 2])) {
        if stream > 1 {
            cutover.must_flip(color);
        }
        wire.headers(stream, END, &get("/"));
        assert_eq!(wire.answer(stream).text(), color);
    }
}

#[test]
fn a_stop_takes_two_steps_and_lets_streams_finish() {
    let (release, released) = channel::<()>();
    let released = std::sync::Mutex::new(released);
    let upstream = Upstream::start(move |conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")?;
        let _ = released.lock().unwrap().recv();
        conn.send("k")
    });
    let mut cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, END, &get("/"));
    wire.frame(|frame| frame.kind == DATA).unwrap();
    cutover.signal(libc::SIGTERM);
    let last = |frame: &Frame| u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
    let first = wire.frame(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!((last(&first), first.code()), (u32::MAX >> 1, 0), "RFC 9113 6.8: all that is on its way is served");
    // This one crossed it.
    wire.headers(3, END, &get("/"));
    let ping = wire.frame(|frame| frame.kind == PING).unwrap();
    wire.send(PING, END, 0, &ping.payload);
    let second = wire.frame(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!((last(&second), second.code()), (3, 0));
    release.send(()).unwrap();
    release.send(()).unwrap();
    for stream in [1, 3] {
        assert_eq!((wire.answer(stream).text(), cutover.is_running()), ("ok".into(), true));
    }
    assert_eq!(wire.end(), None, "it is closed when the last one is over");
    assert_eq!(cutover.ended().code(), Some(0));
}

#[test]
fn who_opens_streams_after_the_end_gets_none() {
    let upstream = Upstream::start(|conn| {
        conn.request()?;
        conn.rest().map(drop)
    });
    let mut cutover = Setup::in_front_of(&upstream).set("proxy.shutdown_timeout", "'700ms'").start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, END, &get("/"));
    cutover.until_app("it is in flight", |app| app["colors"]["blue"]["in_flight"] == 1);
    cutover.signal(libc::SIGTERM);
    let ping = wire.frame(|frame| frame.kind == PING).unwrap();
    wire.send(PING, END, 0, &ping.payload).headers(3, END, &get("/"));
    wire.end();
    assert!(wire.so_far(1).is_none_or(|message| !message.is_whole), "cut at the deadline");
    assert!(wire.so_far(3).is_none_or(|message| message.heads.is_empty()), "{:?}", wire.so_far(3));
    assert!(cutover.ended().success());
    assert_eq!(upstream.text().matches("GET /").count(), 1);
}

#[test]
fn an_idle_connection_is_closed_with_a_word() {
    let upstream = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&upstream).set("proxy.idle_timeout", "'300ms'").start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, END, &get("/"));
    assert_eq!(wire.answer(1).text(), "blue");
    let ping = wire.frame(|frame| frame.kind == PING).unwrap();
    wire.send(PING, END, 0, &ping.payload);
    assert_eq!(wire.end(), Some(0));
    eventually("it is not counted any more", || cutover.status()["connections"] == 0);
}

#[test]
fn a_connection_that_has_served_its_requests_takes_no_more() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue).set("proxy.max_requests_per_connection", 3).start();
    let mut wire = Wire::greeted(cutover.port());
    for stream in [1, 3, 5] {
        wire.headers(stream, END, &get("/"));
        assert_eq!(wire.answer(stream).text(), "blue");
    }
    let last = wire.frame(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(last.code(), 0, "there is nothing wrong");
    let ping = wire.frame(|frame| frame.kind == PING).unwrap();
    wire.send(PING, END, 0, &ping.payload);
    assert_eq!(wire.end(), Some(0));
}
