//! What the control plane reads from the data plane's counters, and how often.

use std::time::Duration;

mod cohorts;
mod history;

pub(in crate::control) use cohorts::Cohorts;
pub(in crate::control) use history::History;

/// Between two samples of a service that is watched.
pub(in crate::control) const WATCH_TICK: Duration = Duration::from_millis(100);
/// Between two samples of any service, for the history that the next flip is judged against.
pub(in crate::control) const HISTORY_TICK: Duration = Duration::from_secs(1);
/// A failure is looked at at once, but no more often than this.
pub(in crate::control) const BELL_TICK: Duration = Duration::from_millis(1);
