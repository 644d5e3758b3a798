//! A request that meets a freeze: it waits with its head read and without a lease, and is then routed anew.
//!
//! While it waits, nothing more of it is read than fits into the buffer that its head is in, so the memory that it
//! takes is known from the start. A client that leaves gives up its place, and a stop of the proxy ends the wait.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::proxy::connection::client_io::ClientIo;
use crate::proxy::connection::lease::{LeasedRequest, Leaser, Unleased};
use crate::proxy::connection::refusal::{Cause, ProxyResponse};
use crate::proxy::fault::Fault;
use crate::proxy::local_reply::LocalReply;
use crate::proxy::transport::Transport;
use crate::routing::{FreezeQueue, QueueFull, QueueOutcome};

/// Waits with the request whose head ends at `end` until no freeze is in force for it, and leases it then. All waits of
/// one request together take at most `freeze.hold`.
///
/// # Errors
/// The response to a request that could not wait, or waited too long.
pub async fn lease_after_freeze<S: Transport>(
    io: &mut ClientIo<S>,
    leaser: &Leaser<'_>,
    end: usize,
    mut queue: Arc<FreezeQueue>,
    is_head: bool,
) -> Result<LeasedRequest, ProxyResponse> {
    let refused = |cause: Cause| ProxyResponse { is_head, ..ProxyResponse::to(cause) };
    // A request that waits for the end of a freeze must not keep others from being read.
    io.permit = None;
    let admitted = queue.admit(io.stream.buffered(), Instant::now());
    let mut slot = admitted.map_err(|QueueFull| refused(LocalReply::FreezeQueueFull.into()))?;
    io.alarm.set(slot.until);
    loop {
        if let Some(turn) = queue.queue(&slot)
            && let Err(cause) = wait_for(io, turn).await
        {
            if cause == Cause::Reply(LocalReply::FreezeTimedOut) {
                slot.end = QueueOutcome::TimedOut;
            }
            return Err(refused(cause));
        }
        queue = match leaser.lease(&io.worker, &io.stream.filled()[..end]) {
            Err(Unleased::Frozen { queue, .. }) => queue,
            Err(Unleased::Refused(response)) => return Err(response),
            Ok(request) => {
                slot.end = QueueOutcome::Released;
                return Ok(request);
            }
        };
    }
}

/// Waits for the request's turn, and watches the client meanwhile. A client that has closed its side counts as gone:
/// nothing of its request has been used, so dropping it is safe.
async fn wait_for<S: Transport>(io: &mut ClientIo<S>, mut turn: oneshot::Receiver<()>) -> Result<(), Cause> {
    let ClientIo { stream, worker, alarm, .. } = io;
    poll_fn(|cx| {
        // A queue that was dropped gives its requests their turn as well: the route then says what to do.
        if Pin::new(&mut turn).poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if worker.shutdown.is_stopping() {
            return Poll::Ready(Err(Fault::Stopped.into()));
        }
        if alarm.is_late() {
            return Poll::Ready(Err(LocalReply::FreezeTimedOut.into()));
        }
        while !stream.is_full(0) {
            match stream.poll_fill(cx, &worker.buffers, false) {
                Poll::Pending => break,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(Fault::ClientGone.into())),
            }
        }
        Poll::Pending
    })
    .await
}
