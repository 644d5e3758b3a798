//! A request that meets a freeze: it waits with its head read and without a lease, and is then routed anew.
//!
//! Nothing more of it is read than fits into the buffer that its head is in, so what it keeps is known from the start.
//! A client that leaves is let go; so is everybody when the proxy stops.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::proxy::connection::{Accepted, Connection, Refused, Unaccepted};
use crate::proxy::fault::Fault;
use crate::proxy::transport::Transport;
use crate::routing::{FreezeQueue, QueueFull, QueueOutcome};

impl<S: Transport> Connection<S> {
    /// Waits with the request whose head ends at `end` until no freeze is in force for it, for at most `freeze.hold`
    /// over all of them, and accepts it then.
    pub(in crate::proxy) async fn accept_later(
        &mut self,
        end: usize,
        mut hold: Arc<FreezeQueue>,
        is_head: bool,
    ) -> Result<Accepted, Refused> {
        let refused = |fault| Refused { is_head, ..Refused::with(fault) };
        // Who waits for a thaw stands in no other line's way.
        self.permit = None;
        let admitted = hold.admit(self.client.buffered(), Instant::now());
        let mut place = admitted.map_err(|QueueFull| refused(Fault::HoldFull))?;
        self.alarm.set(place.until);
        loop {
            if let Some(turn) = hold.queue(&place)
                && let Err(fault) = self.wait_for(turn).await
            {
                if fault == Fault::HoldTimedOut {
                    place.end = QueueOutcome::TimedOut;
                }
                return Err(refused(fault));
            }
            hold = match self.accept(end) {
                Err(Unaccepted::Held(hold, _)) => hold,
                Err(Unaccepted::Refused(refused)) => return Err(refused),
                Ok(accepted) => {
                    place.end = QueueOutcome::Released;
                    return Ok(accepted);
                }
            };
        }
    }

    /// Until it is its turn, and an eye on the client meanwhile. One that has closed its side counts as gone: nothing
    /// of its request has been used, so to drop it is safe.
    async fn wait_for(&mut self, mut turn: oneshot::Receiver<()>) -> Result<(), Fault> {
        let (client, worker, alarm) = (&mut self.client, &self.worker, &self.alarm);
        poll_fn(|cx| {
            // One whose sender is gone has its turn as well: what is to be done then, the route says.
            if Pin::new(&mut turn).poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if worker.shutdown.is_stopping() {
                return Poll::Ready(Err(Fault::Stopped));
            }
            if alarm.is_late() {
                return Poll::Ready(Err(Fault::HoldTimedOut));
            }
            while !client.is_full(0) {
                match client.poll_fill(cx, &worker.buffers, false) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(Fault::ClientGone)),
                }
            }
            Poll::Pending
        })
        .await
    }
}
