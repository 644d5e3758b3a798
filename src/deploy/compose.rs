//! `docker compose` for one color: its project, its file and its env file, always named in full.
//!
//! Compose prefers its environment to its env file, so every variable of the env file is hidden from it: an exported
//! `HOST_PORT` of the other color would otherwise bring this one up on the wrong port.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::deploy::command::{Command, Failure, Output};
use crate::docker::SERVICE;

/// For a question that changes nothing.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Variables that would point Compose elsewhere, whether the env file has them or not.
const MISLEADING: [&str; 6] =
    ["COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES", "COMPOSE_PROFILES", "IMAGE_TAG", "HOST_PORT"];

/// The Compose project of one color, with one of its env files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compose {
    /// `COMPOSE_PROJECT_NAME`
    pub project: String,
    /// `docker-compose.yml`
    pub file: PathBuf,
    /// The env file that is given to it.
    pub env_file: PathBuf,
    /// The variables of that file.
    pub variables: Vec<String>,
}

impl Compose {
    /// The same project with another env file of the same variables.
    pub fn with_env_file(&self, env_file: &Path) -> Self {
        Compose { env_file: env_file.to_owned(), ..self.clone() }
    }

    /// `docker compose -p … -f … --env-file …` with `args` behind it.
    pub fn command(&self, args: &[&str]) -> Command {
        let (file, env_file) = (self.file.display().to_string(), self.env_file.display().to_string());
        let first = ["compose", "-p", &self.project, "-f", &file, "--env-file", &env_file];
        let command = Command::new("docker", first.into_iter().chain(args.iter().copied()));
        let hidden = MISLEADING.into_iter().chain(self.variables.iter().map(String::as_str));
        hidden.fold(command, Command::without)
    }

    /// Starts what the file describes, and replaces what differs from it.
    pub fn up(&self) -> Command {
        self.command(&["up", "--detach"])
    }

    /// Stops every container of the project, and keeps them.
    pub fn stop(&self) -> Command {
        self.command(&["stop"])
    }

    /// Stops `api` alone, and keeps it.
    pub fn stop_api(&self) -> Command {
        self.command(&["stop", SERVICE])
    }

    /// Starts `api` anew in the container that it has.
    pub fn restart_api(&self) -> Command {
        self.command(&["restart", SERVICE])
    }

    /// Gets the image of `api`.
    pub fn pull(&self) -> Command {
        self.command(&["pull", SERVICE])
    }

    /// Runs `words` inside `api`.
    pub fn exec(&self, words: &[String]) -> Command {
        let args: Vec<_> = ["exec", "-T", SERVICE].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.command(&args)
    }

    /// Prints the file with every variable filled in.
    pub fn config(&self) -> Command {
        self.command(&["config", "--format", "json"])
    }

    /// The image that `api` would run.
    ///
    /// # Errors
    /// The file is not valid, or has no `api` with an `image`; a sentence.
    pub async fn image(&self) -> Result<String, String> {
        let Output { stdout, .. } = self.config().run(ANSWER_TIMEOUT).await.map_err(|failure| failure.to_string())?;
        let config: Value = serde_json::from_str(&stdout)
            .map_err(|error| format!("docker compose config says what is not understood: {error}"))?;
        let image = config["services"][SERVICE]["image"].as_str();
        image
            .map(str::to_owned)
            .ok_or_else(|| format!("{} has no service `{SERVICE}` with an image", self.file.display()))
    }
}

/// `docker image inspect`, for whether an image is on this machine.
pub fn inspect_image(image: &str) -> Command {
    Command::new("docker", ["image", "inspect", "--format", "{{.Id}}", image])
}

/// Whether an image is on this machine.
///
/// # Errors
/// Docker does not answer; a sentence.
pub async fn has_image(image: &str) -> Result<bool, String> {
    match inspect_image(image).run(ANSWER_TIMEOUT).await {
        Ok(_) => Ok(true),
        Err(Failure::Status(_, _, said)) if said.to_ascii_lowercase().contains("no such image") => Ok(false),
        Err(failure) => Err(failure.to_string()),
    }
}

/// What `api` of a project wrote last, at most `lines` lines of each container. Empty when Docker does not say.
pub async fn log(compose: &Compose, lines: u16) -> String {
    let command = compose.command(&["logs", "--no-color", "--tail", &lines.to_string(), SERVICE]);
    command.run(ANSWER_TIMEOUT).await.map(|output| output.stdout).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::deploy::compose::*;

    #[test]
    fn commands_name_their_project_in_full() {
        let compose = Compose {
            project: "recall_green".into(),
            file: "deploy/docker-compose.yml".into(),
            env_file: "deploy/.env.green".into(),
            variables: vec!["SECRET_KEY".into()],
        };
        let first = "docker compose -p recall_green -f deploy/docker-compose.yml --env-file deploy/.env.green";
        let next = compose.with_env_file(Path::new("deploy/.env.green.next"));
        for (command, want) in [
            (compose.up(), format!("{first} up --detach")),
            (compose.stop(), format!("{first} stop")),
            (compose.stop_api(), format!("{first} stop api")),
            (compose.pull(), format!("{first} pull api")),
            (compose.exec(&["flask".into(), "db".into()]), format!("{first} exec -T api flask db")),
            (next.config(), format!("{first}.next config --format json")),
        ] {
            assert_eq!(command.to_string(), want);
        }
    }
}
