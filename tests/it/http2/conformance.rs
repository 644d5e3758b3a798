//! RFC 9113, rule by rule: what a client does wrong, and which error it gets. Each case has a connection of its own to
//! one proxy, over TLS and without; after an error of a stream the connection serves on. Here are the greeting and the
//! states of streams; `frames`, `compression`, `windows` and `messages` go on with it.

use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;

use super::wire::*;
use crate::harness::{Cutover, Setup, Upstream, eventually};

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

/// A proxy that speaks TLS too, and an application behind it: `/hang` is answered never, anything else at once.
pub struct Stage {
    pub upstream: Upstream,
    pub cutover: Cutover,
    tls_port: u16,
    trusted: Arc<ClientConfig>,
}

impl Stage {
    pub fn start() -> Stage {
        let upstream = Upstream::start(|conn| {
            loop {
                let request = conn.request()?;
                if request.head.starts_with("GET /hang") {
                    conn.rest()?;
                    return Ok(());
                }
                conn.body(&request)?;
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
            }
        });
        let (setup, authority, tls_port) = Setup::in_front_of(&upstream).with_tls();
        Stage { cutover: setup.start(), upstream, tls_port, trusted: authority.trusted() }
    }

    /// A connection of each kind, on which nothing was said.
    pub fn connections(&self) -> [(&'static str, Wire); 2] {
        [("plain", Wire::connect(self.cutover.port())), ("TLS", Wire::connect_over_tls(self.tls_port, &self.trusted))]
    }

    /// Runs each case on a connection of each kind.
    pub fn check<'c, A: Fn(&mut Wire)>(&self, cases: impl IntoIterator<Item = (&'c str, &'c str, A, Leads)>) {
        let mut wrong = Vec::new();
        for (section, case, act, leads) in cases {
            let each = self.connections().into_iter().map(|(kind, wire)| (kind, found(wire.greet(&[]), &act, leads)));
            let elsewhere: Vec<_> = each.filter(|(_, found)| *found != leads).collect();
            println!("{section}, {case}: {}", if elsewhere.is_empty() { "as it must" } else { "WRONG" });
            wrong.extend(
                elsewhere
                    .into_iter()
                    .map(|(kind, found)| format!("{section}, {case}: {found:?} over {kind}, not {leads:?}")),
            );
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// However a connection has ended, all of it is gone.
    pub fn ends_with_nothing_left(&self) {
        eventually("no connection is left", || self.cutover.status()["connections"] == 0);
        assert_eq!(self.cutover.app()["colors"]["blue"]["in_flight"], 0);
    }
}

fn found(mut wire: Wire, act: impl Fn(&mut Wire), leads: Leads) -> Leads {
    act(&mut wire);
    match leads {
        ToEnd(_) => wire.end().map_or(Nowhere, ToEnd),
        ToReset(_) | Nowhere => {
            if !wire.is_alive() {
                return ToEnd(NO_ERROR);
            }
            let reset = wire.so_far(1).and_then(|message| message.reset);
            wire.headers(0x1001, END, &get("/"));
            assert_eq!(wire.answer(0x1001).status(), 200, "the connection serves on");
            reset.map_or(Nowhere, ToReset)
        }
    }
}

/// Runs each case, says it, and names all that lead elsewhere.
pub fn check(cases: &[Case]) {
    let stage = Stage::start();
    let cases = cases.iter().map(|(section, case, act, leads)| (*section, *case, act, *leads));
    stage.check(cases);
    stage.ends_with_nothing_left();
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

/// Stream 1 was a mistake, of which more may be on its way.
fn reset_by_us(wire: &mut Wire) {
    wire.headers(1, 0, &[&get("/")[..], &[("X-Test", "ok")]].concat());
    wire.peek(|frame| frame.kind == RST_STREAM).expect("a reset");
}

#[test]
fn the_greeting_must_be_one() {
    let stage = Stage::start();
    let settings = |flags| frame(SETTINGS, flags, 0, &[]);
    for (case, said) in [
        ("3.4: a frame before SETTINGS", [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()),
        ("3.4: an acknowledgement of nothing", [PREFACE, &settings(END)].concat()),
        ("3.4: another preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()),
    ] {
        for (kind, mut wire) in stage.connections() {
            assert_eq!(wire.raw(&said).end(), Some(PROTOCOL_ERROR), "{case} over {kind}");
        }
    }
    // 3.4: without TLS this is a request of HTTP/1 that is none, and closed as such.
    let [(_, mut plain), (_, mut secure)] = stage.connections();
    assert_eq!(secure.raw(b"INVALID CONNECTION PREFACE\r\n\r\n").end(), Some(PROTOCOL_ERROR));
    let refusal = plain.raw(b"INVALID CONNECTION PREFACE\r\n\r\n").rest();
    assert!(refusal.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&refusal));
    for (kind, mut wire) in stage.connections() {
        let first = wire.raw(PREFACE).settings(&[]).next().expect("a greeting");
        assert_eq!((first.kind, first.flags), (SETTINGS, 0), "3.4: SETTINGS come first over {kind}");
    }
    let wire = Wire::greeted(stage.cutover.port());
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
            "5.1",
            "CONTINUATION on a closed stream",
            |w| {
                closed(w);
                w.send(CONTINUATION, WHOLE, 1, &block(&[("x", "y")]));
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "5.1",
            "PRIORITY of a closed stream",
            |w| {
                closed(w);
                w.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]);
            },
            Nowhere,
        ),
        (
            "5.1",
            "DATA after RST_STREAM of a stream that we have reset",
            |w| {
                reset_by_us(w);
                w.reset(1, 8).send(DATA, END, 1, b"x");
            },
            ToReset(STREAM_CLOSED),
        ),
        (
            "5.1",
            "HEADERS after RST_STREAM of a stream that we have reset",
            |w| {
                reset_by_us(w);
                w.reset(1, 8).headers(1, END, &get("/"));
            },
            ToEnd(STREAM_CLOSED),
        ),
        (
            "5.1",
            "all at once",
            |w| {
                let head = frame(HEADERS, WHOLE, 1, &block(&get("/")));
                w.raw(&[&head[..], &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), &head].concat());
            },
            ToEnd(STREAM_CLOSED),
        ),
        (
            "5.1",
            "HEADERS after the end of a stream that we have reset",
            |w| {
                reset_by_us(w);
                w.send(DATA, END, 1, b"x").headers(1, END, &get("/"));
            },
            ToEnd(STREAM_CLOSED),
        ),
        (
            "5.1",
            "what was on its way to a stream that we have reset",
            |w| {
                reset_by_us(w);
                w.send(DATA, 0, 1, b"x").window_update(1, 1).headers(1, END, &[("x", "y")]);
            },
            ToReset(PROTOCOL_ERROR),
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
            "7540 5.3.1",
            "HEADERS that depend on themselves",
            |w| {
                w.send(HEADERS, WHOLE | END | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 1], &block(&get("/"))[..]].concat());
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "7540 5.3.1",
            "PRIORITY that depends on itself",
            |w| {
                half_closed(w);
                w.send(PRIORITY, 0, 1, &[0, 0, 0, 1, 1]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "7540 5.3.1",
            "PRIORITY of an idle stream that depends on itself",
            |w| {
                w.send(PRIORITY, 0, 1, &[0, 0, 0, 1, 255]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "7",
            "RST_STREAM with an unknown code",
            |w| {
                open(w);
                w.reset(1, 0xff);
            },
            Nowhere,
        ),
        (
            "7",
            "GOAWAY with an unknown code",
            |w| {
                w.send(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]);
            },
            Nowhere,
        ),
    ]);
}
