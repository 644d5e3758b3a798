//! What a client or an upstream may send on a connection of HTTP/2: whatever it is, each stream's text is one head that a
//! second parser reads, and its body is framed as the head says; and what is held stays within the window.
#![no_main]

use std::task::Waker;
use std::time::Instant;

use cutover::http2::{CONNECTION_WINDOW, SessionLimits, PREFACE, StreamRead, Role, Session};

const LIMITS: SessionLimits = SessionLimits { streams: 8, head_bytes: 4096, resets: 100 };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let role = if first % 2 == 0 { Role::Server } else { Role::Client };
    let now = Instant::now();
    let mut session = Session::new(role, LIMITS, now);
    let mut input = match role {
        Role::Server => [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0][..]].concat(),
        Role::Client => vec![0, 0, 0, 4, 0, 0, 0, 0, 0],
    };
    let mut texts: Vec<(usize, Vec<u8>)> = Vec::new();
    if role == Role::Client {
        for _ in 0..4 {
            let at = session.open().expect("so many are allowed");
            session.put_request(at, b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").expect("a sound request");
            texts.push((at, Vec::new()));
        }
    }
    // In pieces of a size that the input chooses.
    for piece in bytes.chunks(usize::from(first).max(1)) {
        input.extend_from_slice(piece);
        let Ok(used) = session.receive(&input, now) else { break };
        input.drain(..used);
        assert!(input.len() <= 9 + 16_384, "a frame is used when it is whole");
        while let Some(at) = session.accept() {
            texts.push((at, Vec::new()));
        }
        for (at, text) in &mut texts {
            let mut room = [0; 512];
            while let StreamRead::Bytes(n) = session.read(*at, &mut room, Waker::noop()) {
                text.extend_from_slice(&room[..n]);
            }
        }
        session.sent(session.unsent().len());
    }
    let held: usize = texts.iter().map(|(_, text)| text.len()).sum();
    assert!(held <= bytes.len() * 64 + CONNECTION_WINDOW as usize);
    for (at, text) in texts {
        check(role, &text);
        session.release(at);
    }
});

/// Every head in `text` can be read.
fn check(role: Role, text: &[u8]) {
    let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else { return };
    // A target above ASCII is for whoever reads the text to refuse, and both of them do.
    let line = text.split(|&byte| byte == b'\r').next().unwrap_or_default();
    if role == Role::Server && !line.is_ascii() {
        return;
    }
    let mut fields = [httparse::EMPTY_HEADER; 4096];
    let read = match role {
        Role::Server => httparse::Request::new(&mut fields).parse(&text[..end + 4]),
        Role::Client => httparse::Response::new(&mut fields).parse(&text[..end + 4]),
    };
    assert_eq!(read, Ok(httparse::Status::Complete(end + 4)), "{}", text.escape_ascii());
}
