//! What a watch is told: counts that only grow, by the phase a request began in and by who asked for what.

use std::ops::{AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// Clients, and routes, are told apart by so many numbers; two of a kind share one now and then.
pub const SOURCES: usize = 32;

/// Requests that ended with evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Answered below 500.
    pub good: u64,
    /// Answered 5xx, or not at all.
    pub bad: u64,
}

impl Outcomes {
    /// Both.
    pub fn all(self) -> u64 {
        self.good + self.bad
    }
}

impl AddAssign for Outcomes {
    fn add_assign(&mut self, more: Outcomes) {
        self.good += more.good;
        self.bad += more.bad;
    }
}

impl Sub for Outcomes {
    type Output = Outcomes;

    /// 0 where it would be less: a count that begins anew is not a negative one.
    fn sub(self, before: Outcomes) -> Outcomes {
        Outcomes { good: self.good.saturating_sub(before.good), bad: self.bad.saturating_sub(before.bad) }
    }
}

/// What was the case when a request began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stratum {
    /// The new color has all the traffic; also where nothing is watched.
    Calm,
    /// So soon after the flip that a cold start is excused.
    WarmUp,
    /// The new color shares the traffic with the old one.
    Split,
    /// Both.
    WarmUpSplit,
    /// It was the old color's part of split traffic.
    Old,
    /// It is of a client or route that is excluded, and no evidence.
    Excluded,
}

impl Stratum {
    /// All, by index.
    pub const ALL: [Stratum; 6] =
        [Stratum::Calm, Stratum::WarmUp, Stratum::Split, Stratum::WarmUpSplit, Stratum::Old, Stratum::Excluded];
}

/// What is excluded: a number below [`SOURCES`] each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// A client.
    pub client: Option<u8>,
    /// A route.
    pub route: Option<u8>,
}

/// How requests are sent and counted while a color is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchMode {
    /// The warm-up lasts.
    pub warm_up: bool,
    /// The new color keeps one request in so many, 2 to 10, and the old one has the others; 0 while it keeps all.
    pub keep_one_in: u8,
    /// What is no evidence.
    pub excluded: Excluded,
}

impl WatchMode {
    /// How a request of the new color counts that begins now, and whose source is not excluded.
    pub fn phase(&self) -> Stratum {
        match (self.warm_up, self.keep_one_in > 0) {
            (true, true) => Stratum::WarmUpSplit,
            (true, false) => Stratum::WarmUp,
            (false, true) => Stratum::Split,
            (false, false) => Stratum::Calm,
        }
    }
}

/// How the new color's requests ended, by who asked and for what; what is excluded is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// By client.
    pub clients: [Outcomes; SOURCES],
    /// By route.
    pub routes: [Outcomes; SOURCES],
}

impl AddAssign<&SourceCounts> for SourceCounts {
    fn add_assign(&mut self, more: &SourceCounts) {
        self.clients.iter_mut().zip(more.clients).for_each(|(sum, more)| *sum += more);
        self.routes.iter_mut().zip(more.routes).for_each(|(sum, more)| *sum += more);
    }
}

/// All that was counted since the flip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchCounts {
    /// By [`Stratum`].
    pub strata: [Outcomes; Stratum::ALL.len()],
    /// Of the new color.
    pub spread: SourceCounts,
    /// Failures of the new color that were a connection it did not take: no fault that it could share with another.
    pub refused: u64,
}

impl WatchCounts {
    /// Requests that began in that phase.
    pub fn of(&self, phase: Stratum) -> Outcomes {
        self.strata[phase as usize]
    }

    /// Those of the new color, evidence or not.
    pub fn new_color(&self) -> Outcomes {
        let mut sum = self.of(Stratum::Excluded);
        for phase in [Stratum::Calm, Stratum::WarmUp, Stratum::Split, Stratum::WarmUpSplit] {
            sum += self.of(phase);
        }
        sum
    }
}

impl AddAssign<&WatchCounts> for WatchCounts {
    fn add_assign(&mut self, more: &WatchCounts) {
        self.strata.iter_mut().zip(more.strata).for_each(|(sum, more)| *sum += more);
        self.spread += &more.spread;
        self.refused += more.refused;
    }
}

/// Cohorts that have come of age since the last step: `bad` are those that had no answer within the limit, by quantile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgedCohorts {
    /// Of the new color.
    pub new: [Outcomes; 3],
    /// Of the old color, begun while traffic was split.
    pub old: [Outcomes; 3],
    /// So was the whole of `new`.
    pub is_split: bool,
    /// The youngest of them began in the warm-up.
    pub in_warm_up: bool,
}

/// What a step is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSample {
    /// Since the flip.
    pub seen: WatchCounts,
    /// Requests of the new color that have not ended.
    pub in_flight: u64,
    /// What is known of slowness.
    pub aged: AgedCohorts,
    /// Whether the old color could take the traffic back: an upstream of it is ready.
    pub old_is_up: bool,
}
