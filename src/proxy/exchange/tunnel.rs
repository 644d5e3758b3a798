//! What follows a `101`: bytes go both ways, and each direction ends on its own. A half-close is passed on.
//!
//! An application that takes nothing any more may have said something before, which still reaches the client. A client
//! that takes nothing any more ends the tunnel.
//!
//! When the color of a WebSocket drains, the WebSocket is closed with a Close frame after the message that is under
//! way, instead of being cut within one. The client then answers with a Close of its own, which goes up and ends the
//! application's side as well.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::http1::body::BodyDecoder;
use crate::http1::boundary::Boundary;
use crate::http1::buffer::Buffers;
use crate::http1::response::Encoding;
use crate::proxy::alarm::Alarm;
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::exchange::body_copy::{BodyCopier, CopyError};
use crate::proxy::fault::Fault;
use crate::proxy::shutdown::Shutdown;
use crate::proxy::upstream::io::UpstreamIo;
use crate::routing::{Lease, LeaseKind};

/// How long the two sides of a closed WebSocket may take to answer the Close and to end (RFC 6455 7.1.1).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A tunnel between a client and an upstream.
pub struct Tunnel<'a, S> {
    pub client: &'a mut BufferedIo<S>,
    pub upstream: &'a mut BufferedIo<UpstreamIo>,
    /// What the tunnel is for.
    pub kind: LeaseKind,
    pub lease: &'a Lease,
    pub alarm: &'a Alarm,
    pub buffers: &'a Buffers,
    pub shutdown: &'a Shutdown,
}

/// How far a tunnel has come.
struct TunnelState {
    up: Direction,
    down: Direction,
    /// The place of the tunnel among those that end with a goodbye, from 0 (first) to 1 (last).
    turn: f64,
    /// The client has its Close frame, and the application's side is to end.
    is_closing: bool,
    /// The application takes nothing any more.
    is_upstream_deaf: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tunnel<'_, S> {
    /// Runs the tunnel until both sides have ended. It has no time-out of its own: it ends with its lease.
    ///
    /// # Errors
    /// [`Fault::Drained`] or [`Fault::Stopped`] when it was cut. A side that breaks off just ends it.
    pub async fn run(mut self) -> Result<(), Fault> {
        let (kind, buffers) = (self.kind, self.buffers);
        let mut state = TunnelState {
            up: Direction::new(kind, buffers),
            down: Direction::new(kind, buffers),
            turn: fastrand::f64(),
            is_closing: false,
            is_upstream_deaf: false,
        };
        let result = poll_fn(|cx| self.poll(&mut state, cx)).await;
        for direction in [state.up, state.down] {
            buffers.give_back(direction.copier.pending);
        }
        result
    }

    fn poll(&mut self, state: &mut TunnelState, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.lease.is_cut() {
            // A client that has its Close frame misses nothing.
            return Poll::Ready(if state.is_closing { Ok(()) } else { Err(Fault::Drained) });
        }
        if self.shutdown.is_cutting() {
            self.shutdown.count_cut();
            return Poll::Ready(Err(Fault::Stopped));
        }
        if let Some(at) = self.shutdown.close_at(self.lease, state.turn).filter(|_| !state.is_closing) {
            if at > Instant::now() {
                self.alarm.set(at);
            } else if !state.up.is_closing() {
                state.down.copier.end_at_boundary();
            }
        }
        let up = self.poll_up(state, cx);
        if state.is_closing {
            return self.poll_close(up, cx);
        }
        let down = state.down.poll(cx, self.upstream, &mut self.client.io, self.buffers);
        if down.is_ready() && state.down.copier.has_ended_early() {
            state.is_closing = true;
            self.lease.count_closed();
            self.alarm.set(Instant::now() + CLOSE_TIMEOUT);
            return self.poll_close(up, cx);
        }
        match (up, down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(Ok(())),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    }

    /// Copies from the client to the application. Where the application takes nothing any more, what the client sends
    /// is dropped: the client may read only while somebody reads from it, and what the application said before should
    /// still reach it.
    fn poll_up(&mut self, state: &mut TunnelState, cx: &mut Context<'_>) -> Poll<Result<(), CopyError>> {
        let up = state.up.poll(cx, self.client, &mut self.upstream.io, self.buffers);
        state.is_upstream_deaf |= matches!(up, Poll::Ready(Err(CopyError::Sink)));
        if !state.is_upstream_deaf {
            return up;
        }
        let is_gone = matches!(discard(cx, self.client, self.buffers), Poll::Ready(Err(_)));
        Poll::Ready(if is_gone { Err(CopyError::Source) } else { Ok(()) })
    }

    /// Ends the application's side after the client got its Close frame. The client's own Close goes up and has the
    /// application end; what the application still sends is read and dropped until then.
    fn poll_close(&mut self, up: Poll<Result<(), CopyError>>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if !self.alarm.is_late() && !matches!(up, Poll::Ready(Err(_))) {
            let _ = ready!(discard(cx, self.upstream, self.buffers));
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads and drops what still comes, to its end.
fn discard<R: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    from: &mut BufferedIo<R>,
    buffers: &Buffers,
) -> Poll<io::Result<()>> {
    loop {
        let n = from.filled().len();
        from.consume(n);
        if from.eof {
            return Poll::Ready(Ok(()));
        }
        ready!(from.poll_fill(cx, buffers, false))?;
    }
}

/// One direction: bytes, then the end of them.
struct Direction {
    copier: BodyCopier,
    ended: bool,
}

impl Direction {
    fn new(kind: LeaseKind, buffers: &Buffers) -> Self {
        let mut copier = BodyCopier::new(BodyDecoder::UntilClose, Encoding::Plain, buffers.tiny(), 0);
        copier.boundary = (kind == LeaseKind::WebSocket).then(Boundary::of_messages);
        Direction { copier, ended: false }
    }

    /// Whether a Close frame has passed.
    fn is_closing(&self) -> bool {
        self.copier.boundary.as_ref().is_some_and(|boundary| boundary.is_closing())
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut BufferedIo<R>,
        to: &mut W,
        buffers: &Buffers,
    ) -> Poll<Result<(), CopyError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if !self.ended {
            ready!(self.copier.poll(cx, from, to, buffers, &mut false))?;
            if !self.copier.has_ended_early() {
                ready!(Pin::new(to).poll_shutdown(cx)).map_err(|_| CopyError::Sink)?;
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
