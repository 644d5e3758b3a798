//! The rehearsal of an idle color: copies of live requests are asked of both colors, and the answers compared.
//!
//! It runs while the idle color is ready and the service is at rest. What it found is about these releases in these
//! places; as soon as any of that changes it is forgotten. It changes no counter that a watch judges by.

mod compare;
mod comparer;
mod report;
mod request;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use crate::config::{self, ColorConfig, Rehearse};
use crate::control::service::upstreams::{SharedUpstreams, Upstreams};
use crate::domain::cutover::Cutover;
use crate::domain::rehearsal::{Results, TooManyDifferences};
use crate::routing::{RehearsalResult, RehearsalTap};
use comparer::{Comparer, compare_each};

/// What a rehearsal is about. When any of it changes, another rehearsal begins.
#[derive(Debug, PartialEq)]
struct RehearsalScope {
    epoch: u64,
    settings: Rehearse,
    colors: [ColorConfig; 2],
}

/// A running rehearsal; it ends when dropped.
struct RunningRehearsal {
    scope: RehearsalScope,
    results: Arc<Mutex<Results>>,
    /// The tap's counts when it began.
    before: [u64; RehearsalResult::ALL.len()],
    tap: Arc<RehearsalTap>,
    task: AbortHandle,
}

impl Drop for RunningRehearsal {
    fn drop(&mut self) {
        self.tap.close();
        self.task.abort();
    }
}

impl RunningRehearsal {
    fn start(
        scope: RehearsalScope,
        to: config::Upstream,
        upstreams: [SharedUpstreams; 2],
        tap: Arc<RehearsalTap>,
    ) -> Self {
        let results = Arc::default();
        let settings = scope.settings.clone();
        let comparer = Comparer::new(settings, to, upstreams, Arc::clone(&results), Arc::clone(&tap));
        let before = tap.counts();
        let task = tokio::spawn(compare_each(Arc::new(comparer), tap.open(&scope.settings))).abort_handle();
        RunningRehearsal { scope, results, before, tap, task }
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        lock(&self.results)
    }

    /// How many copies came to `result` since it began.
    fn count(&self, result: RehearsalResult) -> u64 {
        self.tap.counts()[result as usize] - self.before[result as usize]
    }

    fn gate(&self, results: &Results) -> Result<(), TooManyDifferences> {
        results.gate(self.scope.settings.min_requests, self.scope.settings.max_differences)
    }
}

/// The rehearsal of one service's idle color.
#[derive(Default)]
pub(in crate::control) struct RehearsalState {
    /// While the idle color is ready and nothing else goes on.
    running: Option<RunningRehearsal>,
}

impl RehearsalState {
    /// Begins, ends or leaves the rehearsal as the service is now. Call it after anything that it depends on.
    pub(in crate::control) fn update(
        &mut self,
        config: &config::Service,
        machine: &Cutover,
        upstreams: &Upstreams,
        tap: &Arc<RehearsalTap>,
    ) {
        let (active, settings) = (machine.active(), &config.rehearse);
        let is_at_rest = !machine.is_watching() && machine.drains().is_empty();
        if settings.share <= 0.0 || !is_at_rest || upstreams.flip_gate(active.other()).is_err() {
            self.running = None;
            return;
        }
        let epoch = machine.epoch();
        let is_about_now = |scope: &RehearsalScope| {
            scope.epoch == epoch && scope.settings == *settings && scope.colors == config.colors
        };
        if self.running.as_ref().is_some_and(|running| is_about_now(&running.scope)) {
            return;
        }
        self.running = None; // its end closes the tap, so it comes before the next one's beginning
        let shared = [active, active.other()].map(|color| upstreams.shared(color));
        let scope = RehearsalScope { epoch, settings: settings.clone(), colors: config.colors.clone() };
        self.running = Some(RunningRehearsal::start(scope, config.upstream.clone(), shared, Arc::clone(tap)));
    }

    /// Whether a flip to the idle color may be made as far as its rehearsal goes.
    pub(in crate::control) fn gate(&self) -> Result<(), TooManyDifferences> {
        self.running.as_ref().map_or(Ok(()), |running| running.gate(&running.results()))
    }
}

fn lock(results: &Mutex<Results>) -> MutexGuard<'_, Results> {
    results.lock().unwrap_or_else(PoisonError::into_inner)
}
