//! Proves a release before it gets traffic: the smoke test and the rehearsal.

use tokio::time::{Instant, sleep};

use crate::config::ExpectedVersion;
use crate::deploy::journal::Intent;
use crate::deploy::run::{DeployRun, FailureCause, POLL, StepError};
use crate::deploy::smoke::{self, ReadyCheck, SmokeCheck, SmokePassed, SmokeTest};
use crate::domain::release::Step;

/// The way out where an application never reports its image tag.
const VERSION_HINT: &str = "; if it never says its image tag, set deploy.version = \"any\"";

impl DeployRun<'_> {
    /// Runs the smoke test of the color.
    pub(super) async fn smoke(&mut self) -> Result<String, StepError> {
        let base = self.target.base(self.color())?;
        let expect_version = match self.target.deploy().version {
            ExpectedVersion::Tag => Some(self.journal.tag.clone()),
            ExpectedVersion::Any => None,
        };
        let containers = Some(self.target.containers(self.color()));
        let ready = ReadyCheck::Probed(self.target.service.health.path.clone());
        let secrets = self.target.secrets(self.color());
        let test = SmokeTest { ready, expect_version, containers, secrets, ..SmokeTest::of(base.clone()) };
        let progress = &mut *self.progress;
        let outcome = smoke::run(&test, &mut |line| progress.note(line)).await;
        self.record(smoke::line(&base, &outcome, &self.journal.by));
        match outcome {
            Ok(SmokePassed { service: Some(service), version: Some(version), .. }) => {
                Ok(format!("{service} {version} responds"))
            }
            Ok(_) => Ok(format!("{base} serves")),
            Err(failure) => {
                let is_version =
                    failure.check == SmokeCheck::Version && self.target.deploy().version == ExpectedVersion::Tag;
                Err(FailureCause::Smoke { failure, hint: is_version.then_some(VERSION_HINT) }.into())
            }
        }
    }

    /// Waits until the proxy has compared enough responses of the idle color with those of the active one.
    pub(super) async fn rehearse(&mut self) -> Result<String, StepError> {
        if self.target.service.rehearse.share <= 0.0 {
            return Ok("rehearse.share is 0, nothing is compared".into());
        }
        if self.journal.intent == Intent::Rollback {
            return Ok("a rollback is meant to respond differently".into());
        }
        let mut deadline = None;
        let mut before = None;
        loop {
            let report = self.target.client.rehearsal(&self.journal.service).await.map_err(StepError::ProxyLost)?;
            if let Some(why) = report.refuses {
                return Err(FailureCause::Rehearsal(why).into());
            }
            // Comparisons with the containers that were replaced prove nothing, so only new ones count. A rehearsal
            // that was restarted counts from zero again.
            let before = before.insert(before.unwrap_or(report.compared).min(report.compared));
            let compared = report.compared - *before;
            if compared >= report.min_requests {
                return Ok(format!("{compared} responses compared, {} differ", report.different));
            }
            if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + self.target.deploy().rehearse) {
                return Ok(format!("only {compared} responses compared: too few to tell"));
            }
            self.progress.wait(Step::Rehearse, &format!("{compared} of {} responses compared", report.min_requests));
            sleep(POLL).await;
        }
    }
}
