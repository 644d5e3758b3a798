//! Moves bytes between a session and its socket, in one task per connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::http1::buffer::Buffers;
use crate::http2::{ConnectionError, FRAME_MAX, OUTPUT_MAX};
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::http2::stream::SharedSession;

/// A socket and its session.
pub struct Driver<S> {
    /// The socket, with what was read from it and is no whole frame yet.
    pub io: BufferedIo<S>,
    pub session: SharedSession,
    /// The socket has taken bytes that it may not have passed on yet, as TLS does.
    unflushed: bool,
}

/// Why a driver moves no more bytes.
#[derive(Debug)]
pub enum DriverEnd {
    /// The peer has closed the connection, or it broke.
    Disconnected,
    /// The session cannot go on, because the peer broke its rules.
    Failed(ConnectionError),
}

impl From<io::Error> for DriverEnd {
    fn from(_: io::Error) -> Self {
        DriverEnd::Disconnected
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// A driver that moves bytes between `session` and `io`.
    pub fn new(io: BufferedIo<S>, session: SharedSession) -> Self {
        Driver { io, session, unflushed: false }
    }

    /// Moves what can be moved, and sets `progress` if anything was. Ready when no more can follow. `fresh` is called
    /// when the peer may have opened streams.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        progress: &mut bool,
        mut fresh: impl FnMut(),
    ) -> Poll<DriverEnd> {
        self.session.borrow_mut().register_driver(cx.waker());
        loop {
            if !self.io.filled().is_empty() && self.takes_more() {
                let received = self.session.borrow_mut().receive(self.io.filled(), Instant::now());
                match received {
                    Ok(used) => self.io.consume(used),
                    Err(error) => return Poll::Ready(DriverEnd::Failed(error)),
                }
                fresh();
            }
            match self.poll_write(cx, progress) {
                Poll::Pending | Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
            }
            if !self.takes_more() {
                return Poll::Pending; // what waits is written before more is read
            }
            self.io.make_room(FRAME_MAX);
            match self.io.poll_fill(cx, buffers, false) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(1..)) => *progress = true,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(DriverEnd::Disconnected),
            }
        }
    }

    /// Whether the session may read more. Frames that it writes in answer to what it reads would otherwise pile up
    /// without a limit while the peer does not take them.
    fn takes_more(&self) -> bool {
        self.session.borrow().unsent().len() < 2 * OUTPUT_MAX
    }

    /// Writes and flushes everything that the session has to send.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Poll<io::Result<()>> {
        loop {
            let mut session = self.session.borrow_mut();
            if session.unsent().is_empty() {
                break;
            }
            match Pin::new(&mut self.io.io).poll_write(cx, session.unsent())? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(n) => session.sent(n),
            }
            (self.unflushed, *progress) = (true, true);
        }
        if self.unflushed {
            if Pin::new(&mut self.io.io).poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether bytes wait for the socket to take them.
    pub fn is_blocked(&self) -> bool {
        self.unflushed || !self.session.borrow().unsent().is_empty()
    }
}
