//! Reads the PROXY header, in which a load balancer names the client whose connection it passes on.
//!
//! The header is read, and required, from the addresses in `proxy.proxy_protocol_from` only. A connection without it is
//! closed, because its client is not known. No byte behind the header is read here: TLS or HTTP begin as if theirs were
//! the first bytes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::alarm::Alarm;
use crate::proxy::shutdown::Shutdown;
use crate::proxy_protocol::{self, Ends, Step};

/// Why the client of a connection is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The first bytes are no PROXY header; the text says why.
    Malformed(&'static str),
    /// The header was not complete when the alarm went off.
    TimedOut,
    /// The connection ended, or the proxy stops.
    Closed,
}

/// Reads the header, for as long as `alarm` allows. `None`: the sender speaks for itself and for no client.
///
/// # Errors
/// [`HeaderError`]: the connection has to be closed.
pub async fn read(stream: &mut TcpStream, alarm: &Alarm, shutdown: &Shutdown) -> Result<Option<Ends>, HeaderError> {
    let mut got = Vec::new();
    poll_fn(|cx| poll(stream, &mut got, alarm, shutdown, cx)).await
}

fn poll(
    stream: &mut TcpStream,
    got: &mut Vec<u8>,
    alarm: &Alarm,
    shutdown: &Shutdown,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Ends>, HeaderError>> {
    loop {
        let filled = match proxy_protocol::read(got) {
            Ok(Step::Done(ends)) => return Poll::Ready(Ok(ends)),
            Ok(Step::Read(n)) => poll_read(stream, n, got, cx),
            Ok(Step::ReadLine(n)) => poll_read_line(stream, n, got, cx),
            Err(malformed) => return Poll::Ready(Err(HeaderError::Malformed(malformed.0))),
        };
        match filled {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(HeaderError::Closed)),
            Poll::Pending if alarm.is_late() => return Poll::Ready(Err(HeaderError::TimedOut)),
            Poll::Pending if shutdown.closes_idle() || shutdown.is_cutting() => {
                return Poll::Ready(Err(HeaderError::Closed));
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Reads at most `n` bytes to the end of `got`. Returns how many came.
fn poll_read(stream: &mut TcpStream, n: usize, got: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let before = got.len();
    got.resize(before + n, 0);
    let mut room = ReadBuf::new(&mut got[before..]);
    let read = Pin::new(stream).poll_read(cx, &mut room);
    let filled = room.filled().len();
    got.truncate(before + filled);
    read.map_ok(|()| filled)
}

/// Reads at most `n` bytes to the end of `got`, and none behind the end of the line: what follows is the client's.
fn poll_read_line(
    stream: &mut TcpStream,
    n: usize,
    got: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut ahead = vec![0; n];
    let mut room = ReadBuf::new(&mut ahead);
    let peeked = ready!(stream.poll_peek(cx, &mut room))?;
    let line = room.filled().iter().position(|byte| *byte == b'\n').map_or(peeked, |at| at + 1);
    if line == 0 { Poll::Ready(Ok(0)) } else { poll_read(stream, line, got, cx) }
}
