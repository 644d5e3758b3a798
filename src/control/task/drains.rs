//! The state of drains: colors that were left, until their last lease is gone, and routes that were replaced, until
//! theirs is.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::domain::Color;
use crate::domain::freeze::What;
use crate::routing::{Draining, RouteHandle};

/// A color that was left and may still hold leases.
pub(in crate::control) struct PendingDrain {
    pub(super) service: String,
    pub(super) leases: Draining,
    pub(super) cause: DrainCause,
}

impl PendingDrain {
    pub(super) fn cut(&mut self) {
        self.leases.cut();
        if let DrainCause::Request { until, .. } = &mut self.cause {
            *until = None;
        }
    }

    pub(super) fn is_of_request(&self, service: &str) -> bool {
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
pub(super) struct ReplacedRoute {
    pub(super) service: String,
    pub(super) handle: RouteHandle,
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
    pub(super) colors: Vec<PendingDrain>,
    pub(super) routes: Vec<ReplacedRoute>,
    /// Makes every connection of the data plane look at its lease again.
    pub(super) wake_workers: Arc<dyn Fn() + Send + Sync>,
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

    pub(super) fn cut_where(&mut self, is_due: impl Fn(&PendingDrain) -> bool) {
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
