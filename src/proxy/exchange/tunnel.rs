//! After `101`: bytes both ways, each direction ending on its own (a half-close is passed on). An application that
//! takes nothing any more may have said something before, which still reaches the client; a client that takes nothing
//! any more ends it all.
//!
//! A WebSocket whose color is left is closed with a Close frame after the message that is under way, instead of being
//! cut within one.

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
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs a tunnel of `kind` between a client and an upstream until both sides have ended. It has no time-out of its own:
/// it ends with its lease.
///
/// # Errors
/// [`Fault::Drained`] or [`Fault::Stopped`] when it was cut. A side that breaks off just ends it.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    (client, upstream): (&mut BufferedIo<S>, &mut BufferedIo<UpstreamIo>),
    kind: LeaseKind,
    lease: &Lease,
    alarm: &Alarm,
    buffers: &Buffers,
    shutdown: &Shutdown,
) -> Result<(), Fault> {
    let mut up = Direction::new(kind, buffers);
    let mut down = Direction::new(kind, buffers);
    let turn = fastrand::f64();
    let (mut is_parting, mut is_deaf) = (false, false);
    let result = poll_fn(|cx| {
        if lease.is_cut() {
            // A client that has its Close misses nothing.
            return Poll::Ready(if is_parting { Ok(()) } else { Err(Fault::Drained) });
        }
        if shutdown.is_cutting() {
            shutdown.count_cut();
            return Poll::Ready(Err(Fault::Stopped));
        }
        if let Some(at) = shutdown.close_at(lease, turn).filter(|_| !is_parting) {
            if at > Instant::now() {
                alarm.set(at);
            } else if !up.is_closing() {
                down.pump.leave();
            }
        }
        let mut ups = up.poll(cx, client, &mut upstream.io, buffers);
        is_deaf |= matches!(ups, Poll::Ready(Err(CopyError::Sink)));
        if is_deaf {
            // What it said before still reaches the client, who may read only while we do.
            let gone = matches!(discard(cx, client, buffers), Poll::Ready(Err(_)));
            ups = Poll::Ready(if gone { Err(CopyError::Source) } else { Ok(()) });
        }
        if is_parting {
            return part(cx, ups, upstream, alarm, buffers);
        }
        let downs = down.poll(cx, upstream, &mut client.io, buffers);
        if downs.is_ready() && down.pump.has_left() {
            is_parting = true;
            lease.count_closed();
            alarm.set(Instant::now() + FAREWELL);
            return part(cx, ups, upstream, alarm, buffers);
        }
        match (ups, downs) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(Ok(())),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    for direction in [up, down] {
        buffers.give_back(direction.pump.pending);
    }
    result
}

/// The client has its Close: its answer goes up and closes the upstream's side as well; what the upstream still sends
/// is read and dropped until it ends.
fn part(
    cx: &mut Context<'_>,
    ups: Poll<Result<(), CopyError>>,
    upstream: &mut BufferedIo<UpstreamIo>,
    alarm: &Alarm,
    buffers: &Buffers,
) -> Poll<Result<(), Fault>> {
    if !alarm.is_late() && !matches!(ups, Poll::Ready(Err(_))) {
        let _ = ready!(discard(cx, upstream, buffers));
    }
    Poll::Ready(Ok(()))
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
    pump: BodyCopier,
    ended: bool,
}

impl Direction {
    fn new(kind: LeaseKind, buffers: &Buffers) -> Self {
        let mut pump = BodyCopier::new(BodyDecoder::UntilClose, Encoding::Plain, buffers.tiny(), 0);
        pump.boundary = (kind == LeaseKind::WebSocket).then(Boundary::of_messages);
        Direction { pump, ended: false }
    }

    /// Whether a Close frame has passed.
    fn is_closing(&self) -> bool {
        self.pump.boundary.as_ref().is_some_and(|boundary| boundary.is_closing())
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
            ready!(self.pump.poll(cx, from, to, buffers, &mut false))?;
            if !self.pump.has_left() {
                ready!(Pin::new(to).poll_shutdown(cx)).map_err(|_| CopyError::Sink)?;
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
