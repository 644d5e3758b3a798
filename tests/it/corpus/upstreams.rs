//! Every case of `tests/corpus/upstreams`: what the client gets of an application that is broken, and what the next
//! request gets, which must be its own answer in any case.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::answers::{Answer, answers};
use super::notation::{Case, bytes, cases};
use super::script::{Act, Stage, after};
use crate::harness::{Client, Cutover, End, PATIENCE, Setup, Upstream, free_port};

/// Proxies that run cases beside each other: some cases are about time.
pub const LANES: usize = 8;

/// What a case may say.
pub const KEYS: [&str; 10] = ["rfc", "ask", "do", "h2", "want", "has", "lacks", "body", "reused", "counts"];

/// What one lane runs its cases on: a service for each protocol of applications.
pub struct Lane {
    pub stage: Stage,
    pub cutover: Cutover,
    _http1: Upstream,
    /// Lines of the access log that were looked at.
    logged: usize,
}

impl Lane {
    /// `response_timeout` as TOML has it.
    pub fn new(response_timeout: &str) -> Lane {
        let stage = Stage::default();
        let http1 = {
            let stage = stage.clone();
            Upstream::start(move |conn| stage.serve_http1(conn))
        };
        let cutover = Setup::in_front_of(&http1)
            .service("h2", &[], &[])
            .set("service.h2.blue", stage.serve_http2())
            .set("service.h2.green", free_port())
            .set("service.h2.hosts", "['http2']")
            .set("service.h2.upstream.protocol", "'h2c'")
            .set("service.app.health.interval", "'1h'")
            .set("service.h2.health.interval", "'1h'")
            .set("service.app.upstream.response_timeout", response_timeout)
            .set("service.h2.upstream.response_timeout", response_timeout)
            .set("proxy.workers", 1)
            .set("log.access", "'json'")
            .set("log.access_file", "'access.log'")
            .start();
        Lane { stage, cutover, _http1: http1, logged: 0 }
    }

    /// How the requests of the case ended, in the words of the access log; fewer words where it took too long.
    fn ends(&mut self, requests: usize) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let log = self.cutover.file("access.log");
            let complete = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
            let lines = complete.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
            let of_cases = lines.filter(|line| line["path"] != "/after").skip(self.logged);
            let ends: Vec<_> = of_cases.map(|line| line["end"].as_str().unwrap_or_default().to_owned()).collect();
            if ends.len() >= requests || Instant::now() > deadline {
                self.logged += ends.len();
                return ends;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn have_the_outcome_that_the_corpus_says() {
    let cases = cases("upstreams", &KEYS);
    assert!(cases.len() >= 150, "only {} cases", cases.len());
    let next = AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let lane = || {
            let mut lane = Lane::new("'1s'");
            let mut wrong = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                wrong.extend(run(&mut lane, case).err().map(|why| format!("{}: {why}", case.name)));
            }
            lane.cutover.until_app("no lease is left", |app| app["colors"]["blue"]["in_flight"] == 0);
            wrong
        };
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// What is asked, and what the application does.
pub struct Play<'c> {
    /// Requests, as the corpus writes them.
    pub asked: Vec<&'c str>,
    pub steps: Vec<String>,
    pub is_http2: bool,
}

/// What [`Played::script`] says when the script did not begin.
pub const NOT_ASKED: &str = "the application was not asked";

/// How it went.
pub struct Played {
    /// The answers.
    pub seen: Result<Vec<Answer>, String>,
    /// The application's side.
    pub script: Result<(), String>,
    /// What the next request was answered.
    pub next: Result<(u16, String), String>,
}

impl<'c> Play<'c> {
    /// What a case says.
    pub fn of(case: &'c Case) -> Play<'c> {
        let is_http2 = case.all("h2").next().is_some();
        let steps = case.all(if is_http2 { "h2" } else { "do" }).map(str::to_owned).collect();
        let mut asked: Vec<_> = case.all("ask").collect();
        if asked.is_empty() {
            asked.push(Self::get(is_http2));
        }
        Play { asked, steps, is_http2 }
    }

    /// A GET of the service that speaks HTTP/2, or of the other one.
    pub fn get(is_http2: bool) -> &'static str {
        if is_http2 {
            "GET / HTTP/1.1\\r\\nHost: http2\\r\\n\\r\\n"
        } else {
            "GET / HTTP/1.1\\r\\nHost: http1\\r\\n\\r\\n"
        }
    }

    /// Plays it. `is_it` says whether what was seen so far is what is waited for.
    pub fn on(self, lane: &Lane, is_it: impl Fn(&[Answer], Option<&End>) -> Result<bool, String>) -> Played {
        let ((told, heads), (done, is_done)) = (channel(), channel());
        lane.stage.put(Act { steps: self.steps, heads, done });
        let mut client = lane.cutover.client();
        // The answer may come before the last byte was taken.
        let _ = client.try_send(&self.asked.iter().flat_map(|text| bytes(text)).collect::<Vec<u8>>());
        let methods: Vec<_> = self.asked.iter().filter_map(|text| text.split(' ').next()).collect();
        let seen = seen(&mut client, &methods, || told.send(()).is_ok(), is_it);
        drop(told);
        let script = if lane.stage.take().is_some() {
            Err(NOT_ASKED.to_owned())
        } else {
            match is_done.recv_timeout(PATIENCE) {
                Ok(complaint) => Err(complaint),
                Err(RecvTimeoutError::Disconnected) => Ok(()),
                Err(RecvTimeoutError::Timeout) => Err("the script did not end".to_owned()),
            }
        };
        let is_open = matches!(&seen, Ok((answers, None)) if !closes(answers));
        let next = next(lane, Some(&mut client).filter(|_| is_open), self.is_http2);
        Played { seen: seen.map(|(answers, _)| answers), script, next }
    }
}

/// Whether the last answer says that the connection ends with it.
fn closes(answers: &[Answer]) -> bool {
    answers.last().is_some_and(|answer| memchr::memmem::find(&answer.head, b"\r\nConnection: close").is_some())
}

/// Reads the answers and what becomes of the connection, until that is what is waited for.
fn seen(
    client: &mut Client,
    methods: &[&str],
    mut told: impl FnMut() -> bool,
    is_it: impl Fn(&[Answer], Option<&End>) -> Result<bool, String>,
) -> Result<(Vec<Answer>, Option<End>), String> {
    let (mut raw, mut end, mut heads) = (Vec::new(), None, 0);
    loop {
        let answers = answers(&raw, methods, end.as_ref())?;
        // Not every script waits for it.
        (heads..answers.len()).for_each(|_| _ = told());
        heads = answers.len();
        if is_it(&answers, end.as_ref())? {
            return Ok((answers, end));
        }
        let mut piece = vec![0; 64 * 1024];
        match client.some(&mut piece) {
            Ok(0) => end = Some(End::Closed),
            Ok(n) => raw.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => end = Some(End::Reset),
            Err(error) => return Err(format!("{error} after {:?}", String::from_utf8_lossy(&raw))),
        }
    }
}

/// Asks once more, on the case's connection where that stays open: what it is answered.
fn next(lane: &Lane, client: Option<&mut Client>, is_http2: bool) -> Result<(u16, String), String> {
    let mut another = lane.cutover.client();
    let client = client.unwrap_or(&mut another);
    let host = if is_http2 { "http2" } else { "http1" };
    let asked = client.try_send(format!("GET /after HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    match asked.and_then(|()| client.try_answer(false)) {
        Ok(answer) => Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned())),
        Err(error) => Err(format!("the next request was not answered: {error}")),
    }
}

fn run(lane: &mut Lane, case: &Case) -> Result<(), String> {
    assert!(case.one("rfc").is_some(), "{}: no `rfc`", case.name);
    let play = Play::of(case);
    let requests = play.asked.len();
    let wanted: Vec<_> = case.the("want").split(" or ").map(Outcome::of).collect();
    let Played { seen, script, next } = play.on(lane, |answers, end| {
        if wanted.iter().any(|wanted| wanted.is(answers, end)) {
            return Ok(true);
        }
        let whole = answers.iter().filter(|answer| answer.is_whole && answer.status >= 200).count();
        if end.is_some() || (whole == requests && wanted.iter().all(|wanted| wanted.end == "open")) {
            let all: Vec<_> = answers.iter().map(|answer| (answer.status, answer.is_whole)).collect();
            return Err(format!("{all:?} and {end:?} instead of {}", case.the("want")));
        }
        Ok(false)
    });
    let ends = lane.ends(requests);
    let seen = seen?;
    script?;
    let connection = match next? {
        (200, body) if body.starts_with("after") => body,
        other => return Err(format!("the next request was answered {other:?}")),
    };
    looks(case, seen.last().ok_or("no answer at all")?)?;
    match case.the("reused") {
        "may" => {}
        reused if (reused == "yes") == (connection == after("the used")) => {}
        reused => return Err(format!("reused: {reused}, and the next request was answered {connection:?}")),
    }
    match case.the("counts") {
        counts if ends.last().is_some_and(|end| counts.split(" or ").any(|word| word == end)) => Ok(()),
        counts => Err(format!("counts: {counts}, and it counts {ends:?}")),
    }
}

/// One thing that a client may see.
pub struct Outcome {
    pub statuses: Vec<u16>,
    /// `open`, `closed` or `cut`.
    pub end: String,
}

impl Outcome {
    /// Statuses, of which `103*3` is three, and how it ends.
    pub fn of(text: &str) -> Outcome {
        let mut words: Vec<_> = text.split(' ').collect();
        let end = words.pop().expect("how it ends").to_owned();
        assert!(matches!(&*end, "open" | "closed" | "cut"), "`{text}` does not say how it ends");
        let statuses = words.iter().flat_map(|word| {
            let (status, times) = word.split_once('*').unwrap_or((word, "1"));
            vec![status.parse().expect("a status"); times.parse().expect("a number")]
        });
        Outcome { statuses: statuses.collect(), end }
    }

    fn is(&self, answers: &[Answer], end: Option<&End>) -> bool {
        let statuses = answers.iter().map(|answer| answer.status);
        let is_whole = answers.iter().all(|answer| answer.is_whole);
        let ends = match &*self.end {
            "open" => is_whole && end.is_none(),
            "closed" => is_whole && end == Some(&End::Closed),
            _ => !is_whole && end.is_some(),
        };
        ends && statuses.eq(self.statuses.iter().copied())
    }
}

/// Checks the last answer.
fn looks(case: &Case, answer: &Answer) -> Result<(), String> {
    let fields = [&*answer.head, &*answer.trailers].concat();
    let shown = || format!("{:?} with {:?}", String::from_utf8_lossy(&fields), String::from_utf8_lossy(&answer.body));
    let has =
        |what: &str| memchr::memmem::find(&fields.to_ascii_lowercase(), &bytes(what).to_ascii_lowercase()).is_some();
    if let Some(missing) = case.all("has").find(|what| !has(what)) {
        return Err(format!("not `has: {missing}`: {}", shown()));
    }
    if let Some(there) = case.all("lacks").find(|what| has(what)) {
        return Err(format!("not `lacks: {there}`: {}", shown()));
    }
    match case.one("body") {
        Some(body) if bytes(body) != answer.body => Err(format!("not `body: {body}`: {}", shown())),
        Some(_) | None => Ok(()),
    }
}
