//! What the control plane reads from the data plane's counters, and how often.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::watch::Counts;

/// Between two samples of a service that is watched.
pub(super) const WATCH_TICK: Duration = Duration::from_millis(100);
/// Between two samples of any service, for the history that the next flip is judged against.
pub(super) const HISTORY_TICK: Duration = Duration::from_secs(1);
/// A failure is looked at at once, but no more often than this.
pub(super) const BELL_TICK: Duration = Duration::from_millis(1);

/// How far a history goes back.
const KEPT: Duration = Duration::from_secs(600);
/// Its resolution.
const BUCKET: Duration = Duration::from_secs(10);

/// What one color answered in the last ten minutes in which it took traffic; at most 61 buckets.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<(Duration, Counts)>);

impl History {
    /// Adds what was answered up to `now`.
    pub(super) fn add(&mut self, now: Duration, good: u64, bad: u64) {
        if good + bad == 0 {
            return;
        }
        if self.0.back().is_none_or(|(began, _)| *began + BUCKET <= now) {
            self.forget(now);
            self.0.push_back((now, Counts::default()));
        }
        if let Some((_, counts)) = self.0.back_mut() {
            counts.good += good;
            counts.bad += bad;
        }
    }

    /// The sum over the last ten minutes.
    pub(super) fn total(&mut self, now: Duration) -> Counts {
        self.forget(now);
        self.0.iter().fold(Counts::default(), |sum, (_, counts)| Counts {
            good: sum.good + counts.good,
            bad: sum.bad + counts.bad,
            in_flight: 0,
        })
    }

    fn forget(&mut self, now: Duration) {
        while self.0.front().is_some_and(|(began, _)| *began + KEPT <= now) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_ten_minutes_and_no_more() {
        let mut history = History::default();
        for second in 0..3_600 {
            history.add(Duration::from_secs(second), 99, 1);
        }
        assert!(history.0.len() <= 61);
        let total = history.total(Duration::from_secs(3_600));
        assert!((580..=610).contains(&total.bad), "{total:?}");
        assert_eq!(total.good, 99 * total.bad);
        assert_eq!(history.total(Duration::from_secs(5_000)), Counts::default());
    }
}
