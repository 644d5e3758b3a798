//! Clients that make work for the work's sake: each is ended, costs nothing after it, and is counted.

use std::fs;
use std::time::Duration;

use super::wire::*;
use crate::harness::{Cutover, Setup, Upstream, eventually};

const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames that a flood sends at most; all are ended long before.
const ENOUGH: usize = 100_000;

fn stage(set: impl Fn(Setup) -> Setup) -> (Upstream, Cutover) {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let cutover = set(Setup::in_front_of(&upstream)).start();
    (upstream, cutover)
}

fn ended(cutover: &Cutover, reason: &str) -> u64 {
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let line = format!("cutover_http2_connections_ended_total{{reason=\"{reason}\"}} ");
    metrics.text().lines().find_map(|text| text.strip_prefix(&line)).expect("the metric").parse().unwrap()
}

/// Clock ticks of processor time so far.
fn ticks(cutover: &Cutover) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", cutover.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Sends `piece(n)` for one n after the other while the connection takes it, and reads what it says.
fn flood(mut wire: Wire, mut piece: impl FnMut(usize) -> Vec<u8>) -> (Option<u32>, usize) {
    let mut reader = Wire::of(wire.stream().try_clone().unwrap());
    let reading = std::thread::spawn(move || reader.end());
    let mut sent = 0;
    while sent < ENOUGH && !reading.is_finished() && wire.try_raw(&piece(sent)).is_ok() {
        sent += 1;
    }
    (reading.join().unwrap(), sent)
}

#[test]
fn every_flood_is_ended_and_costs_nothing_after_it() {
    let (_upstream, cutover) = stage(|setup| setup);
    let before = cutover.rss_kib();
    let settings = |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let headers = |n: usize| frame(HEADERS, WHOLE | END, stream(n), &block(&get("/")));
    for (case, reason, piece) in [
        ("PING", "frame_flood", &(|_| frame(PING, 0, 0, &[0; 8])) as &dyn Fn(usize) -> Vec<u8>),
        ("SETTINGS", "frame_flood", &settings),
        ("acknowledgements", "frame_flood", &|_| frame(SETTINGS, END, 0, &[])),
        ("PRIORITY", "frame_flood", &|_| frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", "frame_flood", &|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown frames", "frame_flood", &|_| frame(0x77, 0, 0, b"?")),
        ("empty DATA", "frame_flood", &|n| match n {
            0 => frame(HEADERS, WHOLE, 1, &block(&get("/"))),
            _ => frame(DATA, 0, 1, &[]),
        }),
        ("rapid reset", "reset_flood", &|n| [headers(n), frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat()),
        ("made to reset", "reset_flood", &|n| [headers(n), frame(WINDOW_UPDATE, 0, stream(n), &[0; 4])].concat()),
        ("malformed requests", "reset_flood", &|n| frame(HEADERS, WHOLE | END, stream(n), &block(&[("X", "y")]))),
        ("CONTINUATION without end", "header_flood", &|n| match n {
            0 => frame(HEADERS, END, 1, &block(&get("/"))),
            _ => frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(1000))])),
        }),
        ("empty CONTINUATION", "frame_flood", &|n| match n {
            0 => frame(HEADERS, END, 1, &block(&get("/"))),
            _ => frame(CONTINUATION, 0, 1, &[]),
        }),
        ("an HPACK bomb", "header_flood", &|n| {
            let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
            frame(HEADERS, WHOLE | END, stream(n), &[&block(&get("/"))[..], &entry, &[0xbe; 8000]].concat())
        }),
    ] {
        let counted = ended(&cutover, reason);
        let (code, sent) = flood(Wire::greeted(cutover.port()), piece);
        assert!(sent < ENOUGH, "{case}: it goes on");
        // The reason may be lost to the reset that unread bytes of the flood lead to.
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{case}: {code:?}");
        assert_eq!(ended(&cutover, reason), counted + 1, "{case}");
    }
    let ticks_then = ticks(&cutover);
    std::thread::sleep(Duration::from_millis(500));
    assert!(ticks(&cutover) <= ticks_then + 5, "it is quiet: {} ticks", ticks(&cutover) - ticks_then);
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
    let large =
        Upstream::answering([&b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"[..], &[b'x'; 1_000_000]].concat());
    let cutover = Setup::in_front_of(&large).set("proxy.idle_timeout", "'300ms'").start();
    // All windows are wide open, and nothing is read: the socket is what is full.
    let mut wire = Wire::with_settings(cutover.port(), &[(4, u32::MAX >> 1)]);
    wire.window_update(0, (1 << 31) - 65_536);
    for stream in 0..30 {
        wire.headers(stream * 2 + 1, END, &get("/"));
    }
    eventually("it is ended", || ended(&cutover, "stalled") == 1);
    // The windows stay shut: its streams are reset, then the connection is idle.
    let mut wire = Wire::with_settings(cutover.port(), &[(4, 0)]);
    wire.headers(1, END, &get("/"));
    assert_eq!(wire.answer(1).reset, Some(2));
    assert_eq!(wire.end(), Some(0));
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
    let (_, sent) = flood(wire, |_| {
        std::thread::sleep(Duration::from_millis(20));
        frame(CONTINUATION, 0, 1, &[])
    });
    assert!(sent < 100, "{sent}");
}
