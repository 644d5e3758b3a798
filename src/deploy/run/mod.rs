//! Performs the steps of one deploy. Each step can be repeated after a crash in the middle of it.
//!
//! [`DeployRun`] is the state that all steps share; the files beside this one implement it, sorted by subject:
//! `sequence` (the order of the steps), `prepare` (candidate, image, up, healthy), `data` (backup, migrate, old-color),
//! `prove` (smoke, rehearse), `traffic` (env-file, flip, watch, drain, retire), `undo`, `put_back` (what an undo does
//! to the project), `singletons`, `freeze` and `hooks`. A step reports how it went, and decides nothing about the
//! others.

mod data;
mod drive;
mod env_file;
mod error;
mod finish;
pub mod freeze;
mod hooks;
mod prepare;
mod prove;
mod put_back;
mod singletons;
mod traffic;

use std::time::Duration;

use crate::api::ServiceStatus;
use crate::api::client::ClientError;
use crate::deploy::compose::{self, Compose};
use crate::deploy::freeze_lease::FreezeLease;
use crate::deploy::journal::{Journal, Lock};
use crate::deploy::progress::Progress;
use crate::deploy::target::{DeployTarget, TargetError};
use crate::domain::Color;
use crate::domain::release::{ResponseCounts, Step, Strategy};
use crate::ledger::Line;

pub use error::{FailureCause, HealthWait, Hurt, StepError};

/// The pause between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(200);
/// How many log lines are shown of a release that failed.
const LOG_LINES: u16 = 15;

/// A deploy that is under way.
pub struct DeployRun<'a> {
    pub target: &'a DeployTarget<'a>,
    /// The lock, under which the journal is written.
    pub lock: &'a Lock,
    pub journal: Journal,
    pub progress: &'a mut Progress,
    /// The responses of the old color up to the migration, once that has begun.
    responses: Option<ResponseCounts>,
    /// What the proxy holds for this deploy.
    freeze: Option<FreezeLease>,
    /// The last error of the proxy's client, for the report.
    proxy_error: Option<ClientError>,
}

impl<'a> DeployRun<'a> {
    /// Takes up the deploy that `journal` records.
    pub fn new(target: &'a DeployTarget<'a>, lock: &'a Lock, journal: Journal, progress: &'a mut Progress) -> Self {
        DeployRun { target, lock, journal, progress, responses: None, freeze: None, proxy_error: None }
    }
}

impl DeployRun<'_> {
    /// Performs one step, and returns a sentence about what came of it.
    ///
    /// # Errors
    /// [`StepError`]
    pub async fn perform(&mut self, step: Step) -> Result<String, StepError> {
        self.hold_for(step).await?;
        match step {
            Step::Candidate => self.candidate(),
            Step::Image => self.image().await,
            Step::Up => self.up().await,
            Step::Healthy => self.healthy().await,
            Step::Backup => self.backup().await,
            Step::Migrate => self.migrate().await,
            Step::OldColor => self.old_color().await,
            Step::Smoke => self.smoke().await,
            Step::Rehearse => self.rehearse().await,
            Step::EnvFile => {
                let done = self.put_env_in_force()?;
                if self.journal.release.strategy == Strategy::Recreate {
                    self.move_singletons(None).await?;
                }
                Ok(done)
            }
            Step::Flip => self.flip().await,
            Step::Watch => self.watch().await,
            Step::Drain => self.drain().await,
            Step::Retire => self.retire().await,
        }
    }

    fn color(&self) -> Color {
        self.journal.release.color
    }

    /// Returns Compose with the tag that is deployed.
    fn compose(&self) -> Result<Compose, TargetError> {
        self.target.compose_candidate(self.color())
    }

    /// Shows the end of the log of the color that failed.
    pub async fn show_log(&mut self) {
        let Ok(compose) = self.target.compose(self.color()) else { return };
        let (log, secrets) = (compose::log(&compose, LOG_LINES).await, self.target.secrets(self.color()));
        for line in log.lines() {
            self.progress.note(&secrets.hide(line));
        }
    }

    /// Names the tag that ran before.
    pub fn tag_before(&self) -> String {
        self.journal.tag_before.clone().unwrap_or_else(|| "what it ran before".into())
    }

    /// Begins a line of the ledger about this release.
    pub fn line(&self, what: &str) -> Line {
        let Journal { service, intent, tag, .. } = &self.journal;
        Line::new(&format!("{} {service}: {what}", intent.as_str())).with("tag", tag).with("color", self.color())
    }

    /// Appends a line to the ledger, and shows a problem where that fails.
    pub fn record(&mut self, line: Line) {
        if let Some(problem) = self.target.record(&line) {
            self.progress.note(&problem);
        }
    }

    /// Writes the journal to the disk.
    ///
    /// # Errors
    /// [`StepError::Failed`]
    pub fn save(&self) -> Result<(), StepError> {
        Ok(self.lock.save(&self.journal)?)
    }
}

/// Returns what `color` has answered so far.
fn responses_of(status: &ServiceStatus, color: Color) -> ResponseCounts {
    status.colors.get(&color).map_or_else(ResponseCounts::default, |color| ResponseCounts {
        was_ready: color.ready,
        requests: color.requests,
        errors: color.errors,
    })
}
