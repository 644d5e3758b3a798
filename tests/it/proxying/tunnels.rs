//! Upgrades: after 101 the bytes belong to another protocol.

use crate::harness::{End, Setup, Upstream, eventually};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: app\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Echoes until the client closes its side, then says goodbye.
fn echo() -> Upstream {
    Upstream::start(|conn| {
        let request = conn.request()?;
        assert_eq!((request.header("connection"), request.header("upgrade")), (Some("Upgrade"), Some("websocket")));
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi ")?;
        loop {
            let mut piece = [0; 4096];
            match conn.some(&mut piece)? {
                0 => return conn.send("bye"),
                n => conn.send(&piece[..n])?,
            }
        }
    })
}

#[test]
fn carry_bytes_both_ways_and_each_way_ends_on_its_own() {
    let blue = echo();
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send(UPGRADE).send("early ");
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Upgrade: websocket\r\n"), "{head}");
    assert_eq!(client.exactly(9).unwrap(), b"hi early ");
    for n in 0..100 {
        let message = format!("message {n} ");
        client.send(&message);
        assert_eq!(client.exactly(message.len()).unwrap(), message.as_bytes());
    }
    let app = cutover.app();
    assert_eq!(app["colors"]["blue"]["in_flight"], 1, "a tunnel holds its lease: {app}");
    client.close_sending();
    assert_eq!(client.rest(), (b"bye".to_vec(), End::Closed));
    cutover.until_app("the lease is over", |app| app["colors"]["blue"]["in_flight"] == 0);
}

#[test]
fn are_opened_however_long_the_request_s_head_is() {
    let blue = echo();
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send(UPGRADE.replace("\r\n\r\n", &format!("\r\nCookie: a={}\r\n\r\n", "x".repeat(30_000))));
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

#[test]
fn of_clients_that_are_gone_end_for_applications_that_only_write() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        loop {
            conn.send([b'x'; 16 * 1024])?;
        }
    });
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send(UPGRADE);
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    client.close_sending();
    cutover.until_app("it is open", |app| app["colors"]["blue"]["in_flight"] == 1);
    drop(client);
    cutover.until_app("the lease is over", |app| app["colors"]["blue"]["in_flight"] == 0);
}

#[test]
fn end_with_the_application_s_side_too() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        conn.close_sending()?;
        assert_eq!(conn.rest()?, b"still here");
        Ok(())
    });
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    client.send(UPGRADE);
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
    client.send("still here").close_sending();
    cutover.until_app("the lease is over", |app| app["colors"]["blue"]["in_flight"] == 0);
    eventually("the application has read it", || blue.text().ends_with("still here"));
}

#[test]
fn are_not_opened_by_an_application_that_declines() {
    let blue = Upstream::saying("no");
    let cutover = Setup::in_front_of(&blue).start();
    let mut client = cutover.client();
    assert_eq!(client.ask(UPGRADE).text(), "no");
    assert_eq!(client.ask(UPGRADE).text(), "no", "the connection stays");
}

#[test]
fn to_h2c_are_not_offered() {
    let blue = Upstream::saying("plain");
    let cutover = Setup::in_front_of(&blue).start();
    let asked = "GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n";
    assert_eq!(cutover.client().ask(asked).text(), "plain");
    let seen = blue.text().to_lowercase();
    assert!(!seen.contains("h2c") && !seen.contains("http2-settings"), "{seen}");
}
