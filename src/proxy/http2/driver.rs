//! Moves bytes between a session and its socket, in one task per connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Shared;
use crate::http1::buffer::Buffers;
use crate::http2::{ConnectionError, FRAME_MAX, OUT_MAX};
use crate::proxy::exchange::body_copy::BufferedIo;

/// A socket and its session.
pub struct Driver<S> {
    /// The socket, with what was read and is no whole frame yet.
    pub wire: BufferedIo<S>,
    /// The session.
    pub session: Shared,
    unflushed: bool,
}

/// Why no more bytes are moved.
#[derive(Debug)]
pub enum Stopped {
    /// The other side is gone.
    Gone,
    /// The session cannot go on.
    ConnectionError(ConnectionError),
}

impl From<io::Error> for Stopped {
    fn from(_: io::Error) -> Self {
        Stopped::Gone
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Drives `session` on `wire`.
    pub fn new(wire: BufferedIo<S>, session: Shared) -> Self {
        Driver { wire, session, unflushed: false }
    }

    /// Moves what can be moved; `progress` says whether anything was. Ready when it is over. `fresh` is called when
    /// streams may have been opened.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        progress: &mut bool,
        mut fresh: impl FnMut(),
    ) -> Poll<Stopped> {
        self.session.borrow_mut().watch(cx.waker());
        loop {
            if !self.wire.filled().is_empty() && self.takes_more() {
                let received = self.session.borrow_mut().receive(self.wire.filled(), Instant::now());
                match received {
                    Ok(used) => self.wire.consume(used),
                    Err(over) => return Poll::Ready(Stopped::ConnectionError(over)),
                }
                fresh();
            }
            match self.poll_write(cx, progress) {
                Poll::Pending | Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
            }
            if !self.takes_more() {
                return Poll::Pending; // it is written before more is read
            }
            self.wire.make_room(FRAME_MAX);
            match self.wire.poll_fill(cx, buffers, false) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(1..)) => *progress = true,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Stopped::Gone),
            }
        }
    }

    /// What is to be written in answer to what is read is bounded by reading no more meanwhile.
    fn takes_more(&self) -> bool {
        self.session.borrow().unsent().len() < 2 * OUT_MAX
    }

    /// Writes what waits, to the last byte.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Poll<io::Result<()>> {
        loop {
            let mut session = self.session.borrow_mut();
            if session.unsent().is_empty() {
                break;
            }
            match Pin::new(&mut self.wire.io).poll_write(cx, session.unsent())? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(n) => session.sent(n),
            }
            (self.unflushed, *progress) = (true, true);
        }
        if self.unflushed {
            if Pin::new(&mut self.wire.io).poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether bytes wait for the socket.
    pub fn is_blocked(&self) -> bool {
        self.unflushed || !self.session.borrow().unsent().is_empty()
    }
}
