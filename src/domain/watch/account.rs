//! Where a watch stands, in numbers: what the status shows, and what is written down when traffic is taken back.

use std::time::Duration;

use super::{Before, Ended, Knobs, Mode, Phase, SHARED_AGAIN, Watch};
use crate::domain::verdict::Jury;

/// What the watch thinks of the new color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
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

/// What one jury has weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
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
pub struct Account {
    /// In a word.
    pub standing: Standing,
    /// Since the flip.
    pub elapsed: Duration,
    /// How the new color's requests have ended.
    pub counts: Ended,
    /// Those of the old color's part of split traffic.
    pub old: Ended,
    /// Those of the new color that are no evidence, for their client or route is set aside.
    pub aside: Ended,
    /// The share of failures that is excused after the warm-up.
    pub tolerated: f64,
    /// Failures.
    pub failures: Weight,
    /// Answers that are slow.
    pub slowness: Weight,
    /// Of the old color.
    pub before: Before,
    /// How requests are sent and counted.
    pub mode: Mode,
    /// What the operator has tuned.
    pub knobs: Knobs,
}

impl Watch {
    /// Where it stands.
    pub fn account(&self, now: Duration) -> Account {
        let rule = &self.knobs.rule;
        Account {
            standing: self.standing(now),
            elapsed: now.saturating_sub(self.since),
            counts: self.counts(),
            old: self.last.seen.of(Phase::Old),
            aside: self.last.seen.of(Phase::Aside),
            tolerated: self.tolerated,
            failures: weight(&self.failures, rule.failures_bar()),
            slowness: weight(&self.slowness, rule.slowness_bar()),
            before: self.before,
            mode: self.mode(),
            knobs: self.knobs,
        }
    }

    /// Whether nothing speaks against the new color: what failed before is of no interest any more.
    pub fn is_calm(&self) -> bool {
        let is_doubted = self.failures.is_in_doubt() || self.slowness.is_in_doubt();
        self.failures.is_calm() && self.slowness.is_calm() && !is_doubted && self.stuck.is_none()
    }

    fn standing(&self, now: Duration) -> Standing {
        let is_shared = self.shared_told.is_some_and(|told| now < told + SHARED_AGAIN);
        match self.stuck {
            Some(_) => Standing::NowhereToGo,
            None if is_shared => Standing::Shared,
            None if self.failures.is_in_doubt() || self.slowness.is_in_doubt() => Standing::Doubted,
            None if self.is_warming_up(now) => Standing::WarmUp,
            None => Standing::Calm,
        }
    }
}

fn weight<const COINS: usize>(jury: &Jury<COINS>, bar: f64) -> Weight {
    let episode = jury.episode().seen;
    Weight {
        ln_evidence: jury.ln_evidence(),
        ln_needed: bar.ln(),
        ln_worse: jury.ln_worse(),
        // Whole numbers all the way from the counters: below 2^53 the sums are exact.
        bad: episode.bad as u64,
        requests: episode.requests as u64,
        in_doubt: jury.is_in_doubt(),
    }
}
