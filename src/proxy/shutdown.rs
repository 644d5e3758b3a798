//! How far the stop of the proxy has come, as one worker knows it.
//!
//! A stop runs in three steps, each a store into a cell of the worker: connections end with the request that they are
//! in ([`Shutdown::is_stopping`]), connections without a request are closed ([`Shutdown::closes_idle`]), and whatever
//! is still in flight is cut ([`Shutdown::is_cutting`]). A connection reads the cells when it is polled; whoever stores
//! into them wakes all connections through their alarms.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::routing::{Lease, close_at};

/// The stop of one worker.
pub struct Shutdown {
    /// `proxy.shutdown_timeout`, over which the goodbyes are spread.
    limit: Duration,
    began: Cell<Option<Instant>>,
    idle_until: Cell<Option<Instant>>,
    is_cutting: Cell<bool>,
    cut: Cell<u64>,
}

impl Shutdown {
    /// The worker runs; a stop that begins later takes up to `limit`.
    pub fn new(limit: Duration) -> Self {
        Shutdown {
            limit,
            began: Cell::default(),
            idle_until: Cell::default(),
            is_cutting: Cell::default(),
            cut: Cell::default(),
        }
    }

    /// The stop begins now. Connections without a request stay open until `idle_until`.
    pub fn begin(&self, idle_until: Instant) {
        self.began.set(Some(Instant::now()));
        self.idle_until.set(Some(idle_until));
    }

    /// Whatever is in flight ends now.
    pub fn begin_cut(&self) {
        self.is_cutting.set(true);
    }

    /// Whether connections end with the request that they are in.
    pub fn is_stopping(&self) -> bool {
        self.began.get().is_some()
    }

    /// Whether connections without a request are closed.
    pub fn closes_idle(&self) -> bool {
        self.idle_until.get().is_some_and(|until| until <= Instant::now())
    }

    /// Whether requests in flight end without a response.
    pub fn is_cutting(&self) -> bool {
        self.is_cutting.get()
    }

    /// Counts a request or tunnel that the stop cut.
    pub fn count_cut(&self) {
        self.cut.set(self.cut.get() + 1);
    }

    /// How many requests and tunnels the stop cut so far.
    pub fn cut(&self) -> u64 {
        self.cut.get()
    }

    /// When a stream without an end of its own says goodbye, if its place in the order of goodbyes is `turn`, from 0
    /// (first) to 1 (last). `None` while neither the lease's color drains nor the proxy stops.
    pub fn close_at(&self, lease: &Lease, turn: f64) -> Option<Instant> {
        let stop = self.began.get().map(|began| close_at(began, self.limit, turn));
        lease.close_at(turn).into_iter().chain(stop).min()
    }
}
