//! Probes over HTTP/2: of an application that speaks nothing else, and of one that answers by grpc.health.v1.

use std::io;
use std::task::Waker;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::BODY_BYTES_MAX;
use crate::config::Address;
use crate::domain::health::Probe;
use crate::http2::{Limits, Read, Role, Session};

/// `SERVING` of grpc.health.v1.HealthCheckResponse, as field 1 of the message.
const SERVING: [u8; 2] = [0x08, 1];

/// An answer, of which only what a probe asks is kept.
struct Answer {
    status: u16,
    body: Vec<u8>,
    grpc_status: Option<String>,
}

/// GET, as over HTTP/1.
pub(super) async fn get(stream: TcpStream, address: &Address, path: &str) -> Result<(u16, Vec<u8>), Probe> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: cutover-probe\r\n\r\n");
    ask(stream, &head, None).await.map(|answer| (answer.status, answer.body))
}

/// `Check` of grpc.health.v1 for `service`; empty for the server as a whole.
pub(super) async fn check(stream: TcpStream, address: &Address, service: &str) -> Probe {
    let head = format!(
        "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: {address}\r\nUser-Agent: cutover-probe\r\n\
         Content-Type: application/grpc\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let answer = match ask(stream, &head, Some(&message(service))).await {
        Ok(answer) => answer,
        Err(failed) => return failed,
    };
    // A message is a flag, its length in four bytes, and itself.
    match (answer.status, answer.grpc_status.as_deref(), answer.body.get(5..)) {
        (200, Some("0"), Some(message)) if message == SERVING => Probe::Ready,
        (200, Some("0"), _) => Probe::Failed("not serving".into()),
        (200, Some(code), _) => Probe::Failed(format!("grpc-status {code}")),
        (200, None, _) => Probe::Failed("no grpc-status".into()),
        (status, _, _) => Probe::Failed(status.to_string()),
    }
}

/// A HealthCheckRequest: `service` as field 1, unless it is empty.
fn message(service: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0];
    if !service.is_empty() {
        message.extend([0x0a, service.len() as u8]); // at most 127 bytes by the config
        message.extend(service.as_bytes());
    }
    message[4] = (message.len() - 5) as u8;
    message
}

/// One request on a connection of its own.
async fn ask(mut stream: TcpStream, head: &str, body: Option<&[u8]>) -> Result<Answer, Probe> {
    let limits = Limits { streams: 1, head_bytes: BODY_BYTES_MAX, resets: 1 };
    let mut session = Session::new(Role::Client, limits, Instant::now());
    let waker = Waker::noop();
    let failed = |why: &str| Probe::Failed(format!("no HTTP/2 answer: {why}"));
    let of_io = |error: io::Error| failed(&error.to_string());
    let at = session.open().expect("the first stream of a connection");
    session.put_request(at, head.as_bytes()).map_err(|_| failed("health.path is not a path"))?;
    if let Some(body) = body {
        // The first window takes 64 KiB, a probe is far below.
        session.write(at, body, waker).map_err(|_| failed("it broke off"))?;
        session.finish_writing(at);
    }
    let (mut input, mut text, mut room) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        while !session.unsent().is_empty() {
            let n = stream.write(session.unsent()).await.map_err(of_io)?;
            session.sent(n);
        }
        match session.read(at, &mut room, waker) {
            Read::Bytes(n) => text.extend_from_slice(&room[..n]),
            Read::End => return parse(&text).ok_or_else(|| failed("it is malformed")),
            Read::Broken => return Err(failed("it broke off")),
            Read::Wait => {
                if stream.read_buf(&mut input).await.map_err(of_io)? == 0 {
                    return Err(failed("the connection was closed"));
                }
                let used = session.receive(&input, Instant::now());
                let used = used.map_err(|over| failed(&format!("{:?}", over.reason)))?;
                input.drain(..used);
            }
        }
        if text.len() > 2 * BODY_BYTES_MAX {
            return Err(Probe::Failed(format!("the answer is longer than {} KiB", BODY_BYTES_MAX / 1024)));
        }
    }
}

/// Reads the text that the session has made of the last answer: interim ones are skipped.
fn parse(mut text: &[u8]) -> Option<Answer> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(end) = head.parse(text).ok()? else { return None };
        let status = head.code?;
        text = &text[end..];
        if status < 200 {
            continue;
        }
        let is_chunked = head.headers.iter().any(|field| field.name.eq_ignore_ascii_case("transfer-encoding"));
        let mut grpc_status = value(head.headers, "grpc-status");
        if !is_chunked {
            return Some(Answer { status, body: text.to_vec(), grpc_status });
        }
        let mut body = Vec::new();
        while let httparse::Status::Complete((start, size @ 1..)) = httparse::parse_chunk_size(text).ok()? {
            let size = usize::try_from(size).ok()?;
            body.extend_from_slice(text.get(start..start + size)?);
            text = text.get(start + size + 2..)?;
        }
        let mut trailers = [httparse::EMPTY_HEADER; 64];
        if let Ok(httparse::Status::Complete((_, trailers))) = httparse::parse_headers(text.get(3..)?, &mut trailers) {
            grpc_status = grpc_status.or_else(|| value(trailers, "grpc-status"));
        }
        return Some(Answer { status, body, grpc_status });
    }
}

fn value(fields: &[httparse::Header<'_>], name: &str) -> Option<String> {
    let found = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    Some(String::from_utf8_lossy(found.value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_their_trailers() {
        let text = b"HTTP/1.1 103 \r\nlink: a\r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n\
                     7\r\n\0\0\0\0\x02\x08\x01\r\n0\r\ngrpc-status: 0\r\n\r\n";
        let answer = parse(text).unwrap();
        assert_eq!((answer.status, &answer.body[5..]), (200, &SERVING[..]));
        assert_eq!(answer.grpc_status.as_deref(), Some("0"));
        let at_once = parse(b"HTTP/1.1 200 \r\ngrpc-status: 12\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(at_once.grpc_status.as_deref(), Some("12"));
        assert!(parse(b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncut").is_none());
    }

    #[test]
    fn a_service_is_named_in_the_message() {
        assert_eq!(message(""), [0; 5]);
        assert_eq!(message("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
    }
}
