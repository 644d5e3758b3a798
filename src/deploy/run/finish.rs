//! Ends a deploy: the last line of the ledger, the last hooks, and the report.

use crate::deploy::files;
use crate::deploy::journal::Journal;
use crate::deploy::outcome::{DeployReport, Outcome};
use crate::deploy::run::DeployRun;
use crate::domain::release::sequence::{DeployEnd, FlipRefusal, Left, UndoCause};
use crate::domain::release::state::TakenBackBy;
use crate::domain::release::{Step, Strategy, Undo};
use crate::ledger::Line;

impl DeployRun<'_> {
    /// Reports the end of the deploy. The journal is removed last: until then the next run makes up for what is
    /// missing.
    pub(super) async fn finish(&mut self, end: DeployEnd) -> DeployReport {
        let keeps_journal = end.keeps_journal(self.journal.release.strategy);
        let (report, line) = self.report(end);
        if let Some(line) = line {
            self.record(line.with("by", self.journal.by.clone()));
        }
        self.release_held().await;
        if keeps_journal {
            return report;
        }
        let _ = files::remove(&self.target.candidate(self.journal.release.color));
        self.run_final_hooks(&report).await;
        match self.lock.forget() {
            Ok(()) => report,
            Err(error) => DeployReport { sentence: format!("{}. {error}", report.sentence), ..report },
        }
    }

    /// Puts the end into words: for people, and for the ledger where something was decided.
    fn report(&self, end: DeployEnd) -> (DeployReport, Option<Line>) {
        let Journal { service, tag, release, .. } = &self.journal;
        let (color, reached) = (release.color, release.reached);
        let (outcome, sentence, line) = match end {
            DeployEnd::Kept(verdict) => {
                let sentence = format!("{service}: {tag} is in production on {color} and stays ({verdict})");
                (Outcome::Kept, sentence, Some(self.line("kept").with("verdict", verdict)))
            }
            DeployEnd::Unfinished(step, why) => {
                let sentence = format!(
                    "{service}: {tag} is in production on {color}, but {step} is not done: {why}. The next \
                     `cutover deploy` finishes it first"
                );
                (Outcome::Unfinished, sentence, Some(self.line("kept").with("step", step).with("problem", why)))
            }
            DeployEnd::Undone(cause, why, left) => return self.report_undone(cause, &why, &left),
            DeployEnd::TakenBack(by, why, left) => {
                let old = color.other();
                let what = match by {
                    TakenBackBy::Verdict => "was judged bad, traffic is back",
                    TakenBackBy::Operator => "was taken back by hand, traffic is",
                };
                let sentence = format!("{service}: {tag} {what} on {old}: {why}{}", self.not_undone(&left));
                (Outcome::TakenBack, sentence, Some(with_left(self.line("taken back").with("why", why), &left)))
            }
            DeployEnd::NowhereToGo(_, why) => {
                let sentence = format!("{service}: {tag} is bad and keeps the traffic on {color}: {why}");
                (Outcome::Failed, sentence, Some(self.line("bad, and nowhere to go").with("why", why)))
            }
            DeployEnd::FlippedByOthers(why) => {
                let sentence =
                    format!("{service}: {why}. {color} has the traffic all the same, by somebody else; left as it is");
                (Outcome::UnderWay, sentence, Some(self.line("left").with("why", why)))
            }
            DeployEnd::Overtaken(why) => {
                let sentence = format!(
                    "{service}: {why}. The verdict would not be about this deploy, so nothing more is done; both \
                     colors are left as they are"
                );
                (Outcome::UnderWay, sentence, Some(self.line("left").with("why", why)))
            }
            DeployEnd::ProxyLost => {
                let report = self.proxy_error.as_ref().map(DeployReport::proxy_lost);
                let unknown = || DeployReport::new(Outcome::NoAnswer, format!("{service}: the proxy does not answer"));
                return (report.unwrap_or_else(unknown), None);
            }
            DeployEnd::Stopped(signal) => {
                let sentence = format!(
                    "{service}: left by {signal} at {reached}; the proxy goes on by itself with {tag} on {color}. \
                     The same command goes on from here"
                );
                (Outcome::Left, sentence, None)
            }
            DeployEnd::Stuck(why) => {
                let traffic = self.traffic_now();
                let sentence =
                    format!("{service}: the journal cannot be written, nothing more is done: {why}. {traffic}");
                (Outcome::Failed, sentence, None)
            }
        };
        (DeployReport::new(outcome, sentence), line)
    }

    /// Says which color has the traffic, as far as the journal knows.
    fn traffic_now(&self) -> String {
        let release = &self.journal.release;
        match (release.strategy, release.flipped, release.taken_back_by) {
            (Strategy::BlueGreen, Some(epoch), None) => {
                format!("{} has the traffic, since epoch {epoch}", release.color)
            }
            (Strategy::BlueGreen, _, _) => format!("{} has the traffic", release.old()),
            (Strategy::Recreate, _, _) => format!("{} has the traffic, in whatever state it is", release.color),
        }
    }

    fn report_undone(&self, cause: UndoCause, why: &str, left: &[Left]) -> (DeployReport, Option<Line>) {
        let Journal { service, tag, release, .. } = &self.journal;
        let reached = release.reached;
        let (outcome, now) = self.traffic_after_undo(self.outcome_of(cause), left);
        let snapshot = match &self.journal.snapshot {
            Some(path) if self.journal.migrated => {
                format!("; the data as it was before the migration is in {}", path.display())
            }
            Some(_) | None => String::new(),
        };
        let left_text = self.not_undone(left);
        let sentence = format!("{service}: {tag} did not get past {reached}, {now}: {why}{snapshot}{left_text}");
        let line = with_left(self.line("failed").with("step", reached).with("why", why), left);
        (DeployReport::new(outcome, sentence), Some(line))
    }

    /// Returns the outcome of a release that was undone before it was flipped to.
    fn outcome_of(&self, cause: UndoCause) -> Outcome {
        match (self.journal.release.strategy, cause) {
            // The release had the traffic, whatever it did with it.
            (Strategy::Recreate, UndoCause::Step(step)) if Strategy::Recreate.has_begun(step, Step::Up) => {
                Outcome::TakenBack
            }
            (_, UndoCause::Step(step)) if step.is_gate() => Outcome::GateSaidNo,
            (_, UndoCause::Refused(FlipRefusal::Gate)) => Outcome::GateSaidNo,
            (_, UndoCause::Refused(FlipRefusal::UnderWay)) => Outcome::UnderWay,
            (_, UndoCause::Step(_) | UndoCause::Refused(FlipRefusal::Other) | UndoCause::Unwanted) => Outcome::Failed,
        }
    }

    /// Says what has the traffic once everything but `left` is undone, and adapts the outcome to it.
    fn traffic_after_undo(&self, outcome: Outcome, left: &[Left]) -> (Outcome, String) {
        let may_run_otherwise = left.iter().any(|left| match left.undo {
            Undo::Project | Undo::EnvFile => true,
            Undo::Candidate => false,
        });
        match self.journal.release.strategy {
            Strategy::BlueGreen => (outcome, format!("{} stays", self.journal.release.old())),
            // The traffic was taken from the tag before, and nothing gave it back.
            Strategy::Recreate if may_run_otherwise => {
                (Outcome::Failed, format!("and {} is NOT back", self.tag_before()))
            }
            Strategy::Recreate if !self.journal.ran_before => {
                (outcome, "`api` does not run, as before; what else `up` has started goes on".into())
            }
            Strategy::Recreate => (outcome, format!("{} stays", self.tag_before())),
        }
    }

    /// Formats what was not undone as the end of a sentence.
    fn not_undone(&self, left: &[Left]) -> String {
        if left.is_empty() {
            return String::new();
        }
        let problems: String = left.iter().map(|left| format!("; not undone: {}", left.why)).collect();
        match self.journal.release.strategy {
            Strategy::BlueGreen => format!(
                "{problems}. The next `cutover deploy` tries that again, and flips to {} are refused until then",
                self.journal.release.color
            ),
            Strategy::Recreate => problems,
        }
    }
}

/// Adds what was not undone to a line of the ledger.
fn with_left(line: Line, left: &[Left]) -> Line {
    if left.is_empty() {
        return line;
    }
    line.with("not_undone", left.iter().map(|left| left.why.as_str()).collect::<Vec<_>>().join("; "))
}
