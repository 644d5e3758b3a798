//! Frames, rule by rule, as `conformance` does it.

use super::conformance::*;
use super::wire::*;

#[test]
fn frames_have_their_form_and_size() {
    check(&[
        (
            "4.1",
            "an unknown frame",
            |w| {
                w.send(0x99, 0xff, 7, &[1; 100]);
            },
            Nowhere,
        ),
        (
            "4.1",
            "unknown flags",
            |w| {
                w.send(PING, 0xfe, 0, &[0; 8]);
            },
            Nowhere,
        ),
        (
            "4.1",
            "the reserved bit",
            |w| {
                w.raw(&[0, 0, 8, PING, 0, 0x80, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
            },
            Nowhere,
        ),
        (
            "4.2",
            "the largest DATA",
            |w| {
                open(w);
                w.send(DATA, END, 1, &[0; 16_384]);
            },
            Nowhere,
        ),
        (
            "4.2",
            "larger DATA",
            |w| {
                open(w);
                w.send(DATA, END, 1, &[0; 16_385]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "4.2",
            "a larger header block",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0; 16_385]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "4.2",
            "a larger unknown frame",
            |w| {
                w.send(0x99, 0, 0, &[0; 16_385]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "4.3",
            "a block that cannot be read",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0xff; 4]);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "4.3",
            "PRIORITY within a block",
            |w| {
                w.send(HEADERS, END, 1, &block(&get("/"))).send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "4.3",
            "another stream within a block",
            |w| {
                w.send(HEADERS, END, 1, &block(&get("/"))).headers(3, END, &get("/"));
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "4.3",
            "CONTINUATION of another stream",
            |w| {
                w.send(HEADERS, END, 1, &block(&get("/"))).send(CONTINUATION, WHOLE, 3, &[]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "5.5",
            "an unknown frame within a block",
            |w| {
                w.send(HEADERS, END, 1, &block(&get("/"))).send(0x99, 0, 1, &[]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.1",
            "DATA on no stream",
            |w| {
                w.send(DATA, END, 0, b"x");
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.1",
            "padding longer than DATA",
            |w| {
                open(w);
                w.send(DATA, END | PADDED, 1, &[9, 0, 0]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.1",
            "padding alone",
            |w| {
                open(w);
                w.send(DATA, END | PADDED, 1, &[2, 0, 0]);
            },
            Nowhere,
        ),
        (
            "6.1",
            "PADDED and nothing",
            |w| {
                open(w);
                w.send(DATA, END | PADDED, 1, &[]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "6.2",
            "HEADERS on no stream",
            |w| {
                w.headers(0, END, &get("/"));
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.2",
            "padding longer than HEADERS",
            |w| {
                w.send(HEADERS, WHOLE | END | PADDED, 1, &[200, 0x82]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.2",
            "half a priority",
            |w| {
                w.send(HEADERS, WHOLE | END | WITH_PRIORITY, 1, &[0, 0]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "6.3",
            "PRIORITY on no stream",
            |w| {
                w.send(PRIORITY, 0, 0, &[0, 0, 0, 1, 1]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.3",
            "PRIORITY of four bytes",
            |w| {
                half_closed(w);
                w.send(PRIORITY, 0, 1, &[0, 0, 0, 0]);
            },
            ToReset(FRAME_SIZE_ERROR),
        ),
        (
            "6.3",
            "PRIORITY of an idle stream",
            |w| {
                w.send(PRIORITY, 0, 9, &[0, 0, 0, 0, 1]);
            },
            Nowhere,
        ),
        (
            "6.4",
            "RST_STREAM on no stream",
            |w| {
                w.reset(0, 8);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.4",
            "RST_STREAM of an idle stream",
            |w| {
                w.reset(1, 8);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.4",
            "RST_STREAM of three bytes",
            |w| {
                open(w);
                w.send(RST_STREAM, 0, 1, &[0; 3]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "6.5",
            "an acknowledgement with something in it",
            |w| {
                w.send(SETTINGS, END, 0, &[0; 6]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "6.5",
            "SETTINGS on a stream",
            |w| {
                w.send(SETTINGS, 0, 1, &[]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.5",
            "half a setting",
            |w| {
                w.send(SETTINGS, 0, 0, &[0; 3]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "6.5.2",
            "ENABLE_PUSH 2",
            |w| {
                w.settings(&[(2, 2)]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.5.2",
            "INITIAL_WINDOW_SIZE 2^31",
            |w| {
                w.settings(&[(4, 1 << 31)]);
            },
            ToEnd(FLOW_CONTROL_ERROR),
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE below the least",
            |w| {
                w.settings(&[(5, 16_383)]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE above the most",
            |w| {
                w.settings(&[(5, 1 << 24)]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.5.2",
            "an unknown setting",
            |w| {
                w.settings(&[(0xff, 1)]);
            },
            Nowhere,
        ),
        (
            "6.6",
            "PUSH_PROMISE",
            |w| {
                open(w);
                w.send(PUSH_PROMISE, WHOLE, 1, &[0, 0, 0, 2]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.7",
            "PING on a stream",
            |w| {
                w.send(PING, 0, 1, &[0; 8]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.7",
            "PING of six bytes",
            |w| {
                w.send(PING, 0, 0, &[0; 6]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "6.7",
            "an acknowledgement of no PING",
            |w| {
                w.send(PING, END, 0, &[0; 8]);
            },
            Nowhere,
        ),
        (
            "6.8",
            "GOAWAY on a stream",
            |w| {
                w.send(GOAWAY, 0, 1, &[0; 8]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.8",
            "GOAWAY, and streams after it are served",
            |w| {
                w.send(GOAWAY, 0, 0, &[0; 8]);
            },
            Nowhere,
        ),
        (
            "6.10",
            "CONTINUATION of nothing",
            |w| {
                w.send(CONTINUATION, WHOLE, 1, &[]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION on no stream",
            |w| {
                w.send(CONTINUATION, WHOLE, 0, &[]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION after a whole block",
            |w| {
                half_closed(w);
                w.send(CONTINUATION, WHOLE, 1, &[]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION after DATA",
            |w| {
                open(w);
                w.send(DATA, 0, 1, b"x").send(CONTINUATION, WHOLE, 1, &[]);
            },
            ToEnd(PROTOCOL_ERROR),
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
        (
            "6.10",
            "a block in three parts, with long fields",
            |w| {
                let long = "x".repeat(4000);
                w.send(HEADERS, END, 1, &block(&get("/")));
                w.send(CONTINUATION, 0, 1, &block(&[("x-one", &long)]));
                w.send(CONTINUATION, WHOLE, 1, &block(&[("x-two", &long)]));
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
        (
            "6.10",
            "DATA after CONTINUATION within a block",
            |w| {
                w.send(HEADERS, 0, 1, &block(&get("/"))).send(CONTINUATION, 0, 1, &block(&[("x", "y")]));
                w.send(DATA, END, 1, b"test");
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "DATA within a block",
            |w| {
                w.send(HEADERS, 0, 1, &block(&get("/"))).send(DATA, END, 1, b"test");
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION on no stream within a block",
            |w| {
                w.send(HEADERS, END, 1, &block(&get("/"))).send(CONTINUATION, WHOLE, 0, &block(&[("x", "y")]));
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION after the last one",
            |w| {
                w.send(HEADERS, END, 1, &block(&get("/hang"))).send(CONTINUATION, WHOLE, 1, &block(&[("x", "y")]));
                w.send(CONTINUATION, WHOLE, 1, &block(&[("x", "y")]));
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.2",
            "a padded head",
            |w| {
                let payload = [&[8][..], &block(&get("/")), &[0; 8]].concat();
                w.send(HEADERS, WHOLE | END | PADDED, 1, &payload);
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
        (
            "6.2",
            "a head with a priority",
            |w| {
                let payload = [&[0, 0, 0, 0, 255][..], &block(&get("/"))].concat();
                w.send(HEADERS, WHOLE | END | WITH_PRIORITY, 1, &payload);
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
        (
            "6.2",
            "a padded head with a priority",
            |w| {
                let payload = [&[3, 0x80, 0, 0, 7, 0][..], &block(&get("/")), &[0; 3]].concat();
                w.send(HEADERS, WHOLE | END | PADDED | WITH_PRIORITY, 1, &payload);
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
        (
            "6.2",
            "padding that leaves half a priority",
            |w| {
                w.send(HEADERS, WHOLE | END | PADDED | WITH_PRIORITY, 1, &[3, 0, 0, 0, 0, 0, 0, 0]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
        (
            "6.3",
            "the least and the largest weight, exclusive, on another idle stream",
            |w| {
                for payload in [[0, 0, 0, 0, 0], [0, 0, 0, 0, 255], [0x80, 0, 0, 0, 0], [0, 0, 0, 3, 0]] {
                    w.send(PRIORITY, 0, 1, &payload);
                }
                w.headers(1, END, &get("/"));
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
        (
            "6.3",
            "PRIORITY of a higher stream leaves the lower ones to be opened",
            |w| {
                w.send(PRIORITY, 0, 3, &[0, 0, 0, 0, 255]).headers(1, END, &get("/"));
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
        (
            "6.7",
            "an acknowledgement is not answered",
            |w| {
                w.send(PING, END, 0, b"not this").send(PING, 0, 0, b"but this");
                let answer = w.frame(|frame| frame.kind == PING).expect("an answer");
                assert_eq!((answer.flags, &answer.payload[..]), (END, &b"but this"[..]));
            },
            Nowhere,
        ),
        (
            "6.5.3",
            "each SETTINGS is acknowledged",
            |w| {
                w.settings(&[(2, 0)]);
                w.frame(|frame| frame.kind == SETTINGS && frame.flags == END).expect("an acknowledgement");
            },
            Nowhere,
        ),
        (
            "6.5.2",
            "ENABLE_CONNECT_PROTOCOL 2",
            |w| {
                w.settings(&[(8, 2)]);
            },
            ToEnd(PROTOCOL_ERROR),
        ),
        (
            "6.8",
            "GOAWAY of seven bytes",
            |w| {
                w.send(GOAWAY, 0, 0, &[0; 7]);
            },
            ToEnd(FRAME_SIZE_ERROR),
        ),
    ]);
}
