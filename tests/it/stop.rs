//! TERM: what is in flight finishes, nothing new begins, and the last line says which of the two ends it was.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::harness::{Client, End, Setup, Upstream, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// An upstream that says when a request has arrived and answers when it is told to.
fn held() -> (Upstream, Receiver<()>, Sender<()>) {
    let (arrived, arrivals) = channel();
    let (release, released) = channel::<()>();
    let (arrived, released) = (Mutex::new(arrived), Arc::new(Mutex::new(released)));
    let upstream = Upstream::start(move |conn| {
        loop {
            conn.request()?;
            arrived.lock().unwrap().send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")?;
        }
    });
    (upstream, arrivals, release)
}

#[test]
fn requests_in_flight_finish() {
    let (blue, arrivals, release) = held();
    let green = Upstream::saying("green");
    let mut cutover = Setup::of(&blue, &green).set("proxy.workers", 2).start();
    // One on each worker: when both are closed, both workers are stopping.
    let mut idle = [cutover.client(), cutover.client()];
    let mut busy = cutover.client();
    busy.send(GET);
    arrivals.recv().unwrap();
    cutover.signal(libc::SIGTERM);
    for client in &mut idle {
        assert_eq!(client.rest(), (Vec::new(), End::Closed), "an idle connection is closed at once");
    }
    eventually("new connections are refused", || {
        Client::try_connect(("127.0.0.1", cutover.port())).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(cutover.is_running(), "a request is still in flight");
    release.send(()).unwrap();
    let answer = busy.answer();
    assert_eq!((answer.status, answer.text()), (200, "done"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(busy.rest(), (Vec::new(), End::Closed));
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(cutover.log().contains("stopped: all requests are done"), "{}", cutover.log());
}

#[test]
fn a_kept_connection_between_two_requests_is_closed_without_a_lost_answer() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).start();
    let mut kept: Vec<Client> = (0..20).map(|_| cutover.client()).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.ask(GET).text(), "blue"));
    cutover.signal(libc::SIGTERM);
    kept.iter_mut().for_each(|client| assert_eq!(client.rest(), (Vec::new(), End::Closed)));
    assert_eq!(cutover.ended().code(), Some(0));
}

#[test]
fn the_deadline_cuts_and_says_how_many() {
    let (blue, arrivals, _release) = held();
    let green = Upstream::saying("green");
    let mut cutover = Setup::of(&blue, &green).set("proxy.shutdown_timeout", "'300ms'").start();
    let mut busy: Vec<Client> = (0..3).map(|_| cutover.client()).collect();
    busy.iter_mut().for_each(|client| {
        client.send(GET);
    });
    busy.iter().for_each(|_| arrivals.recv().unwrap());
    let asked = Instant::now();
    cutover.signal(libc::SIGTERM);
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_millis(300), "they had their time");
    for client in &mut busy {
        assert!(client.try_answer(false).map_or(true, |answer| answer.status == 503), "no answer of the application");
    }
    assert!(cutover.log().contains("stopped at the deadline: 3 cut"), "{}", cutover.log());
}

#[test]
fn a_second_term_is_obeyed_at_once() {
    let (blue, arrivals, _release) = held();
    let green = Upstream::saying("green");
    // With the default limit of 30 s this test would not end in time.
    let mut cutover = Setup::of(&blue, &green).start();
    let mut busy = cutover.client();
    busy.send(GET);
    arrivals.recv().unwrap();
    cutover.signal(libc::SIGTERM);
    eventually("it is stopping", || cutover.log().contains("stopping"));
    assert!(cutover.is_running());
    cutover.signal(libc::SIGTERM);
    cutover.ended();
    assert!(cutover.log().contains("stopped by a second signal: 1 cut"), "{}", cutover.log());
}

#[test]
fn int_is_term() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).start();
    cutover.signal(libc::SIGINT);
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(cutover.log().contains("stopped: all requests are done"), "{}", cutover.log());
}

#[test]
fn a_download_in_flight_gets_its_last_byte() {
    const SIZE: usize = 8 << 20;
    let (blue, green) = (Upstream::answering(super::harness::plain("200 OK", &"x".repeat(SIZE))), Upstream::saying(""));
    let mut cutover = Setup::of(&blue, &green).start();
    let mut client = cutover.client();
    client.send(GET);
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    cutover.signal(libc::SIGTERM);
    eventually("it is stopping", || cutover.log().contains("stopping"));
    assert_eq!(client.exactly(SIZE).unwrap().len(), SIZE);
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(cutover.log().contains("stopped: all requests are done"), "{}", cutover.log());
}

#[test]
fn its_place_is_free_at_once() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).set("admin.socket", "'admin.sock'").start();
    for _ in 0..3 {
        assert_eq!(cutover.get("/").text(), "blue");
        cutover.signal(libc::SIGTERM);
        cutover.ended();
        assert!(!cutover.path("admin.sock").exists(), "the socket's file goes with it");
        cutover.run();
    }
}
