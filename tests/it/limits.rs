//! Limits of what a client may cost: each ends with its status or its close, and is counted.

use std::io::Write;
use std::time::Duration;

use super::harness::{Client, Cutover, End, Setup, Upstream, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// How often clients were refused for `reason`.
fn refused(cutover: &Cutover, reason: &str) -> u64 {
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let sample = format!("cutover_refused_total{{reason=\"{reason}\"}} ");
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(&sample).map(str::to_owned));
    value.unwrap_or_else(|| panic!("no {sample} in {}", metrics.text())).parse::<f64>().unwrap() as u64
}

fn must_count(cutover: &Cutover, reason: &str, count: u64) {
    eventually(reason, || refused(cutover, reason) == count);
}

mod connections {
    use super::*;

    /// A connection of this client, which has asked once. `None`: it was closed.
    fn connection(cutover: &Cutover, ip: &str) -> Option<Client> {
        let mut client = cutover.client();
        let (family, to) = if ip.contains(':') { ("TCP6", "::1") } else { ("TCP4", "127.0.0.1") };
        client.try_send(format!("PROXY {family} {ip} {to} 4711 80\r\n{GET}").as_bytes()).ok()?;
        client.try_answer(false).ok().filter(|answer| answer.status == 200).map(|_| client)
    }

    #[test]
    fn of_one_client_are_limited_and_those_of_others_are_not() {
        let blue = Upstream::saying("blue");
        let cutover = Setup::in_front_of(&blue)
            .set("proxy.proxy_protocol_from", "['127.0.0.1']")
            .set("proxy.max_connections_per_client", 3)
            .set("proxy.trusted_proxies", "['192.0.2.0/24']")
            .start();
        let mut first: Vec<_> = (0..3).map(|_| connection(&cutover, "198.51.100.1").expect("one of three")).collect();
        assert!(connection(&cutover, "198.51.100.1").is_none(), "the fourth");
        assert!(connection(&cutover, "198.51.100.2").is_some(), "another client");
        assert!((0..5).map(|_| connection(&cutover, "192.0.2.1")).collect::<Vec<_>>().iter().all(Option::is_some));
        must_count(&cutover, "client_connections", 1);
        assert_eq!(first[0].ask(GET).status, 200, "those that are there go on");
        first.pop();
        eventually("a place is free again", || connection(&cutover, "198.51.100.1").is_some());
        let _network: Vec<_> =
            (0..3).map(|n| connection(&cutover, &format!("2001:db8::{n}")).expect("one of three")).collect();
        assert!(connection(&cutover, "2001:db8::9").is_none(), "one subscriber has a /64");
        assert!(connection(&cutover, "2001:db8:0:1::9").is_some());
    }

    #[test]
    fn in_all_are_limited() {
        let blue = Upstream::saying("blue");
        let cutover = Setup::in_front_of(&blue).set("proxy.max_connections", 2).start();
        let mut kept: Vec<_> = (0..2).map(|_| cutover.client()).collect();
        kept.iter_mut().for_each(|client| assert_eq!(client.ask(GET).status, 200));
        let mut client = cutover.client();
        assert_eq!(client.answer().status, 503);
        must_count(&cutover, "connections", 1);
    }

    #[test]
    fn end_after_so_many_requests() {
        let blue = Upstream::saying("blue");
        let cutover = Setup::in_front_of(&blue).set("proxy.max_requests_per_connection", 3).start();
        let mut client = cutover.client();
        client.send(GET.repeat(4));
        for last in [false, false, true] {
            let answer = client.answer();
            assert_eq!((answer.status, answer.header("connection") == Some("close")), (200, last));
        }
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
    }
}

mod rates {
    use super::*;

    fn patient(seconds: u32, key: &str) -> Setup {
        let blue = Upstream::start(|conn| {
            loop {
                let request = conn.request()?;
                let body = conn.body(&request)?;
                conn.send(super::super::harness::plain("200 OK", &body.len().to_string()))?;
            }
        });
        let setup = Setup::in_front_of(&blue).set(key, format!("'{seconds}s'"));
        std::mem::forget(blue); // it serves until the test is over
        setup
    }

    /// Sends `piece` so many times, every 100 ms, until it is answered: with what, and after how many.
    fn dribble(cutover: &Cutover, framing: &str, piece: &[u8], times: usize) -> (u16, usize) {
        let mut client = cutover.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: app\r\n{framing}\r\n\r\n"));
        let mut writer = client.stream().try_clone().unwrap();
        let piece = piece.to_vec();
        let sender = std::thread::spawn(move || {
            let mut pieces = 0..times;
            pieces.find(|_| {
                std::thread::sleep(Duration::from_millis(100));
                writer.write_all(&piece).is_err()
            });
            times - pieces.len()
        });
        let status = client.answer().status;
        (status, sender.join().unwrap())
    }

    #[test]
    fn of_a_body_that_dribbles_end_it_and_one_that_is_merely_slow_is_served() {
        let cutover = patient(2, "proxy.body_timeout").set("proxy.min_body_rate", 50).start();
        let (status, sent) = dribble(&cutover, "Content-Length: 100", b"x", 100);
        assert!(status == 408 && sent < 100, "{status} after {sent} bytes");
        must_count(&cutover, "body_rate", 1);
        let (status, _) = dribble(&cutover, "Transfer-Encoding: chunked", b"1\r\nx\r\n", 100);
        assert_eq!(status, 408);
        must_count(&cutover, "body_rate", 2);
        let (status, _) = dribble(&cutover, "Content-Length: 3000", &[b'x'; 100], 30);
        assert_eq!(status, 200, "1000 bytes a second");
        let call = "Content-Type: application/grpc\r\nTransfer-Encoding: chunked";
        let mut pieces = vec![b"1\r\nx\r\n".to_vec(); 25];
        pieces.push(b"0\r\n\r\n".to_vec());
        let mut client = cutover.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: app\r\n{call}\r\n\r\n"));
        for piece in pieces {
            std::thread::sleep(Duration::from_millis(100));
            client.send(piece);
        }
        assert_eq!(client.answer().status, 200, "a call of gRPC may take its time");
        must_count(&cutover, "body_rate", 2);
    }

    #[test]
    fn of_a_client_that_hardly_reads_end_it() {
        let large = Upstream::answering(super::super::harness::plain("200 OK", &"x".repeat(32 << 20)));
        let cutover =
            Setup::in_front_of(&large).set("proxy.idle_timeout", "'1s'").set("proxy.min_read_rate", "'1MiB'").start();
        let mut client = cutover.client();
        client.send(GET);
        let mut piece = [0; 2048];
        eventually("it is ended", || {
            let _ = client.some(&mut piece);
            refused(&cutover, "read_rate") + refused(&cutover, "read_timeout") == 1
        });
        client.rest_or_reset();
        // One that reads gets everything.
        assert_eq!(cutover.get("/").body.len(), 32 << 20);
    }
}

#[test]
fn sizes_times_and_mistakes_are_counted_by_what_they_are() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue)
        .set("proxy.header_timeout", "'300ms'")
        .set("proxy.body_timeout", "'300ms'")
        .set("proxy.max_body_bytes", 10)
        .set("proxy.max_header_bytes", 4096)
        .start();
    let long = format!("GET / HTTP/1.1\r\nHost: app\r\nX: {}\r\n\r\n", "x".repeat(5000));
    for (reason, sent, want) in [
        ("header_timeout", "GET / HTTP/1.1\r\nHo", 408),
        ("body_timeout", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nab", 408),
        ("body_size", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 11\r\n\r\n", 413),
        ("header_size", &long, 431),
        ("malformed", "GET / HTTP/1.1\r\nHost : app\r\n\r\n", 400),
    ] {
        let mut client = cutover.client();
        client.send(sent);
        assert_eq!(client.answer().status, want, "{reason}");
        must_count(&cutover, reason, 1);
    }
}

#[test]
fn a_client_that_never_ends_its_handshake_is_ended() {
    let blue = Upstream::saying("blue");
    let (setup, _, port) = Setup::in_front_of(&blue).with_tls();
    let cutover = setup.set("tls.handshake_timeout", "'300ms'").start();
    let mut client = Client::connect(port);
    client.send(b"\x16\x03\x01\x02\x00\x01\x00"); // the beginning of a hello
    client.rest_or_reset();
    let timed_out = "cutover_tls_handshakes_total{result=\"timed_out\"} 1";
    eventually("it is counted", || cutover.admin_with("GET", "/metrics", "", "").text().contains(timed_out));
}
