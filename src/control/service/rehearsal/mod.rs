//! The rehearsal of an idle color: copies of live requests are asked of both colors, and the answers compared.
//!
//! It runs while the idle color is ready and the service is at rest. What it found is about these releases in these
//! places; as soon as any of that changes it is forgotten. It changes no counter that a watch judges by.

mod ask;
mod compare;
mod report;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::config::{self, ColorConfig, Rehearse};
use crate::control::service::{ServiceState, route_of};
use crate::domain::Color;
use crate::domain::cutover::{GateError, Phase};
use crate::domain::rehearsal::{self as domain, Comparison, Results, Sameness};
use crate::ledger::redact::without_values;
use crate::routing::{RehearsalResult, RehearsalTap, RequestCopy, Upstream};
use ask::Request;
use compare::{Answer, compare};

/// Copies under way at once; the rest wait, and those that find no room are dropped.
const IN_FLIGHT_MAX: usize = 8;
/// Every so many copies the active color is asked twice although the answers were the same.
const OLD_AGAINST_OLD: usize = 8;
/// How often the active color is asked again about a difference. A field that comes and goes at random is missed with
/// one chance in eight; seen once, it is noise for all that was compared before.
const AGAIN_MAX: usize = 3;

/// What a rehearsal is about. Another one of these begins another rehearsal.
#[derive(Debug, PartialEq)]
struct Subject {
    epoch: u64,
    settings: Rehearse,
    colors: [ColorConfig; 2],
}

/// A running rehearsal; it ends when dropped.
pub(in crate::control) struct Rehearsal {
    subject: Subject,
    results: Arc<Mutex<Results>>,
    /// The tap's counts when it began.
    before: [u64; RehearsalResult::ALL.len()],
    tap: Arc<RehearsalTap>,
    task: AbortHandle,
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        self.tap.close();
        self.task.abort();
    }
}

/// What the asking needs.
struct Stage {
    settings: Rehearse,
    to: config::Upstream,
    /// The active color's, the idle one's.
    upstreams: [Arc<[Arc<Upstream>]>; 2],
    turn: AtomicUsize,
    results: Arc<Mutex<Results>>,
    tap: Arc<RehearsalTap>,
}

impl ServiceState {
    /// Begins, ends or leaves the rehearsal as things are now. Call it after anything that it depends on.
    pub(in crate::control) fn set_rehearsal(&mut self) {
        let (machine, settings) = (&self.machine, &self.config.rehearse);
        let is_watched = match machine.phase() {
            Phase::Watching(_) => true,
            Phase::Steady | Phase::RolledBack { .. } => false,
        };
        let is_at_rest = !is_watched && machine.drains().is_empty();
        if settings.share <= 0.0 || !is_at_rest || self.flip_gate(machine.active().other()).is_err() {
            self.rehearsal = None;
            return;
        }
        let about_now = |subject: &Subject| {
            subject.epoch == machine.epoch() && subject.settings == *settings && subject.colors == self.config.colors
        };
        if self.rehearsal.as_ref().is_some_and(|rehearsal| about_now(&rehearsal.subject)) {
            return;
        }
        self.rehearsal = None; // its end closes the tap, so it comes before the next one's beginning
        self.rehearsal = Some(self.rehearse());
    }

    fn rehearse(&self) -> Rehearsal {
        let (active, config) = (self.machine.active(), &self.config);
        let tap = Arc::clone(&self.service.info.tap);
        let results = Arc::default();
        let stage = Stage {
            settings: config.rehearse.clone(),
            to: config.upstream.clone(),
            upstreams: [active, active.other()].map(|color| route_of(&self.upstreams[color.index()])),
            turn: AtomicUsize::new(0),
            results: Arc::clone(&results),
            tap: Arc::clone(&tap),
        };
        let before = tap.counts();
        let task = tokio::spawn(run(Arc::new(stage), tap.open(&config.rehearse))).abort_handle();
        let (settings, colors) = (config.rehearse.clone(), config.colors.clone());
        let subject = Subject { epoch: self.machine.epoch(), settings, colors };
        Rehearsal { subject, results, before, tap, task }
    }

    /// Whether a flip to `color` may be made: it is ready, and its rehearsal went well enough.
    pub(in crate::control) fn gate(&self, color: Color) -> Result<(), GateError> {
        self.flip_gate(color).map_err(GateError::NotReady)?;
        match &self.rehearsal {
            Some(rehearsal) if color != self.machine.active() => rehearsal.gate().map_err(GateError::RehearsalFailed),
            Some(_) | None => Ok(()),
        }
    }
}

impl Rehearsal {
    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> Result<(), String> {
        self.gate_of(&self.results())
    }

    fn gate_of(&self, results: &Results) -> Result<(), String> {
        results.gate(self.subject.settings.min_requests, self.subject.settings.max_differences)
    }
}

/// Asks about each copy, a few at a time, until it is aborted.
async fn run(stage: Arc<Stage>, mut copies: mpsc::Receiver<RequestCopy>) {
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = asking.join_next() => {}
            copy = copies.recv(), if asking.len() < IN_FLIGHT_MAX => match copy {
                Some(head) => {
                    let stage = Arc::clone(&stage);
                    asking.spawn(async move { stage.count(stage.compare(&head).await) });
                }
                None => return,
            },
        }
    }
}

impl Stage {
    fn count(&self, compared: Option<Comparison>) {
        let sameness = compared.map(|comparison| self.results().add(comparison));
        self.tap.count(match sameness {
            Some(Sameness::Same) => RehearsalResult::Same,
            Some(Sameness::Different) => RehearsalResult::Different,
            Some(Sameness::Noise) => RehearsalResult::Noise,
            None => RehearsalResult::Failed,
        });
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks both colors at once and compares. `None`: there is nothing to compare, for the active color has no good
    /// answer itself, or a color could not be connected to.
    async fn compare(&self, head: &[u8]) -> Option<Comparison> {
        let request = Request::of(head)?;
        let turn = self.turn.fetch_add(1, Relaxed);
        let (old, new) = tokio::join!(self.ask(&request, 0, turn), self.ask(&request, 1, turn));
        let ((old, old_took), (new, new_took)) = (old?, new?);
        if matches!(old, Answer::Missing(_) | Answer::Whole { status: 500.., .. }) {
            return None;
        }
        let names = &self.settings.headers;
        let route = format!("{} {}", request.method(), compare::route_of(&request.target()));
        let differences = compare(names, &old, &new);
        let is_news = !differences.is_empty() && !self.results().knows_as_noise(&route, &differences);
        let again = if is_news { AGAIN_MAX } else { usize::from(turn.is_multiple_of(OLD_AGAINST_OLD)) };
        let mut noise = domain::Noise::default();
        for _ in 0..again {
            let (other, _) = self.ask(&request, 0, turn).await?;
            compare(names, &old, &other).iter().for_each(|seen| noise.add(seen));
            if is_news && noise.covers_all(&differences) {
                break;
            }
        }
        let example = format!("{} {}", request.method(), without_values(&request.target()));
        Some(Comparison { route, example, differences, noise, took: [old_took, new_took] })
    }

    /// Asks one color, its upstreams in turn; those that are down are passed over where there are others.
    async fn ask(&self, request: &Request, color: usize, turn: usize) -> Option<(Answer, Duration)> {
        let all = &self.upstreams[color];
        let up: Vec<_> = all.iter().filter(|upstream| !upstream.is_down()).collect();
        let upstream = match up.len() {
            0 => &all[turn % all.len()],
            n => up[turn % n],
        };
        let began = tokio::time::Instant::now();
        let Rehearse { headers, timeout, .. } = &self.settings;
        let answer = request.ask(&upstream.address, headers, &self.to, *timeout).await.ok()?;
        Some((answer, began.elapsed()))
    }
}
