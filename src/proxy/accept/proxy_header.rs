//! A connection from somebody who passes on those of others as bytes, and says in front of each whose it is.
//!
//! Only from `proxy.proxy_protocol_from`, where the header is required: without it the connection is closed, for
//! nobody knows whose it is. No byte behind the header is read here; TLS or HTTP begin as if they had been first.

use std::future::poll_fn;
use std::io;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::accept::worker::Context;
use crate::proxy::alarm::Alarm;
use crate::proxy::connection;
use crate::proxy_protocol::{self, Ends, Step};

/// Why nobody knows whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nameless {
    /// What came is no header.
    Malformed(&'static str),
    /// It did not come, or not whole, within `proxy.header_timeout`.
    Late,
    /// The connection ended, or we do.
    Gone,
}

/// Reads the header. `None`: the connection is the sender's own.
///
/// # Errors
/// [`Nameless`]: close it.
pub async fn read(stream: &mut TcpStream, worker: &Context) -> Result<Option<Ends>, Nameless> {
    let alarm = connection::alarm(worker).await;
    alarm.set(Instant::now() + worker.proxy.header_timeout);
    let mut got = Vec::new();
    poll_fn(|cx| poll(stream, &mut got, &alarm, worker, cx)).await
}

fn poll(
    stream: &mut TcpStream,
    got: &mut Vec<u8>,
    alarm: &Alarm,
    worker: &Context,
    cx: &mut TaskContext<'_>,
) -> Poll<Result<Option<Ends>, Nameless>> {
    loop {
        let filled = match proxy_protocol::read(got) {
            Ok(Step::Done(ends)) => return Poll::Ready(Ok(ends)),
            Ok(Step::Read(n)) => poll_read(stream, n, got, cx),
            Ok(Step::ReadLine(n)) => poll_read_line(stream, n, got, cx),
            Err(malformed) => return Poll::Ready(Err(Nameless::Malformed(malformed.0))),
        };
        match filled {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(Nameless::Gone)),
            Poll::Pending if alarm.is_late() => return Poll::Ready(Err(Nameless::Late)),
            Poll::Pending if worker.closes_idle() || worker.is_cutting() => return Poll::Ready(Err(Nameless::Gone)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Appends at most `n` bytes; how many.
fn poll_read(stream: &mut TcpStream, n: usize, got: &mut Vec<u8>, cx: &mut TaskContext<'_>) -> Poll<io::Result<usize>> {
    let before = got.len();
    got.resize(before + n, 0);
    let mut room = ReadBuf::new(&mut got[before..]);
    let read = std::pin::Pin::new(stream).poll_read(cx, &mut room);
    let filled = room.filled().len();
    got.truncate(before + filled);
    read.map_ok(|()| filled)
}

/// Appends at most `n` bytes, and none behind the end of the line.
fn poll_read_line(
    stream: &mut TcpStream,
    n: usize,
    got: &mut Vec<u8>,
    cx: &mut TaskContext<'_>,
) -> Poll<io::Result<usize>> {
    let mut ahead = vec![0; n];
    let mut room = ReadBuf::new(&mut ahead);
    let peeked = std::task::ready!(stream.poll_peek(cx, &mut room))?;
    let line = room.filled().iter().position(|byte| *byte == b'\n').map_or(peeked, |at| at + 1);
    if line == 0 { Poll::Ready(Ok(0)) } else { poll_read(stream, line, got, cx) }
}
