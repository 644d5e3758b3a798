//! Colors that were left, until their last lease is gone.
//!
//! A flip leaves the color before it. An operator, or a deploy before it stops a color, may also ask that the idle one
//! be empty: requests are there as well, of guests, of split traffic and in place of the active color's.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crate::api::status::Drained;
use crate::control::messages::seconds;
use crate::control::service::{ReplacedRoute, ServiceState};
use crate::control::task::Task;
use crate::domain::Color;
use crate::domain::cutover::Event;
use crate::os::clock;
use crate::routing::Draining;

/// A color that was left and may still hold leases.
pub(in crate::control) struct PendingDrain {
    pub(in crate::control) service: String,
    pub(in crate::control) leave: Draining,
    pub(in crate::control) by: DrainCause,
}

impl PendingDrain {
    fn cut(&mut self) {
        self.leave.cut();
        if let DrainCause::Request { until, .. } = &mut self.by {
            *until = None;
        }
    }
}

/// Why a color was left.
pub(in crate::control) enum DrainCause {
    /// A flip or rollback, with which this epoch ended; the machine says when the rest is cut.
    Flip { epoch: u64 },
    /// It was idle already, and somebody asked that it be empty.
    Request {
        color: Color,
        since: Duration,
        /// When the rest is cut; `None` once it was.
        until: Option<Duration>,
        /// Whether anybody was there.
        was_used: bool,
    },
}

/// The position of the first color that holds no lease any more.
pub(in crate::control) async fn first_drained(draining: &mut [PendingDrain]) -> usize {
    poll_fn(|cx| {
        let drained = draining.iter_mut().position(|one| one.leave.poll_drained(cx).is_ready());
        drained.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// The position of the first route that holds no lease any more.
pub(in crate::control) async fn first_over(leaving: &mut [ReplacedRoute]) -> usize {
    poll_fn(|cx| {
        let over = leaving.iter_mut().position(|left| left.route_handle.poll_over(cx).is_ready());
        over.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

impl Task {
    pub(in crate::control) fn on_drained(&mut self, at: usize) {
        let PendingDrain { service, leave, by } = self.draining.swap_remove(at);
        self.schedule.is_stale = true;
        match by {
            DrainCause::Flip { epoch } => self.on_all_given_back(service, epoch, leave.was_cut()),
            DrainCause::Request { color, since, was_used, .. } => {
                let Some(managed) = self.services.get_mut(&service) else { return };
                if color != managed.machine.active().other() || is_split(managed) {
                    // Meanwhile others are meant, or others came.
                    return self.empty_idle(&service);
                }
                let took = seconds(clock::now().saturating_sub(since));
                let drained =
                    if was_used { Drained { seconds: took, cut: leave.was_cut() } } else { managed.last_drain };
                for answer in std::mem::take(&mut managed.drain_waiters) {
                    self.reply(answer, Ok(drained));
                }
            }
        }
    }

    /// This process holds no lease any more that was taken on the color that was active until `epoch` ended.
    pub(in crate::control) fn on_all_given_back(&mut self, service: String, epoch: u64, cut: u64) {
        if self.handover.waits_for_predecessor() {
            return self.handover.given_back.push((service, epoch, cut));
        }
        self.handle_event(&service, Event::Drained { epoch, cut });
    }

    /// Empties the idle color, if somebody waits for that: after the drain that a flip began, and not while the color
    /// has its part of split traffic.
    pub(in crate::control) fn empty_idle(&mut self, name: &str) {
        let Some(managed) = self.services.get_mut(name) else { return };
        let (machine, idle) = (&managed.machine, managed.machine.active().other());
        let is_emptied = |one: &PendingDrain| one.service == name && matches!(one.by, DrainCause::Request { .. });
        let has_to_wait = managed.drain_waiters.is_empty()
            || machine.drains().iter().any(|drain| drain.color == idle)
            || is_split(managed)
            || self.draining.iter().any(is_emptied);
        if has_to_wait {
            return;
        }
        if machine.is_watching() && managed.is_empty(idle) {
            // It may be asked for a replay at any moment; to publish another route would cost the watch its cohorts.
            let drained = managed.last_drain;
            for answer in std::mem::take(&mut managed.drain_waiters) {
                self.reply(answer, Ok(drained));
            }
            return;
        }
        let (now, service) = (clock::now(), name.to_owned());
        let (route_handle, leave) = managed.leave_idle(now);
        let until = Some(now + managed.config.drain.timeout);
        let by = DrainCause::Request { color: idle, since: now, until, was_used: leave.in_flight() > 0 };
        self.leaving.push(ReplacedRoute { service: service.clone(), route_handle });
        self.draining.push(PendingDrain { service, leave, by });
        self.schedule.is_stale = true;
        (self.wake_workers)();
    }

    /// When those that somebody wants to be empty are cut.
    pub(in crate::control) fn idle_deadlines(&self) -> impl Iterator<Item = Duration> {
        self.draining.iter().filter_map(|one| self.idle_deadline(one))
    }

    /// `None` while its color serves: whoever is there stays.
    fn idle_deadline(&self, one: &PendingDrain) -> Option<Duration> {
        let DrainCause::Request { color, until, .. } = one.by else { return None };
        let is_idle = self.services.get(&one.service).is_some_and(|managed| managed.machine.active() != color);
        until.filter(|_| is_idle)
    }

    pub(in crate::control) fn cut_idle(&mut self, now: Duration) {
        self.cut_where(|task, one| task.idle_deadline(one).is_some_and(|until| until <= now));
        self.schedule.is_stale = true;
    }

    pub(in crate::control) fn cut(&mut self, name: &str, epoch: u64) {
        self.cut_where(|_, one| one.service == name && matches!(one.by, DrainCause::Flip { epoch: of } if of == epoch));
    }

    fn cut_where(&mut self, is: impl Fn(&Self, &PendingDrain) -> bool) {
        let due: Vec<usize> = (0..self.draining.len()).filter(|&at| is(self, &self.draining[at])).collect();
        for &at in &due {
            self.draining[at].cut();
        }
        if !due.is_empty() {
            (self.wake_workers)();
        }
    }

    /// Whether somebody waits for an idle color to be empty.
    pub(in crate::control) fn empties(&self, name: &str) -> bool {
        self.services.get(name).is_some_and(|managed| !managed.drain_waiters.is_empty())
    }
}

/// Whether both colors of it have their part of the traffic.
fn is_split(managed: &ServiceState) -> bool {
    managed.machine.mode().is_some_and(|mode| mode.keep_one_in > 0)
}
