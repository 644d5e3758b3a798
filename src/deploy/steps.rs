//! What each step of a release does. Each can be made again after a crash in the middle of it.
//!
//! A step says how it went and decides nothing about the others; `deploy` does.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::client::ClientError;
use crate::api::status::{ChangeRequest, Phase, RefusalCode, ServiceStatus, Verdict};
use crate::config::{Retire, Version};
use crate::deploy::command::{Command, Failure, last_lines};
use crate::deploy::compose::{self, Compose};
use crate::deploy::hold::Kept;
use crate::deploy::journal::{Intent, Journal, Lock};
use crate::deploy::show::Show;
use crate::deploy::site::Site;
use crate::deploy::smoke::{self, Passed, Ready, Smoke};
use crate::deploy::{data, files};
use crate::docker::Container;
use crate::domain::Color;
use crate::domain::release::{Answers, Decided, Step, Strategy, hurt};
use crate::ledger::Line;

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(200);
/// A container that Docker started again so often before it was ready will not be.
const RESTARTS_MAX: u64 = 3;
/// Looks at the old color in a row that must fail: one may hit a moment.
const UNREADY_LOOKS: u32 = 3;
/// How long a proxy may be away during the watch: it may be restarted.
const PROXY_AWAY_MAX: Duration = Duration::from_secs(60);
/// How long it is asked whether a flip was made whose answer got lost.
const FLIP_UNKNOWN_MAX: Duration = Duration::from_secs(15);
/// Lines of the log that are shown of a release that failed.
const LOG_LINES: u16 = 15;

/// Why a step did not end well.
#[derive(Debug)]
pub enum Halt {
    /// It failed, by its own account.
    Failed(String),
    /// The proxy refused it, with its exit code.
    Refused(u8, String),
    /// Traffic is back on the old color.
    TakenBack(String),
    /// It is bad, and the old color is no better place to go.
    NowhereToGo(String),
    /// The proxy does not answer, so that nobody knows where the traffic is.
    Lost(ClientError),
    /// Somebody asked us to stop: the signal's name.
    Stopped(&'static str),
    /// The operator wants the traffic back on the old color.
    BackWanted,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::Failed(why) | Halt::Refused(_, why) | Halt::TakenBack(why) | Halt::NowhereToGo(why) => {
                f.write_str(why)
            }
            Halt::Lost(error) => error.fmt(f),
            Halt::Stopped(name) => write!(f, "stopped by {name}"),
            Halt::BackWanted => f.write_str("the traffic is wanted back on the old color"),
        }
    }
}

impl From<String> for Halt {
    fn from(why: String) -> Self {
        Halt::Failed(why)
    }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Halt::Failed(failure.to_string())
    }
}

/// A release on its way.
pub struct Run<'a> {
    /// Where.
    pub site: &'a Site<'a>,
    /// The lock, which holds the journal.
    pub lock: &'a Lock,
    /// How far it is.
    pub journal: Journal,
    /// Where it is shown.
    pub show: &'a mut Show,
    /// What the old color had answered when the migration began.
    pub answers: Option<Answers>,
    /// What the proxy holds for it.
    pub(super) kept: Option<Kept>,
}

impl Run<'_> {
    /// Makes one step; the sentence says what came of it.
    ///
    /// # Errors
    /// [`Halt`]
    pub async fn perform(&mut self, step: Step) -> Result<String, Halt> {
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
                let said = self.env_file()?;
                if self.journal.strategy == Strategy::Recreate {
                    self.move_singletons(None).await?;
                }
                Ok(said)
            }
            Step::Flip => self.flip().await,
            Step::Watch => self.watch().await,
            Step::Drain => self.drain().await,
            Step::Retire => self.retire().await,
        }
    }

    fn color(&self) -> Color {
        self.journal.color
    }

    /// Compose with the tag that is deployed.
    fn compose(&self) -> Result<Compose, String> {
        self.site.compose_candidate(self.color())
    }

    fn candidate(&mut self) -> Result<String, Halt> {
        let (in_force, path) = (self.site.env_file(self.color()), self.site.candidate(self.color()));
        let text = self.site.read_env(in_force)?.with("IMAGE_TAG", &self.journal.tag);
        files::replace(&path, text.as_bytes(), Some(in_force))
            .map_err(|error| format!("{}: {error}; may this user write there?", path.display()))?;
        Ok(format!("{} with IMAGE_TAG={}", path.display(), self.journal.tag))
    }

    async fn image(&mut self) -> Result<String, Halt> {
        let compose = self.compose()?;
        let image = compose.image().await?;
        if !image.ends_with(&format!(":{}", self.journal.tag)) {
            let file = compose.file.display();
            return Err(format!(
                "{file} runs {image} whatever IMAGE_TAG says; write image: ${{IMAGE_REPO}}:${{IMAGE_TAG}}"
            )
            .into());
        }
        if compose::has_image(&image).await? {
            return Ok(format!("{image} is on this machine"));
        }
        let pull = compose.pull();
        self.show.command(&pull);
        pull.run(self.site.deploy().up_timeout).await?;
        Ok(format!("{image} pulled"))
    }

    async fn up(&mut self) -> Result<String, Halt> {
        let compose = self.compose()?;
        let up = compose.up_without(&compose.singletons().await?);
        self.end_migration(&compose).await?;
        self.show.command(&up);
        up.run(self.site.deploy().up_timeout).await?;
        Ok(format!("{} runs {}", compose.project, self.journal.tag))
    }

    /// Ends what may be left of a migration that was begun and not seen to end, of this run or of one that was killed.
    /// What `docker compose exec` has started goes on in the container without it; it ends with the container.
    async fn end_migration(&mut self, compose: &Compose) -> Result<(), Failure> {
        self.unless_migrated(compose.stop_api()).await
    }

    /// Runs `command` if a migration was begun and not seen to end.
    async fn unless_migrated(&mut self, command: Command) -> Result<(), Failure> {
        let Journal { strategy, reached, done, .. } = &self.journal;
        if !strategy.has_begun(*reached, Step::Migrate) || done.contains(&Step::Migrate) {
            return Ok(());
        }
        self.show.command(&command);
        command.run(self.site.deploy().up_timeout).await.map(drop)
    }

    async fn healthy(&mut self) -> Result<String, Halt> {
        let limit = self.site.deploy().ready_timeout;
        let deadline = Instant::now() + limit;
        loop {
            let why = match self.is_healthy().await? {
                Ok(said) => return Ok(said),
                Err(why) => why,
            };
            if Instant::now() >= deadline {
                return Err(format!("not healthy within {limit:?}: {why}").into());
            }
            self.show.wait(Step::Healthy, &why);
            sleep(LOOK).await;
        }
    }

    /// Whether containers, color and proxy agree that it may take traffic; the inner error says what is waited for, the
    /// outer one why there is no use in waiting.
    async fn is_healthy(&mut self) -> Result<Result<String, String>, Halt> {
        let color = self.color();
        let containers = match self.site.containers(color).look().await {
            Ok(containers) => containers,
            Err(why) => return Ok(Err(why)),
        };
        if let Some(hopeless) = containers.iter().find_map(hopeless) {
            return Err(hopeless.into());
        }
        if let Some(unwell) = containers.iter().find_map(unwell) {
            return Ok(Err(unwell));
        }
        // The proxy may still believe its probes of the containers before these.
        if let Err(why) = self.site.ask_ready(color).await {
            return Ok(Err(why));
        }
        let status = match self.site.status().await {
            Ok(status) => status,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let found = status.colors.get(&color).is_some_and(|status| status.ready);
        if !found {
            return Ok(Err(format!("the proxy has not found {color} ready yet")));
        }
        let names: Vec<_> = containers.iter().map(|container| container.name.as_str()).collect();
        Ok(Ok(format!("{} healthy, {color} ready", names.join(", "))))
    }

    async fn backup(&mut self) -> Result<String, Halt> {
        let backup = &self.site.deploy().backup;
        let [program, args @ ..] = &backup.command[..] else { return Ok("no backup.command, no snapshot".into()) };
        if self.journal.intent == Intent::Rollback {
            return Ok("a rollback leaves the data alone".into());
        }
        let command = crate::deploy::command::Command::new(program, args.to_vec());
        self.show.command(&command);
        let path = data::snapshot(backup, &command, &self.journal.service, &self.journal.tag).await?;
        let bytes = std::fs::metadata(&path).map_or(0, |about| about.len());
        self.record(self.line("snapshot").with("file", path.display()).with("bytes", bytes));
        self.journal.snapshot = Some(path.clone());
        Ok(format!("{} ({bytes} bytes)", path.display()))
    }

    async fn migrate(&mut self) -> Result<String, Halt> {
        let migrate = &self.site.deploy().migrate;
        if migrate.command.is_empty() {
            return Ok("no migrate.command, nothing to do".into());
        }
        if self.journal.intent == Intent::Rollback {
            return Ok("a rollback does not migrate".into());
        }
        let status = self.site.status().await.map_err(Halt::Lost)?;
        let before = answers(&status, self.color().other());
        self.answers = Some(before);
        // Of a run before this one, whose migration may have hurt it since, what it saw counts as well.
        self.journal.old_was_ready = Some(self.journal.old_was_ready.unwrap_or(false) || before.was_ready);
        self.save()?;
        let command = self.compose()?.exec(&migrate.command);
        self.show.command(&command);
        let failure = match command.run(migrate.timeout).await {
            Ok(output) => {
                self.has_migrated()?;
                let said = last_lines(&output.stdout, 1);
                self.record(self.line("migrated"));
                return Ok(format!("{} {}", migrate.command.join(" "), said.trim()).trim_end().to_owned());
            }
            Err(failure) => failure,
        };
        // What the shell says where a program is not there: nothing has begun, so nothing can be half done.
        let is_absent = matches!(failure.code(), Some(126 | 127));
        if !is_absent {
            self.has_migrated()?;
        }
        if let Failure::Late(..) = failure {
            // It goes on in the container: nothing else may be done beside it, and undoing stops the container.
            return Err(format!("{failure}; if it needs longer, raise deploy.migrate.timeout").into());
        }
        if migrate.required {
            return Err(failure.into());
        }
        if is_absent {
            return Ok(format!("`{}` is not in the image; not required, going on", migrate.command[0]));
        }
        self.record(self.line("migration failed, not required").with("why", &failure));
        self.show.note(&failure.to_string());
        Ok("failed; not required, going on".into())
    }

    fn has_migrated(&mut self) -> Result<(), Halt> {
        self.journal.migrated = true;
        self.save()
    }

    /// The old color is the way back: it must live with the migrated data, or there is none.
    async fn old_color(&mut self) -> Result<String, Halt> {
        let old = self.color().other();
        if !self.journal.migrated {
            return Ok(format!("nothing was migrated, {old} is as it was"));
        }
        let status = self.site.status().await.map_err(Halt::Lost)?;
        // Of a run before this one nobody knows how many it had answered; what it answers from now on counts.
        let before = *self.answers.get_or_insert_with(|| answers(&status, old));
        // It is no way back, whatever the migration did to it, and must not keep out the release that may be the cure.
        if self.journal.old_was_ready == Some(false) {
            return Ok(format!("{old} was not ready before the migration either, and is no way back"));
        }
        let (deadline, mut unready) = (Instant::now() + self.site.deploy().settle, 0);
        loop {
            let status = self.site.status().await.map_err(Halt::Lost)?;
            let asked = self.site.ask_ready(old).await;
            unready = if asked.is_err() { unready + 1 } else { 0 };
            let broken = match asked {
                Err(why) if unready >= UNREADY_LOOKS => Some(why),
                Err(_) | Ok(()) => hurt(before, answers(&status, old)),
            };
            if let Some(why) = broken {
                return Err(format!("{old} does not live with the migration, and it is the way back: {why}").into());
            }
            if unready == 0 && Instant::now() >= deadline {
                return Ok(format!("{old} is as well as before the migration"));
            }
            self.show.wait(Step::OldColor, &format!("{old} is watched"));
            sleep(LOOK).await;
        }
    }

    async fn smoke(&mut self) -> Result<String, Halt> {
        let base = self.site.base(self.color())?;
        let expect_version = match self.site.deploy().version {
            Version::Tag => Some(self.journal.tag.clone()),
            Version::Any => None,
        };
        let containers = Some(self.site.containers(self.color()));
        let ready = Ready::Probed(self.site.service.health.path.clone());
        let secrets = self.site.secrets(self.color());
        let test = Smoke { ready, expect_version, containers, secrets, ..Smoke::of(base.clone()) };
        let show = &mut *self.show;
        let outcome = smoke::run(&test, &mut |line| show.note(line)).await;
        self.record(smoke::line(&base, &outcome, &self.journal.by));
        match outcome {
            Ok(Passed { service: Some(service), version: Some(version), .. }) => {
                Ok(format!("{service} {version} answers"))
            }
            Ok(_) => Ok(format!("{base} serves")),
            Err(failed) => {
                let is_version = failed.check == smoke::Check::Version && self.site.deploy().version == Version::Tag;
                let help =
                    if is_version { "; if it never says its image tag, set deploy.version = \"any\"" } else { "" };
                Err(format!("{failed}{help}").into())
            }
        }
    }

    async fn rehearse(&mut self) -> Result<String, Halt> {
        if self.site.service.rehearse.share <= 0.0 {
            return Ok("rehearse.share is 0, nothing is compared".into());
        }
        if self.journal.intent == Intent::Rollback {
            return Ok("a rollback is meant to answer otherwise".into());
        }
        let mut deadline = None;
        let mut before = None;
        loop {
            let report = self.site.client.rehearsal(&self.journal.service).await.map_err(Halt::Lost)?;
            if let Some(why) = report.refuses {
                return Err(format!("{why}; see `cutover rehearsal`").into());
            }
            // What was compared with the containers before these says nothing. A rehearsal that began anew counts from
            // 0.
            let before = before.insert(before.unwrap_or(report.compared).min(report.compared));
            let compared = report.compared - *before;
            if compared >= report.min_requests {
                return Ok(format!("{compared} answers compared, {} differ", report.different));
            }
            if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + self.site.deploy().rehearse) {
                return Ok(format!("only {compared} answers compared: too few to tell"));
            }
            self.show.wait(Step::Rehearse, &format!("{compared} of {} answers compared", report.min_requests));
            sleep(LOOK).await;
        }
    }

    fn env_file(&mut self) -> Result<String, Halt> {
        let (path, kept) = (self.site.env_file(self.color()), self.lock.kept_env());
        let trouble = |error| format!("{}: {error}", path.display());
        let content = std::fs::read(self.site.candidate(self.color())).map_err(trouble)?;
        // A run that was killed here has kept it already, and may have changed the file since.
        if !kept.exists() {
            std::fs::read(path).and_then(|before| files::replace(&kept, &before, Some(path))).map_err(trouble)?;
        }
        files::replace(path, &content, Some(path)).map_err(trouble)?;
        Ok(format!("{} has IMAGE_TAG={}", path.display(), self.journal.tag))
    }

    async fn flip(&mut self) -> Result<String, Halt> {
        let color = self.color();
        let status = self.site.status().await.map_err(Halt::Lost)?;
        let epoch = if status.active == color {
            status.epoch
        } else {
            let by = Some(self.journal.by.clone());
            let request = ChangeRequest { to: Some(color), wait: Some(false), by, ..ChangeRequest::default() };
            let (client, service) = (&self.site.client, &self.journal.service);
            let mut flipped = client.flip(service, &request, Some(status.epoch)).await;
            if let Err(ClientError::Refused(refusal)) = &flipped
                && refusal.code == RefusalCode::RehearsalFailed
                && self.journal.intent == Intent::Rollback
            {
                // It is meant to answer otherwise; everything else was seen to be well just now.
                let request = ChangeRequest { force: true, ..request };
                flipped = client.flip(service, &request, Some(status.epoch)).await;
            }
            match flipped {
                Ok(changed) => changed.epoch,
                Err(ClientError::Refused(refusal)) => {
                    return Err(Halt::Refused(refusal.code.exit_code(), refusal.message));
                }
                Err(error) => self.was_flipped(status.epoch, error).await?,
            }
        };
        self.journal.flipped = Some(epoch);
        self.save()?;
        Ok(format!("{} -> {color}, epoch {epoch}", color.other()))
    }

    /// The answer to a flip got lost: whether it was made.
    async fn was_flipped(&self, epoch: u64, error: ClientError) -> Result<u64, Halt> {
        let deadline = Instant::now() + FLIP_UNKNOWN_MAX;
        while Instant::now() < deadline {
            match self.site.status().await {
                Ok(status) if status.active == self.color() => return Ok(status.epoch),
                Ok(status) if status.epoch == epoch => return Err(Halt::Failed(error.to_string())),
                Ok(status) => return Err(Halt::TakenBack(status.summary)),
                Err(_) => sleep(LOOK).await,
            }
        }
        Err(Halt::Lost(error))
    }

    async fn watch(&mut self) -> Result<String, Halt> {
        let color = self.color();
        if self.site.service.watch.window.is_zero() {
            return Ok("watch.window is 0s: not watched".into());
        }
        let mut away = None;
        loop {
            let status = match self.site.status().await {
                Ok(status) => status,
                Err(error) => {
                    if away.get_or_insert_with(Instant::now).elapsed() >= PROXY_AWAY_MAX {
                        return Err(Halt::Lost(error));
                    }
                    self.show.wait(Step::Watch, &error.to_string());
                    sleep(LOOK).await;
                    continue;
                }
            };
            away = None;
            if status.active != color {
                return Err(Halt::TakenBack(status.last_verdict.unwrap_or(status.summary)));
            }
            match (status.phase, &status.watch) {
                (Phase::Watching, Some(watch)) => {
                    let (failed, answered) = (watch.failed, watch.answered);
                    let (evidence, left) = (watch.evidence, watch.remaining_seconds);
                    let what = format!("{left:.0}s left, {failed} of {answered} failed, evidence {evidence:.2}");
                    self.show.wait(Step::Watch, &what);
                }
                (Phase::Watching, None) => {}
                (Phase::Steady | Phase::Draining | Phase::RolledBack, _) => {
                    let said = status.last_verdict.unwrap_or_else(|| "over".into());
                    return match status.verdict {
                        Some(Verdict::NowhereToGo) => Err(Halt::NowhereToGo(said)),
                        Some(Verdict::Keep | Verdict::NotEnoughTraffic | Verdict::Superseded) | None => Ok(said),
                    };
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn drain(&mut self) -> Result<String, Halt> {
        let old = self.color().other();
        let drained = self.site.client.drain(&self.journal.service).await.map_err(Halt::Lost)?;
        let cut =
            if drained.cut == 0 { "nothing was cut".into() } else { format!("{} cut at the deadline", drained.cut) };
        Ok(format!("{old} is drained, {cut}"))
    }

    async fn retire(&mut self) -> Result<String, Halt> {
        let old = self.color().other();
        self.move_singletons(Some(old)).await?;
        match self.site.deploy().retire {
            Retire::Keep => return Ok(format!("{old} goes on running: `cutover rollback` is one flip")),
            Retire::Stop => {}
        }
        // Somebody may have gone back to it in the meantime.
        let status = self.site.status().await.map_err(Halt::Lost)?;
        if status.active == old {
            return Err(Halt::TakenBack(status.summary));
        }
        // Guests with a preview's pass may have come since.
        self.site.client.drain(&self.journal.service).await.map_err(Halt::Lost)?;
        let stop = self.site.compose(old)?.stop();
        self.show.command(&stop);
        stop.run(self.site.deploy().up_timeout).await?;
        self.until_unready(old).await;
        let status = self.site.status().await.map_err(Halt::Lost)?;
        if status.active == old {
            // Somebody went back to it in the very moment: it is needed, now.
            let up = self.site.compose(old)?.up();
            self.show.command(&up);
            up.run(self.site.deploy().up_timeout).await?;
            return Err(Halt::TakenBack(status.summary));
        }
        Ok(format!("{old} is stopped"))
    }

    /// Until the proxy has found that a stopped color is not ready: before that, a rollback would go there. It takes
    /// some probes; a proxy that does not answer is not waited for.
    async fn until_unready(&mut self, color: Color) {
        let health = &self.site.service.health;
        let deadline = Instant::now() + (health.interval + health.timeout) * health.fall.min(100) + LOOK;
        while Instant::now() < deadline {
            match self.site.status().await {
                Ok(status) if status.active != color && may_roll_back_to(&status, color) => {}
                Ok(_) | Err(_) => return,
            }
            sleep(LOOK).await;
        }
    }

    /// Shows the end of the log of the color that failed.
    pub async fn show_log(&mut self) {
        let Ok(compose) = self.site.compose(self.color()) else { return };
        let (log, secrets) = (compose::log(&compose, LOG_LINES).await, self.site.secrets(self.color()));
        for line in log.lines() {
            self.show.note(&secrets.hide(line));
        }
    }

    /// The project as it was before: running what it ran, or stopped.
    ///
    /// # Errors
    /// It may be neither; a sentence.
    pub(super) async fn bring_back(&mut self) -> Result<String, String> {
        let compose = self.site.compose(self.color())?;
        match (self.journal.strategy, self.journal.ran_before) {
            (Strategy::BlueGreen, true) => self.bring_idle_back(&compose).await,
            (Strategy::Recreate, true) => self.bring_active_back(&compose).await,
            (Strategy::BlueGreen, false) => self.stop_again(&compose, compose.stop()).await,
            // The project is all there is of the service: its database may run in it, and goes on.
            (Strategy::Recreate, false) => self.stop_again(&compose, compose.stop_api()).await,
        }
    }

    /// The idle color runs what it ran, or else nothing: no traffic is on it.
    async fn bring_idle_back(&mut self, compose: &Compose) -> Result<String, String> {
        // They run in the color that has the traffic.
        let up = compose.up_without(&compose.singletons().await?);
        // Of the same tag, `up` would leave the container as it is, and the migration in it.
        if let Err(failure) = self.end_migration(compose).await {
            self.show.note(&failure.to_string());
        }
        self.show.command(&up);
        match up.run(self.site.deploy().up_timeout).await {
            Ok(_) => Ok(format!("{} runs {} again", compose.project, self.tag_before())),
            Err(failure) => {
                self.show.note(&failure.to_string());
                self.stop_again(compose, compose.stop()).await
            }
        }
    }

    /// The only copy runs what it ran. Where it cannot, whatever runs is left alone: a bad release is more than none.
    async fn bring_active_back(&mut self, compose: &Compose) -> Result<String, String> {
        let (project, tag) = (&compose.project, self.tag_before());
        let up = compose.up();
        self.show.command(&up);
        up.run(self.site.deploy().up_timeout).await.map_err(|failure| {
            format!(
                "{project} could not be brought back to {tag}, and what runs in it was left as it is: {failure}\n    \
                 see `docker compose -p {project} ps`; `cutover deploy` with a tag whose image can be had replaces it"
            )
        })?;
        // Of the same tag, `up` has left the container as it is, and the migration in it.
        let restarted = self.unless_migrated(compose.restart_api()).await;
        restarted.map_err(|failure| format!("a migration may still run in {project}: {failure}"))?;
        // The service has nothing else: that it answers again is what the way back is about.
        match self.healthy().await {
            Ok(_) => Ok(format!("{project} runs {tag} again")),
            Err(halt) => Err(format!("{project} runs {tag} again and is not well: {halt}")),
        }
    }

    async fn stop_again(&mut self, compose: &Compose, stop: Command) -> Result<String, String> {
        self.show.command(&stop);
        stop.run(self.site.deploy().up_timeout).await.map_err(|failure| failure.to_string())?;
        self.until_unready(self.color()).await;
        Ok(format!("{} is stopped", compose.project))
    }

    /// What ran before, in words.
    pub(super) fn tag_before(&self) -> String {
        self.journal.tag_before.clone().unwrap_or_else(|| "what it ran before".into())
    }

    /// A line of the ledger about this release.
    pub fn line(&self, what: &str) -> Line {
        let Journal { service, intent, tag, .. } = &self.journal;
        Line::new(&format!("{} {service}: {what}", intent.as_str())).with("tag", tag).with("color", self.color())
    }

    /// Writes a line to the ledger, and says when that was not possible.
    pub fn record(&mut self, line: Line) {
        if let Some(problem) = self.site.record(&line) {
            self.show.note(&problem);
        }
    }

    /// Puts the journal on the disk.
    ///
    /// # Errors
    /// [`Halt::Failed`]
    pub fn save(&self) -> Result<(), Halt> {
        self.lock.save(&self.journal).map_err(|trouble| Halt::Failed(trouble.to_string()))
    }

    /// Notes what was decided, before it is carried out.
    ///
    /// # Errors
    /// [`Halt::Failed`]
    pub fn decide(&mut self, decided: Decided, why: &str) -> Result<(), Halt> {
        self.journal.decided = Some((decided, why.to_owned()));
        self.save()
    }
}

/// The gate of a rollback: one upstream that the probes have not found down is enough.
fn may_roll_back_to(status: &ServiceStatus, color: Color) -> bool {
    status.colors.get(&color).is_some_and(|color| color.upstreams.iter().any(|upstream| upstream.ready))
}

fn answers(status: &ServiceStatus, color: Color) -> Answers {
    status.colors.get(&color).map_or_else(Answers::default, |color| Answers {
        was_ready: color.ready,
        requests: color.requests,
        errors: color.errors,
    })
}

/// Why there is no use in waiting for a container.
fn hopeless(container: &Container) -> Option<String> {
    let Container { name, state, restarts, .. } = container;
    match state.as_str() {
        "exited" | "dead" => Some(format!("container {name} has {state}")),
        "restarting" if *restarts >= RESTARTS_MAX => {
            Some(format!("container {name} crashes: restarted {restarts} times"))
        }
        _ => None,
    }
}

/// What a container is waited for.
fn unwell(container: &Container) -> Option<String> {
    let Container { name, state, health, .. } = container;
    match health.as_deref() {
        _ if state != "running" => Some(format!("container {name} is {state}")),
        // Whether a check is missing is for the smoke test to say.
        None | Some("healthy") => None,
        Some(health) => Some(format!("container {name} is {health}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::deploy::steps::*;

    #[test]
    fn a_container_is_waited_for_or_given_up() {
        let container = |state: &str, health: Option<&str>, restarts| Container {
            id: "ab12".into(),
            name: "recall_green-api-1".into(),
            state: state.into(),
            health: health.map(Into::into),
            restarts,
            up: None,
        };
        for (case, container, is_hopeless, is_unwell) in [
            ("well", container("running", Some("healthy"), 0), false, false),
            ("without a check", container("running", None, 0), false, false),
            ("starting", container("running", Some("starting"), 0), false, true),
            ("ill, perhaps not for ever", container("running", Some("unhealthy"), 0), false, true),
            ("fell once", container("restarting", Some("starting"), 1), false, true),
            ("keeps falling", container("restarting", Some("starting"), 3), true, true),
            ("fell and stays", container("exited", None, 0), true, true),
        ] {
            assert_eq!(
                (hopeless(&container).is_some(), unwell(&container).is_some()),
                (is_hopeless, is_unwell),
                "{case}"
            );
        }
    }
}
