//! Applications that do what a case says: the steps of one script, once, and after it only what is sound.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::notation::bytes;
use crate::harness::{Conn, PATIENCE, Request, free_port, plain};
use crate::http2::wire::*;

/// What may be sent without end before somebody has to have ended it.
const FLOOD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Time between what has to arrive in pieces. No outcome depends on it.
const PAUSE: Duration = Duration::from_millis(30);

/// One case's script, to be played by whichever connection its request arrives on.
pub struct Act {
    /// Lines of `word rest`.
    pub steps: Vec<String>,
    /// One message for each head that the client has read.
    pub heads: Receiver<()>,
    /// What went wrong; dropped when the script is over.
    pub done: Sender<String>,
}

/// Where the next act waits.
#[derive(Clone, Default)]
pub struct Stage(Arc<Mutex<Option<Act>>>);

/// Whether the connection goes on behind a script.
type Played = io::Result<()>;

impl Stage {
    pub fn put(&self, act: Act) {
        *self.0.lock().unwrap() = Some(act);
    }

    pub fn take(&self) -> Option<Act> {
        self.0.lock().unwrap().take()
    }

    fn take_if_ungreeted(&self) -> Option<Act> {
        self.0.lock().unwrap().take_if(|act| act.steps.first().is_some_and(|step| step == "ungreeted"))
    }

    /// Serves one connection that speaks HTTP/1.
    pub fn serve_http1(&self, conn: &mut Conn) -> io::Result<()> {
        let mut connection = "a fresh";
        loop {
            let request = conn.request()?;
            if request.target() == "/after" {
                let body = after(connection);
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                return conn.send(head + &body);
            }
            connection = "the used";
            match self.take() {
                Some(act) => act.play_http1(conn, request)?,
                None => {
                    conn.body(&request)?;
                    conn.send(plain("200 OK", AGAIN))?;
                }
            }
        }
    }

    /// Listens for connections that speak HTTP/2, for as long as the test runs: its port.
    pub fn serve_http2(&self) -> u16 {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let stage = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let stage = stage.clone();
                // An error is the proxy's close, or our own.
                std::thread::spawn(move || stage.serve_stream(stream).is_ok());
            }
        });
        port
    }

    fn serve_stream(&self, stream: TcpStream) -> io::Result<()> {
        let mut wire = Wire::of(stream);
        wire.exactly(PREFACE.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        if let Some(act) = self.take_if_ungreeted() {
            act.play_http2(&mut wire, None)?;
        } else {
            wire.settings(&[]);
        }
        let mut connection = "a fresh";
        while let Some(frame) = wire.next() {
            match frame.kind {
                SETTINGS | PING if frame.flags & END == 0 => {
                    let echo = if frame.kind == PING { &*frame.payload } else { b"" };
                    wire.send(frame.kind, END, 0, echo);
                }
                HEADERS => match value(&fields(&frame.payload), ":path") {
                    Some("/readyz") => drop(wire.headers(frame.stream, END, &[(":status", "200")])),
                    Some("/after") => {
                        // Before the answer, so that whoever has read that opens no stream here.
                        let last = frame.stream.to_be_bytes();
                        wire.send(GOAWAY, 0, 0, &[last, [0; 4]].concat());
                        answer(&mut wire, frame.stream, &after(connection));
                    }
                    _ => {
                        connection = "the used";
                        match self.take() {
                            Some(act) => act.play_http2(&mut wire, Some(&frame))?,
                            None => answer(&mut wire, frame.stream, AGAIN),
                        }
                    }
                },
                _ => {}
            }
        }
        Ok(())
    }
}

/// The body for a request that a script was not for.
const AGAIN: &str = "again";

/// The body for the request after the case.
pub fn after(connection: &str) -> String {
    format!("after, on {connection} connection")
}

fn answer(wire: &mut Wire, stream: u32, body: &str) {
    wire.headers(stream, 0, &[(":status", "200")]).send(DATA, END, stream, body.as_bytes());
}

fn over() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl Act {
    fn await_head(&self) {
        let _ = self.heads.recv_timeout(PATIENCE);
    }

    /// Sends without end, until the proxy closes.
    fn flood(&self, bytes: &[u8], mut send: impl FnMut(&[u8]) -> io::Result<()>) -> Played {
        let many = bytes.repeat(16 * 1024 / bytes.len() + 1);
        let mut sent = 0;
        while sent < FLOOD_BYTES_MAX {
            send(&many)?;
            sent += many.len();
        }
        let _ = self.done.send(format!("{sent} bytes of a flood were taken"));
        Err(over())
    }

    fn play_http1(self, conn: &mut Conn, mut request: Request) -> Played {
        for step in &self.steps {
            match step.split_once(' ').unwrap_or((step, "")) {
                ("send", text) => conn.send(bytes(text))?,
                ("drip", text) => bytes(text).chunks(1).try_for_each(|byte| conn.send(byte))?,
                ("flood", text) => self.flood(&bytes(text), |many| conn.send(many))?,
                ("body", "") => drop(conn.body(&request)?),
                ("take", "") => {
                    request = conn.request()?;
                    conn.body(&request)?;
                }
                ("await", "") => self.await_head(),
                ("pause", "") => std::thread::sleep(PAUSE),
                ("close", "") => return Err(over()),
                ("reset", "") => {
                    conn.reset();
                    return Err(over());
                }
                _ => panic!("`do: {step}` means nothing"),
            }
        }
        Ok(())
    }

    fn play_http2(self, wire: &mut Wire, request: Option<&Frame>) -> Played {
        let mut own = request.map_or(1, |request| request.stream);
        let mut is_open = request.is_some_and(|request| request.flags & END == 0);
        for step in &self.steps {
            if let Some(written) = written(step, own) {
                wire.raw(&written);
                continue;
            }
            match step.split_once(' ').unwrap_or((step, "")) {
                ("ungreeted", "") => {}
                ("flood", text) => {
                    let frame = frame_of(text, own);
                    self.flood(&frame, |many| wire.try_raw(many))?;
                }
                ("body", "") => {
                    while is_open {
                        let frame = wire.next().ok_or_else(over)?;
                        is_open = frame.stream != own || frame.flags & END == 0;
                    }
                }
                ("take", "") => {
                    let request = wire.frame(|frame| frame.kind == HEADERS).ok_or_else(over)?;
                    (own, is_open) = (request.stream, request.flags & END == 0);
                }
                ("await", "") => self.await_head(),
                ("pause", "") => std::thread::sleep(PAUSE),
                ("close", "") => {
                    // Read to its end: a close with unread bytes would be a reset.
                    wire.stream().shutdown(Shutdown::Write)?;
                    wire.end();
                    return Err(over());
                }
                ("reset", "") => {
                    socket2::SockRef::from(wire.stream()).set_linger(Some(Duration::ZERO))?;
                    return Err(over());
                }
                _ => panic!("`h2: {step}` means nothing"),
            }
        }
        Ok(())
    }
}

/// What a step of a script for HTTP/2 writes at once, on this stream.
pub fn written(step: &str, own: u32) -> Option<Vec<u8>> {
    match step.split_once(' ').unwrap_or((step, "")) {
        ("headers", fields) => {
            let (end, fields) = fields.strip_prefix("END").map_or((0, fields), |fields| (END, fields));
            Some(frame(HEADERS, WHOLE | end, own, &header_block(fields)))
        }
        ("frame", text) => Some(frame_of(text, own)),
        ("send", text) => Some(bytes(text)),
        _ => None,
    }
}

/// Fields as `name=value`, between spaces; a header block of literals.
fn header_block(fields: &str) -> Vec<u8> {
    fields
        .split(' ')
        .filter(|field| !field.is_empty())
        .flat_map(|field| {
            let (name, value) = field.split_once('=').unwrap_or_else(|| panic!("`{field}` is no name=value"));
            [vec![0], string(&bytes(name)), string(&bytes(value))].concat()
        })
        .collect()
}

/// `kind flags stream payload`: `=` is the request's stream, `-` no flag.
fn frame_of(text: &str, own: u32) -> Vec<u8> {
    let mut words = text.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    let kind = match word() {
        "DATA" => DATA,
        "HEADERS" => HEADERS,
        "PRIORITY" => PRIORITY,
        "RST_STREAM" => RST_STREAM,
        "SETTINGS" => SETTINGS,
        "PUSH_PROMISE" => PUSH_PROMISE,
        "PING" => PING,
        "GOAWAY" => GOAWAY,
        "WINDOW_UPDATE" => WINDOW_UPDATE,
        "CONTINUATION" => CONTINUATION,
        other => other.parse().unwrap_or_else(|_| panic!("`{other}` is no kind of frame")),
    };
    let flags = word().split('+').fold(0, |flags, flag| {
        flags
            | match flag {
                "-" => 0,
                "END" | "ACK" => END,
                "WHOLE" => WHOLE,
                "PADDED" => PADDED,
                other => panic!("`{other}` is no flag"),
            }
    });
    let stream = match word() {
        "=" => own,
        number => number.parse().unwrap_or_else(|_| panic!("`{number}` is no stream")),
    };
    let payload = match word() {
        payload if kind == HEADERS || kind == CONTINUATION => match payload.strip_prefix("block ") {
            Some(fields) => header_block(fields),
            None => bytes(payload),
        },
        payload => bytes(payload),
    };
    frame(kind, flags, stream, &payload)
}
