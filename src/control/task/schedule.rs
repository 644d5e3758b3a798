//! When the control task has to look at something without being told to.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::control::service::ServiceState;
use crate::control::service::sampler::{BELL_TICK, HISTORY_TICK, WATCH_TICK};

/// After a failed save it is tried again this often.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// What time has to bring next.
#[derive(Default)]
pub(in crate::control) struct Schedule {
    /// The two below are as they were found last, and nothing has moved since.
    is_fresh: bool,
    /// The first deadline of any machine, freeze or drain.
    deadline: Option<Duration>,
    any_watch: bool,
    next_sample: Duration,
    next_history: Duration,
    next_save: Duration,
    bell_after: Duration,
}

impl Schedule {
    /// Something has moved that may have a deadline.
    pub(in crate::control) fn invalidate(&mut self) {
        self.is_fresh = false;
    }

    /// When the task has to wake next. `drains` are the deadlines that no service knows.
    pub(in crate::control) fn next_wake(
        &mut self,
        services: &BTreeMap<String, ServiceState>,
        drains: impl Iterator<Item = Duration>,
    ) -> Duration {
        if !self.is_fresh {
            self.is_fresh = true;
            let machines = services.values().filter_map(|service| service.machine.deadline());
            let freezes = services.values().filter_map(|service| service.freeze.freezer.deadline());
            self.deadline = machines.chain(freezes).chain(drains).min();
            self.any_watch = services.values().any(|service| service.machine.is_watching());
        }
        let sample = self.any_watch.then_some(self.next_sample);
        [self.deadline, sample].into_iter().flatten().fold(self.next_history, Duration::min)
    }

    /// Whether the failure bell matters, as far as [`Schedule::next_wake`] found.
    pub(in crate::control) fn any_watch(&self) -> bool {
        self.any_watch
    }

    /// How long the failure bell is not listened to: at most one failure a millisecond is looked at.
    pub(in crate::control) fn bell_pause(&self, now: Duration) -> Duration {
        self.bell_after.saturating_sub(now)
    }

    /// The bell was heard.
    pub(in crate::control) fn on_bell(&mut self, now: Duration) {
        self.bell_after = now + BELL_TICK;
    }

    /// Whether the histories are due; if so, they are due again a second later.
    pub(in crate::control) fn takes_history(&mut self, now: Duration) -> bool {
        let is_due = self.next_history <= now;
        if is_due {
            self.next_history = now + HISTORY_TICK;
        }
        is_due
    }

    /// Whether watched services are to be sampled.
    pub(in crate::control) fn is_sample_due(&self, now: Duration) -> bool {
        self.next_sample <= now || self.is_deadline_due(now)
    }

    /// Watched services were sampled.
    pub(in crate::control) fn on_sampled(&mut self, now: Duration) {
        self.next_sample = now + WATCH_TICK;
    }

    /// Whether the first deadline has come.
    pub(in crate::control) fn is_deadline_due(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// A save has failed: it is tried again in a while.
    pub(in crate::control) fn on_save_failed(&mut self, now: Duration) {
        self.next_save = now + SAVE_AGAIN;
    }

    /// Whether failed saves are to be tried again; if so, they are due again after a while.
    pub(in crate::control) fn takes_failed_saves(&mut self, now: Duration) -> bool {
        let is_due = self.next_save <= now;
        if is_due {
            self.next_save = now + SAVE_AGAIN;
        }
        is_due
    }
}
