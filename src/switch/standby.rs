//! The color that is not active, as the data plane may ask it: for replays while a watch runs, and for guests with a pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::{Lane, Shard, Upstream};
use crate::domain::Color;

/// The color that is not active: while the active one is watched, it answers once for each of its failures that can be
/// repeated without harm.
pub struct Standby {
    /// The color.
    pub color: Color,
    /// Where it is; at least one.
    pub upstreams: Arc<[Arc<Upstream>]>,
    open: AtomicBool,
    /// Grows as guests with a pass are sent away.
    guests: AtomicU32,
}

/// Replays of one worker under one epoch at most, beside [`REPLAY_SHARE`] of its requests: the standby carries no
/// traffic, and a release that fails all at once must not bring it down with it.
pub(super) const REPLAY_BURST: u64 = 256;

/// One replay for so many requests begun.
pub(super) const REPLAY_SHARE: u64 = 10;

impl Standby {
    pub(super) fn new(color: Color, upstreams: Arc<[Arc<Upstream>]>, open: bool) -> Self {
        Standby { color, upstreams, open: AtomicBool::new(open), guests: AtomicU32::new(0) }
    }

    /// How often guests have been sent away.
    pub(super) fn guests(&self) -> u32 {
        self.guests.load(Relaxed)
    }

    /// Whether a watch runs.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Set by the control plane as the watch begins and ends.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Relaxed);
    }

    pub(super) fn send_guests_away(&self) {
        self.guests.fetch_add(1, Relaxed);
    }
}

/// One request in flight on a color that answers in place of the other one; it ends when dropped.
pub struct Visit(Arc<Shard>);

impl Visit {
    pub(super) fn begin(shard: &Arc<Shard>) -> Self {
        shard.begun.add(1);
        Visit(Arc::clone(shard))
    }

    /// Counts its answer for the color that gave it.
    pub fn record(&self, status: Option<u16>, method: usize, duration: Duration) {
        self.0.count(status, method, duration);
        if status.is_none_or(|code| code >= 500) {
            self.0.errors.add(1);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.ended.add(1);
    }
}

impl Lane {
    /// Whether one more replay is within the budget of 256 and a tenth of this worker's requests.
    pub fn may_replay(&self) -> bool {
        let replays: u64 = self.counts.replays.get();
        replays < REPLAY_BURST + self.counts.begun.get() / REPLAY_SHARE
    }

    /// Counts a replay, by index into [`super::REPLAY_RESULTS`].
    pub fn count_replay(&self, result: usize) {
        self.counts.replays.add(1);
        self.stats.replays[result].add(1);
    }
}
