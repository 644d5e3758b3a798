//! What has no end of its own when the color changes: it is ended where it may end, and is not cut before the deadline.

use std::time::{Duration, Instant};

use crate::harness::{Client, Cutover, End, Setup, Upstream, eventually};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: app\r\n\r\n";
/// What the proxy closes a WebSocket with: 1001, going away.
const CLOSE: &[u8] = b"\x88\x0a\x03\xe9draining";
/// A client's answer to it: the same code, masked with zeros.
const ANSWER: &[u8] = b"\x88\x82\0\0\0\0\x03\xe9";

/// A proxy before `blue`, and before a green that answers its name.
fn in_front_of(blue: &Upstream, drain: &str) -> (Cutover, Upstream) {
    let green = Upstream::saying("green");
    (Setup::of(blue, &green).set("service.app.drain.timeout", format!("'{drain}'")).start(), green)
}

fn open_socket(cutover: &Cutover) -> Client {
    let mut client = cutover.client();
    client.send(UPGRADE);
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    client
}

/// Sends a message in two frames, the second one when the client says so by one byte, and then everything it is sent.
fn messages() -> Upstream {
    Upstream::start(|conn| {
        conn.request()?;
        conn.send(SWITCH)?;
        conn.send(b"\x01\x02he")?;
        conn.some(&mut [0; 16])?;
        conn.send(b"\x80\x03llo\x81\x05never")?;
        conn.until(ANSWER)?;
        Ok(())
    })
}

#[test]
fn a_websocket_is_closed_after_its_message_and_both_sides_know() {
    let blue = messages();
    let (cutover, _green) = in_front_of(&blue, "4s");
    let mut client = open_socket(&cutover);
    assert_eq!(client.exactly(4).unwrap(), b"\x01\x02he");
    let app = cutover.app();
    assert_eq!(app["colors"]["blue"]["long_lived"]["websocket"]["open"], 1, "{app}");
    let changed = std::thread::scope(|scope| {
        let flip = scope.spawn(|| cutover.must_flip("green"));
        cutover.until_app("green is active", |app| app["active"] == "green");
        std::thread::sleep(Duration::from_secs(3)); // its turn to leave has come by now, and it is within a message
        client.send(b"\x81\x81\0\0\0\0x");
        assert_eq!(client.exactly(5 + CLOSE.len()).unwrap(), [b"\x80\x03llo", CLOSE].concat(), "no second message");
        client.send(ANSWER);
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
        flip.join().unwrap()
    });
    assert_eq!(changed["drain"]["cut"], 0, "{changed}");
    eventually("the application has the Close", || blue.seen().concat().ends_with(ANSWER));
    let app = cutover.app();
    let ends = &app["colors"]["blue"]["long_lived"]["websocket"];
    assert_eq!((&ends["open"], &ends["closed"], &ends["cut"]), (&0.into(), &1.into(), &0.into()), "{app}");
    let metric = "cutover_drain_ends_total{service=\"app\",color=\"blue\",kind=\"websocket\",end=\"closed\"} 1";
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let metrics = metrics.text();
    assert!(metrics.contains(metric), "{metrics}");
}

#[test]
fn a_websocket_that_never_ends_its_message_is_cut_at_the_deadline() {
    let blue = messages();
    let (cutover, _green) = in_front_of(&blue, "500ms");
    let mut client = open_socket(&cutover);
    let changed = cutover.must_flip("green");
    assert_eq!(changed["drain"]["cut"], 1, "{changed}");
    assert_eq!(client.rest().0, b"\x01\x02he", "no Close within a message");
    assert_eq!(cutover.app()["colors"]["blue"]["long_lived"]["websocket"]["cut"], 1);
}

#[test]
fn a_tunnel_of_another_protocol_is_left_alone_until_the_deadline() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhi")?;
        conn.rest()?;
        Ok(())
    });
    let (cutover, _green) = in_front_of(&blue, "1s");
    let mut client = cutover.client();
    client.send(UPGRADE.replace("websocket", "chat"));
    client.head().unwrap();
    let began = Instant::now();
    assert_eq!(cutover.must_flip("green")["drain"]["cut"], 1);
    assert!(began.elapsed() >= Duration::from_secs(1), "not before the deadline");
    assert_eq!(client.rest().0, b"hi");
    assert_eq!(cutover.app()["colors"]["blue"]["long_lived"]["tunnel"]["cut"], 1);
}

#[test]
fn many_websockets_leave_one_after_the_other_and_none_is_cut() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send(SWITCH)?;
        conn.send(b"\x81\x02hi")?;
        conn.until(ANSWER)?;
        Ok(())
    });
    let (cutover, _green) = in_front_of(&blue, "3s");
    let mut clients: Vec<_> = (0..30).map(|_| open_socket(&cutover)).collect();
    let (changed, left) = std::thread::scope(|scope| {
        let began = Instant::now();
        let leaving: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    assert_eq!(client.exactly(4 + CLOSE.len()).unwrap(), [b"\x81\x02hi", CLOSE].concat());
                    let left = began.elapsed();
                    client.send(ANSWER);
                    assert_eq!(client.rest(), (Vec::new(), End::Closed));
                    left
                })
            })
            .collect();
        let changed = cutover.must_flip("green");
        (changed, leaving.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>())
    });
    assert_eq!(changed["drain"]["cut"], 0, "{changed}");
    let (first, last) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!(*last - *first > Duration::from_millis(700), "they left between {first:?} and {last:?}");
}

#[test]
fn an_event_stream_ends_after_its_event_and_the_connection_goes_on_with_the_new_color() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        conn.send("9\r\ndata: 1\n\n\r\n")?;
        conn.send("7\r\ndata: 2\r\n")?;
        loop {
            conn.send("1\r\n.\r\n")?;
            std::thread::sleep(Duration::from_millis(50));
            conn.send("9\r\n\n\ndata: 3\r\n")?;
        }
    });
    let (cutover, _green) = in_front_of(&blue, "2s");
    let mut client = cutover.client();
    client.send(EVENTS);
    cutover.until_app("blue has it", |app| app["colors"]["blue"]["in_flight"] == 1);
    let changed = std::thread::scope(|scope| {
        let flip = scope.spawn(|| cutover.must_flip("green"));
        let answer = client.answer();
        let text = answer.text();
        assert!(text.starts_with("data: 1\n\ndata: 2.\n\n") && text.ends_with("\n\n"), "{text:?}");
        assert!(answer.header("connection").is_none(), "{answer:?}");
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n").text(), "green");
        flip.join().unwrap()
    });
    assert_eq!(changed["drain"]["cut"], 0, "{changed}");
    let app = cutover.app();
    assert_eq!(app["colors"]["blue"]["long_lived"]["event_stream"]["closed"], 1, "{app}");
}

#[test]
fn a_compressed_event_stream_is_not_ended_at_bytes_that_look_like_line_ends() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n")?;
        conn.send("Transfer-Encoding: chunked\r\n\r\n")?;
        loop {
            conn.send("4\r\n\x1f\n\n.\r\n")?;
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let (cutover, _green) = in_front_of(&blue, "1s");
    let mut client = cutover.client();
    client.send(EVENTS);
    client.head().unwrap();
    assert_eq!(cutover.must_flip("green")["drain"]["cut"], 1);
    let (text, _) = client.rest();
    assert!(!text.ends_with(b"0\r\n\r\n"), "it does not look whole");
    let events = &cutover.app()["colors"]["blue"]["long_lived"]["event_stream"];
    assert_eq!((&events["closed"], &events["cut"]), (&0.into(), &1.into()), "{events}");
}

#[test]
fn a_quiet_event_stream_ends_too_and_an_ordinary_answer_takes_its_time() {
    let blue = Upstream::start(|conn| {
        let request = conn.request()?;
        if request.target() == "/events" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")?;
        } else {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
            std::thread::sleep(Duration::from_millis(2500));
            conn.send("world")?;
        }
        conn.rest()?;
        Ok(())
    });
    let (cutover, _green) = in_front_of(&blue, "3s");
    let (mut events, mut slow) = (cutover.client(), cutover.client());
    events.send(EVENTS);
    slow.send("GET /slow HTTP/1.1\r\nHost: app\r\n\r\n");
    cutover.until_app("both are in flight", |app| app["colors"]["blue"]["in_flight"] == 2);
    cutover.until_app("one is an event stream", |app| app["colors"]["blue"]["long_lived"]["event_stream"]["open"] == 1);
    assert_eq!(cutover.must_flip("green")["drain"]["cut"], 0);
    assert_eq!(events.answer().text(), "data: 1\n\n");
    assert_eq!(slow.answer().text(), "helloworld");
}

#[test]
fn a_stop_closes_websockets_as_well() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send(SWITCH)?;
        conn.until(ANSWER)?;
        Ok(())
    });
    let mut cutover = Setup::in_front_of(&blue).set("proxy.shutdown_timeout", "'2s'").start();
    let mut client = open_socket(&cutover);
    cutover.signal(libc::SIGTERM);
    assert_eq!(client.exactly(CLOSE.len()).unwrap(), CLOSE);
    client.send(ANSWER);
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
    assert!(cutover.ended().success());
}
