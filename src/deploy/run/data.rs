//! Treats the data of a release: the snapshot, the migration, and the old color that has to live with it.

use tokio::time::{Instant, sleep};

use crate::deploy::command::{Command, CommandError, last_lines};
use crate::deploy::journal::Intent;
use crate::deploy::run::{DeployRun, FailureCause, Hurt, POLL, StepError, responses_of};
use crate::deploy::snapshot;
use crate::domain::release::{Step, failure_rise};

/// How many probes of the old color in a row must fail. A single one may hit a bad moment.
const UNREADY_PROBES: u32 = 3;
/// The exit codes with which a shell says that a program is missing or cannot be run.
const ABSENT: [i32; 2] = [126, 127];

impl DeployRun<'_> {
    /// Takes a snapshot, where a backup command is configured.
    pub(super) async fn backup(&mut self) -> Result<String, StepError> {
        let backup = &self.target.deploy().backup;
        let [program, args @ ..] = &backup.command[..] else { return Ok("no backup.command, no snapshot".into()) };
        if self.journal.intent == Intent::Rollback {
            return Ok("a rollback leaves the data alone".into());
        }
        let command = Command::new(program, args.to_vec());
        self.progress.command(&command);
        let path = snapshot::take(backup, &command, &self.journal.service, &self.journal.tag).await?;
        let bytes = std::fs::metadata(&path).map_or(0, |about| about.len());
        self.record(self.line("snapshot").with("file", path.display()).with("bytes", bytes));
        self.journal.snapshot = Some(path.clone());
        Ok(format!("{} ({bytes} bytes)", path.display()))
    }

    /// Runs the migration inside the new release.
    pub(super) async fn migrate(&mut self) -> Result<String, StepError> {
        let migrate = &self.target.deploy().migrate;
        if migrate.command.is_empty() {
            return Ok("no migrate.command, nothing to do".into());
        }
        if self.journal.intent == Intent::Rollback {
            return Ok("a rollback does not migrate".into());
        }
        self.remember_old_color().await?;
        let command = self.compose()?.exec(&migrate.command);
        self.progress.command(&command);
        let error = match command.run(migrate.timeout).await {
            Ok(output) => {
                self.mark_migrated()?;
                self.record(self.line("migrated"));
                let last = last_lines(&output.stdout, 1);
                return Ok(format!("{} {}", migrate.command.join(" "), last.trim()).trim_end().to_owned());
            }
            Err(error) => error,
        };
        // Where the program is missing nothing has begun, so nothing can be half done.
        let is_absent = error.code().is_some_and(|code| ABSENT.contains(&code));
        if !is_absent {
            self.mark_migrated()?;
        }
        if let CommandError::Timeout(..) = error {
            // The migration runs on in the container. Nothing else may be done beside it; the undo stops the container.
            return Err(FailureCause::MigrationTimeout(error).into());
        }
        if migrate.required {
            return Err(error.into());
        }
        if is_absent {
            return Ok(format!("`{}` is not in the image; not required, going on", migrate.command[0]));
        }
        self.record(self.line("migration failed, not required").with("why", &error));
        self.progress.note(&error.to_string());
        Ok("failed; not required, going on".into())
    }

    /// Records how the old color did before the migration.
    async fn remember_old_color(&mut self) -> Result<(), StepError> {
        let status = self.target.status().await.map_err(StepError::ProxyLost)?;
        let before = responses_of(&status, self.color().other());
        self.responses = Some(before);
        // A killed run may have migrated already, and hurt the old color by it: what that run saw counts as well.
        self.journal.old_was_ready = Some(self.journal.old_was_ready.unwrap_or(false) || before.was_ready);
        self.save()
    }

    fn mark_migrated(&mut self) -> Result<(), StepError> {
        self.journal.migrated = true;
        self.save()
    }

    /// Checks that the old color lives with the migrated data. It is the way back: without it there is none.
    pub(super) async fn old_color(&mut self) -> Result<String, StepError> {
        let old = self.color().other();
        if !self.journal.migrated {
            return Ok(format!("nothing was migrated, {old} is as it was"));
        }
        let status = self.target.status().await.map_err(StepError::ProxyLost)?;
        // After a killed run the counts from before the migration are lost; responses from now on count.
        let before = *self.responses.get_or_insert_with(|| responses_of(&status, old));
        // A color that was down before is no way back in any case. It must not keep out a release that may be the cure.
        if self.journal.old_was_ready == Some(false) {
            return Ok(format!("{old} was not ready before the migration either, and is no way back"));
        }
        let (deadline, mut unready) = (Instant::now() + self.target.deploy().settle, 0);
        loop {
            let status = self.target.status().await.map_err(StepError::ProxyLost)?;
            let probed = self.target.probe(old).await;
            unready = if probed.is_err() { unready + 1 } else { 0 };
            let hurt = match probed {
                Err(error) if unready >= UNREADY_PROBES => Some(Hurt::NotReady(error)),
                Err(_) | Ok(()) => failure_rise(before, responses_of(&status, old)).map(Hurt::Failures),
            };
            if let Some(why) = hurt {
                return Err(FailureCause::OldColorHurt { color: old, why }.into());
            }
            if unready == 0 && Instant::now() >= deadline {
                return Ok(format!("{old} works as before the migration"));
            }
            self.progress.wait(Step::OldColor, &format!("{old} is watched"));
            sleep(POLL).await;
        }
    }
}
