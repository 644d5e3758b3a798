//! Messages (RFC 9113 8), rule by rule, as `conformance` does it: what is malformed is reset and never reaches the
//! application, and what is not is answered.

use super::conformance::*;
use super::wire::*;

/// The fields of a GET, and more.
fn with<'f>(more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    [&get("/"), more].concat()
}

/// The fields of a GET without one of them.
fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    get("/").into_iter().filter(|(found, _)| *found != name).collect()
}

/// The fields of a POST, and more.
fn post<'f>(more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    [&[(":method", "POST")][..], &without(":method"), more].concat()
}

#[test]
fn malformed_heads_are_reset() {
    let stage = Stage::start();
    let cases = [
        ("8.2.1", "a name in upper case", with(&[("X-Test", "ok")])),
        ("8.2.1", "a name of nothing", with(&[("", "ok")])),
        ("8.2.1", "a name with a space", with(&[("x test", "ok")])),
        ("8.2.1", "a name with a colon in it", with(&[("x:test", "ok")])),
        ("8.2.1", "a name that is not ASCII", with(&[("x-t\u{e9}st", "ok")])),
        ("8.2.1", "a value with a NUL", with(&[("x-test", "o\0k")])),
        ("8.2.1", "a value with a line feed", with(&[("x-test", "o\nk")])),
        ("8.2.1", "a value with a carriage return", with(&[("x-test", "o\rk")])),
        ("8.2.1", "a value that begins with a space", with(&[("x-test", " ok")])),
        ("8.2.1", "a value that ends with a tab", with(&[("x-test", "ok\t")])),
        ("8.2.2", "connection", with(&[("connection", "keep-alive")])),
        ("8.2.2", "proxy-connection", with(&[("proxy-connection", "keep-alive")])),
        ("8.2.2", "keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("8.2.2", "transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("8.2.2", "upgrade", with(&[("upgrade", "h2c")])),
        ("8.2.2", "te with more than trailers", with(&[("te", "trailers, deflate")])),
        ("8.3", "an unknown pseudo-header field", with(&[(":test", "ok")])),
        ("8.3", "a pseudo-header field of answers", with(&[(":status", "200")])),
        ("8.3", "a pseudo-header field after another", [&[("x-test", "ok")], &get("/")[..]].concat()),
        ("8.3.1", "an empty path", [&without(":path")[..], &[(":path", "")]].concat()),
        ("8.3.1", "an empty method", [&without(":method")[..], &[(":method", "")]].concat()),
        ("8.3.1", "an empty scheme", [&without(":scheme")[..], &[(":scheme", "")]].concat()),
        ("8.3.1", "no method", without(":method")),
        ("8.3.1", "no scheme", without(":scheme")),
        ("8.3.1", "no path", without(":path")),
        ("8.3.1", "two methods", [&[(":method", "GET")], &get("/")[..]].concat()),
        ("8.3.1", "two schemes", [&[(":scheme", "http")], &get("/")[..]].concat()),
        ("8.3.1", "two paths", [&[(":path", "/")], &get("/")[..]].concat()),
        ("8.3.1", "two authorities", [&[(":authority", "app")], &get("/")[..]].concat()),
        ("8.3.1", "a method behind the others", with(&[(":method", "GET")])),
        ("8.3.1", "a host that is not the authority", with(&[("host", "other")])),
        ("8.5", "CONNECT with a path", [&[(":method", "CONNECT")], &without(":method")[..]].concat()),
        ("8.1.1", "a length and no DATA", with(&[("content-length", "1")])),
        ("8.1.1", "two lengths", with(&[("content-length", "0"), ("content-length", "0")])),
        ("8.1.1", "a length that is none", with(&[("content-length", "+0")])),
    ];
    stage.check(cases.iter().map(|(section, case, fields)| {
        let act = |wire: &mut Wire| {
            wire.headers(1, END, fields);
        };
        (*section, *case, act, ToReset(PROTOCOL_ERROR))
    }));
    stage.ends_with_nothing_left();
    // Those that show that the connection serves on.
    let seen = stage.upstream.text();
    assert_eq!(seen.matches("GET / ").count(), seen.matches(" HTTP/1.1\r\n").count());
    assert!(!seen.contains("test") && !seen.contains("other") && !seen.contains("Content-Length"), "{seen}");
}

#[test]
fn malformed_bodies_and_trailers_are_reset() {
    check(&[
        (
            "8.1",
            "a second head that does not end the stream",
            |w| {
                w.headers(1, 0, &post(&[])).send(DATA, 0, 1, b"test").headers(1, 0, &[("x-test", "ok")]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1",
            "a pseudo-header field in trailers",
            |w| {
                w.headers(1, 0, &post(&[])).send(DATA, 0, 1, b"test").headers(1, END, &[(":method", "POST")]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.2.1",
            "trailers in upper case",
            |w| {
                w.headers(1, 0, &post(&[])).headers(1, END, &[("X-Test", "ok")]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.2.2",
            "a field of the connection in trailers",
            |w| {
                w.headers(1, 0, &post(&[])).headers(1, END, &[("connection", "close")]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "less DATA than announced",
            |w| {
                w.headers(1, 0, &post(&[("content-length", "5")])).send(DATA, END, 1, b"test");
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "more DATA than announced",
            |w| {
                w.headers(1, 0, &post(&[("content-length", "1")])).send(DATA, END, 1, b"test");
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "more in several frames of DATA than announced",
            |w| {
                let half = |w: &mut Wire, end| w.send(DATA, end, 1, b"test").is_alive();
                w.headers(1, 0, &post(&[("content-length", "5")]));
                assert!(half(w, 0) && half(w, END));
            },
            ToReset(PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "trailers before all that was announced",
            |w| {
                w.headers(1, 0, &post(&[("content-length", "5")])).headers(1, END, &[("x-test", "ok")]);
            },
            ToReset(PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn every_form_of_a_request_is_answered() {
    check(&[
        ("8.1", "GET", |w| answered(w.headers(1, END, &get("/"))), Nowhere),
        (
            "8.1",
            "HEAD",
            |w| {
                w.headers(1, END, &[&[(":method", "HEAD")], &without(":method")[..]].concat());
                let answer = w.answer(1);
                assert_eq!((answer.status(), answer.field("content-length"), answer.body.len()), (200, Some("5"), 0));
            },
            Nowhere,
        ),
        ("8.1", "POST", |w| answered(w.headers(1, 0, &post(&[])).send(DATA, END, 1, b"test")), Nowhere),
        ("8.1", "POST of nothing", |w| answered(w.headers(1, END, &post(&[]))), Nowhere),
        (
            "8.1",
            "POST in several frames, padded",
            |w| {
                w.headers(1, 0, &post(&[])).send(DATA, 0, 1, b"test");
                answered(w.send(DATA, END | PADDED, 1, b"\x06testpadded"));
            },
            Nowhere,
        ),
        (
            "8.1",
            "POST with trailers",
            |w| {
                w.headers(1, 0, &post(&[("trailer", "x-test")])).send(DATA, 0, 1, b"test");
                answered(w.headers(1, END, &[("x-test", "ok")]));
            },
            Nowhere,
        ),
        ("8.2.2", "te: trailers", |w| answered(w.headers(1, END, &with(&[("te", "trailers")]))), Nowhere),
        ("8.3.1", "the authority as host", |w| answered(w.headers(1, END, &with(&[("host", "app")]))), Nowhere),
        (
            "8.3.1",
            "only a host",
            |w| answered(w.headers(1, END, &[&without(":authority")[..], &[("host", "app")]].concat())),
            Nowhere,
        ),
    ]);
}

fn answered(wire: &mut Wire) {
    let answer = wire.answer(1);
    assert_eq!((answer.status(), answer.text(), answer.is_whole), (200, "hello".into(), true));
}
