//! What Docker says of the containers of a Compose project: the `docker` command, asked and read.
//!
//! The command and not the socket: it follows `DOCKER_HOST`, contexts and credentials as the operator's own does.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

/// For one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The Compose service whose containers are a color.
pub const SERVICE: &str = "api";

/// Which containers are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Containers {
    /// One, by its name or id.
    Named(String),
    /// Those of the service `api` of a Compose project.
    Project(String),
    /// All of a Compose project.
    All(String),
}

/// What `docker inspect` says of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its full id.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// `running`, `restarting`, `exited` and so on.
    pub state: String,
    /// `healthy`, `unhealthy` or `starting`; none where it has no health check.
    pub health: Option<String>,
    /// How often Docker started it again by itself, since it was made.
    pub restarts: u64,
    /// Since its last start; none where the engine's clock is not readable.
    pub up: Option<Duration>,
}

impl Containers {
    /// Looks at each of them; at least one.
    ///
    /// # Errors
    /// There is none, or Docker does not answer within 15 s; the sentence says which.
    pub async fn look(&self) -> Result<Vec<Container>, String> {
        let found = self.find().await?;
        if found.is_empty() {
            return Err(format!("there is no {self}; is it running? See `docker compose ls`"));
        }
        Ok(found)
    }

    /// Looks at each of them, also where there is none. One that is named must be there.
    ///
    /// # Errors
    /// Docker does not answer within 15 s.
    pub async fn find(&self) -> Result<Vec<Container>, String> {
        let ids = match self {
            Containers::Named(name) => vec![name.clone()],
            Containers::Project(project) | Containers::All(project) => {
                let project = format!("label=com.docker.compose.project={project}");
                let service = format!("label=com.docker.compose.service={SERVICE}");
                let mut filters = vec!["ps", "--all", "--quiet", "--no-trunc", "--filter", &project];
                if matches!(self, Containers::Project(_)) {
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

impl std::fmt::Display for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Containers::Named(name) => write!(f, "container {name}"),
            Containers::Project(project) => write!(f, "container of {SERVICE} in the Compose project {project}"),
            Containers::All(project) => write!(f, "container in the Compose project {project}"),
        }
    }
}

impl Container {
    /// What it wrote to both of its outputs within the last `since`, whole lines.
    ///
    /// # Errors
    /// Docker does not answer within 15 s.
    pub async fn log(&self, since: Duration) -> Result<String, String> {
        docker(&["logs", "--since", &format!("{}s", since.as_secs()), "--", &self.id]).await.map(Said::both)
    }

    /// The last `lines` that it wrote to both of its outputs together, oldest first, each after the time it was written
    /// at. A container that has stopped still has them.
    ///
    /// # Errors
    /// Docker does not answer within 15 s.
    pub async fn tail(&self, lines: usize) -> Result<Vec<String>, String> {
        let both = docker(&["logs", "--timestamps", "--tail", &lines.to_string(), "--", &self.id]).await?.both();
        let mut both: Vec<_> = both.lines().map(str::to_owned).collect();
        // One output after the other; the times are of one length, and put them into one order.
        both.sort_by(|a, b| time_of(a).cmp(time_of(b)));
        Ok(both.split_off(both.len().saturating_sub(lines)))
    }
}

/// What a running container uses now, in the engine's own words.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// The container's.
    pub name: String,
    /// `3.07%`, of one core.
    pub cpu: String,
    /// `120MiB / 1GiB`
    pub memory: String,
    /// Of its limit, from 0 to 1.
    pub memory_share: f64,
}

/// Asks what each of these containers uses.
///
/// # Errors
/// Docker does not answer within 15 s.
pub async fn usage(ids: &[&str]) -> Result<Vec<Usage>, String> {
    let args = [&["stats", "--no-stream", "--format", "{{json .}}", "--"][..], ids].concat();
    docker(&args).await?.stdout.lines().map(parse_usage).collect()
}

fn parse_usage(json: &str) -> Result<Usage, String> {
    #[derive(Deserialize)]
    struct Stats {
        #[serde(rename = "Name")]
        name: String,
        #[serde(rename = "CPUPerc")]
        cpu: String,
        #[serde(rename = "MemUsage")]
        memory: String,
        #[serde(rename = "MemPerc")]
        share: String,
    }
    let not_understood = |error: &dyn std::fmt::Display| format!("cannot parse the output of docker stats: {error}");
    let Stats { name, cpu, memory, share } = serde_json::from_str(json).map_err(|error| not_understood(&error))?;
    let percent: f64 = share.trim_end_matches('%').parse().map_err(|error| not_understood(&error))?;
    Ok(Usage { name, cpu, memory, memory_share: percent / 100.0 })
}

fn time_of(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// What `docker` said.
struct Said {
    /// Its answer.
    stdout: String,
    /// Warnings (a config that it may not read, an old API), and for `logs` what the container wrote there.
    stderr: String,
}

impl Said {
    /// One after the other.
    fn both(self) -> String {
        self.stdout + &self.stderr
    }
}

/// Runs `docker`.
async fn docker(args: &[&str]) -> Result<Said, String> {
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let asked = || format!("docker {}", args[0]);
    let output = match timeout(ANSWER_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{} could not be run: {error}; is Docker installed?", asked())),
        Err(_) => {
            return Err(format!("{} did not respond within {ANSWER_TIMEOUT:?}; is its engine running?", asked()));
        }
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("{} failed: {}", asked(), stderr.trim()));
    }
    Ok(Said { stdout: String::from_utf8_lossy(&output.stdout).into_owned(), stderr })
}

/// Reads the answer of `docker inspect`.
fn parse(json: &str, now: jiff::Timestamp) -> Result<Vec<Container>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inspected {
        id: String,
        name: String,
        state: State,
        restart_count: u64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        status: String,
        started_at: String,
        health: Option<Health>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Health {
        status: String,
    }
    let inspected: Vec<Inspected> =
        serde_json::from_str(json).map_err(|error| format!("cannot parse the output of docker inspect: {error}"))?;
    let container = |inspected: Inspected| Container {
        id: inspected.id,
        name: inspected.name.trim_start_matches('/').to_owned(),
        state: inspected.state.status,
        // An image may switch its parent's check off: that is "none".
        health: inspected.state.health.map(|health| health.status).filter(|status| status != "none"),
        restarts: inspected.restart_count,
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
