//! The requests of a watched route by when they began, judged for slowness once they are old enough.

use std::time::Duration;

use crate::domain::watch::{AgedCohorts, Outcomes};
use crate::routing::{COHORT, COHORTS, CohortCount, RouteHandle};

/// Reads the cohorts of the route in force as they come of age.
#[derive(Debug)]
pub(super) struct CohortReader {
    /// The next one to be judged, by quantile.
    next: [usize; 3],
    /// By place in the ring and side, what was there when the place was last judged, by quantile; empty while nobody
    /// asked.
    seen: Vec<[[CohortCount; 2]; 3]>,
    /// Cohorts from the first to before the second were wholly begun while traffic was split.
    split: (usize, usize),
}

impl Default for CohortReader {
    fn default() -> Self {
        CohortReader { next: [0; 3], seen: Vec::new(), split: (usize::MAX, usize::MAX) }
    }
}

impl CohortReader {
    /// What has come of age since this was last called.
    pub(super) fn come_of_age(&mut self, route: &RouteHandle, warm_up: Duration) -> AgedCohorts {
        let Some(slow) = route.slow() else { return AgedCohorts::default() };
        self.seen.resize(COHORTS, Default::default());
        let elapsed = slow.since.elapsed();
        let mut aged = AgedCohorts { is_split: true, in_warm_up: true, ..AgedCohorts::default() };
        let mut youngest = None;
        for (quantile, limit) in slow.limits.iter().enumerate() {
            let Some(limit) = limit else { continue };
            let of_age = index(elapsed.saturating_sub(*limit));
            // A late look leaves out what the ring has already lost.
            let first = self.next[quantile].max(of_age.saturating_sub(COHORTS / 32));
            for at in first..of_age {
                let now = route.cohort(at);
                let before = std::mem::replace(&mut self.seen[at % COHORTS][quantile], now);
                let [new, old] = [0, 1].map(|side| {
                    let begun = now[side].begun.saturating_sub(before[side].begun);
                    let fast = now[side].fast[quantile].saturating_sub(before[side].fast[quantile]).min(begun);
                    Outcomes { good: fast, bad: begun - fast }
                });
                aged.new[quantile] += new;
                aged.old[quantile] += old;
                aged.is_split &= self.split.0 <= at && at < self.split.1;
                youngest = youngest.max(Some(at));
            }
            self.next[quantile] = self.next[quantile].max(of_age);
        }
        aged.is_split &= youngest.is_some();
        aged.in_warm_up =
            youngest.map_or(elapsed < warm_up, |at| COHORT * u32::try_from(at).unwrap_or(u32::MAX) < warm_up);
        if !aged.is_split {
            aged.old = [Outcomes::default(); 3];
        }
        aged
    }

    /// The traffic is split from now on, or no more.
    pub(super) fn note_split(&mut self, route: &RouteHandle, is_split: bool) {
        let Some(slow) = route.slow() else { return };
        let now = index(slow.since.elapsed());
        let was_split = self.split.0 != usize::MAX && self.split.1 == usize::MAX;
        match (was_split, is_split) {
            (false, true) => self.split = (now + 1, usize::MAX),
            (true, false) => self.split.1 = now,
            (true, true) | (false, false) => {}
        }
    }
}

/// Which cohort that moment is in.
fn index(elapsed: Duration) -> usize {
    usize::try_from(elapsed.as_millis() / COHORT.as_millis()).unwrap_or(usize::MAX)
}
