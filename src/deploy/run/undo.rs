//! Undoes a deploy that failed or was taken back, and ends it.

use std::fmt;

use crate::deploy::files;
use crate::deploy::journal::{Journal, JournalError};
use crate::deploy::outcome::{DeployReport, Outcome};
use crate::deploy::run::DeployRun;
use crate::deploy::signals::StopSignals;
use crate::domain::release::{Decision, Strategy, Undo, undo_from};
use crate::ledger::Line;

/// Collects what could not be undone.
#[derive(Default)]
struct NotUndone {
    problems: Vec<String>,
    /// Whether the project may run something else than before.
    may_run_otherwise: bool,
}

impl NotUndone {
    fn add(&mut self, undo: Undo, why: String) {
        self.problems.push(why);
        self.may_run_otherwise |= match undo {
            Undo::Project | Undo::EnvFile => true,
            Undo::Candidate => false,
        };
    }

    /// Adds what was not undone to a line of the ledger.
    fn add_to(&self, line: Line) -> Line {
        if self.problems.is_empty() { line } else { line.with("not_undone", self.problems.join("; ")) }
    }
}

/// Formats what was not undone as the end of a sentence.
impl fmt::Display for NotUndone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().try_for_each(|why| write!(f, "; not undone: {why}"))
    }
}

impl DeployRun<'_> {
    /// Undoes what was done before the flip.
    pub async fn undo(&mut self, outcome: Outcome, why: &str, signals: &mut StopSignals) -> DeployReport {
        if let Err(error) = self.decide(Decision::Undo, why) {
            return self.stuck(&error);
        }
        let color = self.journal.color;
        if self.journal.strategy == Strategy::BlueGreen {
            // The old color has the traffic and is as it was.
            self.release_held().await;
        }
        let is_active = match (self.journal.strategy, self.target.status().await) {
            (Strategy::Recreate, _) => false,
            (Strategy::BlueGreen, Ok(status)) => status.active == color,
            (Strategy::BlueGreen, Err(error)) => return DeployReport::proxy_lost(&error),
        };
        if is_active {
            // Somebody else flipped to it. It must not be stopped, and nobody has asked this run to flip back.
            let service = &self.journal.service;
            let sentence =
                format!("{service}: {why}. {color} has the traffic all the same, by somebody else; left as it is");
            return self.finish(Outcome::UnderWay, sentence, self.line("left").with("why", why)).await;
        }
        let left = match self.take_away(signals).await {
            Ok(left) => left,
            Err(report) => return report,
        };
        let Journal { service, tag, reached, .. } = &self.journal;
        let (outcome, now) = self.traffic_after_undo(outcome, &left);
        let snapshot = match &self.journal.snapshot {
            Some(path) if self.journal.migrated => {
                format!("; the data as it was before the migration is in {}", path.display())
            }
            Some(_) | None => String::new(),
        };
        let sentence = format!("{service}: {tag} did not get past {reached}, {now}: {why}{snapshot}{left}");
        let line = left.add_to(self.line("failed").with("step", reached).with("why", why));
        self.finish(outcome, sentence, line).await
    }

    /// Says what has the traffic once everything but `left` is undone, and adapts the outcome to it.
    fn traffic_after_undo(&self, outcome: Outcome, left: &NotUndone) -> (Outcome, String) {
        match self.journal.strategy {
            Strategy::BlueGreen => (outcome, format!("{} stays", self.journal.color.other())),
            // The traffic was taken from the tag before, and nothing gave it back.
            Strategy::Recreate if left.may_run_otherwise => {
                (Outcome::Failed, format!("and {} is NOT back", self.tag_before()))
            }
            Strategy::Recreate if !self.journal.ran_before => {
                (outcome, "`api` does not run, as before; what else `up` has started goes on".into())
            }
            Strategy::Recreate => (outcome, format!("{} stays", self.tag_before())),
        }
    }

    /// Undoes a release whose traffic was taken back.
    pub async fn take_back(&mut self, why: &str, signals: &mut StopSignals) -> DeployReport {
        if let Err(error) = self.decide(Decision::TakenBack, why) {
            return self.stuck(&error);
        }
        self.release_held().await;
        self.show_log().await;
        // The requests that the release still answers are finished first.
        tokio::select! {
            drained = self.target.client.drain(&self.journal.service) => if let Err(error) = drained {
                return DeployReport::proxy_lost(&error);
            },
            name = signals.next() => return self.leave(name),
        }
        let left = match self.take_away(signals).await {
            Ok(left) => left,
            Err(report) => return report,
        };
        let Journal { service, tag, color, .. } = &self.journal;
        let old = color.other();
        let sentence = format!("{service}: {tag} was judged bad, traffic is back on {old}: {why}{left}");
        let line = left.add_to(self.line("taken back").with("why", why));
        self.finish(Outcome::TakenBack, sentence, line).await
    }

    /// Undoes every step that was begun, the last one first.
    async fn take_away(&mut self, signals: &mut StopSignals) -> Result<NotUndone, DeployReport> {
        let color = self.journal.color;
        let mut left = NotUndone::default();
        for undo in undo_from(self.journal.strategy, self.journal.reached) {
            let undone = match undo {
                Undo::EnvFile => self
                    .target
                    .restore_env(color, &self.lock.kept_env())
                    .map(|()| format!("{} is as it was", self.target.env_file(color).display()))
                    .map_err(|error| error.to_string()),
                Undo::Candidate => {
                    let path = self.target.candidate(color);
                    let removed = files::remove(&path).map_err(|error| format!("{}: {error}", path.display()));
                    removed.map(|()| format!("{} is gone", path.display()))
                }
                Undo::Project => tokio::select! {
                    put_back = self.put_back() => put_back.map_err(|error| error.to_string()),
                    name = signals.next() => return Err(self.leave(name)),
                },
            };
            match undone {
                Ok(done) => self.progress.say(&format!("  undone     {done}")),
                Err(why) => {
                    self.progress.say(&format!("  NOT undone {why}"));
                    left.add(undo, why);
                }
            }
        }
        Ok(left)
    }

    /// Writes the last line of the ledger, runs the last hooks, and removes the journal. Until the journal is gone, the
    /// next run makes up for what is missing.
    pub async fn finish(&mut self, outcome: Outcome, sentence: String, line: Line) -> DeployReport {
        self.record(line.with("by", self.journal.by.clone()));
        let _ = files::remove(&self.target.candidate(self.journal.color));
        self.release_held().await;
        let report = DeployReport::new(outcome, sentence);
        self.run_final_hooks(&report).await;
        match self.lock.forget() {
            Ok(()) => report,
            Err(error) => DeployReport { sentence: format!("{}. {error}", report.sentence), ..report },
        }
    }

    /// Ends the run, and leaves the rest of the deploy to the proxy and to the next run.
    pub(super) fn leave(&self, signal: &str) -> DeployReport {
        let Journal { service, tag, color, reached, .. } = &self.journal;
        let sentence = format!(
            "{service}: left by {signal} at {reached}; the proxy goes on by itself with {tag} on {color}. \
             The same command goes on from here"
        );
        DeployReport::new(Outcome::Left, sentence)
    }

    /// Ends the run because a decision could not be written down before it is carried out.
    pub(super) fn stuck(&self, error: &JournalError) -> DeployReport {
        let sentence =
            format!("{}: the journal cannot be written, nothing more is done: {error}", self.journal.service);
        DeployReport::new(Outcome::Failed, sentence)
    }
}
