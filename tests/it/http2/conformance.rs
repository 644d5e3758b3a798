//! RFC 9113, rule by rule: what a client does wrong, and which error it gets. Each case has a connection of its own to
//! one proxy; after an error of a stream the connection serves on. What is about frames and compression is `frames`.

use super::wire::*;
use crate::harness::{Cutover, Setup, Upstream};

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const COMPRESSION_ERROR: u32 = 9;

/// What a case must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// GOAWAY with this code, and the end of the connection.
    ToEnd(u32),
    /// RST_STREAM of stream 1 with this code.
    ToReset(u32),
    /// Nothing: it is allowed, or to be ignored.
    Nowhere,
}

pub use Leads::{Nowhere, ToEnd, ToReset};

pub type Case = (&'static str, &'static str, fn(&mut Wire), Leads);

/// `/hang` is answered never, anything else at once.
fn stage() -> (Upstream, Cutover) {
    let upstream = Upstream::start(|conn| {
        loop {
            let request = conn.request()?;
            if request.head.starts_with("GET /hang") {
                conn.rest()?;
                return Ok(());
            }
            conn.body(&request)?;
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let cutover = Setup::in_front_of(&upstream).start();
    (upstream, cutover)
}

/// Runs each case, and names all that lead elsewhere.
pub fn check(cases: &[Case]) {
    let (_upstream, cutover) = stage();
    let mut wrong = Vec::new();
    for (section, case, act, leads) in cases {
        let mut wire = Wire::greeted(cutover.port());
        act(&mut wire);
        let found = match leads {
            ToEnd(_) => wire.end().map_or(Nowhere, ToEnd),
            ToReset(_) | Nowhere => {
                if !wire.is_alive() {
                    ToEnd(NO_ERROR)
                } else {
                    let reset = wire.so_far(1).and_then(|message| message.reset);
                    wire.headers(0x1001, END, &get("/"));
                    assert_eq!(wire.answer(0x1001).status(), 200, "{section} {case}: the connection serves on");
                    reset.map_or(Nowhere, ToReset)
                }
            }
        };
        if found != *leads {
            wrong.push(format!("{section} {case}: {found:?}, not {leads:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Stream 1 is open on our side.
pub fn open(wire: &mut Wire) {
    wire.headers(1, 0, &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "app")]);
}

/// Stream 1 is half closed, and not answered.
pub fn half_closed(wire: &mut Wire) {
    wire.headers(1, END, &get("/hang"));
}

/// Stream 1 is over.
fn closed(wire: &mut Wire) {
    wire.headers(1, END, &get("/"));
    assert_eq!(wire.answer(1).status(), 200);
}

#[test]
fn the_greeting_must_be_one() {
    let (_upstream, cutover) = stage();
    let mut settings_first = Wire::connect(cutover.port());
    settings_first.raw(PREFACE).send(PING, 0, 0, &[0; 8]);
    assert_eq!(settings_first.end(), Some(PROTOCOL_ERROR), "3.4: a frame before SETTINGS");
    let mut broken = Wire::connect(cutover.port());
    broken.raw(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert_eq!(broken.end(), Some(PROTOCOL_ERROR), "3.4: another preface");
    let mut acknowledged = Wire::connect(cutover.port());
    acknowledged.raw(PREFACE).send(SETTINGS, END, 0, &[]);
    assert_eq!(acknowledged.end(), Some(PROTOCOL_ERROR), "3.4: an acknowledgement of nothing");
    let wire = Wire::greeted(cutover.port());
    assert_eq!((wire.setting(3), wire.setting(6), wire.setting(8)), (Some(128), Some(65_536), Some(1)));
}

#[test]
fn streams_have_states() {
    check(&[
        (
            "5.1",
            "DATA on an idle stream",
            |w| {
                w.send(DATA, END, 1, b"x");
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "5.1",
            "WINDOW_UPDATE of an idle stream",
            |w| {
                w.window_update(1, 1);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "5.1",
            "DATA after END_STREAM",
            |w| {
                half_closed(w);
                w.send(DATA, END, 1, b"x");
            },
            ToReset(STREAM_CLOSED),
        ),
        (
            "5.1",
            "HEADERS after END_STREAM",
            |w| {
                half_closed(w);
                w.headers(1, END, &get("/"));
            },
            ToReset(STREAM_CLOSED),
        ),
        (
            "5.1",
            "WINDOW_UPDATE after END_STREAM",
            |w| {
                half_closed(w);
                w.window_update(1, 1);
            },
            Nowhere,
        ),
        (
            "5.1",
            "PRIORITY after END_STREAM",
            |w| {
                half_closed(w);
                w.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
            },
            Nowhere,
        ),
        (
            "5.1",
            "RST_STREAM after END_STREAM",
            |w| {
                half_closed(w);
                w.reset(1, 8);
            },
            Nowhere,
        ),
        (
            "5.1",
            "DATA on a closed stream",
            |w| {
                closed(w);
                w.send(DATA, END, 1, b"x");
            },
            ToReset(STREAM_CLOSED),
        ),
        (
            "5.1",
            "HEADERS on a closed stream",
            |w| {
                closed(w);
                w.headers(1, END, &get("/"));
            },
            ToEnd(STREAM_CLOSED),
        ),
        (
            "5.1",
            "WINDOW_UPDATE of a closed stream",
            |w| {
                closed(w);
                w.window_update(1, 1);
            },
            Nowhere,
        ),
        (
            "5.1",
            "RST_STREAM of a closed stream",
            |w| {
                closed(w);
                w.reset(1, 8);
            },
            Nowhere,
        ),
        (
            "5.1",
            "DATA after RST_STREAM",
            |w| {
                open(w);
                w.reset(1, 8).send(DATA, END, 1, b"x");
            },
            ToReset(STREAM_CLOSED),
        ),
        (
            "5.1",
            "HEADERS after RST_STREAM",
            |w| {
                open(w);
                w.reset(1, 8).headers(1, END, &get("/"));
            },
            ToEnd(STREAM_CLOSED),
        ),
        (
            "5.1",
            "CONTINUATION after RST_STREAM",
            |w| {
                open(w);
                w.reset(1, 8).send(CONTINUATION, WHOLE, 1, &[]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "5.1.1",
            "an even number",
            |w| {
                w.headers(2, END, &get("/"));
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "5.1.1",
            "a number below the last",
            |w| {
                w.headers(5, END, &get("/hang")).headers(3, END, &get("/"));
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "5.1.1",
            "a number far below the last",
            |w| {
                w.headers(5001, END, &get("/hang")).headers(3, END, &get("/"));
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "5.3.1",
            "HEADERS that depend on themselves",
            |w| {
                w.send(HEADERS, WHOLE | END | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 1], &block(&get("/"))[..]].concat());
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "5.3.1",
            "PRIORITY that depends on itself",
            |w| {
                half_closed(w);
                w.send(PRIORITY, 0, 1, &[0, 0, 0, 1, 1]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1",
            "a second head that does not end the stream",
            |w| {
                open(w);
                w.headers(1, 0, &[("x", "y")]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1",
            "a pseudo-header field in trailers",
            |w| {
                open(w);
                w.headers(1, END, &[(":path", "/")]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "less DATA than announced",
            |w| {
                w.headers(1, 0, &[&get("/")[..], &[("content-length", "5")]].concat()).send(DATA, END, 1, b"abc");
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "more DATA than announced",
            |w| {
                w.headers(1, 0, &[&get("/hang")[..], &[("content-length", "2")]].concat()).send(DATA, 0, 1, b"abc");
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "trailers before all that was announced",
            |w| {
                w.headers(1, 0, &[&get("/")[..], &[("content-length", "5")]].concat()).headers(1, END, &[("x", "y")]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "a block in three parts",
            |w| {
                let block = block(&get("/"));
                w.send(HEADERS, END, 1, &block[..5]).send(CONTINUATION, 0, 1, &block[5..9]).send(
                    CONTINUATION,
                    WHOLE,
                    1,
                    &block[9..],
                );
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
    ]);
}

#[test]
fn windows_are_kept_to() {
    check(&[
        (
            "6.9",
            "a window larger by nothing",
            |w| {
                w.window_update(0, 0);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.9",
            "a stream's window larger by nothing",
            |w| {
                half_closed(w);
                w.window_update(1, 0);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "6.9",
            "WINDOW_UPDATE of three bytes",
            |w| {
                w.send(WINDOW_UPDATE, 0, 0, &[0; 3]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "6.9.1",
            "a window past 2^31-1",
            |w| {
                w.window_update(0, u32::MAX >> 1).window_update(0, u32::MAX >> 1);
            },
            ToEnd(FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.1",
            "a stream's window past 2^31-1",
            |w| {
                half_closed(w);
                w.window_update(1, u32::MAX >> 1);
            },
            ToReset(FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.2",
            "a stream's window past 2^31-1 by a setting",
            |w| {
                half_closed(w);
                w.window_update(1, 0x7fff_0000).settings(&[(4, 100_000)]);
            },
            ToEnd(FLOW_CONTROL_ERROR),
        ),
    ]);
    let (_upstream, cutover) = stage();
    let data = |wire: &mut Wire| wire.frame(|frame| frame.kind == DATA && !frame.payload.is_empty()).unwrap().payload;
    let mut narrow = Wire::with_settings(cutover.port(), &[(4, 1)]);
    narrow.headers(1, END, &get("/"));
    assert_eq!(data(&mut narrow), b"o", "6.9.1: as much as fits");
    assert!(narrow.is_alive() && narrow.so_far(1).is_some_and(|so_far| so_far.body == b"o"), "and no more");
    narrow.settings(&[(4, 2)]);
    assert_eq!(data(&mut narrow), b"k", "6.9.2: a setting opens the window of open streams");
    let mut negative = Wire::with_settings(cutover.port(), &[(4, 1)]);
    negative.headers(1, END, &get("/"));
    assert_eq!(data(&mut negative), b"o");
    negative.settings(&[(4, 0)]).window_update(1, 1);
    assert!(negative.is_alive() && negative.so_far(1).is_some_and(|so_far| so_far.body == b"o"), "6.9.2: below zero");
    negative.window_update(1, 1);
    assert_eq!(data(&mut negative), b"k");
}

#[test]
fn a_stream_too_many_is_refused_and_the_others_go_on() {
    let upstream = Upstream::start(|conn| {
        conn.request()?;
        conn.rest().map(drop)
    });
    let cutover = Setup::in_front_of(&upstream).set("proxy.http2.max_streams", 3).start();
    let mut wire = Wire::greeted(cutover.port());
    assert_eq!(wire.setting(3), Some(3));
    for stream in [1, 3, 5, 7] {
        wire.headers(stream, END, &get("/"));
    }
    assert_eq!(wire.answer(7).reset, Some(REFUSED_STREAM), "5.1.2");
    assert!(wire.is_alive() && wire.so_far(5).is_none());
    wire.reset(1, 8);
    crate::harness::eventually("a place is free again", || {
        // The place is free when the exchange has noticed.
        cutover.app()["colors"]["blue"]["in_flight"] == 2
    });
    wire.headers(9, END, &get("/"));
    assert!(wire.is_alive() && wire.so_far(9).is_none(), "it is taken");
}
