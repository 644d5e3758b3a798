//! Requests that two parsers could read differently, or that are too much: answered, the connection closed, and the
//! upstream never sees a byte.

use std::time::Duration;

use crate::harness::{Client, Cutover, End, Setup, Upstream, eventually};

/// Probed once and then not for an hour: whatever else the upstream sees is a leak.
fn guarded(blue: &Upstream) -> Setup {
    Setup::in_front_of(blue).set("service.app.health.interval", "'1h'")
}

fn refuses(cutover: &Cutover, blue: &Upstream, case: &str, bytes: &[u8], want: u16) {
    let mut client = cutover.client();
    // The refusal may come before the last byte was taken.
    let _ = client.try_send(bytes);
    let answer = client.try_answer(bytes.starts_with(b"HEAD")).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!((answer.status, answer.header("connection")), (want, Some("close")), "{case}: {answer:?}");
    assert!(answer.header("x-request-id").is_some_and(|id| answer.text().contains(id)), "{case}: {answer:?}");
    client.close_sending();
    let (rest, end) = client.rest();
    assert_eq!((rest.len(), end), (0, End::Closed), "{case}: one answer, then the end");
    let seen = blue.seen().concat();
    assert!(seen.is_empty(), "{case}: the upstream saw {:?}", String::from_utf8_lossy(&seen));
}

/// A GET with these field lines.
fn get(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

/// A POST with these field lines and body.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}").into_bytes()
}

/// A POST with a chunked body.
fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// A whole request, as it is.
fn raw(bytes: &str) -> Vec<u8> {
    bytes.into()
}

#[test]
fn cover_every_ambiguous_framing() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).start();
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (case, bytes) in [
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello")),
        ("two equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("a list of lengths", post("Content-Length: 5, 5\r\n", "hello")),
        ("a signed length", post("Content-Length: +5\r\n", "hello")),
        ("a negative length", post("Content-Length: -5\r\n", "hello")),
        ("a hexadecimal length", post("Content-Length: 0x5\r\n", "hello")),
        ("an empty length", post("Content-Length:\r\n", "hello")),
        ("a length with a space inside", post("Content-Length: 5 5\r\n", "hello")),
        ("a length beyond 64 bits", post("Content-Length: 99999999999999999999\r\n", "hello")),
        ("a length, then chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", smuggled)),
        ("chunks, then a length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", smuggled)),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", smuggled)),
        ("chunked, then identity", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", smuggled)),
        ("chunked in a list", post("Transfer-Encoding: chunked, chunked\r\n", smuggled)),
        ("gzip", post("Transfer-Encoding: gzip\r\n", smuggled)),
        ("chunked, gzip", post("Transfer-Encoding: chunked, gzip\r\n", smuggled)),
        ("xchunked", post("Transfer-Encoding: xchunked\r\n", smuggled)),
        ("chunked in quotes", post("Transfer-Encoding: \"chunked\"\r\n", smuggled)),
        ("chunked after a vertical tab", post("Transfer-Encoding: \u{b}chunked\r\n", smuggled)),
        ("an empty coding", post("Transfer-Encoding:\r\n", smuggled)),
        (
            "chunks in HTTP/1.0",
            raw(&format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled}")),
        ),
        ("a space before the colon", post("Content-Length : 5\r\n", "hello")),
        ("a space before the coding's colon", post("Transfer-Encoding : chunked\r\n", smuggled)),
        ("a folded line", get("Host: a\r\nX: a\r\n b\r\n")),
        ("a folded coding", post("Transfer-Encoding:\r\n chunked\r\n", smuggled)),
        ("a space before the first field", get(" Host: a\r\n")),
    ] {
        refuses(&cutover, &blue, case, &bytes, 400);
    }
}

#[test]
fn cover_every_malformed_line() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).start();
    for (case, bytes) in [
        ("bare LF everywhere", raw("GET / HTTP/1.1\nHost: a\n\n")),
        ("a bare LF after the request line", raw("GET / HTTP/1.1\nHost: a\r\n\r\n")),
        ("a bare LF after a field", get("Host: a\nX: b\r\n")),
        ("a bare LF as the empty line", raw("GET / HTTP/1.1\r\nHost: a\r\n\n")),
        ("a bare CR", get("Host: a\rX: b\r\n")),
        ("a NUL in a value", get("Host: a\r\nX: a\0b\r\n")),
        ("a NUL in a name", get("Host: a\r\nX\0: b\r\n")),
        ("a name with a space", get("Host: a\r\nX Y: b\r\n")),
        ("a field without a colon", get("Host: a\r\nX\r\n")),
        ("a field without a name", get("Host: a\r\n: b\r\n")),
        ("no host", get("X: a\r\n")),
        ("two hosts", get("Host: a\r\nHost: b\r\n")),
        ("two equal hosts", get("Host: a\r\nHost: a\r\n")),
        ("an empty host", get("Host:\r\n")),
        ("a host with a space", get("Host: a b\r\n")),
        ("a host with a path", get("Host: a/b\r\n")),
        ("a host with a user", get("Host: b@a\r\n")),
        ("a host with a port that is none", get("Host: a:x\r\n")),
        ("a host with a port out of range", get("Host: a:99999\r\n")),
        ("half an IPv6 host", get("Host: [::1\r\n")),
        ("two hosts in one", get("Host: a,b:8:9\r\n")),
        ("an absolute target with a user", raw("GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a fragment", raw("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a target without a slash", raw("GET x HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("another scheme", raw("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("an asterisk of GET", raw("GET * HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("two spaces", raw("GET  / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a tab", raw("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("HTTP/0.9", raw("GET /\r\n")),
        ("a version in small letters", raw("GET / http/1.1\r\nHost: a\r\n\r\n")),
        ("a version with a space behind", raw("GET / HTTP/1.1 \r\nHost: a\r\n\r\n")),
        ("a TLS hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n".to_vec()),
        ("empty lines only", raw("\r\n\r\n\r\n\r\n")),
    ] {
        refuses(&cutover, &blue, case, &bytes, 400);
    }
}

#[test]
fn cover_every_malformed_chunk() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).start();
    for (case, bytes) in [
        ("a size with 0x", chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        ("a signed size", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("a negative size", chunked("-1\r\nhello\r\n0\r\n\r\n")),
        ("a size that is none", chunked("z\r\nhello\r\n0\r\n\r\n")),
        ("no size", chunked("\r\nhello\r\n0\r\n\r\n")),
        ("a space before the size", chunked(" 5\r\nhello\r\n0\r\n\r\n")),
        ("a size beyond 64 bits", chunked("ffffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
        ("a size that becomes 0 in 64 bits", chunked("10000000000000000\r\nhello\r\n0\r\n\r\n")),
        ("a size with an underscore", chunked("0_5\r\nhello\r\n0\r\n\r\n")),
        ("a bare LF after the size", chunked("5\nhello\r\n0\r\n\r\n")),
        ("a bare LF after an extension", chunked("5;a\nhello\r\n0\r\n\r\n")),
        ("a bare CR after the size", chunked("5\rhello\r\n0\r\n\r\n")),
        ("more data than the size", chunked("5\r\nhelloworld\r\n0\r\n\r\n")),
        ("no CRLF after the data", chunked("5\r\nhello0\r\n\r\n")),
        ("a bare LF after the data", chunked("5\r\nhello\n0\r\n\r\n")),
        ("a second chunk with a bad size", chunked("5\r\nhello\r\nx\r\nworld\r\n0\r\n\r\n")),
        ("a bare LF in the trailers", chunked("0\r\nA: b\n\r\n")),
    ] {
        refuses(&cutover, &blue, case, &bytes, 400);
    }
}

#[test]
fn cover_what_is_not_spoken_here_and_what_is_too_large() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).set("proxy.max_body_bytes", 1000).set("proxy.http2.enabled", "false").start();
    let long = "a".repeat(70_000);
    for (case, bytes, want) in [
        ("HTTP/2", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505),
        ("HTTP/1.2", raw("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), 505),
        ("CONNECT", raw("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 405),
        ("a long field", get(&format!("Host: a\r\nX: {long}\r\n")), 431),
        ("many fields", get(&format!("Host: a\r\n{}", "X: a\r\n".repeat(200))), 431),
        ("a long target", raw(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), 414),
        ("a declared body that is too large", post("Content-Length: 1001\r\n", "a"), 413),
        ("a chunk that is too large", chunked(&format!("3e9\r\n{}\r\n0\r\n\r\n", "a".repeat(1001))), 413),
    ] {
        refuses(&cutover, &blue, case, &bytes, want);
    }
}

#[test]
fn leave_alone_what_is_only_unusual() {
    let blue = Upstream::saying("ok");
    let cutover = guarded(&blue).set("proxy.max_body_bytes", 1000).start();
    for (case, bytes) in [
        ("an empty line first", raw("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a field of 30,000 bytes", get(&format!("Host: a\r\nX: {}\r\n", "a".repeat(30_000)))),
        ("bytes above ASCII in a value", get("Host: a\r\nX: äö\r\n")),
        ("an empty value", get("Host: a\r\nX:\r\n")),
        ("tabs around a value", get("Host:\ta\t\r\n")),
        ("an IPv6 host", get("Host: [::1]:80\r\n")),
        ("chunked in capitals", post("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n")),
        ("a chunk extension", chunked("5;a=\"b\"\r\nhello\r\n0\r\n\r\n")),
        ("a size with zeros", chunked("005\r\nhello\r\n000\r\n\r\n")),
        ("an unknown method", raw("BREW / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("the largest body", post("Content-Length: 1000\r\n", &"a".repeat(1000))),
    ] {
        let mut client = cutover.client();
        let answer = client.send(&bytes).answer();
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{case}");
    }
}

#[test]
fn of_a_body_that_grows_too_large_cut_the_upstream_off() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).set("proxy.max_body_bytes", 1000).start();
    let mut client = cutover.client();
    client.send(chunked("5\r\nhello\r\n"));
    eventually("the first chunk is there", || blue.text().contains("hello"));
    client.send(format!("3e8\r\n{}\r\n0\r\n\r\n", "a".repeat(1000)));
    assert_eq!(client.answer().status, 413);
    cutover.until_app("the lease is over", |app| app["colors"]["blue"]["in_flight"] == 0);
    assert!(!blue.text().ends_with("0\r\n\r\n"), "it did not end like a whole one");
}

#[test]
fn of_a_late_chunk_cut_the_upstream_off() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).start();
    let mut client = cutover.client();
    client.send(chunked("5\r\nhello\r\n"));
    eventually("the first chunk is there", || blue.text().contains("hello"));
    client.send("x\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    client.close_sending();
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
    assert!(!blue.text().contains("smuggled"), "{}", blue.text());
}

#[test]
fn end_the_connection_for_what_is_pipelined_behind() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).start();
    let mut client = cutover.client();
    client.send([get("X: a\r\n"), get("Host: a\r\n")].concat());
    assert_eq!(client.answer().status, 400);
    client.close_sending();
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
    assert!(blue.seen().is_empty(), "{}", blue.text());
}

#[test]
fn are_heard_by_a_client_that_goes_on_sending() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).set("proxy.max_body_bytes", 1000).start();
    let mut client = cutover.client();
    client.send(post("Content-Length: 1000000\r\n", ""));
    let mut sender = Client::of(client.stream().try_clone().unwrap());
    let sending = std::thread::spawn(move || {
        for _ in 0..100 {
            if sender.try_send(&[b'a'; 10_000]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1)); // so that the refusal comes first
        }
    });
    assert_eq!(client.answer().status, 413);
    sending.join().unwrap();
    assert!(blue.seen().is_empty());
}

#[test]
fn cover_a_target_with_a_space() {
    let blue = Upstream::saying("leaked");
    let cutover = guarded(&blue).start();
    refuses(&cutover, &blue, "RFC 9112 3.2", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400);
}

#[test]
fn leave_alone_options_of_the_whole_server() {
    let blue = Upstream::saying("ok");
    let cutover = guarded(&blue).start();
    assert_eq!(cutover.client().ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert!(blue.text().starts_with("OPTIONS * HTTP/1.1\r\n"), "{}", blue.text());
}
