//! Bodies larger than any buffer: streamed with back-pressure, in little memory. 64 MB each way, 2 GiB when
//! `CUTOVER_TEST_LONG=1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::harness::{Cutover, PATIENCE, Setup, Upstream};

/// Prime, so that a lost or doubled piece of any usual size shows.
const PERIOD: usize = 251;

const PIECE: usize = 64 * 1024;

/// How much larger the proxy may become.
const GROWTH_MAX_KIB: u64 = 8 * 1024;

fn total() -> u64 {
    if std::env::var_os("CUTOVER_TEST_LONG").is_some_and(|v| v == "1") { 2 << 30 } else { 64 << 20 }
}

/// The bytes that come again and again; a slice from `at % PERIOD` is what belongs at `at`.
fn pattern() -> Vec<u8> {
    (0..PIECE + PERIOD).map(|n| (n % PERIOD) as u8).collect()
}

/// Writes all of it, counting what was taken.
fn write_all(sent: &AtomicU64, mut write: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    let (pattern, total) = (pattern(), total());
    while sent.load(Relaxed) < total {
        let at = sent.load(Relaxed);
        let n = PIECE.min(usize::try_from(total - at).unwrap());
        let from = (at % PERIOD as u64) as usize;
        write(&pattern[from..from + n])?;
        sent.fetch_add(n as u64, Relaxed);
    }
    Ok(())
}

/// Reads all of it and checks every byte.
fn read_all(mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> std::io::Result<()> {
    let (pattern, total) = (pattern(), total());
    let mut piece = [0; PIECE];
    let mut at = 0;
    while at < total {
        let n = read(&mut piece)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let from = (at % PERIOD as u64) as usize;
        assert!(piece[..n] == pattern[from..from + n], "a wrong byte after {at}");
        at += n as u64;
    }
    Ok(())
}

/// Waits until the sender cannot send any more, and says how much it could.
fn stalled(sent: &AtomicU64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = sent.load(Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        let now = sent.load(Relaxed);
        if now > 0 && now == before {
            return now;
        }
        assert!(Instant::now() < deadline, "it never stalls");
    }
}

fn assert_small(cutover: &Cutover, before_kib: u64, when: &str) {
    let now = cutover.rss_kib();
    assert!(now < before_kib + GROWTH_MAX_KIB, "{when}: {before_kib} KiB became {now} KiB");
}

#[test]
fn downloads_are_streamed_at_the_reader_s_pace() {
    let sent = Arc::new(AtomicU64::new(0));
    let ours = Arc::clone(&sent);
    let blue = Upstream::start(move |conn| {
        conn.request()?;
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", total()))?;
        write_all(&ours, |piece| conn.send(piece))
    });
    let cutover = Setup::in_front_of(&blue).set("proxy.idle_timeout", "'5m'").start();
    let before = cutover.rss_kib();
    let mut client = cutover.client();
    client.send(super::GET);
    client.head().unwrap();
    let taken = stalled(&sent);
    assert!(taken < total() / 2, "{taken} bytes were taken for a client that reads nothing");
    assert_small(&cutover, before, "a client that reads nothing");
    read_all(|piece| client.some(piece)).unwrap();
    assert_small(&cutover, before, "the end");
}

#[test]
fn uploads_are_streamed_at_the_application_s_pace() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let blue = Upstream::start(move |conn| {
        let request = conn.request()?;
        assert_eq!(request.header("content-length"), Some(total().to_string().as_str()));
        let _ = gone.lock().unwrap().recv();
        read_all(|piece| conn.some(piece))?;
        conn.send(super::OK)
    });
    let cutover = Setup::in_front_of(&blue).start();
    let before = cutover.rss_kib();
    let mut client = cutover.client();
    let mut sender = crate::harness::Client::of(client.stream().try_clone().unwrap());
    let sent = Arc::new(AtomicU64::new(0));
    let ours = Arc::clone(&sent);
    let sending = std::thread::spawn(move || {
        sender.send(format!("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: {}\r\n\r\n", total()));
        write_all(&ours, |piece| sender.try_send(piece))
    });
    let taken = stalled(&sent);
    assert!(taken < total() / 2, "{taken} bytes were taken for an application that reads nothing");
    assert_small(&cutover, before, "an application that reads nothing");
    go.send(()).unwrap();
    assert_eq!(client.answer().text(), "ok");
    sending.join().unwrap().unwrap();
    assert_small(&cutover, before, "the end");
}
