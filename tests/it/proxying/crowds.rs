//! More requests at once than a worker takes in before it looks for answers.

use std::sync::{Arc, Barrier};

use super::{GET, OK};
use crate::harness::{Client, Setup, Upstream, secured};

/// Of one worker, which has its line beyond 64.
const CROWD: usize = 200;

/// An application that answers nobody before all of the crowd have asked.
fn waits_for_all() -> Upstream {
    let all = Arc::new(Barrier::new(CROWD));
    Upstream::start(move |conn| {
        conn.request()?;
        all.wait();
        conn.send(OK)?;
        conn.answer_all(OK.as_bytes())
    })
}

fn in_front_of(app: &Upstream) -> Setup {
    // The accept queue of this application is shorter than the crowd.
    Setup::in_front_of(app).set("proxy.workers", 1).set("service.app.upstream.connect_timeout", "'20s'")
}

#[test]
fn are_all_with_an_application_that_takes_its_time() {
    let app = waits_for_all();
    let cutover = in_front_of(&app).start();
    let mut crowd: Vec<_> = (0..CROWD).map(|_| cutover.client()).collect();
    for client in &mut crowd {
        client.send(GET);
    }
    for client in &mut crowd {
        assert_eq!(client.answer().status, 200);
        assert_eq!(client.ask(GET).status, 200, "once more, in any order");
    }
}

#[test]
fn are_so_over_tls_where_two_requests_come_in_one_record() {
    let app = waits_for_all();
    let (setup, authority, port) = in_front_of(&app).with_tls();
    let _cutover = setup.start();
    let trusted = authority.trusted();
    let mut crowd: Vec<_> = (0..CROWD).map(|_| secured(port, "app.example", &trusted).unwrap()).collect();
    for client in &mut crowd {
        client.send(GET.repeat(2));
    }
    for client in &mut crowd {
        assert_eq!((client.answer().status, client.answer().status), (200, 200));
    }
}

#[test]
fn leave_room_for_others_whatever_they_do_for_ever() {
    let app = Upstream::start(|conn| {
        let request = conn.request()?;
        if request.target() == "/tunnel" {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")?;
            loop {
                let piece = conn.exactly(1)?;
                conn.send(piece)?;
            }
        }
        conn.send(OK)?;
        conn.answer_all(OK.as_bytes())
    });
    let cutover = in_front_of(&app).start();
    let open = |_| {
        let mut client = cutover.client();
        client.send("GET /tunnel HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        assert!(client.head().unwrap().contains(" 101 "));
        client
    };
    let mut tunnels: Vec<Client> = (0..CROWD).map(open).collect();
    assert_eq!(cutover.client().ask(GET).status, 200);
    for tunnel in &mut tunnels {
        tunnel.send("x");
        assert_eq!(tunnel.exactly(1).unwrap(), b"x");
    }
}
