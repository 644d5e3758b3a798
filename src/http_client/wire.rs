//! Adapts a connection to an application, so that hyper's HTTP/1 client can use it with each protocol.
//!
//! With HTTP/2 it carries one stream: the session translates to and from the text of HTTP/1 messages, as the proxy's
//! own streams do.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::http_client::Protocol;
use crate::http2::{AfterHead, Framing, Role, Session, SessionLimits, StreamRead};

/// Limits the head of a response, as the proxy does.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection of either protocol.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Creates a connection for one exchange in `protocol`, over a stream that was just opened.
pub fn wire(stream: TcpStream, protocol: Protocol) -> Box<dyn Wire> {
    match protocol {
        Protocol::Http1 => Box::new(stream),
        Protocol::H2c => Box::new(OneStream::new(stream)),
    }
}

/// A connection whose only stream reads and writes like the connection itself.
struct OneStream {
    io: TcpStream,
    session: Session,
    at: usize,
    /// Bytes that were read and are not a whole frame yet.
    input: Vec<u8>,
    writing: Writing,
}

/// Tells what the next written bytes are.
enum Writing {
    /// They continue the request's head, of which this part is known.
    Head(Vec<u8>),
    /// They belong to the body, of which this many bytes remain.
    Body(u64),
    Done,
}

impl OneStream {
    fn new(io: TcpStream) -> Self {
        let limits = SessionLimits { streams: 1, head_bytes: HEAD_BYTES_MAX, resets: 1 };
        let mut session = Session::new(Role::Client, limits, Instant::now());
        let at = session.open().expect("the first stream of a connection");
        OneStream { io, session, at, input: Vec::new(), writing: Writing::Head(Vec::new()) }
    }

    /// Writes frames for as long as the socket takes them.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.session.unsent().is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, self.session.unsent()))?;
            self.session.sent(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the session `bytes` of the request, and returns how many it took. 0 means that it waits for the peer.
    fn put(&mut self, cx: &Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        match &mut self.writing {
            Writing::Head(head) => {
                let held = head.len();
                head.extend_from_slice(bytes);
                let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else { return Ok(bytes.len()) };
                let follows = self.session.put_request(self.at, &head[..end + 4]).map_err(broken)?;
                let used = end + 4 - held;
                self.writing = match follows {
                    AfterHead::Body(Framing::None) => Writing::Done,
                    AfterHead::Body(Framing::Length(length)) => Writing::Body(length),
                    AfterHead::Head | AfterHead::Body(Framing::Chunked | Framing::Tunnel) => {
                        return Err(io::Error::new(io::ErrorKind::Unsupported, "a request of unknown length"));
                    }
                };
                Ok(used)
            }
            Writing::Body(left) => {
                let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let n = self.session.write(self.at, &bytes[..n], cx.waker()).map_err(broken)?;
                *left -= n as u64;
                if *left == 0 {
                    self.session.finish_writing(self.at);
                    self.writing = Writing::Done;
                }
                Ok(n)
            }
            Writing::Done => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl AsyncRead for OneStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            // This also sends what the session sends by itself: settings, pings, windows.
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            match this.session.read(this.at, room.initialize_unfilled(), cx.waker()) {
                StreamRead::Bytes(n) => {
                    room.advance(n);
                    return Poll::Ready(Ok(()));
                }
                StreamRead::End => return Poll::Ready(Ok(())),
                StreamRead::Broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                StreamRead::Wait => {}
            }
            let mut bytes = [0; 4096];
            let mut fresh = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut fresh))?;
            if fresh.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.input.extend_from_slice(fresh.filled());
            let used = this.session.receive(&this.input, Instant::now());
            let used = used.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{:?}", error.code)))?;
            this.input.drain(..used);
        }
    }
}

impl AsyncWrite for OneStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let used = self.put(cx, bytes)?;
        // Bytes that the socket does not take now go with the next flush or read.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        if used == 0 && !bytes.is_empty() { Poll::Pending } else { Poll::Ready(Ok(used)) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
