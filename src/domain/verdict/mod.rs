//! The statistics of a watch: counts in, a finding out.
//!
//! A bad request is a coin that came up tails. What the old color did before the flip says which share of tails is to
//! be [tolerated](tolerated_share); eight [bets](Bets) stand on larger shares; their summed capital is the
//! [evidence](Evidence); traffic that both colors share can [compare](Comparison) them; and a [detector](Detector)
//! turns all of it into a [`Detection`]. `docs/verdict.md` says the same without formulas.
//!
//! Nothing here reads a clock, allocates while it looks, or knows epochs, colors and rollbacks: `watch` does. Looking
//! more often costs nothing but the time of a look, because the bound on needless rollbacks holds for every schedule
//! of looks: capital that cannot be expected to grow passes `1 / x` with probability `x` at most (Ville's inequality).

use serde::{Deserialize, Serialize};

mod bets;
mod comparison;
mod detector;
mod dispersion;
mod evidence;
mod failures;
mod history;
mod slowness;
mod split;
mod tolerance;

#[cfg(test)]
mod vectors;

pub use bets::Bets;
pub use comparison::Comparison;
pub use detector::{CORROBORATED, Corroboration, Detection, Detector, Episode, Observation};
pub use dispersion::{dispersion, dispersion_at};
pub use evidence::{Evidence, Stake};
pub use failures::failure_detector;
pub use history::{FailureBaseline, leave_outages_out};
pub use slowness::{SLOWER_THAN_QUANTILE, slowness_detector};
pub use split::kept_share;
pub use tolerance::{tolerated_share, upper_bound};

use std::time::Duration;

/// How often a detector looks when nothing wakes it.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// What an operator may tune; the rest of the rule is constant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectorConfig {
    /// Chance of a needless rollback per watch, above 0 and below 1. Default 0.001: one in a thousand deployments.
    pub max_false_rollbacks: f64,
    /// A rise of the share of bad requests by less than this is not worth a rollback. Default 0.001.
    pub min_effect: f64,
    /// Nobody is judged on fewer bad requests. Default 5.
    pub min_failures: u32,
    /// Answers in this time after the flip are judged mildly: a cold start may stumble. Default 2 s.
    pub warm_up: Duration,
    /// The length of the watch; zero switches it off. Default 15 min.
    pub window: Duration,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        DetectorConfig::DEFAULT
    }
}

impl DetectorConfig {
    /// What holds where nothing is configured.
    pub const DEFAULT: DetectorConfig = DetectorConfig {
        max_false_rollbacks: 0.001,
        min_effect: 0.001,
        min_failures: 5,
        warm_up: Duration::from_secs(2),
        window: Duration::from_secs(900),
    };

    /// Evidence of failures that is enough. Half of the chance of a needless rollback is theirs.
    pub fn failures_bar(&self) -> f64 {
        2.0 / self.max_false_rollbacks
    }

    /// Evidence of slowness that is enough. A quarter of the chance is its own; the last quarter is the history's,
    /// which may have looked better than the old color is.
    pub fn slowness_bar(&self) -> f64 {
        4.0 / self.max_false_rollbacks
    }

    /// Over how many looks the held-back stake is spread, where `rate` is in requests per second: one per tick, and no
    /// more than there will be requests.
    pub fn starts(&self, rate: f64) -> f64 {
        let window = self.window.as_secs_f64();
        let ticks = (window / TICK.as_secs_f64()).max(1.0);
        // Where the rate is not known, all of the stake must not be gone at the first look.
        if rate > 0.0 { ticks.min(1.0 + rate * window) } else { ticks }
    }
}

/// Requests that ended with evidence, and the bad ones among them. Fractions are allowed: the bets do not mind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// All of them.
    pub requests: f64,
    /// At most `requests`.
    pub bad: f64,
}

impl Batch {
    /// `bad` among `requests`.
    pub fn new(requests: f64, bad: f64) -> Self {
        Batch { requests, bad }
    }

    fn good(self) -> f64 {
        self.requests - self.bad
    }

    /// The share of bad ones, 0 where there are none.
    fn share(self) -> f64 {
        if self.requests > 0.0 { self.bad / self.requests } else { 0.0 }
    }
}

impl std::ops::AddAssign for Batch {
    fn add_assign(&mut self, more: Batch) {
        self.requests += more.requests;
        self.bad += more.bad;
    }
}

impl std::iter::Sum for Batch {
    fn sum<I: Iterator<Item = Batch>>(batches: I) -> Batch {
        batches.fold(Batch::default(), |mut sum, batch| {
            sum += batch;
            sum
        })
    }
}
