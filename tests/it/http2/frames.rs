//! Frames and header compression, rule by rule, as `conformance` does it.

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
    ]);
}

#[test]
fn header_compression_is_in_step_or_over() {
    check(&[
        (
            "7541 2.3.3",
            "an index past both tables",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0xc6]);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 2.3.3",
            "a name past both tables",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0x7f, 0x0f, 1, b'a']);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 4.2",
            "a table size behind a field",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[&block(&get("/"))[..], &[0x20]].concat());
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 5.2",
            "Huffman padding of a byte",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0, 0x83, 0x1c, 0x7f, 0xff, 1, b'a']);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 5.2",
            "Huffman padding of zeros",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0, 0x81, 0x18, 1, b'a']);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 5.2",
            "the end symbol",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a']);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 6.1",
            "index 0",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0x80]);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 6.3",
            "a table larger than announced",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0x3f, 0xe2, 0x1f]);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 2.3.2",
            "a table that is used over streams",
            |w| {
                let entry = [&[0x40][..], &[5], b"x-one", &[3], b"two"].concat();
                w.send(HEADERS, WHOLE | END, 1, &[&block(&get("/"))[..], &entry].concat());
                assert_eq!(w.answer(1).status(), 200);
                w.send(HEADERS, WHOLE | END, 3, &[&block(&get("/"))[..], &[0xbe]].concat());
                assert_eq!(w.answer(3).status(), 200);
            },
            Nowhere,
        ),
        (
            "7541 2.2",
            "a refused stream's block counts all the same",
            |w| {
                let entry = [&[0x40][..], &[5], b"x-one", &[3], b"two"].concat();
                w.send(HEADERS, WHOLE | END, 3, &[&block(&[("X", "y")])[..], &entry].concat());
                assert_eq!(w.answer(3).reset, Some(PROTOCOL_ERROR));
                w.send(HEADERS, WHOLE | END, 5, &[&block(&get("/"))[..], &[0xbe]].concat());
                assert_eq!(w.answer(5).status(), 200);
            },
            Nowhere,
        ),
    ]);
}
