//! Kept connections on both sides, pipelining, old clients, and clients that leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{GET, OK};
use crate::harness::{Client, End, Setup, Upstream, eventually};

#[test]
fn are_kept_on_both_sides() {
    let blue = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&blue).set("proxy.workers", 1).start();
    let mut client = cutover.client();
    for _ in 0..5 {
        assert_eq!(client.ask(GET).text(), "blue");
    }
    assert_eq!(cutover.get("/other").text(), "blue");
    let seen = blue.seen();
    assert_eq!(seen.len(), 1, "one connection for two clients");
    assert_eq!(String::from_utf8_lossy(&seen[0]).matches("GET /").count(), 6);
}

#[test]
fn answer_pipelined_requests_in_order() {
    let blue = Upstream::start(|conn| {
        loop {
            let request = conn.request()?;
            conn.send(crate::harness::plain("200 OK", request.target()))?;
        }
    });
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: app\r\n\r\n")).collect();
    client.send(requests);
    for n in 0..20 {
        assert_eq!(client.answer().text(), format!("/{n}"));
    }
}

#[test]
fn carry_heads_that_arrive_byte_by_byte() {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    for byte in b"\r\nPOST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: app\r\n\r\n"
    {
        client.send([*byte]);
    }
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.answer().status, 200);
    let text = blue.text();
    assert!(text.contains("POST /a ") && text.contains("\r\n\r\nabcGET /b "), "{text}");
}

#[test]
fn of_http_1_0_close_unless_asked_to_stay() {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let (rest, end) = client.rest();
    assert!(String::from_utf8_lossy(&rest).ends_with("\r\n\r\nok") && end == End::Closed);
    let stay = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut client = cutover.client();
    assert_eq!(client.ask(stay).header("connection"), Some("keep-alive"));
    assert_eq!(client.ask(stay).text(), "ok");
    assert!(blue.text().contains(&format!("Host: 127.0.0.1:{}\r\n", cutover.port())), "{}", blue.text());
}

#[test]
fn close_when_the_client_asks_for_it() {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.text(), answer.header("connection")), ("ok", Some("close")));
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
}

#[test]
fn answer_a_client_that_closed_its_sending_side() {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send(GET).close_sending();
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(client.rest().1, End::Closed);
}

#[test]
fn answer_all_that_was_asked_in_a_row_before_the_client_closed_its_sending_side() {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send([GET, GET, GET, "GET /cut HTTP/1.1\r\nHo"].concat()).close_sending();
    for _ in 0..3 {
        assert_eq!(client.answer().text(), "ok");
    }
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
}

#[test]
fn that_died_while_kept_cost_no_request() {
    let (served, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (serve, close) = (Arc::clone(&served), Arc::clone(&closed));
    // It says keep-alive and closes all the same, after each answer.
    let blue = Upstream::start(move |conn| {
        let request = conn.request()?;
        conn.body(&request)?;
        serve.fetch_add(1, Relaxed);
        conn.send(OK)?;
        conn.close();
        close.fetch_add(1, Relaxed);
        Ok(())
    });
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    for n in 1..=50 {
        let request = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(client.ask(request).text(), "ok", "request {n}");
        // A request that its kernel has taken before the close may have been served: that would be another test.
        eventually("it has closed", || closed.load(Relaxed) == n);
    }
    assert_eq!(served.load(Relaxed), 50, "each was served once");
}

#[test]
fn that_died_with_a_request_are_tried_again_only_where_it_is_safe() {
    let blue = Upstream::start(|conn| {
        let request = conn.request()?;
        conn.body(&request)?;
        conn.send(OK)?;
        // The second request on a connection is read, and not answered.
        let request = conn.request()?;
        conn.body(&request)?;
        Ok(())
    });
    let cutover = Setup::in_front_of(&blue).set("proxy.workers", 1).start();
    let mut client = cutover.client();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n").status, 200);
    // From here on there is always one kept connection, which dies with the next request.
    for (method, want) in [("GET", 200), ("PUT", 200), ("DELETE", 200), ("POST", 502), ("PATCH", 502)] {
        blue.forget();
        let request = format!("{method} / HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(client.ask(&request).status, want, "{method}");
        let sent = if want == 200 { 2 } else { 1 };
        assert_eq!(blue.text().matches(&format!("{method} /")).count(), sent, "{method}");
        if want == 502 {
            assert_eq!(client.ask(GET).status, 200, "a new connection");
        }
    }
    // Nor does it matter how long the head is.
    let long = format!("GET / HTTP/1.1\r\nHost: app\r\nCookie: a={}\r\n\r\n", "x".repeat(13_000));
    assert_eq!(client.ask(&long).status, 200);
}

#[test]
fn of_clients_that_leave_within_an_upload_free_their_lease() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.rest().map(drop)
    });
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1000\r\n\r\nhalf");
    let in_flight = |n| move |app: &serde_json::Value| app["colors"]["blue"]["in_flight"] == n;
    cutover.until_app("the upload is in flight", in_flight(1));
    drop(client);
    let app = cutover.until_app("its lease is over", in_flight(0));
    assert_eq!(app["colors"]["blue"]["errors"], 0, "a client that leaves is no error of the color: {app}");
}

#[test]
fn are_refused_above_the_limit() {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).set("proxy.max_connections", 2).start();
    let mut first = cutover.client();
    let mut second = cutover.client();
    assert_eq!((first.ask(GET).status, second.ask(GET).status), (200, 200));
    let mut third = cutover.client();
    let answer = third.answer();
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert!(answer.header("retry-after").is_some());
    drop(first);
    eventually("there is room again", || {
        Client::connect(cutover.port()).send(GET).try_answer(false).is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(second.ask(GET).status, 200);
}
