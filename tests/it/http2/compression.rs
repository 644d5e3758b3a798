//! Header compression (RFC 7541), rule by rule, as `conformance` does it.

use super::conformance::*;
use super::wire::*;

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
        (
            "7541 4.2",
            "a larger table size behind a field",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[&block(&get("/"))[..], &[0x3f, 0xe1, 0x1f]].concat());
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "7541 4.2",
            "two table sizes in front",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[&[0x20, 0x3f, 0xe1, 0x1f], &block(&get("/"))[..]].concat());
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
        (
            "7541 6.3",
            "a table size of nothing",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[&[0x20], &block(&get("/"))[..]].concat());
                assert_eq!(w.answer(1).status(), 200);
            },
            Nowhere,
        ),
        (
            "4.3",
            "a literal that is cut off",
            |w| {
                w.send(HEADERS, WHOLE | END, 1, &[0x40]);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
        (
            "4.3",
            "trailers that cannot be read",
            |w| {
                open(w);
                w.send(HEADERS, WHOLE | END, 1, &[0x80]);
            },
            ToEnd(COMPRESSION_ERROR),
        ),
    ]);
}

#[test]
fn each_way_to_write_a_field_is_read() {
    let stage = Stage::start();
    // Behind what says how: the name of the static table (58) or as text, then the value; "strict" and "user-agent" are
    // coded by Huffman in every second one.
    let coded_value = [&[0x84][..], &[0x42, 0x6c, 0x31, 0x13]].concat();
    let coded_name = [&[0x87][..], &[0xb5, 0x05, 0xb1, 0x61, 0xcc, 0x5a, 0x93]].concat();
    let (plain_value, plain_name) = (b"\x06strict".to_vec(), b"\x0auser-agent".to_vec());
    for (kind, wire) in stage.connections() {
        let mut wire = wire.greet(&[]);
        let mut stream = 1;
        for (way, named, unnamed) in [
            ("7541 6.2.1, with indexing", &[0x7a][..], 0x40),
            ("7541 6.2.2, without", &[0x0f, 43], 0),
            ("7541 6.2.3, never", &[0x1f, 43], 0x10),
        ] {
            for field in [
                [named, &plain_value].concat(),
                [named, &coded_value].concat(),
                [&[unnamed][..], &plain_name, &plain_value].concat(),
                [&[unnamed][..], &coded_name, &coded_value].concat(),
            ] {
                stage.upstream.forget();
                wire.send(HEADERS, WHOLE | END, stream, &[&block(&get("/"))[..], &field].concat());
                assert_eq!(wire.answer(stream).status(), 200, "{way} over {kind}");
                let seen = stage.upstream.text();
                assert!(seen.contains("\r\nuser-agent: strict\r\n"), "{way} over {kind}: {seen}");
                stream += 2;
            }
        }
        // 7541 6.1: of the static table, and what the first of the above left in the dynamic one.
        stage.upstream.forget();
        let static_only = [0x82, 0x86, 0x84, 0x41, 3, b'a', b'p', b'p', 0xba];
        wire.send(HEADERS, WHOLE | END, stream, &static_only);
        assert_eq!(wire.answer(stream).status(), 200);
        wire.send(HEADERS, WHOLE | END, stream + 2, &[&block(&get("/"))[..], &[0xbf]].concat());
        assert_eq!(wire.answer(stream + 2).status(), 200);
        let seen = stage.upstream.text();
        assert!(seen.contains("\r\nuser-agent: \r\n") && seen.contains("\r\nuser-agent: strict\r\n"), "{seen}");
    }
}
