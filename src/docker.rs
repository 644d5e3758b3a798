//! Reads the state of a Compose project's containers from the `docker` command.
//!
//! It runs the command instead of speaking to the engine's socket, because the command follows `DOCKER_HOST`, contexts
//! and credentials exactly as the operator's own shell does.

use std::fmt;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

/// Limits one `docker` command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The Compose service whose containers make up a color.
pub const SERVICE: &str = "api";

/// Selects containers by name or by Compose project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerSelector {
    /// One container, by its name or id.
    Named(String),
    /// The containers of the service `api` of a Compose project.
    Project(String),
    /// All containers of a Compose project.
    All(String),
}

/// The state of one container, as `docker inspect` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The full id.
    pub id: String,
    /// The name, without the leading slash of `docker inspect`.
    pub name: String,
    /// `running`, `restarting`, `exited` and so on.
    pub state: String,
    /// `healthy`, `unhealthy` or `starting`; none where it has no health check.
    pub health: Option<String>,
    /// How often the engine has restarted it by itself since it was created.
    pub restarts: u64,
    /// The image that it was created from, as it was named then.
    pub image: String,
    /// The Compose service that it belongs to.
    pub service: Option<String>,
    /// The time since its last start; `None` where the engine's time stamp cannot be parsed.
    pub up: Option<Duration>,
}

/// Explains why nothing is known of a container.
#[derive(Debug)]
pub enum DockerError {
    /// The `docker` command could not be started.
    Start {
        /// The subcommand, such as `inspect`.
        verb: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The command did not end within 15 s.
    Timeout {
        /// The subcommand.
        verb: String,
    },
    /// The command failed.
    Failed {
        /// The subcommand.
        verb: String,
        /// Its standard error.
        stderr: String,
    },
    /// The output is not what the subcommand prints.
    Unparsed {
        /// The subcommand.
        verb: String,
        /// The parser's message.
        error: String,
    },
    /// No container is selected.
    NoContainer(ContainerSelector),
}

impl fmt::Display for DockerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DockerError::Start { verb, error } => {
                write!(f, "docker {verb} could not be run: {error}; is Docker installed?")
            }
            DockerError::Timeout { verb } => {
                write!(f, "docker {verb} did not respond within {ANSWER_TIMEOUT:?}; is its engine running?")
            }
            DockerError::Failed { verb, stderr } => write!(f, "docker {verb} failed: {stderr}"),
            DockerError::Unparsed { verb, error } => {
                write!(f, "cannot parse the output of docker {verb}: {error}")
            }
            DockerError::NoContainer(selector) => {
                write!(f, "there is no {selector}; is it running? See `docker compose ls`")
            }
        }
    }
}

impl std::error::Error for DockerError {}

impl ContainerSelector {
    /// Inspects each selected container, of which there must be at least one.
    ///
    /// # Errors
    /// [`DockerError`], with [`DockerError::NoContainer`] where nothing is selected.
    pub async fn inspect(&self) -> Result<Vec<Container>, DockerError> {
        let found = self.find().await?;
        if found.is_empty() {
            return Err(DockerError::NoContainer(self.clone()));
        }
        Ok(found)
    }

    /// Inspects each selected container; the list is empty where a project has none. A container selected by name must
    /// exist.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn find(&self) -> Result<Vec<Container>, DockerError> {
        let ids = match self {
            ContainerSelector::Named(name) => vec![name.clone()],
            ContainerSelector::Project(project) | ContainerSelector::All(project) => {
                let project = format!("label=com.docker.compose.project={project}");
                let service = format!("label=com.docker.compose.service={SERVICE}");
                let mut filters = vec!["ps", "--all", "--quiet", "--no-trunc", "--filter", &project];
                if matches!(self, ContainerSelector::Project(_)) {
                    filters.extend(["--filter", &service]);
                }
                docker(&filters).await?.stdout.lines().map(str::to_owned).collect()
            }
        };
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let args: Vec<_> =
            ["inspect", "--type", "container", "--"].into_iter().chain(ids.iter().map(|id| &**id)).collect();
        parse(&docker(&args).await?.stdout, jiff::Timestamp::now())
    }
}

impl fmt::Display for ContainerSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContainerSelector::Named(name) => write!(f, "container {name}"),
            ContainerSelector::Project(project) => write!(f, "container of {SERVICE} in the Compose project {project}"),
            ContainerSelector::All(project) => write!(f, "container in the Compose project {project}"),
        }
    }
}

impl Container {
    /// Returns whether it runs, or is about to.
    pub fn runs(&self) -> bool {
        self.state == "running" || self.state == "restarting"
    }

    /// Returns the tag of its image.
    pub fn tag(&self) -> Option<&str> {
        let name = self.image.rsplit('/').next()?;
        name.split('@').next()?.split_once(':').map(|(_, tag)| tag)
    }

    /// Returns the whole lines that it wrote to either output within the last `since`.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn log(&self, since: Duration) -> Result<String, DockerError> {
        docker(&["logs", "--since", &format!("{}s", since.as_secs()), "--", &self.id]).await.map(DockerOutput::both)
    }

    /// Returns the last `lines` of both outputs together, oldest first, each behind its time stamp. A stopped container
    /// still has its log.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn tail(&self, lines: usize) -> Result<Vec<String>, DockerError> {
        let both = docker(&["logs", "--timestamps", "--tail", &lines.to_string(), "--", &self.id]).await?.both();
        let mut both: Vec<_> = both.lines().map(str::to_owned).collect();
        // Docker prints one output after the other. The time stamps have one length, so sorting by them merges the two.
        both.sort_by(|a, b| time_of(a).cmp(time_of(b)));
        Ok(both.split_off(both.len().saturating_sub(lines)))
    }
}

/// The resources that a running container uses now, as the engine formats them.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerUsage {
    /// The container's name.
    pub name: String,
    /// The share of one core, such as `3.07%`.
    pub cpu: String,
    /// Used and allowed memory, such as `120MiB / 1GiB`.
    pub memory: String,
    /// The used share of the memory limit, from 0 to 1.
    pub memory_share: f64,
}

/// Measures what each of these containers uses.
///
/// # Errors
/// [`DockerError`]
pub async fn usage(ids: &[&str]) -> Result<Vec<ContainerUsage>, DockerError> {
    let args = [&["stats", "--no-stream", "--format", "{{json .}}", "--"][..], ids].concat();
    docker(&args).await?.stdout.lines().map(parse_usage).collect()
}

fn parse_usage(json: &str) -> Result<ContainerUsage, DockerError> {
    #[derive(Deserialize)]
    struct StatsJson {
        #[serde(rename = "Name")]
        name: String,
        #[serde(rename = "CPUPerc")]
        cpu: String,
        #[serde(rename = "MemUsage")]
        memory: String,
        #[serde(rename = "MemPerc")]
        share: String,
    }
    let unparsed = |error: &dyn fmt::Display| DockerError::Unparsed { verb: "stats".into(), error: error.to_string() };
    let StatsJson { name, cpu, memory, share } = serde_json::from_str(json).map_err(|error| unparsed(&error))?;
    let percent: f64 = share.trim_end_matches('%').parse().map_err(|error| unparsed(&error))?;
    Ok(ContainerUsage { name, cpu, memory, memory_share: percent / 100.0 })
}

fn time_of(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// Both outputs of a `docker` command that succeeded.
struct DockerOutput {
    stdout: String,
    /// Warnings, such as a config that may not be read; for `logs`, what the container wrote to its standard error.
    stderr: String,
}

impl DockerOutput {
    /// Joins the two, one behind the other.
    fn both(self) -> String {
        self.stdout + &self.stderr
    }
}

/// Runs one `docker` command to its end.
async fn docker(args: &[&str]) -> Result<DockerOutput, DockerError> {
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let verb = || args[0].to_owned();
    let output = match timeout(ANSWER_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(DockerError::Start { verb: verb(), error }),
        Err(_) => return Err(DockerError::Timeout { verb: verb() }),
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(DockerError::Failed { verb: verb(), stderr: stderr.trim().to_owned() });
    }
    Ok(DockerOutput { stdout: String::from_utf8_lossy(&output.stdout).into_owned(), stderr })
}

/// Parses the output of `docker inspect`.
fn parse(json: &str, now: jiff::Timestamp) -> Result<Vec<Container>, DockerError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct InspectJson {
        id: String,
        name: String,
        state: StateJson,
        restart_count: u64,
        #[serde(default)]
        config: ConfigJson,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct StateJson {
        status: String,
        started_at: String,
        health: Option<HealthJson>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct ConfigJson {
        image: String,
        labels: Option<std::collections::BTreeMap<String, String>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct HealthJson {
        status: String,
    }
    let unparsed =
        |error: serde_json::Error| DockerError::Unparsed { verb: "inspect".into(), error: error.to_string() };
    let inspected: Vec<InspectJson> = serde_json::from_str(json).map_err(unparsed)?;
    let container = |inspected: InspectJson| Container {
        id: inspected.id,
        name: inspected.name.trim_start_matches('/').to_owned(),
        state: inspected.state.status,
        // An image that switches its parent's health check off is reported as "none".
        health: inspected.state.health.map(|health| health.status).filter(|status| status != "none"),
        restarts: inspected.restart_count,
        image: inspected.config.image,
        service: inspected.config.labels.and_then(|mut labels| labels.remove("com.docker.compose.service")),
        up: inspected.state.started_at.parse().ok().and_then(|started: jiff::Timestamp| {
            u64::try_from(now.as_second() - started.as_second()).ok().map(Duration::from_secs)
        }),
    };
    Ok(inspected.into_iter().map(container).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_is_read() {
        let json = r#"{"Name":"a-api-1","CPUPerc":"3.07%","MemUsage":"120MiB / 1GiB","MemPerc":"11.72%","PIDs":"3"}"#;
        let used = parse_usage(json).unwrap();
        assert_eq!((&*used.name, &*used.cpu, &*used.memory), ("a-api-1", "3.07%", "120MiB / 1GiB"));
        assert!((used.memory_share - 0.1172).abs() < 1e-9);
        assert!(parse_usage("").is_err());
    }

    #[test]
    fn an_inspection_is_read() {
        let json = r#"[
            {"Id":"ab12","Name":"/recall_green-api-1","RestartCount":2,"State":{"Status":"running",
             "StartedAt":"2026-11-23T08:00:00.123456789Z","Health":{"Status":"healthy","FailingStreak":0}}},
            {"Id":"cd34","Name":"/plain","RestartCount":0,"State":{"Status":"created",
             "StartedAt":"0001-01-01T00:00:00Z"}}]"#;
        let containers = parse(json, "2026-11-23T08:01:30Z".parse().unwrap()).unwrap();
        let first = &containers[0];
        assert_eq!((&*first.id, &*first.name, &*first.state), ("ab12", "recall_green-api-1", "running"));
        assert_eq!((first.health.as_deref(), first.restarts), (Some("healthy"), 2));
        assert_eq!(first.up, Some(Duration::from_secs(90)));
        assert_eq!((containers[1].health.as_deref(), &*containers[1].state), (None, "created"));
        assert!(parse("Error: no such container", jiff::Timestamp::now()).is_err());
    }
}
