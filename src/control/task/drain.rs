//! Colors that were left, until their last lease is gone, and routes that were replaced, until theirs is.
//!
//! A flip leaves the color before it. An operator, or a deploy before it stops a color, may also ask that the idle one
//! be empty: requests are there as well, of guests, of split traffic and in place of the active color's.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::Drained;
use crate::control::messages::seconds;
use crate::control::service::ServiceState;
use crate::control::task::Task;
use crate::control::task::drains::{DrainCause, PendingDrain};
use crate::control::task::upgrade_tracker::GivenBack;
use crate::domain::cutover::Event;
use crate::os::clock;

impl Task {
    pub(in crate::control) fn on_drained(&mut self, drained: PendingDrain) {
        let PendingDrain { service: name, leases, cause } = drained;
        self.schedule.invalidate();
        let (color, since, was_used) = match cause {
            DrainCause::Flip { epoch } => {
                return self.on_all_given_back(GivenBack { service: name, epoch, cut: leases.was_cut() });
            }
            DrainCause::Request { color, since, was_used, .. } => (color, since, was_used),
        };
        let Some(service) = self.services.get_mut(&name) else { return };
        if color != service.machine.active().other() || service.is_split() {
            // Meanwhile another color is idle, or others came.
            return self.empty_idle(&name);
        }
        let took = seconds(clock::now().saturating_sub(since));
        let last = service.replies.last_drain;
        let drained = if was_used { Drained { seconds: took, cut: leases.was_cut() } } else { last };
        for reply in service.replies.on_idle_empty(drained) {
            self.reporter.reply(reply.answer, Ok(reply.value));
        }
    }

    /// This process holds none of those leases any more.
    pub(in crate::control) fn on_all_given_back(&mut self, given_back: GivenBack) {
        if let Some(GivenBack { service, epoch, cut }) = self.upgrade.keep_while_predecessor_lives(given_back) {
            self.handle_event(&service, Event::Drained { epoch, cut });
        }
    }

    /// Empties the idle color, if somebody waits for that: after the drain that a flip began, and not while the color
    /// has its part of split traffic.
    pub(in crate::control) fn empty_idle(&mut self, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        let (machine, idle) = (&service.machine, service.machine.active().other());
        let has_to_wait = !service.replies.wants_idle_empty()
            || machine.drains().iter().any(|drain| drain.color == idle)
            || service.is_split()
            || self.drains.colors.iter().any(|one| one.is_of_request(name));
        if has_to_wait {
            return;
        }
        if machine.is_watching() && service.route.is_empty(idle) {
            // The idle color may be asked for a replay at any moment, and to publish another route would cost the
            // watch its cohorts.
            let drained = service.replies.last_drain;
            for reply in service.replies.on_idle_empty(drained) {
                self.reporter.reply(reply.answer, Ok(reply.value));
            }
            return;
        }
        let now = clock::now();
        let (replaced, leases) = service.drain_idle(now);
        let until = Some(now + service.config.drain.timeout);
        let cause = DrainCause::Request { color: idle, since: now, until, was_used: leases.in_flight() > 0 };
        self.drains.add_route(name, replaced);
        self.drains.colors.push(PendingDrain { service: name.to_owned(), leases, cause });
        self.schedule.invalidate();
        self.drains.wake_workers();
    }

    /// When the idle colors that somebody wants to be empty are cut.
    pub(in crate::control) fn idle_deadlines(&self) -> impl Iterator<Item = Duration> {
        self.drains.colors.iter().filter_map(|one| idle_deadline(one, &self.services))
    }

    /// Cuts what is left on idle colors that somebody has waited for long enough.
    pub(in crate::control) fn cut_idle(&mut self, now: Duration) {
        let services = &self.services;
        self.drains.cut_where(|one| idle_deadline(one, services).is_some_and(|until| until <= now));
        self.schedule.invalidate();
    }
}

/// When the rest of an idle color is cut; `None` while its color serves, for whoever is there stays.
fn idle_deadline(one: &PendingDrain, services: &BTreeMap<String, ServiceState>) -> Option<Duration> {
    let DrainCause::Request { color, until, .. } = one.cause else { return None };
    let is_idle = services.get(&one.service).is_some_and(|service| service.machine.active() != color);
    until.filter(|_| is_idle)
}
