//! Sends each copied request to both colors, and compares the responses.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{self, Rehearse};
use crate::control::service::rehearsal::compare::{ColorResponse, compare, route_of};
use crate::control::service::rehearsal::request::CopiedRequest;
use crate::control::service::upstreams::SharedUpstreams;
use crate::domain::rehearsal::{Comparison, Noise, Results, Sameness};
use crate::ledger::redact::without_values;
use crate::routing::{RehearsalResult, RehearsalTap, RequestCopy};

/// So many copies are under way at once; the rest wait, and those that find no room are dropped.
const IN_FLIGHT_MAX: usize = 8;
/// Every so many copies the active color is asked twice although the responses were the same.
const OLD_AGAINST_OLD: usize = 8;
/// The active color is asked so often again about a difference. A field that comes and goes at random is missed with
/// one chance in eight; seen once, it is noise for all that was compared before.
const AGAIN_MAX: usize = 3;

/// Which of the two colors is asked.
#[derive(Clone, Copy)]
enum Role {
    Active,
    Idle,
}

/// What a rehearsal needs to send copies and compare the responses.
pub(super) struct Comparer {
    settings: Rehearse,
    to: config::Upstream,
    /// Indexed by [`Role`].
    upstreams: [SharedUpstreams; 2],
    turn: AtomicUsize,
    results: Arc<Mutex<Results>>,
    tap: Arc<RehearsalTap>,
}

/// Compares each copy, a few at a time, until it is aborted.
pub(super) async fn compare_each(comparer: Arc<Comparer>, mut copies: mpsc::Receiver<RequestCopy>) {
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = asking.join_next() => {}
            copy = copies.recv(), if asking.len() < IN_FLIGHT_MAX => match copy {
                Some(head) => {
                    let comparer = Arc::clone(&comparer);
                    asking.spawn(async move { comparer.count(comparer.compare(&head).await) });
                }
                None => return,
            },
        }
    }
}

impl Comparer {
    /// `upstreams` are those of the active color, then those of the idle one.
    pub(super) fn new(
        settings: Rehearse,
        to: config::Upstream,
        upstreams: [SharedUpstreams; 2],
        results: Arc<Mutex<Results>>,
        tap: Arc<RehearsalTap>,
    ) -> Self {
        Comparer { settings, to, upstreams, turn: AtomicUsize::new(0), results, tap }
    }

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

    /// Asks both colors at once and compares. Where the active color has no good response itself, or a color could not
    /// be connected to, there is nothing to compare.
    async fn compare(&self, head: &[u8]) -> Option<Comparison> {
        let request = CopiedRequest::of(head)?;
        let turn = self.turn.fetch_add(1, Relaxed);
        let (old, new) = tokio::join!(self.ask(&request, Role::Active, turn), self.ask(&request, Role::Idle, turn));
        let ((old, old_took), (new, new_took)) = (old?, new?);
        if matches!(old, ColorResponse::Missing(_) | ColorResponse::Whole { status: 500.., .. }) {
            return None;
        }
        let names = &self.settings.headers;
        let route = format!("{} {}", request.method(), route_of(&request.target()));
        let differences = compare(names, &old, &new);
        let is_news = !differences.is_empty() && !self.results().knows_as_noise(&route, &differences);
        let again = if is_news { AGAIN_MAX } else { usize::from(turn.is_multiple_of(OLD_AGAINST_OLD)) };
        let mut noise = Noise::default();
        for _ in 0..again {
            let (other, _) = self.ask(&request, Role::Active, turn).await?;
            compare(names, &old, &other).iter().for_each(|seen| noise.add(seen));
            if is_news && noise.covers_all(&differences) {
                break;
            }
        }
        let example = format!("{} {}", request.method(), without_values(&request.target()));
        Some(Comparison { route, example, differences, noise, took: [old_took, new_took] })
    }

    /// Asks one color, its upstreams in turn; those that are down are passed over where there are others.
    async fn ask(&self, request: &CopiedRequest, role: Role, turn: usize) -> Option<(ColorResponse, Duration)> {
        let all = &self.upstreams[role as usize];
        let up: Vec<_> = all.iter().filter(|upstream| !upstream.is_down()).collect();
        let upstream = match up.len() {
            0 => &all[turn % all.len()],
            n => up[turn % n],
        };
        let began = tokio::time::Instant::now();
        let Rehearse { headers, timeout, .. } = &self.settings;
        let answer = request.send(&upstream.address, headers, &self.to, *timeout).await.ok()?;
        Some((answer, began.elapsed()))
    }
}
