//! Counts the leases of one color, from the first route that leads to it until it is drained.
//!
//! A tracker outlasts routes: a reload or a freeze replaces the route, and who is in flight stays in flight. Both
//! colors of a route have a tracker, because requests are in flight on the idle color too: those of people with a
//! preview pass, the old color's part of split traffic, replays. So when a rollback makes that color active again, they
//! are among its requests, and a flip away from it waits for them.
//!
//! This is a generational lease: draining ends one generation of a color's leases, and the next route to that color
//! begins another. "Drained" means that no route leads there any more and that the last lease is gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::routing::Counter;
use crate::routing::graceful_close::DrainState;

/// The control plane's end of a color's leases. While it lives, new routes may lead to the color.
pub struct LeaseTracker {
    handle: TrackerHandle,
    ended: mpsc::Receiver<Infallible>,
}

/// What a new route takes its tokens from.
#[derive(Clone)]
pub struct TrackerHandle {
    leases: Arc<Leases>,
    alive: mpsc::Sender<Infallible>,
}

/// All leases of one generation.
struct Leases {
    /// Indexed by worker.
    counts: Box<[InFlight]>,
    drain: DrainState,
}

/// The leases of one worker.
#[derive(Default)]
#[repr(align(128))]
struct InFlight {
    begun: Counter,
    ended: Counter,
}

impl Leases {
    fn in_flight(&self) -> u64 {
        // Outcomes before begun, so that `begun` is never the smaller one.
        let ended: u64 = self.counts.iter().map(|count| count.ended.get()).sum();
        self.counts.iter().map(|count| count.begun.get()).sum::<u64>().saturating_sub(ended)
    }
}

impl LeaseTracker {
    /// Makes a tracker without a lease.
    pub fn new(workers: usize) -> Self {
        let (alive, ended) = mpsc::channel(1);
        let leases =
            Leases { counts: (0..workers).map(|_| InFlight::default()).collect(), drain: DrainState::default() };
        LeaseTracker { handle: TrackerHandle { leases: Arc::new(leases), alive }, ended }
    }

    /// Returns what a new route takes its tokens from.
    pub fn handle(&self) -> TrackerHandle {
        self.handle.clone()
    }

    /// Returns the requests and tunnels in flight.
    pub fn in_flight(&self) -> u64 {
        self.handle.leases.in_flight()
    }

    /// Begins the drain, once the last route that leads to the color was replaced. What is left after `limit` is cut;
    /// long-lived exchanges are closed gracefully before. The caller then wakes the workers' connections.
    pub fn drain(self, limit: Duration) -> Draining {
        let LeaseTracker { handle: TrackerHandle { leases, .. }, ended } = self;
        leases.drain.begin(limit);
        Draining { leases, ended, cut: 0 }
    }
}

/// A color that is being drained, until its last lease is gone.
pub struct Draining {
    leases: Arc<Leases>,
    ended: mpsc::Receiver<Infallible>,
    cut: u64,
}

impl Draining {
    /// Returns the requests and tunnels still in flight.
    pub fn in_flight(&self) -> u64 {
        self.leases.in_flight()
    }

    /// Ready when the last lease is gone.
    pub fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Nothing is ever sent: the channel ends when the last token is dropped.
        self.ended.poll_recv(cx).map(drop)
    }

    /// Marks what is left to be cut now. The caller then wakes the workers' connections.
    pub fn cut(&mut self) {
        self.cut += self.in_flight();
        self.leases.drain.cut();
    }

    /// Returns how many leases were cut.
    pub fn was_cut(&self) -> u64 {
        self.cut
    }
}

/// The token that a worker's route holds, and that a drain waits for.
pub(super) struct LeaseToken {
    leases: Arc<Leases>,
    worker: usize,
    _alive: mpsc::Sender<Infallible>,
}

/// A token to come back to, for those who are at the other color: it keeps nobody there.
#[derive(Clone)]
pub(super) struct WeakLeaseToken {
    leases: Arc<Leases>,
    worker: usize,
    alive: mpsc::WeakSender<Infallible>,
}

impl TrackerHandle {
    pub(super) fn token(&self, worker: usize) -> LeaseToken {
        LeaseToken { leases: Arc::clone(&self.leases), worker, _alive: self.alive.clone() }
    }

    pub(super) fn weak_token(&self, worker: usize) -> WeakLeaseToken {
        WeakLeaseToken { leases: Arc::clone(&self.leases), worker, alive: self.alive.downgrade() }
    }
}

impl WeakLeaseToken {
    /// Returns `None` if the color was drained: it may have been stopped.
    pub(super) fn upgrade(&self) -> Option<LeaseToken> {
        let _alive = self.alive.upgrade()?;
        Some(LeaseToken { leases: Arc::clone(&self.leases), worker: self.worker, _alive })
    }
}

impl LeaseToken {
    pub(super) fn begin(&self) {
        self.leases.counts[self.worker].begun.add(1);
    }

    pub(super) fn end(&self) {
        self.leases.counts[self.worker].ended.add(1);
    }

    pub(super) fn drain(&self) -> &DrainState {
        &self.leases.drain
    }
}
