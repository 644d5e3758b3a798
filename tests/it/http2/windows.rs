//! Flow control, rule by rule, as `conformance` does it, and how many streams there may be.

use super::conformance::*;
use super::wire::*;
use crate::harness::{Setup, Upstream};

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
            "6.9",
            "a closed stream's window larger by nothing",
            |w| {
                w.headers(1, END, &get("/"));
                assert_eq!(w.answer(1).status(), 200);
                w.window_update(1, 0);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "6.9",
            "the reserved bit of an increment",
            |w| {
                w.window_update(0, 0x8000_0001);
            },
            Nowhere,
        ),
        (
            "6.5.3",
            "settings count in their order",
            |w| {
                w.settings(&[(4, 100), (4, 1)]).headers(1, END, &get("/"));
                let first = w.frame(|frame| frame.kind == DATA).expect("DATA");
                assert_eq!((first.flags, &first.payload[..]), (0, &b"h"[..]));
                w.settings(&[(4, 65_535)]);
            },
            Nowhere,
        ),
        (
            "5.1",
            "WINDOW_UPDATE and PRIORITY of a half-closed stream",
            |w| {
                w.settings(&[(4, 0)]).headers(1, END, &get("/"));
                w.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]).window_update(1, 1);
                assert_eq!(w.frame(|frame| frame.kind == DATA).expect("DATA").payload, b"h");
                w.settings(&[(4, 65_535)]);
            },
            Nowhere,
        ),
        (
            "6.9.2",
            "a window from 3 to 2, below zero by one, and up by two",
            |w| {
                w.settings(&[(4, 3)]).headers(1, END, &get("/"));
                assert_eq!(w.frame(|frame| frame.kind == DATA).expect("DATA").payload, b"hel");
                w.settings(&[(4, 2)]).window_update(1, 2);
                assert_eq!(w.frame(|frame| frame.kind == DATA).expect("DATA").payload, b"l");
                w.settings(&[(4, 65_535)]);
            },
            Nowhere,
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
    let Stage { upstream: _upstream, cutover, .. } = Stage::start();
    let data = |wire: &mut Wire| wire.frame(|frame| frame.kind == DATA && !frame.payload.is_empty()).unwrap().payload;
    let mut narrow = Wire::with_settings(cutover.port(), &[(4, 1)]);
    narrow.headers(1, END, &get("/"));
    assert_eq!(data(&mut narrow), b"h", "6.9.1: as much as fits");
    assert!(narrow.is_alive() && narrow.so_far(1).is_some_and(|so_far| so_far.body == b"h"), "and no more");
    narrow.settings(&[(4, 2)]);
    assert_eq!(data(&mut narrow), b"e", "6.9.2: a setting opens the window of open streams");
    let mut negative = Wire::with_settings(cutover.port(), &[(4, 1)]);
    negative.headers(1, END, &get("/"));
    assert_eq!(data(&mut negative), b"h");
    negative.settings(&[(4, 0)]).window_update(1, 1);
    assert!(negative.is_alive() && negative.so_far(1).is_some_and(|so_far| so_far.body == b"h"), "6.9.2: below zero");
    negative.window_update(1, 1);
    assert_eq!(data(&mut negative), b"e");
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
    wire.headers(9, END, &get("/"));
    assert!(wire.is_alive() && wire.so_far(9).is_none(), "a place is free again, at once");
}
