//! The route of a service: what is published, and the control plane's end of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use crate::domain::Color;
use crate::domain::freeze::What;
use crate::domain::watch::WatchMode;
use crate::routing::epoch_counts::EpochCounts;
use crate::routing::freeze_queue::WriteToken;
use crate::routing::{Access, CohortCount, FreezeQueue, Lease, ModeCell, Side, SlowLimits, Tally, WorkerRoute};

/// The published route of one service, which says who takes its requests. It is replaced whole, never changed.
pub struct Route {
    /// The color that takes new requests.
    pub active: Color,
    /// Grows by one at every flip or rollback.
    pub epoch: u64,
    /// By worker, then by [`Side`].
    pub(super) workers: Box<[[Arc<WorkerRoute>; 2]]>,
    pub(super) writes: Box<[Arc<WriteToken>]>,
    pub(super) freeze: Option<Arc<FreezeQueue>>,
}

impl Route {
    /// Takes a lease for `worker`. Call it while the arc-swap guard is held, and drop the guard after.
    ///
    /// # Errors
    /// The service is frozen for this `access`: wait in the queue, and load the route again.
    pub fn lease(&self, worker: usize, access: Access, now: Instant) -> Result<Lease, Arc<FreezeQueue>> {
        let write = self.enter(worker, access)?;
        Ok(Lease::new(&self.workers[worker], write, now))
    }

    /// Takes a lease on the idle color, for somebody with a pass. A freeze holds it too: both colors write to the same
    /// data.
    ///
    /// # Errors
    /// As for [`Route::lease`].
    pub fn preview(&self, worker: usize, access: Access, now: Instant) -> Result<Lease, Arc<FreezeQueue>> {
        let write = self.enter(worker, access)?;
        Ok(Lease::preview(&self.workers[worker], write, now))
    }

    /// Returns the token of a write, unless a freeze holds it.
    fn enter(&self, worker: usize, access: Access) -> Result<Option<Arc<WriteToken>>, Arc<FreezeQueue>> {
        match &self.freeze {
            Some(queue) if queue.holds(access != Access::Read) => Err(Arc::clone(queue)),
            Some(_) | None => Ok((access == Access::Write).then(|| Arc::clone(&self.writes[worker]))),
        }
    }
}

/// The control plane's end of a [`Route`]: reads its counts, and hears when the last request that came through it is
/// gone. It does not keep the route alive. What a drain waits for is a [`crate::routing::LeaseTracker`].
pub struct RouteHandle {
    /// The color that serves under it.
    pub color: Color,
    /// Its epoch.
    pub epoch: u64,
    pub(super) counts: Box<[Arc<EpochCounts>]>,
    pub(super) mode: Arc<ModeCell>,
    pub(super) slow: Option<SlowLimits>,
    pub(super) over: mpsc::Receiver<Infallible>,
    pub(super) all_ended: watch::Receiver<()>,
    pub(super) writes_ended: watch::Receiver<()>,
}

impl RouteHandle {
    /// Returns the counts so far.
    pub fn tally(&self) -> Tally {
        Tally::sum(self.counts.iter().map(Arc::as_ref))
    }

    /// Returns the leases in flight, on either color.
    pub fn in_flight(&self) -> u64 {
        self.tally().in_flight()
    }

    /// Returns the requests of that cohort, by [`Side`]; the ring of cohorts is [`crate::routing::COHORTS`] long.
    pub fn cohort(&self, at: usize) -> [CohortCount; 2] {
        let mut sums = [CohortCount::default(); 2];
        for cohorts in self.counts.iter().filter_map(|counts| counts.watch.cohorts.as_ref()) {
            for (sum, side) in sums.iter_mut().zip([Side::New, Side::Old]) {
                *sum += cohorts.count(side, at);
            }
        }
        sums
    }

    /// Returns the ages from which on responses are slow; `None` where slowness is not judged.
    pub fn slow(&self) -> Option<SlowLimits> {
        self.slow
    }

    /// Sets how requests that begin from now on are sent and counted; `None` when the watch is over.
    pub fn set_mode(&self, mode: Option<WatchMode>) {
        self.mode.set(mode);
    }

    /// Ready when the route has been replaced and its last lease is gone.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Nothing is ever sent: the channel ends when the last worker's route is dropped.
        self.over.poll_recv(cx).map(drop)
    }

    /// Returns when the route has been replaced and its last write has ended, or (`What::All`) its last lease. A tunnel
    /// is no write here, because it may never end. The future outlives the handle.
    pub fn ended(&self, what: What) -> impl Future<Output = ()> + use<> {
        let mut ended = match what {
            What::Writes => self.writes_ended.clone(),
            What::All => self.all_ended.clone(),
        };
        // Nothing is ever sent there either.
        async move { while ended.changed().await.is_ok() {} }
    }
}
