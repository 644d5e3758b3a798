//! Puts a Compose project back to what it was before a deploy.

use std::fmt;

use crate::deploy::command::{Command, CommandError};
use crate::deploy::compose::{Compose, ComposeError};
use crate::deploy::run::{DeployRun, StepError};
use crate::deploy::target::TargetError;
use crate::domain::release::Strategy;

/// Explains why a project is not as it was before.
#[derive(Debug)]
pub enum PutBackError {
    Target(TargetError),
    Compose(ComposeError),
    /// The project could not be stopped.
    Stop(CommandError),
    /// The previous release could not be started in the only color. Whatever runs there was left alone.
    LeftAsItIs {
        project: String,
        tag: String,
        error: CommandError,
    },
    /// `api` could not be restarted, which ends a migration.
    MigrationRuns {
        project: String,
        error: CommandError,
    },
    /// The previous release runs again, and is not healthy.
    NotHealthy {
        project: String,
        tag: String,
        error: Box<StepError>,
    },
}

impl fmt::Display for PutBackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutBackError::Target(error) => error.fmt(f),
            PutBackError::Compose(error) => error.fmt(f),
            PutBackError::Stop(error) => error.fmt(f),
            PutBackError::LeftAsItIs { project, tag, error } => write!(
                f,
                "{project} could not be brought back to {tag}, and what runs in it was left as it is: {error}\n    \
                 see `docker compose -p {project} ps`; `cutover deploy` with a tag whose image can be had replaces it"
            ),
            PutBackError::MigrationRuns { project, error } => {
                write!(f, "a migration may still run in {project}: {error}")
            }
            PutBackError::NotHealthy { project, tag, error } => {
                write!(f, "{project} runs {tag} again and is not well: {error}")
            }
        }
    }
}

impl std::error::Error for PutBackError {}

impl DeployRun<'_> {
    /// Puts the project back: it runs what it ran, or is stopped. A service with only one color is frozen meanwhile.
    ///
    /// # Errors
    /// [`PutBackError`]
    pub async fn put_back(&mut self) -> Result<String, PutBackError> {
        self.hold_for_recreate().await;
        let result = self.put_project_back().await;
        self.release_held().await;
        result
    }

    async fn put_project_back(&mut self) -> Result<String, PutBackError> {
        let compose = self.target.compose(self.color()).map_err(PutBackError::Target)?;
        match (self.journal.release.strategy, self.journal.ran_before) {
            (Strategy::BlueGreen, true) => self.restore_idle(&compose).await,
            (Strategy::Recreate, true) => self.restore_active(&compose).await,
            (Strategy::BlueGreen, false) => self.stop_again(&compose, compose.stop()).await,
            // The project may hold the service's database as well, which has to keep running.
            (Strategy::Recreate, false) => self.stop_again(&compose, compose.stop_api()).await,
        }
    }

    /// Starts in the idle color what it ran. Where that fails the color is stopped, because no traffic is on it.
    async fn restore_idle(&mut self, compose: &Compose) -> Result<String, PutBackError> {
        // The singletons run in the color that has the traffic, except for those that ran here as well.
        let mut elsewhere = compose.singletons().await.map_err(PutBackError::Compose)?;
        elsewhere.retain(|service| !self.journal.singletons_before.contains(service));
        let up = compose.up_without(&elsewhere);
        // For the same tag `up` would leave the container alone, and a migration in it.
        if let Err(error) = self.end_migration(compose).await {
            self.progress.note(&error.to_string());
        }
        self.progress.command(&up);
        match up.run(self.target.deploy().up_timeout).await {
            Ok(_) => Ok(format!("{} runs {} again", compose.project, self.tag_before())),
            Err(error) => {
                self.progress.note(&error.to_string());
                self.stop_again(compose, compose.stop()).await
            }
        }
    }

    /// Starts in the only color what it ran. Where that fails, whatever runs is left alone: a bad release is better
    /// than none.
    async fn restore_active(&mut self, compose: &Compose) -> Result<String, PutBackError> {
        let (project, tag) = (compose.project.clone(), self.tag_before());
        let up = compose.up();
        self.progress.command(&up);
        if let Err(error) = up.run(self.target.deploy().up_timeout).await {
            return Err(PutBackError::LeftAsItIs { project, tag, error });
        }
        // For the same tag `up` has left the container alone, and a migration in it.
        if let Err(error) = self.unless_migrated(compose.restart_api()).await {
            return Err(PutBackError::MigrationRuns { project, error });
        }
        // The service has no other color, so the way back is only complete once this one answers again.
        match self.healthy().await {
            Ok(_) => Ok(format!("{project} runs {tag} again")),
            Err(error) => Err(PutBackError::NotHealthy { project, tag, error: Box::new(error) }),
        }
    }

    async fn stop_again(&mut self, compose: &Compose, stop: Command) -> Result<String, PutBackError> {
        self.progress.command(&stop);
        stop.run(self.target.deploy().up_timeout).await.map_err(PutBackError::Stop)?;
        self.until_unready(self.color()).await;
        Ok(format!("{} is stopped", compose.project))
    }
}
