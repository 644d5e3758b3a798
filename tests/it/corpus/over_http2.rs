//! The cases of `tests/corpus/upstreams` once more, for a client that speaks HTTP/2: it sees the same, in frames, and
//! whatever one application does, the client's connection goes on.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;

use super::notation::{Case, bytes, cases};
use super::script::Act;
use super::strict::is_token;
use super::upstreams::{KEYS, LANES, Lane, Outcome, Play};
use crate::http2::wire::*;

#[test]
fn faults_of_an_application_are_the_same_and_cost_no_connection() {
    let cases = cases("upstreams", &KEYS);
    let cases: Vec<_> = cases.iter().filter_map(|case| Some((case, Asked::of(case)?))).collect();
    assert!(cases.len() >= 300, "only {} cases", cases.len());
    let next = AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let lane = || {
            let lane = Lane::new("'1s'");
            // Windows that no case fills.
            let mut client = Wire::with_settings(lane.cutover.port(), &[(4, 0x7fff_ffff)]);
            client.window_update(0, 0x7fff_0000);
            let mut wrong = Vec::new();
            for stream in (1..).step_by(4) {
                let Some((case, asked)) = cases.get(next.fetch_add(1, Relaxed)) else { break };
                wrong.extend(
                    run(&lane, &mut client, stream, case, asked).err().map(|why| format!("{}: {why}", case.name)),
                );
            }
            wrong
        };
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The request of a case as HTTP/2 has it.
struct Asked {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    /// All of the body is there.
    is_whole: bool,
    steps: Vec<String>,
}

impl Asked {
    /// `None` where there is no such request over HTTP/2, or no single one.
    fn of(case: &Case) -> Option<Asked> {
        let Play { asked, steps, .. } = Play::of(case);
        let [asked] = asked[..] else { return None };
        let text = String::from_utf8(bytes(asked)).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let [method, path, "HTTP/1.1"] = lines.next()?.split(' ').collect::<Vec<_>>()[..] else { return None };
        let mut fields: Vec<_> = [(":method", method), (":scheme", "http"), (":path", path)]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
        let mut length = 0;
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            match &*name.to_ascii_lowercase() {
                "host" => fields.push((":authority".to_owned(), value.to_owned())),
                "connection" => {}
                "upgrade" | "transfer-encoding" => return None,
                name => {
                    length = if name == "content-length" { value.parse().ok()? } else { length };
                    fields.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        let is_whole = body.len() == length;
        (body.len() < 16_000).then(|| Asked { fields, body: body.as_bytes().to_vec(), is_whole, steps })
    }
}

/// Sends a request at once, so that all of it is at hand where it has to be sent again.
fn ask(client: &mut Wire, stream: u32, asked: &Asked) {
    let fields: Vec<_> = asked.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let end = if asked.is_whole { END } else { 0 };
    let frames = if asked.body.is_empty() {
        frame(HEADERS, WHOLE | end, stream, &block(&fields))
    } else {
        [frame(HEADERS, WHOLE, stream, &block(&fields)), frame(DATA, end, stream, &asked.body)].concat()
    };
    client.raw(&frames);
}

fn run(lane: &Lane, client: &mut Wire, stream: u32, case: &Case, asked: &Asked) -> Result<(), String> {
    let ((told, heads), (done, is_done)) = (channel(), channel());
    lane.stage.put(Act { steps: asked.steps.clone(), heads, done });
    let is_head = asked.fields[0].1 == "HEAD";
    ask(client, stream, asked);
    let mut heads = 0;
    let message = loop {
        let so_far = client.so_far(stream);
        let so_many = so_far.map_or(0, |message| message.heads.len());
        // Not every script waits for it.
        (heads..so_many).for_each(|_| _ = told.send(()));
        heads = so_many;
        if so_far.is_some_and(|message| message.is_whole || message.reset.is_some()) {
            break client.answer(stream);
        }
        client.next().ok_or("the connection ended")?;
    };
    drop(told);
    // What is wrong on the application's side shows in the other test.
    let _ = (lane.stage.take(), is_done.recv());
    let host = asked.fields.iter().find(|field| field.0 == ":authority").expect("every case has one");
    let after = [(":method", "GET"), (":scheme", "http"), (":path", "/after"), (":authority", &host.1)];
    client.headers(stream + 2, END, &after);
    let next = client.answer(stream + 2);
    if next.status() != 200 || !next.text().starts_with("after") {
        return Err(format!("the next request was answered {next:?}"));
    }
    sound(&message, is_head)?;
    let is = |wanted: &Outcome| {
        let statuses = message.heads.iter().filter_map(|head| value(head, ":status")?.parse::<u16>().ok());
        let is_cut = message.reset.is_some() && !message.is_whole;
        statuses.eq(wanted.statuses.iter().copied()) && (wanted.end == "cut") == is_cut
    };
    if !case.the("want").split(" or ").any(|wanted| is(&Outcome::of(wanted))) {
        return Err(format!("{message:?} instead of {}", case.the("want")));
    }
    looks(case, &message)
}

/// Checks the last answer, but for what HTTP/2 does not say in fields.
fn looks(case: &Case, message: &Message) -> Result<(), String> {
    let last = message.heads.iter().skip(heads_before_the_last(message)).flatten();
    let lines: String = last.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let fields = format!("\r\n{lines}").to_ascii_lowercase();
    let has = |what: &str| fields.contains(&*String::from_utf8_lossy(&bytes(what)).to_ascii_lowercase());
    let is_of_http1 = |what: &str| what.starts_with("HTTP/") || what.contains("Connection");
    if let Some(missing) = case.all("has").find(|what| !is_of_http1(what) && !has(what)) {
        return Err(format!("not `has: {missing}`: {fields}"));
    }
    if let Some(there) = case.all("lacks").find(|what| has(what)) {
        return Err(format!("not `lacks: {there}`: {fields}"));
    }
    match case.one("body") {
        Some(body) if message.is_whole && bytes(body) != message.body => {
            Err(format!("not `body: {body}`: {}", message.text()))
        }
        Some(_) | None => Ok(()),
    }
}

/// Heads before the final one.
fn heads_before_the_last(message: &Message) -> usize {
    message.heads.iter().rposition(|head| value(head, ":status").is_some()).unwrap_or(0)
}

/// RFC 9113 8: what every client takes for the same message.
fn sound(message: &Message, is_head: bool) -> Result<(), String> {
    const OF_CONNECTION: [&str; 6] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"];
    let shown = || format!("{message:?}");
    for (nth, head) in message.heads.iter().enumerate() {
        for (name, value) in head {
            let is_status = name == ":status" && value.len() == 3;
            let is_name = is_token(name.as_bytes()) && *name == name.to_ascii_lowercase();
            let is_value = value.chars().all(|char| char == '\t' || !char.is_control()) && value.trim() == value;
            if !(is_status || is_name) || !is_value || OF_CONNECTION.contains(&&**name) {
                return Err(format!("{name}: {value} of {}", shown()));
            }
        }
        let statuses = head.iter().filter(|(name, _)| name == ":status").count();
        if statuses != usize::from(nth <= heads_before_the_last(message)) {
            return Err(shown());
        }
    }
    let last = &message.heads.get(heads_before_the_last(message));
    let bodiless = is_head || last.is_some_and(|head| value(head, ":status") == Some("304"));
    let length = last.and_then(|head| value(head, "content-length"));
    match length {
        Some(length) if message.is_whole && !bodiless && *length != message.body.len().to_string() => Err(shown()),
        Some(_) | None => Ok(()),
    }
}
