//! Which requests of one service are held, for whom, and where they wait.
//!
//! A freeze lives in memory alone. When the proxy ends, so do the connections that wait, and there is nothing to
//! restore.

use std::sync::Arc;
use std::time::Duration;

use crate::api::FreezeStatus;
use crate::config;
use crate::control::messages::seconds;
use crate::domain::freeze::{Freeze, FreezeEnd, Freezer, What};
use crate::routing::{FreezeQueue, QueueOutcome, QueueStats};

/// The freeze of one service.
#[derive(Default)]
pub(in crate::control) struct FreezeState {
    pub(in crate::control) freezer: Freezer,
    /// The held requests over all freezes; the data plane counts them.
    pub(in crate::control) stats: Arc<QueueStats>,
    /// Where requests wait now.
    queue: Option<Arc<FreezeQueue>>,
    /// How waits had ended when this freeze began.
    ends_before: [u64; QueueOutcome::ALL.len()],
}

/// A freeze that has ended, and why.
pub(in crate::control) struct EndedFreeze {
    pub(in crate::control) freeze: Freeze,
    pub(in crate::control) end: FreezeEnd,
}

impl FreezeState {
    /// Where the next route lets requests wait; `None` while nothing is frozen.
    pub(in crate::control) fn queue(&self) -> Option<Arc<FreezeQueue>> {
        self.queue.clone()
    }

    /// Begins a queue for requests of `what`, and returns the one before, whose requests are looked at anew once a
    /// route with the new one is published.
    pub(in crate::control) fn begin_queue(&mut self, what: What, limits: config::Freeze) -> Option<Arc<FreezeQueue>> {
        let before = self.queue.replace(FreezeQueue::new(what, limits, Arc::clone(&self.stats)));
        if before.is_none() {
            self.ends_before = self.stats.ends();
        }
        before
    }

    /// Ends the queue; its requests are to be let go once a route without it is published.
    pub(in crate::control) fn end_queue(&mut self) -> Option<Arc<FreezeQueue>> {
        self.queue.take()
    }

    /// The freeze in force, as the API says it.
    pub(in crate::control) fn status(&self, now: Duration) -> Option<FreezeStatus> {
        let Freeze { what, by, why, since, until, .. } = self.freezer.freeze()?;
        Some(FreezeStatus {
            what: *what,
            by: by.clone(),
            why: why.clone(),
            held: self.stats.now(),
            seconds: seconds(now.saturating_sub(*since)),
            remaining_seconds: seconds(until.saturating_sub(now)),
        })
    }

    /// How waits have ended since this freeze began, in the order of [`QueueOutcome::ALL`].
    pub(in crate::control) fn ends(&self) -> [u64; QueueOutcome::ALL.len()] {
        let (now, before) = (self.stats.ends(), self.ends_before);
        std::array::from_fn(|at| now[at] - before[at])
    }
}
