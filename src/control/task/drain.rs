//! Colors that were left, until their last lease is gone, and routes that were replaced, until theirs is.
//!
//! A flip leaves the color before it. An operator, or a deploy before it stops a color, may also ask that the idle one
//! be empty: requests are there as well, of guests, of split traffic and in place of the active color's.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::api::Drained;
use crate::control::messages::seconds;
use crate::control::service::ServiceState;
use crate::control::task::Task;
use crate::control::task::upgrade::GivenBack;
use crate::domain::Color;
use crate::domain::cutover::Event;
use crate::domain::freeze::What;
use crate::os::clock;
use crate::routing::{Draining, RouteHandle};

/// A color that was left and may still hold leases.
pub(in crate::control) struct PendingDrain {
    service: String,
    leases: Draining,
    cause: DrainCause,
}

impl PendingDrain {
    fn cut(&mut self) {
        self.leases.cut();
        if let DrainCause::Request { until, .. } = &mut self.cause {
            *until = None;
        }
    }

    fn is_of_request(&self, service: &str) -> bool {
        self.service == service && matches!(self.cause, DrainCause::Request { .. })
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

/// A route that was replaced and may still hold leases: a freeze waits for them.
struct ReplacedRoute {
    service: String,
    handle: RouteHandle,
}

/// What [`Drains::next`] waits for.
pub(in crate::control) enum DrainEnd {
    /// A color holds no lease any more.
    Color(PendingDrain),
    /// The last request of a replaced route has ended.
    Route,
}

/// Everything that was left or replaced and may still hold leases.
pub(in crate::control) struct Drains {
    colors: Vec<PendingDrain>,
    routes: Vec<ReplacedRoute>,
    /// Makes every connection of the data plane look at its lease again.
    wake_workers: Arc<dyn Fn() + Send + Sync>,
}

impl Drains {
    pub(in crate::control) fn new(wake_workers: Arc<dyn Fn() + Send + Sync>) -> Self {
        Drains { colors: Vec::new(), routes: Vec::new(), wake_workers }
    }

    /// Waits until something that was left or replaced holds no lease any more. While this process does not judge,
    /// colors stay where they are: what becomes of them is another process' business.
    pub(in crate::control) async fn next(&mut self, colors: ReportColors) -> DrainEnd {
        poll_fn(|cx| {
            if colors == ReportColors::Yes
                && let Some(at) = self.colors.iter_mut().position(|one| one.leases.poll_drained(cx).is_ready())
            {
                return Poll::Ready(DrainEnd::Color(self.colors.swap_remove(at)));
            }
            let over = self.routes.iter_mut().position(|route| route.handle.poll_over(cx).is_ready());
            over.map_or(Poll::Pending, |at| {
                self.routes.swap_remove(at);
                Poll::Ready(DrainEnd::Route)
            })
        })
        .await
    }

    /// A route was replaced.
    pub(in crate::control) fn add_route(&mut self, service: &str, handle: RouteHandle) {
        self.routes.push(ReplacedRoute { service: service.to_owned(), handle });
    }

    /// A color was left by a flip.
    pub(in crate::control) fn add_left(&mut self, service: &str, leases: Draining, epoch: u64) {
        self.colors.push(PendingDrain { service: service.to_owned(), leases, cause: DrainCause::Flip { epoch } });
    }

    /// Makes connections look at their leases: those without an end of their own close gracefully.
    pub(in crate::control) fn wake_workers(&self) {
        (self.wake_workers)();
    }

    /// When every request that a freeze of `what` would hold has ended; routes replaced earlier may still have such
    /// requests as well.
    pub(in crate::control) fn quiet(&self, service: &str, what: What) -> impl Future<Output = ()> + use<> {
        let of_service = self.routes.iter().filter(|route| route.service == service);
        let ends: Vec<_> = of_service.map(|route| route.handle.ended(what)).collect();
        async move {
            for end in ends {
                end.await;
            }
        }
    }

    /// Cuts what is left of the color that was active until `epoch` ended.
    pub(in crate::control) fn cut(&mut self, service: &str, epoch: u64) {
        let is_it = |cause: &DrainCause| matches!(cause, DrainCause::Flip { epoch: of } if *of == epoch);
        self.cut_where(|one| one.service == service && is_it(&one.cause));
    }

    fn cut_where(&mut self, is_due: impl Fn(&PendingDrain) -> bool) {
        let due = self.colors.iter_mut().filter(|one| is_due(one));
        if due.map(PendingDrain::cut).count() > 0 {
            self.wake_workers();
        }
    }

    /// Forgets the idle color of a service that is gone: one that comes back under this name has an idle color of its
    /// own.
    pub(in crate::control) fn forget_idle(&mut self, service: &str) {
        self.colors.retain(|one| !one.is_of_request(service));
    }
}

/// Whether [`Drains::next`] reports colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum ReportColors {
    Yes,
    No,
}

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
