//! What a watch is told: counts that only grow, by the phase a request began in and by who asked for what.

use std::ops::{AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// Clients, and routes, are told apart by so many numbers; two of a kind share one now and then.
pub const SOURCES: usize = 32;

/// Requests that ended with evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Answered below 500.
    pub good: u64,
    /// Answered 5xx, or not at all.
    pub bad: u64,
}

impl Ended {
    /// Both.
    pub fn all(self) -> u64 {
        self.good + self.bad
    }
}

impl AddAssign for Ended {
    fn add_assign(&mut self, more: Ended) {
        self.good += more.good;
        self.bad += more.bad;
    }
}

impl Sub for Ended {
    type Output = Ended;

    /// 0 where it would be less: a count that begins anew is not a negative one.
    fn sub(self, before: Ended) -> Ended {
        Ended { good: self.good.saturating_sub(before.good), bad: self.bad.saturating_sub(before.bad) }
    }
}

/// What was the case when a request began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
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
    /// It is of a client or route that is set aside, and no evidence.
    Aside,
}

impl Phase {
    /// All, by index.
    pub const ALL: [Phase; 6] =
        [Phase::Calm, Phase::WarmUp, Phase::Split, Phase::WarmUpSplit, Phase::Old, Phase::Aside];
}

/// What is set aside: a number below [`SOURCES`] each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// A client.
    pub client: Option<u8>,
    /// A route.
    pub route: Option<u8>,
}

/// How requests are sent and counted while a color is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// The warm-up lasts.
    pub warm_up: bool,
    /// The new color keeps one request in so many, 2 to 10, and the old one has the others; 0 while it keeps all.
    pub keep_one_in: u8,
    /// What is no evidence.
    pub aside: Aside,
}

impl Mode {
    /// How a request of the new color counts that begins now, and whose source is not set aside.
    pub fn phase(&self) -> Phase {
        match (self.warm_up, self.keep_one_in > 0) {
            (true, true) => Phase::WarmUpSplit,
            (true, false) => Phase::WarmUp,
            (false, true) => Phase::Split,
            (false, false) => Phase::Calm,
        }
    }
}

/// How the new color's requests ended, by who asked and for what; what is set aside is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// By client.
    pub clients: [Ended; SOURCES],
    /// By route.
    pub routes: [Ended; SOURCES],
}

impl AddAssign<&Spread> for Spread {
    fn add_assign(&mut self, more: &Spread) {
        self.clients.iter_mut().zip(more.clients).for_each(|(sum, more)| *sum += more);
        self.routes.iter_mut().zip(more.routes).for_each(|(sum, more)| *sum += more);
    }
}

/// All that was counted since the flip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// By [`Phase`].
    pub phases: [Ended; Phase::ALL.len()],
    /// Of the new color.
    pub spread: Spread,
    /// Failures of the new color that were a connection it did not take: no fault that it could share with another.
    pub refused: u64,
}

impl Seen {
    /// Requests that began in that phase.
    pub fn of(&self, phase: Phase) -> Ended {
        self.phases[phase as usize]
    }

    /// Those of the new color, evidence or not.
    pub fn new_color(&self) -> Ended {
        let mut sum = self.of(Phase::Aside);
        for phase in [Phase::Calm, Phase::WarmUp, Phase::Split, Phase::WarmUpSplit] {
            sum += self.of(phase);
        }
        sum
    }
}

impl AddAssign<&Seen> for Seen {
    fn add_assign(&mut self, more: &Seen) {
        self.phases.iter_mut().zip(more.phases).for_each(|(sum, more)| *sum += more);
        self.spread += &more.spread;
        self.refused += more.refused;
    }
}

/// Cohorts that have come of age since the last step: `bad` are those that had no answer within the limit, by quantile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aged {
    /// Of the new color.
    pub new: [Ended; 3],
    /// Of the old color, begun while traffic was split.
    pub old: [Ended; 3],
    /// So was the whole of `new`.
    pub is_split: bool,
    /// The youngest of them began in the warm-up.
    pub in_warm_up: bool,
}

/// What a step is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the flip.
    pub seen: Seen,
    /// Requests of the new color that have not ended.
    pub in_flight: u64,
    /// What is known of slowness.
    pub aged: Aged,
    /// Whether the old color could take the traffic back: an upstream of it is ready.
    pub old_is_up: bool,
}
