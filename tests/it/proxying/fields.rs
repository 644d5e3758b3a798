//! Header fields: what stays on this hop, and what an application may believe.

use super::GET;
use crate::harness::{Cutover, Setup, Upstream};

fn pair(trusted: &str) -> (Upstream, Cutover) {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).set("proxy.trusted_proxies", trusted).start();
    (blue, cutover)
}

#[test]
fn about_this_connection_are_not_passed_on() {
    let blue = Upstream::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Down\r\nConnection: keep-alive\r\nX-Down: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nX-Kept: down\r\nContent-Length: 2\r\n\r\nok",
    );
    let cutover = Setup::in_front_of(&blue).start();
    let answer = cutover.client().ask(
        "GET / HTTP/1.1\r\nHost: app\r\nConnection: X-Up, keep-alive\r\nConnection: X-Two\r\nX-Up: 1\r\nX-Two: 2\r\n\
         Keep-Alive: 3\r\nProxy-Connection: keep-alive\r\nProxy: http://evil\r\nTE: gzip\r\nUpgrade: foo\r\nX-Kept: up\r\n\r\n",
    );
    let seen = blue.text().to_lowercase();
    for gone in ["x-up", "x-two", "keep-alive", "proxy", "te:", "upgrade", "\r\nconnection"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert!(seen.contains("\r\nx-kept: up\r\n"), "{seen}");
    assert_eq!((answer.header("x-kept"), answer.text()), (Some("down"), "ok"));
    for gone in ["x-down", "keep-alive", "proxy-connection", "connection"] {
        assert_eq!(answer.header(gone), None, "{}", answer.head);
    }
}

#[test]
fn about_the_client_are_the_proxy_s_own() {
    let (blue, cutover) = pair("[]");
    cutover.client().ask(
        "GET / HTTP/1.1\r\nHost: app.example:8\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil\r\nX-Forwarded-Port: 666\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
         X-Forwarded-Prefix: /evil\r\nX_Forwarded_For: 6.6.6.6\r\nX-Request-Id: evil\r\n\r\n",
    );
    let seen = blue.text();
    for line in [
        "Host: app.example:8",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: app.example:8",
        &format!("X-Forwarded-Port: {}", cutover.port()),
        "Forwarded: for=127.0.0.1;host=\"app.example:8\";proto=http",
        "Via: 1.1 cutover",
    ] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
    }
    assert!(!seen.contains("6.6.6.6") && !seen.contains("evil") && !seen.contains("666"), "{seen}");
}

#[test]
fn about_the_client_are_continued_for_a_trusted_proxy() {
    let (blue, cutover) = pair("['127.0.0.0/8']");
    cutover.client().ask(
        "GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\nForwarded: for=1.2.3.4;proto=https\r\n\
         X-Request-Id: abc-1\r\n\r\n",
    );
    let seen = blue.text();
    for line in [
        "X-Forwarded-For: 1.2.3.4, 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
        "X-Forwarded-Port: 443",
        "Forwarded: for=1.2.3.4;proto=https, for=127.0.0.1;host=\"app\";proto=http",
        "X-Request-Id: abc-1",
    ] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
    }
}

#[test]
fn give_each_request_an_id_of_its_own() {
    let (blue, cutover) = pair("[]");
    let mut client = cutover.client();
    for _ in 0..3 {
        client.ask(GET);
    }
    let text = blue.text();
    let mut ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("X-Request-Id: ")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 32), "{ids:?}");
}

#[test]
fn of_tracing_are_left_alone() {
    let (blue, cutover) = pair("[]");
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n";
    cutover.client().ask(&format!("GET / HTTP/1.1\r\nHost: app\r\n{trace}\r\n"));
    assert!(blue.text().contains(trace), "{}", blue.text());
}

#[test]
fn name_the_absolute_target_s_host() {
    let (blue, cutover) = pair("[]");
    cutover.client().ask("GET http://real.example/x?y HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert!(blue.text().starts_with("GET /x?y HTTP/1.1\r\nHost: real.example\r\n"), "{}", blue.text());
    assert!(!blue.text().contains("other.example"), "{}", blue.text());
}
