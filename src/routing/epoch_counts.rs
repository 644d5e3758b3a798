//! The counters of one epoch: what a watch judges. They begin with a route and outlive it.

use serde::{Deserialize, Serialize};

use crate::domain::watch::{Stratum, WatchCounts};
use crate::routing::watch_counters::StratumCounters;
use crate::routing::{Counter, SlowLimits};

/// Tells how a request ended, as the watch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response was complete, with a status below 500.
    Good,
    /// The response was a 5xx or broken, or did not come in time.
    Bad,
    /// No upstream took a connection. This is bad, and nobody else's fault.
    Refused,
    /// The request is no evidence: the client left, or the proxy itself refused.
    Void,
}

/// Counts for one worker under one epoch. It outlives the route, so that a tally never shrinks.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct EpochCounts {
    pub(super) begun: Counter,
    pub(super) void: Counter,
    /// Counts those of `begun` and `void` that went to the old color while traffic was split.
    pub(super) old_begun: Counter,
    pub(super) old_void: Counter,
    pub(super) replays: Counter,
    pub(super) searches: Counter,
    pub(super) refused: Counter,
    /// Requests while traffic is split, and which one of the present block the new color keeps.
    turn: Counter,
    kept: Counter,
    pub(super) watch: StratumCounters,
}

impl EpochCounts {
    pub(super) fn new(slow: Option<SlowLimits>) -> Self {
        EpochCounts {
            begun: Counter::default(),
            void: Counter::default(),
            old_begun: Counter::default(),
            old_void: Counter::default(),
            replays: Counter::default(),
            searches: Counter::default(),
            refused: Counter::default(),
            turn: Counter::default(),
            kept: Counter::default(),
            watch: StratumCounters::new(slow),
        }
    }

    /// Whether the new color keeps this request: one in each block of `one_in`, drawn by chance.
    ///
    /// A block is what makes the draw fair. By client, one that loops on a failure would land on one side alone. By
    /// turns, so might a route that comes at every other request. By chance alone, a verdict would now and then wait
    /// several times as long.
    pub(super) fn keeps(&self, one_in: u64) -> bool {
        let at = self.turn.get() % one_in;
        if at == 0 {
            self.kept.set(fastrand::u64(..one_in));
        }
        self.turn.add(1);
        at == self.kept.get()
    }
}

/// Counts of one epoch, summed over the workers. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests begun.
    pub begun: u64,
    /// Requests that ended without evidence.
    pub void: u64,
    /// Counts those of `begun` that the old color got while traffic was split.
    pub old_begun: u64,
    /// Counts those of `void` that the old color got while traffic was split.
    pub old_void: u64,
    /// Requests that ended with evidence.
    pub seen: WatchCounts,
}

impl std::ops::AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, more: &Tally) {
        self.begun += more.begun;
        self.void += more.void;
        self.old_begun += more.old_begun;
        self.old_void += more.old_void;
        self.seen += &more.seen;
    }
}

impl Tally {
    /// Sums the workers' counts.
    pub(super) fn sum<'a>(workers: impl Iterator<Item = &'a EpochCounts>) -> Self {
        let mut sum = Tally::default();
        for counts in workers {
            // Outcomes before begun, so that `begun` is never the smaller one.
            sum.seen.refused += counts.refused.get();
            for phase in Stratum::ALL {
                sum.seen.strata[phase as usize] += counts.watch.ended(phase);
            }
            sum.seen.spread += &counts.watch.spread();
            (sum.old_void, sum.void) = (sum.old_void + counts.old_void.get(), sum.void + counts.void.get());
            sum.old_begun += counts.old_begun.get();
            sum.begun += counts.begun.get();
        }
        sum
    }

    /// Returns the requests in flight on either color.
    pub fn in_flight(&self) -> u64 {
        let ended = self.seen.new_color().all() + self.seen.of(Stratum::Old).all() + self.void;
        self.begun.saturating_sub(ended)
    }

    /// Forgets what has not ended: whoever adds another route's counts to this does not hear of those any more.
    pub fn without_in_flight(mut self) -> Self {
        self.old_begun = self.old_void + self.seen.of(Stratum::Old).all();
        self.begun -= self.in_flight();
        self
    }

    /// Returns the requests in flight on the new color.
    pub fn in_flight_on_new(&self) -> u64 {
        let old = self.old_begun.saturating_sub(self.old_void + self.seen.of(Stratum::Old).all());
        self.in_flight().saturating_sub(old)
    }
}
