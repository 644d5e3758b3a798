//! Builds the `docker compose` commands of one color, each with its project, its file and its env file in full.
//!
//! Compose prefers its environment to its env file. Every variable of the env file is therefore hidden from it: an
//! exported `HOST_PORT` of the other color would otherwise bring this one up on the wrong port.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::deploy::command::{Command, CommandError, Output};
use crate::docker::SERVICE;

/// How long a command that changes nothing may take.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Variables that would point Compose at another project. They are hidden even where the env file lacks them.
const MISLEADING: [&str; 6] =
    ["COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES", "COMPOSE_PROFILES", "IMAGE_TAG", "HOST_PORT"];

/// The Compose project of one color, with one of its env files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compose {
    /// The name of the project, `COMPOSE_PROJECT_NAME`.
    pub project: String,
    /// The Compose file.
    pub file: PathBuf,
    /// The env file that fills in the Compose file's variables.
    pub env_file: PathBuf,
    /// The variables that the env file sets.
    pub variables: Vec<String>,
}

impl Compose {
    /// Returns the same project with another env file of the same variables.
    pub fn with_env_file(&self, env_file: &Path) -> Self {
        Compose { env_file: env_file.to_owned(), ..self.clone() }
    }

    /// Builds `docker compose -p … -f … --env-file …`, followed by `args`.
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

    /// Prints the Compose file with every variable filled in.
    pub fn config(&self) -> Command {
        self.command(&["config", "--format", "json"])
    }

    /// Reads the Compose file as Compose itself understands it.
    ///
    /// # Errors
    /// [`ComposeError`]
    pub async fn read_config(&self) -> Result<Value, ComposeError> {
        let Output { stdout } = self.config().run(QUERY_TIMEOUT).await?;
        serde_json::from_str(&stdout).map_err(ComposeError::Unparsed)
    }

    /// Returns the image that `api` would run.
    ///
    /// # Errors
    /// [`ComposeError`]
    pub async fn image(&self) -> Result<String, ComposeError> {
        let config = self.read_config().await?;
        let image = config["services"][SERVICE]["image"].as_str();
        image.map(str::to_owned).ok_or_else(|| ComposeError::NoImage { file: self.file.clone() })
    }
}

/// Builds `docker image inspect`, which fails where the image is not on this machine.
pub fn inspect_image(image: &str) -> Command {
    Command::new("docker", ["image", "inspect", "--format", "{{.Id}}", image])
}

/// Returns whether an image is on this machine.
///
/// # Errors
/// [`CommandError`]: Docker does not answer.
pub async fn has_image(image: &str) -> Result<bool, CommandError> {
    match inspect_image(image).run(QUERY_TIMEOUT).await {
        Ok(_) => Ok(true),
        Err(CommandError::Status(_, _, said)) if said.to_ascii_lowercase().contains("no such image") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Explains why a Compose file could not be used.
#[derive(Debug)]
pub enum ComposeError {
    /// Compose rejects the file, or does not answer.
    Command(CommandError),
    /// `docker compose config` printed something else than JSON.
    Unparsed(serde_json::Error),
    /// The service `api` is missing, or has no `image`.
    NoImage {
        /// The Compose file.
        file: PathBuf,
    },
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComposeError::Command(error) => error.fmt(f),
            ComposeError::Unparsed(error) => {
                write!(f, "cannot parse the output of docker compose config: {error}")
            }
            ComposeError::NoImage { file } => {
                write!(f, "{} has no service `{SERVICE}` with an image", file.display())
            }
        }
    }
}

impl std::error::Error for ComposeError {}

impl From<CommandError> for ComposeError {
    fn from(error: CommandError) -> Self {
        ComposeError::Command(error)
    }
}

/// Returns whether the Docker engine answers at all.
pub async fn engine_answers() -> bool {
    Command::new("docker", ["version", "--format", "{{.Server.Version}}"]).run(QUERY_TIMEOUT).await.is_ok()
}

/// Returns the last `lines` log lines of each `api` container, or nothing where Docker does not answer.
pub async fn log(compose: &Compose, lines: u16) -> String {
    let command = compose.command(&["logs", "--no-color", "--tail", &lines.to_string(), SERVICE]);
    command.run(QUERY_TIMEOUT).await.map(|output| output.stdout).unwrap_or_default()
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
