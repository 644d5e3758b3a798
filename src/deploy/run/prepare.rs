//! Brings a release up in its color: the candidate env file, the image, the containers, their health.

use tokio::time::{Instant, sleep};

use crate::deploy::command::{Command, CommandError};
use crate::deploy::compose::{self, Compose};
use crate::deploy::files;
use crate::deploy::run::{DeployRun, FailureCause, HealthWait, POLL, StepError};
use crate::docker::Container;
use crate::domain::release::Step;
use crate::domain::release::state::ReleaseState;

/// A container that the engine has restarted this often before it was ready will never be.
const RESTARTS_MAX: u64 = 3;

impl DeployRun<'_> {
    /// Writes the env file with the new tag beside the one in force.
    pub(super) fn candidate(&mut self) -> Result<String, StepError> {
        let (in_force, path) = (self.target.env_file(self.color()), self.target.candidate(self.color()));
        let text = self.target.read_env(in_force)?.with("IMAGE_TAG", &self.journal.tag);
        files::replace(&path, text.as_bytes(), Some(in_force))
            .map_err(|error| FailureCause::File { path: path.clone(), error })?;
        Ok(format!("{} with IMAGE_TAG={}", path.display(), self.journal.tag))
    }

    /// Makes sure that the image is on this machine.
    pub(super) async fn image(&mut self) -> Result<String, StepError> {
        let compose = self.compose()?;
        let image = compose.image().await?;
        if !image.ends_with(&format!(":{}", self.journal.tag)) {
            return Err(FailureCause::FixedImage { file: compose.file, image }.into());
        }
        if compose::has_image(&image).await? {
            return Ok(format!("{image} is on this machine"));
        }
        let pull = compose.pull();
        self.progress.command(&pull);
        pull.run(self.target.deploy().up_timeout).await?;
        Ok(format!("{image} pulled"))
    }

    /// Starts the release, without its singletons.
    pub(super) async fn up(&mut self) -> Result<String, StepError> {
        let compose = self.compose()?;
        let up = compose.up_without(&compose.singletons().await?);
        self.end_migration(&compose).await?;
        self.progress.command(&up);
        up.run(self.target.deploy().up_timeout).await?;
        Ok(format!("{} runs {}", compose.project, self.journal.tag))
    }

    /// Stops `api` if a migration may still run in it.
    ///
    /// A process that `docker compose exec` has started survives the client that started it, so the migration of a
    /// killed run may go on. It ends with its container.
    pub(super) async fn end_migration(&mut self, compose: &Compose) -> Result<(), CommandError> {
        self.unless_migrated(compose.stop_api()).await
    }

    /// Runs `command` if a migration was begun and not seen to end.
    pub(super) async fn unless_migrated(&mut self, command: Command) -> Result<(), CommandError> {
        let ReleaseState { strategy, reached, done, .. } = &self.journal.release;
        if !strategy.has_begun(*reached, Step::Migrate) || done.contains(&Step::Migrate) {
            return Ok(());
        }
        self.progress.command(&command);
        command.run(self.target.deploy().up_timeout).await.map(drop)
    }

    /// Waits until the color may take traffic.
    pub(super) async fn healthy(&mut self) -> Result<String, StepError> {
        let limit = self.target.deploy().ready_timeout;
        let deadline = Instant::now() + limit;
        loop {
            let last = match self.check_health().await? {
                Ok(done) => return Ok(done),
                Err(wait) => wait,
            };
            if Instant::now() >= deadline {
                return Err(FailureCause::NotHealthy { limit, last }.into());
            }
            self.progress.wait(Step::Healthy, &last.to_string());
            sleep(POLL).await;
        }
    }

    /// Checks whether containers, application and proxy agree that the color may take traffic. The inner error says
    /// what to wait for, the outer one why waiting is pointless.
    async fn check_health(&mut self) -> Result<Result<String, HealthWait>, FailureCause> {
        let color = self.color();
        let containers = match self.target.containers(color).inspect().await {
            Ok(containers) => containers,
            Err(error) => return Ok(Err(HealthWait::Docker(error))),
        };
        if let Some(why) = containers.iter().find_map(hopeless) {
            return Err(FailureCause::HopelessContainer(why));
        }
        if let Some(why) = containers.iter().find_map(unhealthy) {
            return Ok(Err(HealthWait::Container(why)));
        }
        // The proxy may still have the results of probes of the containers that were replaced, so the color is probed
        // directly first.
        if let Err(error) = self.target.probe(color).await {
            return Ok(Err(HealthWait::Probe(error)));
        }
        let status = match self.target.status().await {
            Ok(status) => status,
            Err(error) => return Ok(Err(HealthWait::Proxy(error))),
        };
        if !status.colors.get(&color).is_some_and(|status| status.ready) {
            return Ok(Err(HealthWait::ProxyProbes(color)));
        }
        let names: Vec<_> = containers.iter().map(|container| container.name.as_str()).collect();
        Ok(Ok(format!("{} healthy, {color} ready", names.join(", "))))
    }
}

/// Explains why waiting for a container is pointless.
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

/// Explains what a container still lacks.
fn unhealthy(container: &Container) -> Option<String> {
    let Container { name, state, health, .. } = container;
    match health.as_deref() {
        _ if state != "running" => Some(format!("container {name} is {state}")),
        // The smoke test reports a missing health check.
        None | Some("healthy") => None,
        Some(health) => Some(format!("container {name} is {health}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::deploy::run::prepare::*;

    #[test]
    fn a_container_is_waited_for_or_given_up() {
        let container = |state: &str, health: Option<&str>, restarts| Container {
            id: "ab12".into(),
            name: "recall_green-api-1".into(),
            state: state.into(),
            health: health.map(Into::into),
            restarts,
            image: "cutover-sample:sha-1".into(),
            service: Some("api".into()),
            up: None,
        };
        for (case, container, is_hopeless, is_unhealthy) in [
            ("well", container("running", Some("healthy"), 0), false, false),
            ("without a check", container("running", None, 0), false, false),
            ("starting", container("running", Some("starting"), 0), false, true),
            ("ill, perhaps not for ever", container("running", Some("unhealthy"), 0), false, true),
            ("fell once", container("restarting", Some("starting"), 1), false, true),
            ("keeps falling", container("restarting", Some("starting"), 3), true, true),
            ("fell and stays", container("exited", None, 0), true, true),
        ] {
            assert_eq!(
                (hopeless(&container).is_some(), unhealthy(&container).is_some()),
                (is_hopeless, is_unhealthy),
                "{case}"
            );
        }
    }
}
