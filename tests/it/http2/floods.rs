//! Clients that make work for the work's sake: each is ended, costs nothing after it, and is counted.

use std::time::Duration;

use super::wire::*;
use crate::harness::{Cutover, Setup, Upstream, eventually};

const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames that a flood sends at most; all are ended long before.
const ENOUGH: usize = 100_000;

/// `/hang` is answered never, `/large` with more than any window takes, anything else with two bytes.
fn stage(set: impl Fn(Setup) -> Setup) -> (Upstream, Cutover) {
    let large = [&b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"[..], &[b'x'; 1_000_000]].concat();
    let upstream = Upstream::start(move |conn| {
        loop {
            let request = conn.request()?;
            match request.target() {
                "/hang" => return conn.rest().map(drop),
                "/large" => conn.send(&large)?,
                _ => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
            }
        }
    });
    let cutover = set(Setup::in_front_of(&upstream)).start();
    (upstream, cutover)
}

fn ended(cutover: &Cutover, reason: &str) -> u64 {
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let line = format!("cutover_http2_connections_ended_total{{reason=\"{reason}\"}} ");
    metrics.text().lines().find_map(|text| text.strip_prefix(&line)).expect("the metric").parse().unwrap()
}

/// Nothing is left of who was ended, and nothing works on.
fn is_quiet(cutover: &Cutover) {
    eventually("all connections are over", || cutover.status()["connections"] == 0);
    cutover.until_app("nothing is in flight", |app| app["colors"]["blue"]["in_flight"] == 0);
    cutover.must_rest();
}

/// Sends `piece(n)` for one n after the other while the connection takes it, and reads what it says: the code of
/// GOAWAY, and how many were sent. The client goes on holding its end.
fn flood(wire: &mut Wire, mut piece: impl FnMut(usize) -> Vec<u8>) -> (Option<u32>, usize) {
    let mut reader = Wire::of(wire.stream().try_clone().unwrap());
    let reading = std::thread::spawn(move || reader.end());
    let mut sent = 0;
    while sent < ENOUGH && !reading.is_finished() && wire.try_raw(&piece(sent)).is_ok() {
        sent += 1;
    }
    (reading.join().unwrap(), sent)
}

fn post(path: &str) -> Vec<(&str, &str)> {
    [&[(":method", "POST")], &get(path)[1..]].concat()
}

/// A name, the reason that is counted, and what is sent.
type Flood = (&'static str, &'static str, Box<dyn Fn(usize) -> Vec<u8>>);

/// A first piece, then another one again and again.
fn after(first: Vec<u8>, then: Vec<u8>) -> Box<dyn Fn(usize) -> Vec<u8>> {
    Box::new(move |n| if n == 0 { first.clone() } else { then.clone() })
}

fn again(piece: Vec<u8>) -> Box<dyn Fn(usize) -> Vec<u8>> {
    after(piece.clone(), piece)
}

/// A request, and behind it a frame of the same stream, on one stream after the other.
fn each_with(
    fields: Vec<(&'static str, &'static str)>,
    end: u8,
    kind: u8,
    payload: Vec<u8>,
) -> Box<dyn Fn(usize) -> Vec<u8>> {
    Box::new(move |n| {
        let head = frame(HEADERS, WHOLE | end, stream(n), &block(&fields));
        // A stream that depends on itself has another number each time.
        let own = if kind == PRIORITY && payload.len() == 5 { stream(n).to_be_bytes().to_vec() } else { Vec::new() };
        [head, frame(kind, 0, stream(n), &[&own, &payload[own.len()..]].concat())].concat()
    })
}

fn floods() -> Vec<Flood> {
    let request = |path: &str| frame(HEADERS, WHOLE | END, 1, &block(&get(path)));
    let upload = frame(HEADERS, WHOLE, 1, &block(&post("/hang")));
    let mistake = frame(HEADERS, WHOLE, 1, &block(&[("X", "y")]));
    let one = 1u32.to_be_bytes();
    let many_settings = [[0, 4, 0, 0, 255, 255], [0, 4, 0, 0, 0, 0]].concat().repeat(1000);
    let no_window = [frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), request("/large")].concat();
    let cancel = vec![0, 0, 0, 8];
    vec![
        ("PING", "frame_flood", again(frame(PING, 0, 0, &[0; 8]))),
        ("answers to no PING", "frame_flood", again(frame(PING, END, 0, &[0; 8]))),
        ("SETTINGS", "frame_flood", again(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))),
        ("SETTINGS of many", "frame_flood", again(frame(SETTINGS, 0, 0, &many_settings))),
        ("acknowledgements", "frame_flood", again(frame(SETTINGS, END, 0, &[]))),
        ("PRIORITY", "frame_flood", again(frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 1]))),
        ("GOAWAY", "frame_flood", again(frame(GOAWAY, 0, 0, &[0; 8]))),
        ("unknown frames", "frame_flood", again(frame(0x77, 0, 0, b"?"))),
        ("WINDOW_UPDATE", "frame_flood", again(frame(WINDOW_UPDATE, 0, 0, &one))),
        ("WINDOW_UPDATE of what is over", "frame_flood", after(request("/"), frame(WINDOW_UPDATE, 0, 1, &one))),
        ("a byte of window at a time", "frame_flood", after(no_window, frame(WINDOW_UPDATE, 0, 1, &one))),
        ("RST_STREAM of what is over", "frame_flood", after(request("/"), frame(RST_STREAM, 0, 1, &cancel))),
        ("empty DATA", "frame_flood", after(upload.clone(), frame(DATA, 0, 1, &[]))),
        ("DATA of padding", "frame_flood", after(upload, frame(DATA, PADDED, 1, &[[3], [0], [0], [0]].concat()))),
        ("DATA of what was reset", "frame_flood", after(mistake, frame(DATA, 0, 1, b"x"))),
        ("rapid reset", "reset_flood", each_with(get("/"), END, RST_STREAM, cancel)),
        ("made to reset by no window", "reset_flood", each_with(get("/hang"), END, WINDOW_UPDATE, vec![0; 4])),
        (
            "made to reset by a vast window",
            "reset_flood",
            each_with(get("/hang"), END, WINDOW_UPDATE, vec![127, 255, 255, 255]),
        ),
        ("made to reset by DATA", "reset_flood", each_with(get("/hang"), END, DATA, b"x".to_vec())),
        (
            "made to reset by HEADERS",
            "reset_flood",
            Box::new(|n| {
                let head = frame(HEADERS, WHOLE | END, stream(n), &block(&get("/hang")));
                [&head[..], &head].concat()
            }),
        ),
        ("made to reset by a priority", "reset_flood", each_with(get("/hang"), END, PRIORITY, vec![0; 5])),
        ("made to reset by half a priority", "reset_flood", each_with(get("/hang"), END, PRIORITY, vec![0; 4])),
        (
            "made to reset by more than announced",
            "reset_flood",
            each_with([&post("/hang")[..], &[("content-length", "1")]].concat(), 0, DATA, b"xx".to_vec()),
        ),
        ("streams without end", "reset_flood", Box::new(|n| frame(HEADERS, WHOLE, stream(n), &block(&post("/hang"))))),
        (
            "malformed requests",
            "reset_flood",
            Box::new(|n| frame(HEADERS, WHOLE | END, stream(n), &block(&[("X", "y")]))),
        ),
        (
            "names of nothing",
            "reset_flood",
            Box::new(|n| {
                frame(HEADERS, WHOLE | END, stream(n), &[block(&get("/")), block(&[("", "")]).repeat(1000)].concat())
            }),
        ),
        ("table sizes", "reset_flood", Box::new(|n| frame(HEADERS, WHOLE | END, stream(n), &[0x20; 16_000]))),
        (
            "CONTINUATION without end",
            "header_flood",
            after(
                frame(HEADERS, END, 1, &block(&get("/"))),
                frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(1000))])),
            ),
        ),
        (
            "empty CONTINUATION",
            "frame_flood",
            after(frame(HEADERS, END, 1, &block(&get("/"))), frame(CONTINUATION, 0, 1, &[])),
        ),
        (
            "heads that are too large",
            "frame_flood",
            Box::new(|n| {
                let piece = block(&[("x", &"y".repeat(16_000))]);
                let head = frame(HEADERS, END, stream(n), &block(&get("/")));
                let last = frame(CONTINUATION, WHOLE, stream(n), &piece);
                [head, frame(CONTINUATION, 0, stream(n), &piece).repeat(4), last].concat()
            }),
        ),
        (
            "an HPACK bomb",
            "header_flood",
            Box::new(|n| {
                let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
                frame(HEADERS, WHOLE | END, stream(n), &[&block(&get("/"))[..], &entry, &[0xbe; 8000]].concat())
            }),
        ),
    ]
}

#[test]
fn every_flood_is_ended_and_costs_nothing_after_it() {
    let (_upstream, cutover) = stage(|setup| setup);
    let before = cutover.rss_kib();
    let mut held = Vec::new();
    for (case, reason, piece) in floods() {
        let counted = ended(&cutover, reason);
        let mut wire = Wire::greeted(cutover.port());
        let (code, sent) = flood(&mut wire, piece);
        assert!(sent < ENOUGH, "{case}: it goes on");
        // The reason may be lost to the reset that unread bytes of the flood lead to.
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{case}: {code:?}");
        assert_eq!(ended(&cutover, reason), counted + 1, "{case}");
        held.push(wire);
    }
    is_quiet(&cutover);
    assert!(cutover.rss_kib() < before + 8192, "{} KiB, {before} before", cutover.rss_kib());
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, END, &get("/"));
    assert_eq!(wire.answer(1).status(), 200);
}

fn stream(n: usize) -> u32 {
    n as u32 * 2 + 1
}

#[test]
fn rapid_reset_hardly_reaches_the_application() {
    let (upstream, cutover) = stage(|setup| setup);
    let mut wire = Wire::greeted(cutover.port());
    let piece = |n| {
        let headers = frame(HEADERS, WHOLE | END, stream(n), &block(&get("/")));
        [headers, frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat()
    };
    wire.raw(&(0..150).flat_map(piece).collect::<Vec<u8>>());
    assert!(wire.is_alive(), "so many are none");
    assert!(upstream.text().matches("GET /").count() < 50, "{}", upstream.text().matches("GET /").count());
    wire.raw(&(150..400).flat_map(piece).collect::<Vec<u8>>());
    assert_eq!(wire.end(), Some(ENHANCE_YOUR_CALM));
    assert_eq!(ended(&cutover, "reset_flood"), 1);
    cutover.until_app("nothing of it is in flight", |app| app["colors"]["blue"]["in_flight"] == 0);
}

#[test]
fn who_does_not_read_is_ended() {
    let (_upstream, cutover) = stage(|setup| setup.set("proxy.idle_timeout", "'300ms'"));
    // All windows are wide open, and nothing is read: the socket is what is full.
    let mut wire = Wire::with_settings(cutover.port(), &[(4, u32::MAX >> 1)]);
    wire.window_update(0, (1 << 31) - 65_536);
    for stream in 0..30 {
        wire.headers(stream * 2 + 1, END, &get("/large"));
    }
    eventually("it is ended", || ended(&cutover, "stalled") == 1);
    is_quiet(&cutover);
    // The windows stay shut: its streams are reset, and with the last one the connection is over.
    let mut wire = Wire::with_settings(cutover.port(), &[(4, 0)]);
    for nth in 0..100 {
        wire.headers(stream(nth), END, &get(["/large", "/", "/small"][nth % 3]));
    }
    assert_eq!(wire.answer(1).reset, Some(ENHANCE_YOUR_CALM));
    assert_eq!(wire.end(), Some(ENHANCE_YOUR_CALM));
    assert_eq!(ended(&cutover, "stalled"), 2);
    is_quiet(&cutover);
}

#[test]
fn who_does_not_finish_what_it_opens_is_ended() {
    let (_upstream, cutover) =
        stage(|setup| setup.set("proxy.body_timeout", "'300ms'").set("proxy.idle_timeout", "'300ms'"));
    let mut wire = Wire::greeted(cutover.port());
    for nth in 0..128 {
        wire.headers(stream(nth), 0, &post("/hang"));
    }
    for nth in 0..128 {
        assert_eq!(wire.answer(stream(nth)).status(), 408);
    }
    assert_eq!(wire.end(), Some(0));
    is_quiet(&cutover);
}

#[test]
fn who_does_not_go_on_is_ended() {
    let (_upstream, cutover) = stage(|setup| setup.set("proxy.header_timeout", "'200ms'"));
    for (case, act) in [
        (
            "half a preface",
            &(|wire: &mut Wire| {
                wire.raw(b"PRI * HTTP/2.0\r\n\r\nSM");
            }) as &dyn Fn(&mut Wire),
        ),
        ("no settings", &|wire| {
            wire.raw(PREFACE);
        }),
        ("half a frame", &|wire| {
            wire.raw(PREFACE).settings(&[]).raw(&[0, 0, 8, PING, 0]);
        }),
        ("half a header block", &|wire| {
            wire.raw(PREFACE).settings(&[]).send(HEADERS, 0, 1, &block(&get("/")));
        }),
    ] {
        let mut wire = Wire::connect(cutover.port());
        let counted = ended(&cutover, "stalled");
        act(&mut wire);
        wire.end();
        assert_eq!(ended(&cutover, "stalled"), counted + 1, "{case}");
    }
    // A drop at a time does not help: the limit is for the whole of it.
    let mut wire = Wire::greeted(cutover.port());
    wire.send(HEADERS, 0, 1, &block(&get("/")));
    let (_, sent) = flood(&mut wire, |_| {
        std::thread::sleep(Duration::from_millis(20));
        frame(CONTINUATION, 0, 1, &[])
    });
    assert!(sent < 100, "{sent}");
}

#[test]
fn who_goes_on_is_not_ended() {
    let (_upstream, cutover) = stage(|setup| setup.set("proxy.header_timeout", "'3s'"));
    let mut wire = Wire::greeted(cutover.port());
    // Each time the proxy looks, half a head is there, and never the same one.
    let heads: Vec<u8> = (0..80).flat_map(|nth| frame(HEADERS, WHOLE | END, stream(nth), &block(&get("/")))).collect();
    let (first, rest) = heads.split_at(heads.len() / 160);
    wire.raw(first);
    for piece in rest.chunks(heads.len() / 80) {
        std::thread::sleep(Duration::from_millis(50)); // four seconds in all
        wire.raw(piece);
    }
    for nth in 0..80 {
        assert_eq!(wire.answer(stream(nth)).status(), 200);
    }
    assert_eq!(ended(&cutover, "stalled"), 0);
}
