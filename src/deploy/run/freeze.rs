//! Holds and releases requests around the steps of a deploy.

use crate::api::client::{Client, ClientError};
use crate::deploy::freeze_lease::{FreezeError, FreezeLease, InFlight};
use crate::deploy::journal::Intent;
use crate::deploy::run::{DeployRun, FailureCause, StepError};
use crate::deploy::target::DeployTarget;
use crate::domain::freeze::What;
use crate::domain::release::{Freezing, Step, Strategy};

/// Tells whether writes are held around the data. A rollback leaves the data alone, so it holds none.
pub fn freezing(target: &DeployTarget<'_>, intent: Intent) -> Freezing {
    let deploy = target.deploy();
    let has_data = !deploy.backup.command.is_empty() || !deploy.migrate.command.is_empty();
    if deploy.freeze && has_data && intent == Intent::Deploy { Freezing::Writes } else { Freezing::Nothing }
}

impl DeployRun<'_> {
    /// Holds the requests that `step` needs held, and releases all others.
    ///
    /// # Errors
    /// [`StepError`]: they cannot be held, or are not held any more.
    pub(super) async fn hold_for(&mut self, step: Step) -> Result<(), StepError> {
        let wanted = self.journal.release.strategy.holds(step, freezing(self.target, self.journal.intent));
        // A release that an earlier run flipped to is only followed; nothing needs to be held for it.
        let is_late = matches!(step, Step::EnvFile | Step::Flip) && self.freeze.is_none();
        match wanted.filter(|_| !is_late) {
            Some(what) => self.hold(what).await,
            None => {
                self.release_held().await;
                Ok(())
            }
        }
    }

    /// Holds `what`, if the proxy does not hold it already.
    pub(super) async fn hold(&mut self, what: What) -> Result<(), StepError> {
        match &self.freeze {
            Some(freeze) if freeze.what() == what => return freeze.check().map_err(step_error),
            Some(_) | None => {}
        }
        let why = format!("{} of {} by {}", self.journal.intent.as_str(), self.journal.tag, self.journal.by);
        let connect = || Client::new(&self.target.config.admin);
        let taken = FreezeLease::take(connect, &self.journal.service, what, &why).await;
        let (freeze, in_flight) = taken.map_err(step_error)?;
        self.freeze = Some(freeze);
        let finish = self.target.service.freeze.finish;
        match (what, in_flight) {
            (What::Writes, InFlight::Unfinished) => return Err(step_error(FreezeError::WritesInFlight(finish))),
            (What::All, InFlight::Unfinished) => {
                let note = format!("requests that were in flight have not ended within {finish:?}; going on");
                self.progress.note(&note);
            }
            (What::Writes | What::All, InFlight::Finished) => {}
        }
        self.progress.note(match what {
            What::Writes => "the proxy holds writes",
            What::All => "the proxy holds all requests",
        });
        Ok(())
    }

    /// Releases what this run holds.
    pub async fn release_held(&mut self) {
        let Some(freeze) = self.freeze.take() else { return };
        let note = freeze.end(&self.target.client, &self.journal.service, &self.journal.by).await;
        self.progress.note(&note);
    }

    /// Holds everything while the only copy of a service is put back. Failing to hold does not stop the way back.
    pub(super) async fn hold_for_recreate(&mut self) {
        if self.journal.release.strategy == Strategy::Recreate
            && let Err(error) = self.hold(What::All).await
        {
            self.progress.note(&format!("requests are not held meanwhile: {error}"));
        }
    }
}

fn step_error(error: FreezeError) -> StepError {
    match error {
        FreezeError::Client(ClientError::Refused(refusal)) => StepError::Refused(refusal),
        FreezeError::Client(error) => StepError::ProxyLost(error),
        FreezeError::Lost(_) | FreezeError::WritesInFlight(_) => StepError::Failed(FailureCause::Freeze(error)),
    }
}
