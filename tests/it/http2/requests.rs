//! Requests over HTTP/2, as the application sees them and as the client is answered.

use std::time::Duration;

use super::wire::*;
use crate::harness::{Setup, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn post(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "app")]
}

#[test]
fn a_request_goes_upstream_as_http1_with_all_that_the_proxy_adds() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-mine\r\nX-Mine: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nok",
    );
    let cutover = Setup::in_front_of(&upstream).set("log.access", "'json'").start();
    let mut wire = Wire::greeted(cutover.port());
    let fields = [("cookie", "a=b"), ("x-forwarded-for", "9.9.9.9"), ("cookie", "c=d"), ("te", "trailers")];
    wire.headers(1, END, &[&get("/path?q")[..], &fields].concat());
    let answer = wire.answer(1);
    assert_eq!((answer.status(), answer.text()), (200, "ok".into()));
    let cookies = answer.heads[0].iter().filter(|(name, _)| name == "set-cookie").count();
    assert_eq!((cookies, answer.field("x-mine"), answer.field("connection")), (2, None, None));
    let seen = upstream.text();
    assert!(seen.starts_with("GET /path?q HTTP/1.1\r\nHost: app\r\n"), "{seen}");
    for line in [
        "cookie: a=b; c=d",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "TE: trailers",
        "Via: 2.0 cutover",
    ] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
    }
    assert!(!seen.contains("9.9.9.9"), "{seen}");
    eventually("the access log has it", || cutover.file("stdout").contains("\"protocol\":\"HTTP/2.0\""));
}

#[test]
fn bodies_and_trailers_go_both_ways() {
    let upstream = Upstream::start(|conn| {
        loop {
            let request = conn.request()?;
            let body = conn.body(&request)?;
            let trailer = if body.ends_with(b"x-sum: 7\r\n\r\n") { "got" } else { "none" };
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-End: {trailer}\r\n\r\n"
            ))?;
        }
    });
    let cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, 0, &post("/")).send(DATA, 0, 1, b"hello").send(
        DATA,
        PADDED,
        1,
        &[&[3][..], b"world", &[0; 3]].concat(),
    );
    wire.headers(1, END, &[("x-sum", "7")]);
    let answer = wire.answer(1);
    assert_eq!((answer.text(), answer.field("x-end"), answer.is_whole), ("abc".into(), Some("got"), true));
    let seen = upstream.text();
    assert!(
        seen.contains("Transfer-Encoding: chunked")
            && seen.ends_with("5\r\nhello\r\n5\r\nworld\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{seen}"
    );
    wire.headers(3, 0, &[&post("/")[..], &[("content-length", "5")]].concat())
        .send(DATA, 0, 3, b"he")
        .send(DATA, END, 3, b"llo");
    assert_eq!(wire.answer(3).field("x-end"), Some("none"));
    assert!(upstream.text().contains("Content-Length: 5\r\n"));
}

#[test]
fn malformed_requests_never_reach_the_application() {
    let upstream = Upstream::answering(OK);
    let cutover = Setup::in_front_of(&upstream).set("proxy.http2.max_resets", 1000).start();
    let with = |name: &'static str, value: &'static str| [&get("/")[..], &[(name, value)]].concat();
    let instead = |at: usize, value: &'static str| {
        let mut fields = get("/");
        fields[at].1 = value;
        fields
    };
    // 1: a stream error (RFC 9113 8.1.1); a status: well-formed, and refused as in HTTP/1.
    for (case, fields, want) in [
        ("upper case", with("X-A", "b"), Err(1)),
        ("connection", with("connection", "close"), Err(1)),
        ("transfer-encoding", with("transfer-encoding", "chunked"), Err(1)),
        ("CRLF in a value", with("x", "a\r\nhost: b"), Err(1)),
        ("CRLF in a name", with("x: y\r\nz", "a"), Err(1)),
        ("NUL in a value", with("x", "a\0"), Err(1)),
        ("space around a value", with("x", " a"), Err(1)),
        ("te", with("te", "gzip, trailers"), Err(1)),
        ("another host", with("host", "evil"), Err(1)),
        ("a length without a body", with("content-length", "5"), Err(1)),
        ("a path with a space", instead(2, "/ HTTP/1.1"), Err(1)),
        ("an absolute path", instead(2, "http://evil/"), Err(1)),
        ("no path", get("/")[..2].to_vec(), Err(1)),
        ("a method of two words", instead(0, "GET /evil HTTP/1.1\r\nx:"), Err(1)),
        ("an answer's status", with(":status", "200"), Err(1)),
        ("a path with a fragment", instead(2, "/a#b"), Ok(400)),
        ("a host that is none", instead(3, "a/b"), Ok(400)),
        ("a host with a user", instead(3, "user@app"), Ok(400)),
        ("no host", get("/")[..3].to_vec(), Ok(400)),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "app:80")], Ok(405)),
    ] {
        let mut wire = Wire::greeted(cutover.port());
        wire.headers(1, END, &fields);
        let answer = wire.answer(1);
        let found = answer.reset.filter(|_| answer.heads.is_empty()).map_or_else(|| Ok(answer.status()), Err);
        assert_eq!(found, want, "{case}");
        wire.headers(3, END, &get("/after"));
        assert_eq!(wire.answer(3).status(), 200, "{case}: the connection serves on");
    }
    let seen = upstream.text();
    assert!(!seen.contains("evil") && seen.matches(" HTTP/1.1\r\n").count() == 20, "{seen}");
}

#[test]
fn limits_are_answered_as_in_http1() {
    let upstream = Upstream::answering(OK);
    let cutover = Setup::in_front_of(&upstream)
        .set("proxy.max_header_bytes", "'2KiB'")
        .set("proxy.max_body_bytes", "'1KiB'")
        .start();
    let mut wire = Wire::greeted(cutover.port());
    assert_eq!(wire.setting(6), Some(2048));
    let large = "x".repeat(3000);
    wire.headers(1, END, &[&get("/")[..], &[("x-large", &large)]].concat());
    assert_eq!(wire.answer(1).status(), 431);
    let length = [&post("/")[..], &[("content-length", "2000")]].concat();
    wire.headers(3, 0, &length);
    assert_eq!(wire.answer(3).status(), 413, "announced");
    wire.headers(5, 0, &post("/")).send(DATA, END, 5, &[b'x'; 2000]);
    assert_eq!(wire.answer(5).status(), 413, "found");
    let many: Vec<_> = (0..120).map(|_| ("a", "b")).collect();
    wire.headers(7, END, &[&get("/")[..], &many].concat());
    assert_eq!(wire.answer(7).status(), 431, "too many fields");
    wire.headers(9, END, &get("/"));
    assert_eq!(wire.answer(9).status(), 200);
}

#[test]
fn interim_answers_pass_and_head_has_no_body() {
    let upstream = Upstream::start(|conn| {
        loop {
            let head = conn.request()?.head;
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")?;
            if !head.starts_with("HEAD") {
                conn.send("ok")?;
            }
        }
    });
    let cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, END, &get("/"));
    let answer = wire.answer(1);
    assert_eq!((answer.heads.len(), value(&answer.heads[0], ":status"), answer.status()), (2, Some("103"), 200));
    assert_eq!((value(&answer.heads[0], "link"), answer.text()), (Some("</a>"), "ok".into()));
    let mut head = get("/");
    head[0].1 = "HEAD";
    wire.headers(3, END, &head);
    let answer = wire.answer(3);
    assert_eq!((answer.status(), answer.field("content-length"), answer.body.len()), (200, Some("2"), 0));
}

#[test]
fn an_answer_that_broke_off_never_looks_whole() {
    for (case, answer) in [
        ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    ] {
        let upstream = Upstream::closing_after(answer);
        let cutover = Setup::in_front_of(&upstream).start();
        let mut wire = Wire::greeted(cutover.port());
        wire.headers(1, END, &get("/"));
        let answer = wire.answer(1);
        assert!(!answer.is_whole && answer.reset == Some(2) && answer.text() == "half", "{case}: {answer:?}");
        assert!(wire.is_alive(), "{case}");
    }
}

#[test]
fn a_cancelled_request_ends_upstream() {
    let upstream = Upstream::start(|conn| {
        conn.request()?;
        conn.rest().map(drop)
    });
    let cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, END, &get("/"));
    let in_flight = |n: u64| move |app: &serde_json::Value| app["colors"]["blue"]["in_flight"] == n;
    cutover.until_app("it is in flight", in_flight(1));
    wire.reset(1, 8);
    cutover.until_app("it is over", in_flight(0));
    assert!(wire.is_alive());
    drop(wire);
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, END, &get("/"));
    cutover.until_app("it is in flight", in_flight(1));
    drop(wire);
    cutover.until_app("a client that leaves takes its requests along", in_flight(0));
}

#[test]
fn an_early_answer_is_whole_and_the_rest_of_the_request_is_not_wanted() {
    let upstream = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
        conn.rest().map(drop)
    });
    let cutover = Setup::in_front_of(&upstream).start();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, 0, &post("/")).send(DATA, 0, 1, b"some");
    let answer = wire.answer(1);
    assert_eq!((answer.status(), answer.text(), answer.is_whole), (403, "no".into(), true));
    let reset = wire.frame(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.code()), (1, 0), "RFC 9113 8.1");
    wire.send(DATA, END, 1, b"more");
    assert!(wire.is_alive());
}

#[test]
fn a_slow_reader_holds_the_application_back() {
    let (sent, counted) =
        (std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)), std::sync::atomic::Ordering::Relaxed);
    let counter = std::sync::Arc::clone(&sent);
    let upstream = Upstream::start(move |conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")?;
        for _ in 0..1024 {
            conn.send(vec![b'x'; 65_536])?;
            counter.fetch_add(65_536, counted);
        }
        Ok(())
    });
    let cutover = Setup::in_front_of(&upstream).start();
    let before = cutover.rss_kib();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, END, &get("/"));
    assert!(wire.is_alive());
    let mut last = usize::MAX;
    eventually("the application waits", || {
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut last, sent.load(counted)) == sent.load(counted)
    });
    assert!(sent.load(counted) < 16 << 20, "what lies in the sockets' buffers: {}", sent.load(counted));
    assert!(cutover.rss_kib() < before + 4096, "{} KiB, {before} before", cutover.rss_kib());
    // A window of 64 KiB and nothing more was given.
    let got = |wire: &Wire| wire.so_far(1).map_or(0, |message| message.body.len());
    assert!(wire.is_alive());
    assert_eq!(got(&wire), 65_535);
    wire.window_update(0, 1 << 30).window_update(1, 1 << 30);
    assert_eq!(wire.answer(1).body.len(), 67_108_864);
}

#[test]
fn an_application_that_does_not_read_holds_the_client_back() {
    let upstream = Upstream::start(|conn| {
        conn.request()?;
        std::thread::sleep(Duration::from_secs(600));
        Ok(())
    });
    let cutover = Setup::in_front_of(&upstream).start();
    let before = cutover.rss_kib();
    let mut wire = Wire::greeted(cutover.port());
    wire.headers(1, 0, &post("/"));
    let (mut window, mut sent): (i64, usize) = (i64::from(wire.setting(4).unwrap()), 0);
    assert_eq!(window, 256 * 1024);
    let more = |wire: &mut Wire| {
        wire.send(PING, 0, 0, b"anything");
        let mut more = 0;
        while let Some(frame) = wire.next() {
            match frame.kind {
                WINDOW_UPDATE if frame.stream == 1 => {
                    more += i64::from(u32::from_be_bytes(frame.payload[..].try_into().unwrap()))
                }
                PING => break,
                _ => {}
            }
        }
        more
    };
    let mut quiet = 0;
    while quiet < 5 {
        while window >= 16_384 {
            wire.send(DATA, 0, 1, &[0; 16_384]);
            (window, sent) = (window - 16_384, sent + 16_384);
        }
        let more = more(&mut wire);
        quiet = if more == 0 { quiet + 1 } else { 0 };
        window += more;
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    assert!(cutover.rss_kib() < before + 4096, "{} KiB, {before} before", cutover.rss_kib());
}
