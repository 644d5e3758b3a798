//! Every case of `tests/corpus/requests`: what the client gets, and every byte that the application saw of it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::notation::{Case, bytes, cases};
use super::strict;
use crate::harness::{Client, Cutover, End, Setup, Upstream, plain};

/// Proxies that run cases beside each other: a case is quick, except where it is about time.
const LANES: usize = 8;

/// What one lane runs its cases on.
pub struct Lane {
    blue: Upstream,
    pub cutover: Cutover,
}

impl Lane {
    /// An application that reads each request whole and answers it 200.
    pub fn new() -> Lane {
        let blue = Upstream::start(|conn| {
            loop {
                let request = conn.request()?;
                let body = conn.body(&request)?;
                conn.send(if request.head.starts_with("HEAD ") { plain("200 OK", "") } else { said(&body) })?;
            }
        });
        let cutover = Setup::in_front_of(&blue)
            .set("service.app.health.interval", "'1h'")
            .set("proxy.workers", 1)
            .set("proxy.http2.enabled", false)
            .set("proxy.header_timeout", "'300ms'")
            .set("proxy.body_timeout", "'300ms'")
            .set("proxy.max_body_bytes", 100_000)
            .start();
        Lane { blue, cutover }
    }

    /// What the application saw since the last time, a text for each connection, after it has seen all there is.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        // One worker and one sweep: when this is answered, what came before it is with the application's kernel.
        assert_eq!(self.cutover.get("/sentinel").status, 200);
        let seen = self.blue.seen();
        self.blue.forget();
        let is_case = |seen: &Vec<u8>| !seen.is_empty() && !seen.starts_with(b"GET /sentinel ");
        seen.iter().map(|seen| before_sentinel(seen)).filter(is_case).collect()
    }
}

/// The sentinel may have followed the case on the same connection.
fn before_sentinel(seen: &[u8]) -> Vec<u8> {
    let at = memchr::memmem::find(seen, b"GET /sentinel ").unwrap_or(seen.len());
    seen[..at].to_vec()
}

fn said(body: &[u8]) -> Vec<u8> {
    plain("200 OK", &format!("{} bytes", body.len()))
}

#[test]
fn have_the_outcome_that_the_corpus_says() {
    let cases = cases("requests", &["rfc", "send", "want", "up"]);
    assert!(cases.len() >= 150, "only {} cases", cases.len());
    let next = AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let lane = || {
            let lane = Lane::new();
            let mut wrong = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                wrong.extend(run(&lane, case).err().map(|why| format!("{}: {why}", case.name)));
            }
            wrong
        };
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn run(lane: &Lane, case: &Case) -> Result<(), String> {
    assert!(case.one("rfc").is_some(), "{}: no `rfc`", case.name);
    let sent = case.bytes("send");
    let mut client = lane.cutover.client();
    // The refusal may come before the last byte was taken.
    let _ = client.try_send(&sent);
    let answered = outcome(&mut client, case.the("want"), sent.starts_with(b"HEAD "));
    drop(client);
    let seen = lane.seen();
    answered?;
    for seen in &seen {
        strict::requests(seen).map_err(|why| format!("the application saw {why}"))?;
    }
    let heads = seen.iter().map(|seen| strict::requests(seen)).sum::<Result<usize, String>>()?;
    let seen: Vec<u8> = seen.concat();
    let shown = || format!("the application saw {:?}", String::from_utf8_lossy(&seen));
    assert!(case.all("up").next().is_some(), "{}: no `up`", case.name);
    case.all("up")
        .try_for_each(|up| if saw(&seen, heads, up) { Ok(()) } else { Err(format!("not `{up}`: {}", shown())) })
}

/// `heads` counts the request after the case as well, where one proves that the connection is open.
fn saw(seen: &[u8], heads: usize, up: &str) -> bool {
    let has = |what: &str| {
        let what = bytes(what).to_ascii_lowercase();
        memchr::memmem::find(&seen.to_ascii_lowercase(), &what).is_some()
    };
    match up.split_once(' ') {
        None if up == "nothing" => seen.is_empty(),
        Some(("has", what)) => has(what),
        Some(("lacks", what)) => !has(what),
        Some(("ends", what)) => {
            let after = memchr::memmem::find(seen, b"GET /after HTTP/1.1\r\n").unwrap_or(seen.len());
            seen[..after].ends_with(&bytes(what))
        }
        Some((count, "requests")) => heads == count.parse::<usize>().expect("a number of requests"),
        _ => panic!("`up: {up}` means nothing"),
    }
}

/// Reads the answers and what becomes of the connection.
fn outcome(client: &mut Client, want: &str, head_only: bool) -> Result<(), String> {
    let mut words: Vec<_> = want.split(' ').collect();
    let end = words.pop().expect("how it ends");
    for (n, status) in words.iter().enumerate() {
        let answer = client.try_answer(head_only).map_err(|error| format!("answer {}: {error}", n + 1))?;
        if answer.status.to_string() != *status {
            return Err(format!("{} instead of {status}: {:?}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
    }
    match end {
        "closed" => {
            client.close_sending();
            match client.rest() {
                (rest, End::Closed) if rest.is_empty() => Ok(()),
                (rest, end) => Err(format!("{end:?} after {:?}", String::from_utf8_lossy(&rest))),
            }
        }
        "open" => {
            let after =
                client.try_send(b"GET /after HTTP/1.1\r\nHost: after\r\n\r\n").and_then(|()| client.try_answer(false));
            match after {
                Ok(answer) if answer.status == 200 && answer.text() == "0 bytes" => Ok(()),
                Ok(answer) => Err(format!("the next request got {answer:?}")),
                Err(error) => Err(format!("it does not stay open: {error}")),
            }
        }
        _ => panic!("`want: {want}` does not say how it ends"),
    }
}
