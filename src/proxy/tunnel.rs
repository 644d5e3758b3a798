//! After `101`: bytes both ways, each direction ending on its own (a half-close is passed on).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::answer::Encoding;
use super::body::Decoder;
use super::buffer::Buffers;
use super::fault::Fault;
use super::pump::{Pump, Stop, Wire};
use super::worker::Context;
use crate::switch::Lease;

/// Runs a tunnel until both sides have ended. It has no time-out of its own: it ends with its lease.
///
/// # Errors
/// [`Fault::Drained`] or [`Fault::Stopped`] when it was cut. A side that breaks off just ends it.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Wire<S>,
    upstream: &mut Wire<TcpStream>,
    lease: &Lease,
    worker: &Context,
) -> Result<(), Fault> {
    let mut up = Direction::new(&worker.buffers);
    let mut down = Direction::new(&worker.buffers);
    let result = poll_fn(|cx| {
        if lease.is_cut() {
            return Poll::Ready(Err(Fault::Drained));
        }
        if worker.is_cutting() {
            worker.count_cut();
            return Poll::Ready(Err(Fault::Stopped));
        }
        let ups = up.poll(cx, client, &mut upstream.io, &worker.buffers);
        let downs = down.poll(cx, upstream, &mut client.io, &worker.buffers);
        match (ups, downs) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(Ok(())),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    for direction in [up, down] {
        worker.buffers.give_back(direction.pump.pending);
    }
    result
}

/// One direction: bytes, then the end of them.
struct Direction {
    pump: Pump,
    ended: bool,
}

impl Direction {
    fn new(buffers: &Buffers) -> Self {
        Direction { pump: Pump::new(Decoder::UntilClose, Encoding::Plain, buffers.tiny(), 0), ended: false }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut TaskContext<'_>,
        from: &mut Wire<R>,
        to: &mut W,
        buffers: &Buffers,
    ) -> Poll<Result<(), Stop>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if !self.ended {
            ready!(self.pump.poll(cx, from, to, buffers, &mut false))?;
            ready!(Pin::new(to).poll_shutdown(cx)).map_err(|_| Stop::Sink)?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
