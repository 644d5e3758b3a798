//! What is kept of a watch for people: in the status while it runs, in the evidence file when it takes traffic back.

use crate::api::{Replays, Verdict, WatchNote};
use crate::control::service::failures::FailureLog;
use crate::domain::watch::WatchMode;
use crate::os::clock;
use crate::routing::{ColorStats, FailedRequests, ReplayResult, SlowLimits, WatchSetup};

/// Notes of a watch that are kept; after that the oldest goes.
const NOTES_MAX: usize = 20;

/// How the last watch ended.
#[derive(Clone)]
pub(in crate::control) struct LastVerdict {
    pub(in crate::control) sentence: String,
    /// `None` where the watch took the traffic back.
    pub(in crate::control) word: Option<Verdict>,
}

/// The record of the running watch, and the end of the last one.
#[derive(Default)]
pub(in crate::control) struct WatchRecord {
    /// The requests that failed while a color is watched.
    failures: Option<FailureLog>,
    /// The replays of the watched color when it was flipped to.
    pub(in crate::control) replays_before: Replays,
    /// What the watch found worth knowing.
    pub(in crate::control) notes: Vec<WatchNote>,
    /// When the flip to the watched color was made, in UTC; `None` where that was before the proxy's start.
    pub(in crate::control) flipped: Option<String>,
    pub(in crate::control) last_verdict: Option<LastVerdict>,
    /// The file that says why traffic was taken back, until somebody flips.
    pub(in crate::control) evidence_file: Option<String>,
    /// Why the last such file was not written.
    pub(in crate::control) evidence_problem: Option<String>,
}

impl WatchRecord {
    /// Begins the record of the watch that the next publication begins; `stats` are those of the color that will be
    /// watched.
    pub(in crate::control) fn begin(&mut self, stats: &ColorStats) {
        (self.notes, self.failures) = (Vec::new(), None);
        self.replays_before = replays_ever(stats);
    }

    /// A flip was made: what was known about the one before is over.
    pub(in crate::control) fn on_flip(&mut self) {
        self.last_verdict = None;
        (self.evidence_file, self.evidence_problem) = (None, None);
        self.flipped = Some(clock::utc());
    }

    /// The watch has ended, with `word` or by taking the traffic back.
    pub(in crate::control) fn on_verdict(&mut self, sentence: String, word: Option<Verdict>) {
        self.last_verdict = Some(LastVerdict { sentence, word });
    }

    /// Keeps a note of the watch.
    pub(in crate::control) fn note(&mut self, note: &str, message: String) {
        if self.notes.len() == NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(WatchNote { at: clock::utc(), note: note.to_owned(), message });
    }

    /// How the data plane watches the active color from its first request on; `None` without a watch.
    pub(in crate::control) fn setup(
        &mut self,
        mode: Option<WatchMode>,
        slow: Option<SlowLimits>,
    ) -> Option<WatchSetup> {
        Some(WatchSetup { mode: mode?, slow, failed: self.failed_requests() })
    }

    /// Where failures under the watched epoch are described.
    pub(in crate::control) fn failed_requests(&mut self) -> FailedRequests {
        self.failures.get_or_insert_with(FailureLog::new).sender.clone()
    }

    /// Takes the failures out for the evidence file; `None` where none are kept.
    pub(in crate::control) fn take_failures(&mut self) -> Option<FailureLog> {
        self.failures.take()
    }

    /// Forgets the failures so far: those from before all was calm are not those that an operator will ask for.
    pub(in crate::control) fn forget_failures(&mut self) {
        if let Some(failures) = &mut self.failures {
            failures.forget();
        }
    }

    /// Failures of the watched color that the other color was asked to answer since the flip.
    pub(in crate::control) fn replays(&self, stats: &ColorStats) -> Replays {
        let (now, before) = (replays_ever(stats), self.replays_before);
        Replays {
            answered: now.answered.saturating_sub(before.answered),
            failed: now.failed.saturating_sub(before.failed),
            over_budget: now.over_budget.saturating_sub(before.over_budget),
        }
    }
}

/// All replays that are counted for a color.
pub(in crate::control) fn replays_ever(stats: &ColorStats) -> Replays {
    let count = |result: ReplayResult| stats.sum(|shard| shard.replays[result as usize].get());
    Replays {
        answered: count(ReplayResult::Answered),
        failed: count(ReplayResult::Failed),
        over_budget: count(ReplayResult::OverBudget),
    }
}
