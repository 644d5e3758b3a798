//! Makes the steps of a deploy one after the other, and decides what follows a step that did not succeed.

use std::pin::pin;

use crate::api::ChangeRequest;
use crate::deploy::journal::Journal;
use crate::deploy::outcome::{DeployReport, Outcome, of_refusal};
use crate::deploy::run::{DeployRun, StepError};
use crate::deploy::signals::{StopChoice, StopSignals, ask};
use crate::domain::release::{Decision, Step, Strategy};

impl DeployRun<'_> {
    /// Makes the steps from `first` on, or all of them, and ends the deploy.
    pub async fn go(&mut self, first: Option<Step>, signals: &mut StopSignals) -> DeployReport {
        let strategy = self.journal.strategy;
        for step in strategy.steps().iter().copied().skip_while(|step| first.is_some_and(|first| *step != first)) {
            if !step.is_repeated() && self.journal.done.contains(&step) {
                continue;
            }
            if let Err(error) = self.make(step, signals).await {
                return self.step_failed(step, error, signals).await;
            }
        }
        if self.journal.decided.is_none()
            && let Err(error) = self.decide(Decision::Keep, "not watched: it was recreated in place")
        {
            return self.stuck(&error);
        }
        let Journal { service, tag, color, decided, .. } = &self.journal;
        let verdict = decided.as_ref().map_or_else(String::new, |decided| decided.why.clone());
        let sentence = format!("{service}: {tag} is in production on {color} and stays ({verdict})");
        self.finish(Outcome::Kept, sentence, self.line("kept").with("verdict", verdict)).await
    }

    /// Makes one step, with its hooks before it and the journal written around it.
    async fn make(&mut self, step: Step, signals: &mut StopSignals) -> Result<(), StepError> {
        if !self.journal.done.contains(&step) {
            self.prepare(step).await?;
        }
        if !self.journal.strategy.has_begun(self.journal.reached, step) {
            self.journal.reached = step;
        }
        self.save()?;
        self.progress.begin(step);
        let detail = self.perform_unless_stopped(step, signals).await?;
        self.progress.done(step, &detail);
        self.journal.done.push(step);
        match step {
            Step::Watch => Ok(self.decide(Decision::Keep, &detail)?),
            Step::Candidate
            | Step::Image
            | Step::Up
            | Step::Healthy
            | Step::Backup
            | Step::Migrate
            | Step::OldColor
            | Step::Smoke
            | Step::Rehearse
            | Step::EnvFile
            | Step::Flip
            | Step::Drain
            | Step::Retire => self.save(),
        }
    }

    async fn perform_unless_stopped(&mut self, step: Step, signals: &mut StopSignals) -> Result<String, StepError> {
        if step == Step::Flip {
            // A flip that was interrupted may have been made or not, and nobody could tell.
            return self.perform(step).await;
        }
        let can_ask = self.progress.can_ask();
        let mut work = pin!(self.perform(step));
        loop {
            let name = tokio::select! {
                done = &mut work => return done,
                name = signals.next() => name,
            };
            match if can_ask { ask(step, signals).await } else { StopChoice::Stop } {
                StopChoice::Continue => {}
                StopChoice::RollBack => return Err(StepError::RollbackWanted),
                StopChoice::Stop => return Err(StepError::Stopped(name)),
            }
        }
    }

    /// Takes the traffic back because the operator wants it so.
    async fn roll_back(&mut self, step: Step, signals: &mut StopSignals) -> DeployReport {
        let request =
            ChangeRequest { wait: Some(false), by: Some(self.journal.by.clone()), ..ChangeRequest::default() };
        match self.target.client.rollback(&self.journal.service, &request, None).await {
            Ok(_) => {
                let why = format!("rolled back by {}", self.journal.by);
                self.progress.failed(step, &why);
                self.take_back(&why, signals).await
            }
            Err(error) => DeployReport::proxy_lost(&error),
        }
    }

    /// Does what has to follow a step that did not succeed.
    async fn step_failed(&mut self, step: Step, error: StepError, signals: &mut StopSignals) -> DeployReport {
        let why = match error {
            StepError::ProxyLost(error) if self.has_flipped(step) => return DeployReport::proxy_lost(&error),
            StepError::Stopped(name) if self.has_flipped(step) => return self.leave(name),
            StepError::RollbackWanted => return self.roll_back(step, signals).await,
            StepError::TakenBack(why) => {
                self.progress.failed(step, &why);
                return self.take_back(&why, signals).await;
            }
            StepError::NowhereToGo(why) => return self.keep_bad_release(step, why).await,
            StepError::Refused(refusal) => {
                self.progress.failed(step, &refusal.message);
                return self.undo(of_refusal(&refusal), &refusal.message, signals).await;
            }
            StepError::Stopped(name) => {
                let why = format!("stopped by {name}");
                self.progress.failed(step, &why);
                return self.undo(Outcome::Failed, &why, signals).await;
            }
            StepError::Failed(cause) => cause.to_string(),
            StepError::ProxyLost(error) => error.to_string(),
        };
        self.progress.failed(step, &why);
        if self.journal.strategy.has_begun(step, Step::Drain) {
            // The release is in production; only the old color is not as it should be.
            let Journal { service, tag, color, .. } = &self.journal;
            let sentence = format!("{service}: {tag} is in production on {color}, but {step}: {why}");
            let line = self.line("kept").with("step", step).with("problem", why);
            return self.finish(Outcome::Kept, sentence, line).await;
        }
        if self.journal.strategy.has_begun(step, Step::Healthy) {
            self.show_log().await;
        }
        self.undo(self.outcome_at(step), &why, signals).await
    }

    /// Ends a deploy whose release is bad and has the traffic. Nothing is undone or stopped, because there is nothing
    /// better.
    async fn keep_bad_release(&mut self, step: Step, why: String) -> DeployReport {
        self.progress.failed(step, &why);
        self.show_log().await;
        let Journal { service, tag, color, .. } = &self.journal;
        let sentence = format!("{service}: {tag} is bad and keeps the traffic on {color}: {why}");
        self.finish(Outcome::Failed, sentence, self.line("bad, and nowhere to go").with("why", why)).await
    }

    /// Returns whether the release may have the traffic because of a flip.
    fn has_flipped(&self, step: Step) -> bool {
        self.journal.strategy.has_begun(step, Step::Flip)
    }

    /// Returns the outcome of a deploy whose `step` failed before there was a flip.
    pub fn outcome_at(&self, step: Step) -> Outcome {
        match self.journal.strategy {
            // The release had the traffic, whatever it did with it.
            Strategy::Recreate if self.journal.strategy.has_begun(step, Step::Up) => Outcome::TakenBack,
            Strategy::Recreate | Strategy::BlueGreen if step.is_gate() => Outcome::GateSaidNo,
            Strategy::Recreate | Strategy::BlueGreen => Outcome::Failed,
        }
    }
}
