//! What the control task counts for the metrics.

use std::collections::BTreeMap;

use crate::control::status_snapshot::{FlipCount, WatchEndCount};
use crate::domain::Color;
use crate::domain::cutover::{Change, Reason, WatchEndKind};

/// The counters of changes, since the first of all processes that handed them on.
#[derive(Default)]
pub(in crate::control) struct ChangeCounters {
    flips: BTreeMap<(String, Color, Reason), u64>,
    watch_ends: BTreeMap<(String, WatchEndKind), u64>,
}

impl ChangeCounters {
    pub(in crate::control) fn count_change(&mut self, service: &str, change: &Change) {
        *self.flips.entry((service.to_owned(), change.to, change.reason)).or_default() += 1;
    }

    pub(in crate::control) fn count_watch_end(&mut self, service: &str, end: WatchEndKind) {
        *self.watch_ends.entry((service.to_owned(), end)).or_default() += 1;
    }

    /// Goes on from what the process before this one has counted.
    pub(in crate::control) fn inherit(
        &mut self,
        flips: impl Iterator<Item = FlipCount>,
        watch_ends: impl Iterator<Item = WatchEndCount>,
    ) {
        self.flips.extend(flips.map(|flip| ((flip.service, flip.to, flip.reason), flip.count)));
        self.watch_ends.extend(watch_ends.map(|ended| ((ended.service, ended.end), ended.count)));
    }

    /// The changes that were made.
    pub(in crate::control) fn flips(&self) -> Vec<FlipCount> {
        let flip = |((service, to, reason), count): (&(String, Color, Reason), &u64)| FlipCount {
            service: service.clone(),
            to: *to,
            reason: *reason,
            count: *count,
        };
        self.flips.iter().map(flip).collect()
    }

    /// Every end of every service, also those that never came up.
    pub(in crate::control) fn watch_ends<'a>(&self, services: impl Iterator<Item = &'a String>) -> Vec<WatchEndCount> {
        let ends_of = |service: &String| {
            WatchEndKind::ALL.map(|end| {
                let count = self.watch_ends.get(&(service.clone(), end)).copied().unwrap_or(0);
                WatchEndCount { service: service.clone(), end, count }
            })
        };
        services.flat_map(ends_of).collect()
    }
}
