//! Carries out what the machine of the release names, one action at a time, and tells it what came of each.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::{ChangeRequest, Refusal};
use crate::deploy::compose;
use crate::deploy::files;
use crate::deploy::outcome::DeployReport;
use crate::deploy::run::{DeployRun, POLL, StepError};
use crate::deploy::signals::{StopChoice, StopSignals, ask};
use crate::domain::release::sequence::{Action, ActionError, ActionResult, FlipRefusal, Sequence};
use crate::domain::release::state::Observed;
use crate::domain::release::{Step, Strategy, Undo};

/// How long an undo waits for an engine that is away, such as one that is being restarted.
const ENGINE_AWAY_MAX: Duration = Duration::from_secs(45);
/// How long a flip of somebody else may take to be saved; the proxy gives it up after ten seconds.
const FLIP_PENDING_MAX: Duration = Duration::from_secs(15);

impl DeployRun<'_> {
    /// Runs the machine to its end.
    pub async fn drive(&mut self, mut sequence: Sequence, signals: &mut StopSignals) -> DeployReport {
        loop {
            let event = match sequence.action() {
                Action::Finish(end) => return self.finish(end).await,
                action => self.carry_out(action, signals).await,
            };
            sequence.on(&mut self.journal.release, event);
        }
    }

    async fn carry_out(&mut self, action: Action, signals: &mut StopSignals) -> ActionResult {
        let result = match action {
            Action::Prepare(step) => self.prepare_step(step).await,
            Action::Save => self.save().map(|()| ActionResult::Done(String::new())),
            Action::Observe => self.observe().await,
            Action::Perform(step) => self.perform_step(step, signals).await,
            Action::RollBack => self.roll_back().await,
            Action::Drain => self.drain_taken_back(signals).await,
            Action::Undo(undo) => self.undo(undo, signals).await,
            // It ends the loop of `drive`.
            Action::Finish(_) => Ok(ActionResult::Done(String::new())),
        };
        result.unwrap_or_else(|error| ActionResult::Failed(self.failure(error)))
    }

    /// Sorts an error for the machine.
    fn failure(&mut self, error: StepError) -> ActionError {
        match error {
            StepError::Failed(cause) => ActionError::Failed(cause.to_string()),
            StepError::Refused(refusal) => ActionError::Refused(kind_of(&refusal), refusal.message),
            StepError::TakenBack(by, why) => ActionError::TakenBack(by, why),
            StepError::Overtaken(why) => ActionError::Overtaken(why),
            StepError::NowhereToGo(why) => ActionError::NowhereToGo(why),
            StepError::ProxyLost(error) => {
                self.proxy_error = Some(error);
                ActionError::ProxyLost
            }
            StepError::Stopped(signal) => ActionError::Stopped(signal),
            StepError::RollbackWanted => ActionError::RollbackWanted,
        }
    }

    async fn prepare_step(&mut self, step: Step) -> Result<ActionResult, StepError> {
        let prepared = self.prepare(step).await;
        if let Err(error) = &prepared {
            self.progress.failed(step, &error.to_string());
        }
        prepared.map(|()| ActionResult::Done(String::new()))
    }

    /// Asks the proxy where the traffic is, once no flip is on its way to the disk: such a flip may still be made.
    async fn observe(&mut self) -> Result<ActionResult, StepError> {
        let deadline = Instant::now() + FLIP_PENDING_MAX;
        loop {
            let status = self.target.status().await.map_err(StepError::ProxyLost)?;
            if !status.flip_pending || Instant::now() >= deadline {
                return Ok(ActionResult::Observed(Observed { active: status.active, epoch: status.epoch }));
            }
            sleep(POLL).await;
        }
    }

    /// Makes a step, shows how it went, and shows the log of a release that failed.
    async fn perform_step(&mut self, step: Step, signals: &mut StopSignals) -> Result<ActionResult, StepError> {
        self.progress.begin(step);
        let error = match self.perform_unless_stopped(step, signals).await {
            Ok(detail) => {
                self.progress.done(step, &detail);
                return Ok(match (step, self.journal.release.flipped) {
                    (Step::Flip, Some(epoch)) => ActionResult::Flipped(epoch),
                    _ => ActionResult::Done(detail),
                });
            }
            Err(error) => error,
        };
        let strategy = self.journal.release.strategy;
        let (has_flipped, is_kept) = (strategy.has_begun(step, Step::Flip), strategy.has_begun(step, Step::Drain));
        match &error {
            StepError::RollbackWanted => {}
            StepError::ProxyLost(_) | StepError::Stopped(_) if has_flipped => {}
            StepError::Failed(_)
            | StepError::Refused(_)
            | StepError::TakenBack(..)
            | StepError::Overtaken(_)
            | StepError::NowhereToGo(_)
            | StepError::ProxyLost(_)
            | StepError::Stopped(_) => self.progress.failed(step, &error.to_string()),
        }
        let is_bad = match &error {
            StepError::Failed(_) | StepError::ProxyLost(_) => strategy.has_begun(step, Step::Healthy) && !is_kept,
            StepError::NowhereToGo(_) => true,
            StepError::Refused(_)
            | StepError::TakenBack(..)
            | StepError::Overtaken(_)
            | StepError::Stopped(_)
            | StepError::RollbackWanted => false,
        };
        if is_bad && !has_lost_proxy_after_flip(&error, has_flipped) {
            self.show_log().await;
        }
        Err(error)
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

    /// Has the proxy take the traffic back, because the operator wants it so.
    async fn roll_back(&mut self) -> Result<ActionResult, StepError> {
        let by = self.journal.by.clone();
        let request = ChangeRequest { wait: Some(false), by: Some(by.clone()), ..ChangeRequest::default() };
        self.target.client.rollback(&self.journal.service, &request, None).await.map_err(StepError::ProxyLost)?;
        let why = format!("rolled back by {by}");
        self.progress.failed(self.journal.release.reached, &why);
        Ok(ActionResult::Done(why))
    }

    /// Waits until a release that was taken back has finished its requests: each is somebody's.
    async fn drain_taken_back(&mut self, signals: &mut StopSignals) -> Result<ActionResult, StepError> {
        self.release_held().await;
        self.show_log().await;
        tokio::select! {
            drained = self.target.client.drain(&self.journal.service) => {
                drained.map_err(StepError::ProxyLost)?;
                Ok(ActionResult::Done(String::new()))
            }
            name = signals.next() => Err(StepError::Stopped(name)),
        }
    }

    async fn undo(&mut self, undo: Undo, signals: &mut StopSignals) -> Result<ActionResult, StepError> {
        if self.journal.release.strategy == Strategy::BlueGreen {
            // The old color has the traffic, and is as it was.
            self.release_held().await;
        }
        let color = self.journal.release.color;
        let undone = match undo {
            Undo::EnvFile => self.put_env_back().map_err(|cause| cause.to_string()),
            Undo::Candidate => {
                let path = self.target.candidate(color);
                let removed = files::remove(&path).map_err(|error| format!("{}: {error}", path.display()));
                removed.map(|()| format!("{} is gone", path.display()))
            }
            Undo::Project => tokio::select! {
                put_back = self.put_back_patiently() => put_back,
                name = signals.next() => return Err(StepError::Stopped(name)),
            },
        };
        match undone {
            Ok(done) => {
                self.progress.say(&format!("  undone     {done}"));
                Ok(ActionResult::Done(done))
            }
            Err(why) => {
                self.progress.say(&format!("  NOT undone {why}"));
                Ok(ActionResult::Failed(ActionError::Failed(why)))
            }
        }
    }

    /// Puts the project back. An engine that is away is waited for, because it may be restarting.
    async fn put_back_patiently(&mut self) -> Result<String, String> {
        let deadline = Instant::now() + ENGINE_AWAY_MAX;
        loop {
            let error = match self.put_back().await {
                Ok(done) => return Ok(done),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline || compose::engine_answers().await {
                return Err(error);
            }
            self.progress.note("the Docker engine does not answer; the undo is tried again");
            sleep(Duration::from_secs(1)).await;
        }
    }
}

fn has_lost_proxy_after_flip(error: &StepError, has_flipped: bool) -> bool {
    has_flipped && matches!(error, StepError::ProxyLost(_))
}

fn kind_of(refusal: &Refusal) -> FlipRefusal {
    match refusal.code.exit_code() {
        3 => FlipRefusal::Gate,
        5 => FlipRefusal::UnderWay,
        _ => FlipRefusal::Other,
    }
}
