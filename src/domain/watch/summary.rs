//! Where a watch stands, in numbers: what the status shows, and what is written down when traffic is taken back.

use std::time::Duration;

use super::{Baseline, Outcomes, SHARED_AGAIN, Stratum, Watch, WatchConfig, WatchMode};
use crate::domain::verdict::Detector;

/// What the watch thinks of the new color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// Nothing to speak of.
    Calm,
    /// Likewise, and a cold start is excused.
    WarmUp,
    /// Something speaks against it.
    Doubted,
    /// The old color suffers as well.
    Shared,
    /// It is bad, and there is no better place to go.
    NowhereToGo,
}

/// What one detector has weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorSummary {
    /// How much speaks against the new color, as a natural logarithm.
    pub ln_evidence: f64,
    /// As much is enough.
    pub ln_needed: f64,
    /// How much says that it does worse than the old color in the same seconds, as a natural logarithm.
    pub ln_worse: f64,
    /// Bad ones since nothing spoke against it.
    pub bad: u64,
    /// Requests since then.
    pub requests: u64,
    /// Whether it is in doubt for that.
    pub in_doubt: bool,
}

/// The numbers of a watch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WatchSummary {
    /// In a word.
    pub standing: WatchState,
    /// Since the flip.
    pub elapsed: Duration,
    /// How the new color's requests have ended.
    pub counts: Outcomes,
    /// Those of the old color's part of split traffic.
    pub old: Outcomes,
    /// Those of the new color that are no evidence, for their client or route is excluded.
    pub excluded: Outcomes,
    /// The share of failures that is excused after the warm-up.
    pub tolerated: f64,
    /// Failures.
    pub failures: DetectorSummary,
    /// Answers that are slow.
    pub slowness: DetectorSummary,
    /// Of the old color.
    pub baseline: Baseline,
    /// How requests are sent and counted.
    pub mode: WatchMode,
    /// What the operator has tuned.
    pub config: WatchConfig,
}

impl Watch {
    /// Where it stands.
    pub fn account(&self, now: Duration) -> WatchSummary {
        let rule = &self.config.rule;
        WatchSummary {
            standing: self.standing(now),
            elapsed: now.saturating_sub(self.since),
            counts: self.counts(),
            old: self.last.seen.of(Stratum::Old),
            excluded: self.last.seen.of(Stratum::Excluded),
            tolerated: self.tolerated,
            failures: weight(&self.failures, rule.failures_bar()),
            slowness: weight(&self.slowness, rule.slowness_bar()),
            baseline: self.baseline,
            mode: self.mode(),
            config: self.config,
        }
    }

    /// Whether nothing speaks against the new color: what failed before is of no interest any more.
    pub fn is_calm(&self) -> bool {
        let is_doubted = self.failures.is_in_doubt() || self.slowness.is_in_doubt();
        self.failures.is_calm() && self.slowness.is_calm() && !is_doubted && self.stuck.is_none()
    }

    fn standing(&self, now: Duration) -> WatchState {
        let is_shared = self.shared_told.is_some_and(|told| now < told + SHARED_AGAIN);
        match self.stuck {
            Some(_) => WatchState::NowhereToGo,
            None if is_shared => WatchState::Shared,
            None if self.failures.is_in_doubt() || self.slowness.is_in_doubt() => WatchState::Doubted,
            None if self.is_warming_up(now) => WatchState::WarmUp,
            None => WatchState::Calm,
        }
    }
}

fn weight<const CRITERIA: usize>(detector: &Detector<CRITERIA>, bar: f64) -> DetectorSummary {
    let episode = detector.episode().seen;
    DetectorSummary {
        ln_evidence: detector.ln_evidence(),
        ln_needed: bar.ln(),
        ln_worse: detector.ln_worse(),
        // Whole numbers all the way from the counters: below 2^53 the sums are exact.
        bad: episode.bad as u64,
        requests: episode.requests as u64,
        in_doubt: detector.is_in_doubt(),
    }
}
