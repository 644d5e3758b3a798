//! Where a message ends: lengths, chunks, trailers, answers without a body, interim answers.

use super::{GET, OK};
use crate::harness::{End, Setup, Upstream};

#[test]
fn chunks_and_trailers_go_both_ways() {
    let blue = Upstream::start(|conn| {
        let request = conn.request()?;
        let body = conn.body(&request)?;
        let payload = String::from_utf8_lossy(&body);
        assert!(payload.contains("hello") && payload.contains("world"));
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n")?;
        conn.send("2\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 3\r\n\r\n")
    });
    let cutover = Setup::in_front_of(&blue).start();
    let answer = cutover.client().ask(
        "POST / HTTP/1.1\r\nHost: app\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Up\r\n\r\n\
         5\r\nhello\r\n5;ext=1\r\nworld\r\n0\r\nX-Up: yes\r\nHost: other\r\n\r\n",
    );
    assert_eq!((answer.text(), answer.trailers.as_str()), ("abcde", "X-Sum: 5\r\n"));
    let seen = blue.text();
    assert!(seen.contains("X-Up: yes\r\n") && seen.ends_with("\r\n\r\n"), "{seen}");
    assert!(!seen.contains("other"), "a trailer that routes is not passed on: {seen}");
}

#[test]
fn an_answer_without_a_body_ends_with_its_head() {
    for (case, method, head) in [
        ("HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ("HEAD with chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("304", "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 10\r\n\r\n"),
        ("an empty 200", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let blue = Upstream::answering(head);
        let cutover = Setup::in_front_of(&blue).set("proxy.workers", 1).start();
        let mut client = cutover.client();
        for _ in 0..3 {
            let answer = client.ask(&format!("{method} / HTTP/1.1\r\nHost: app\r\n\r\n"));
            assert!(answer.body.is_empty() && head.contains(&format!(" {} ", answer.status)), "{case}: {answer:?}");
            let length = head.contains(": 10").then_some("10");
            assert_eq!(answer.header("content-length").filter(|l| *l != "0"), length, "{case}");
        }
        assert_eq!(blue.seen().len(), 1, "{case}: the upstream's connection was kept");
    }
}

#[test]
fn continue_is_the_application_s_word() {
    let blue = Upstream::start(|conn| {
        loop {
            let request = conn.request()?;
            assert_eq!(request.header("expect"), Some("100-continue"));
            if request.target() == "/no" {
                conn.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
                return Ok(());
            }
            conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            let body = conn.body(&request)?;
            conn.send(crate::harness::plain("200 OK", &String::from_utf8_lossy(&body)))?;
        }
    });
    let cutover = Setup::in_front_of(&blue).start();
    let head = |path| format!("POST {path} HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    let mut client = cutover.client();
    assert_eq!(client.ask(&head("/yes")).status, 100);
    assert_eq!(client.ask("abc").text(), "abc");
    assert_eq!(client.ask(&head("/no")).status, 417);
    assert_eq!(client.rest(), (Vec::new(), End::Closed), "the body that never came cannot be skipped");
}

#[test]
fn early_hints_are_passed_on_but_not_to_http_1_0() {
    let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}");
    let blue = Upstream::answering(hints);
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    let early = client.ask(GET);
    assert_eq!((early.status, early.header("link")), (103, Some("</a>")));
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(cutover.client().ask("GET / HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn an_interim_answer_does_not_wait_for_the_final_one() {
    let (go, gone) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let blue = Upstream::start(move |conn| {
        conn.request()?;
        conn.send("HTTP/1.1 103 Early Hints\r\n\r\n")?;
        let _ = gone.lock().unwrap().recv();
        conn.send(OK)
    });
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    assert_eq!(client.ask(GET).status, 103);
    go.send(()).unwrap();
    assert_eq!(client.answer().status, 200);
}

#[test]
fn an_answer_until_close_becomes_chunks() {
    let blue = Upstream::closing_after("HTTP/1.1 200 OK\r\n\r\nabc");
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    for _ in 0..2 {
        let answer = client.ask(GET);
        assert_eq!((answer.text(), answer.header("transfer-encoding")), ("abc", Some("chunked")));
    }
    let old = cutover.client().ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((old.text(), old.header("transfer-encoding")), ("abc", None));
}

#[test]
fn chunks_become_a_close_for_http_1_0() {
    let blue = Upstream::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let cutover = Setup::in_front_of(&blue).start();
    let answer = cutover.client().ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((answer.text(), answer.header("connection")), ("abc", Some("close")));
}

#[test]
fn events_arrive_one_by_one() {
    let (step, steps) = std::sync::mpsc::channel::<()>();
    let steps = std::sync::Mutex::new(steps);
    let blue = Upstream::start(move |conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for n in 0..3 {
            if steps.lock().unwrap().recv().is_err() {
                break;
            }
            let event = format!("data: {n}\n\n");
            conn.send(format!("{:x}\r\n{event}\r\n", event.len()))?;
        }
        conn.rest().map(drop)
    });
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send(GET);
    assert!(client.head().unwrap().contains("text/event-stream"));
    for n in 0..3 {
        // The application waits for us: what it has said must be here before it says more.
        step.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), format!("data: {n}\n\n").as_bytes());
    }
    drop(client);
    cutover.until_app("the stream's lease is over", |app| app["colors"]["blue"]["in_flight"] == 0);
}
