//! A color's stay: from the first route that leads to it until it is left and its last lease is gone.
//!
//! A stay outlasts routes. A reload or a freeze replaces the route, and who is in flight stays. Both colors of a route
//! have one, because requests are in flight on the idle color too: guests with a pass, the old color's part of split
//! traffic, answers in place of the active color's. So when a rollback makes that color active again, they are among
//! its requests, and a flip away from it waits for them.
//!
//! "Drained" is the end of a stay that was left: no route leads there, and nobody is there any more.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::routing::Counter;
use crate::routing::graceful_close::Drain;

/// The control plane's end of a stay that routes lead to. While it lives, new routes may.
pub struct Stay {
    way_in: WayIn,
    ended: mpsc::Receiver<Infallible>,
}

/// What a route needs to lead there.
#[derive(Clone)]
pub struct WayIn {
    leases: Arc<Leases>,
    alive: mpsc::Sender<Infallible>,
}

/// All who are there.
struct Leases {
    /// By worker.
    counts: Box<[InFlight]>,
    drain: Drain,
}

/// One worker's leases.
#[derive(Default)]
#[repr(align(128))]
struct InFlight {
    begun: Counter,
    ended: Counter,
}

impl Leases {
    fn in_flight(&self) -> u64 {
        // Ended before begun, so that `begun` is never the smaller one.
        let ended: u64 = self.counts.iter().map(|count| count.ended.get()).sum();
        self.counts.iter().map(|count| count.begun.get()).sum::<u64>().saturating_sub(ended)
    }
}

impl Stay {
    /// A stay that nobody has used.
    pub fn new(workers: usize) -> Self {
        let (alive, ended) = mpsc::channel(1);
        let leases = Leases { counts: (0..workers).map(|_| InFlight::default()).collect(), drain: Drain::default() };
        Stay { way_in: WayIn { leases: Arc::new(leases), alive }, ended }
    }

    /// For a new route.
    pub fn way_in(&self) -> WayIn {
        self.way_in.clone()
    }

    /// Requests and tunnels in flight.
    pub fn in_flight(&self) -> u64 {
        self.way_in.leases.in_flight()
    }

    /// Says that the last route that leads there was replaced, and that what is left is cut after `limit`: what has no
    /// end of its own says goodbye before. The caller then wakes the workers' connections.
    pub fn leave(self, limit: Duration) -> Leave {
        let Stay { way_in: WayIn { leases, .. }, ended } = self;
        leases.drain.begin(limit);
        Leave { leases, ended, cut: 0 }
    }
}

/// A stay that was left, until its last lease is gone.
pub struct Leave {
    leases: Arc<Leases>,
    ended: mpsc::Receiver<Infallible>,
    cut: u64,
}

impl Leave {
    /// Requests and tunnels still in flight.
    pub fn in_flight(&self) -> u64 {
        self.leases.in_flight()
    }

    /// Ready when the last of them is gone.
    pub fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Nobody ever sends: the channel ends when the last lane that leads there is dropped.
        self.ended.poll_recv(cx).map(drop)
    }

    /// Marks what is left as to be ended now. The caller then wakes the workers' connections.
    pub fn cut(&mut self) {
        self.cut += self.in_flight();
        self.leases.drain.cut();
    }

    /// How many were cut.
    pub fn was_cut(&self) -> u64 {
        self.cut
    }
}

/// One worker's place in a stay, as its lanes hold it: the token that drains wait for.
pub(super) struct Seat {
    leases: Arc<Leases>,
    worker: usize,
    _alive: mpsc::Sender<Infallible>,
}

/// A seat to come back to, for those who are at the other color: it keeps nobody there.
#[derive(Clone)]
pub(super) struct SpareSeat {
    leases: Arc<Leases>,
    worker: usize,
    alive: mpsc::WeakSender<Infallible>,
}

impl WayIn {
    pub(super) fn seat(&self, worker: usize) -> Seat {
        Seat { leases: Arc::clone(&self.leases), worker, _alive: self.alive.clone() }
    }

    pub(super) fn spare_seat(&self, worker: usize) -> SpareSeat {
        SpareSeat { leases: Arc::clone(&self.leases), worker, alive: self.alive.downgrade() }
    }
}

impl SpareSeat {
    /// `None`: the stay has ended, and its color may have been stopped.
    pub(super) fn take(&self) -> Option<Seat> {
        let _alive = self.alive.upgrade()?;
        Some(Seat { leases: Arc::clone(&self.leases), worker: self.worker, _alive })
    }
}

impl Seat {
    pub(super) fn begin(&self) {
        self.leases.counts[self.worker].begun.add(1);
    }

    pub(super) fn end(&self) {
        self.leases.counts[self.worker].ended.add(1);
    }

    pub(super) fn drain(&self) -> &Drain {
        &self.leases.drain
    }
}
