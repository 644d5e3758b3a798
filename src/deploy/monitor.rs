//! Goes through the monitoring checklist once: errors and restarts, CPU and memory, dependencies, alerts.
//!
//! Whatever cannot be measured is reported as unknown and never counts as well.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::client::{Client, ClientError};
use crate::api::{ServiceStatus, Status};
use crate::config::Service;
use crate::deploy::base_url::{BaseUrl, BaseUrlError, ProbeError};
use crate::docker::{Container, ContainerSelector, ContainerUsage, DockerError, usage};
use crate::domain::Color;

/// How long a dependency or Prometheus may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A container that the engine restarted within this time is reported as bad.
const RESTART_WINDOW: Duration = Duration::from_secs(600);

/// The result of one line of the checklist, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Everything is as it should be.
    Ok,
    /// Nothing is configured to be checked.
    None,
    /// The check could not be made.
    Unknown,
    /// Something is not as it should be.
    Bad,
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CheckStatus::Ok => "ok",
            CheckStatus::None => "-",
            CheckStatus::Unknown => "UNKNOWN",
            CheckStatus::Bad => "BAD",
        })
    }
}

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChecklistItem {
    /// `errors`, `resources`, `dependencies` or `alerts`.
    pub name: &'static str,
    /// The worst of its findings.
    pub standing: CheckStatus,
    /// One sentence per finding.
    pub findings: Vec<String>,
}

/// Collects the findings of one [`ChecklistItem`].
#[derive(Default)]
struct FindingList(Vec<(CheckStatus, String)>);

impl FindingList {
    fn add(&mut self, standing: CheckStatus, sentence: impl Into<String>) {
        self.0.push((standing, sentence.into()));
    }

    fn item(self, name: &'static str, nothing: &str) -> ChecklistItem {
        if self.0.is_empty() {
            return ChecklistItem { name, standing: CheckStatus::None, findings: vec![nothing.to_owned()] };
        }
        let rank = |standing: CheckStatus| standing as u8;
        let worst = self.0.iter().map(|(standing, _)| *standing).max_by_key(|standing| rank(*standing));
        let findings = self.0.into_iter().map(|(_, sentence)| sentence).collect();
        ChecklistItem { name, standing: worst.unwrap_or(CheckStatus::None), findings }
    }
}

/// Explains why the checklist could not be begun.
#[derive(Debug)]
pub enum MonitorError {
    /// The proxy gave no status.
    NoStatus(ClientError),
    /// The proxy does not know the service of this name.
    NoService(String),
}

impl From<ClientError> for MonitorError {
    fn from(error: ClientError) -> Self {
        MonitorError::NoStatus(error)
    }
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MonitorError::NoStatus(error) => error.fmt(f),
            MonitorError::NoService(name) => {
                write!(f, "the proxy has no service {name:?}; does it run with this config?")
            }
        }
    }
}

impl std::error::Error for MonitorError {}

/// Goes through the checklist, counting requests for as long as `over`.
///
/// # Errors
/// [`MonitorError`]
pub async fn run(service: &Service, client: &Client, over: Duration) -> Result<[ChecklistItem; 4], MonitorError> {
    let before = status(client, service).await?;
    let (containers, ()) = tokio::join!(containers_of_colors(service), tokio::time::sleep(over));
    let after = status(client, service).await?;
    let (resources, dependencies) = (resources(service, &containers).await, dependencies(service).await);
    Ok([
        errors(service, &before.1, &after.1, over, &containers),
        resources,
        dependencies,
        alerts(service, &after.0).await,
    ])
}

async fn status(client: &Client, service: &Service) -> Result<(Status, ServiceStatus), MonitorError> {
    let status = client.status().await?;
    let found = status.services.get(&service.name).cloned();
    Ok((status, found.ok_or_else(|| MonitorError::NoService(service.name.clone()))?))
}

/// The containers of each color that Compose runs.
type ColorContainers = Vec<(Color, Result<Vec<Container>, DockerError>)>;

async fn containers_of_colors(service: &Service) -> ColorContainers {
    let mut found = Vec::new();
    for color in Color::BOTH {
        if let Some(project) = &service.colors[color.index()].project {
            found.push((color, ContainerSelector::Project(project.clone()).inspect().await));
        }
    }
    found
}

/// Checks that the error rate is low and that no container is restarted again and again.
fn errors(
    service: &Service,
    before: &ServiceStatus,
    after: &ServiceStatus,
    over: Duration,
    containers: &ColorContainers,
) -> ChecklistItem {
    let mut findings = FindingList::default();
    for color in Color::BOTH {
        let (Some(before), Some(after)) = (before.colors.get(&color), after.colors.get(&color)) else { continue };
        let requests = after.requests.saturating_sub(before.requests);
        let failed = after.errors.saturating_sub(before.errors);
        if requests == 0 {
            findings.add(CheckStatus::Ok, format!("{color}: no request in {over:?}"));
            continue;
        }
        let share = failed as f64 / requests as f64;
        let standing = if share > service.monitor.max_error_rate { CheckStatus::Bad } else { CheckStatus::Ok };
        findings.add(
            standing,
            format!("{color}: {failed} of {requests} requests failed in {over:?} ({:.2} %)", share * 100.0),
        );
    }
    for (color, found) in containers {
        match found {
            // A retired color has no containers.
            Err(_) if *color != after.active => {}
            Err(why) => findings.add(CheckStatus::Unknown, format!("{color}: restarts are unknown: {why}")),
            Ok(containers) => {
                for Container { name, restarts, up, state, .. } in containers.iter().filter(|found| found.restarts > 0)
                {
                    let lately = state == "restarting" || up.is_none_or(|up| up < RESTART_WINDOW);
                    let when = if lately { ", the last time within 10 minutes" } else { "" };
                    let standing = if lately { CheckStatus::Bad } else { CheckStatus::Ok };
                    findings.add(standing, format!("{name} was restarted {restarts} times{when}"));
                }
            }
        }
    }
    findings.item("errors", "nothing could be checked")
}

/// Checks that CPU and memory are within their limits.
async fn resources(service: &Service, containers: &ColorContainers) -> ChecklistItem {
    let mut findings = FindingList::default();
    let running = |container: &&Container| container.state == "running";
    let ids: Vec<_> =
        containers.iter().filter_map(|(_, found)| found.as_ref().ok()).flatten().filter(running).collect();
    let ids: Vec<_> = ids.iter().map(|container| container.id.as_str()).collect();
    if !ids.is_empty() {
        match usage(&ids).await {
            Err(why) => findings.add(CheckStatus::Unknown, format!("unknown: {why}")),
            Ok(used) => {
                for ContainerUsage { name, cpu, memory, memory_share } in used {
                    let too_much = memory_share > service.monitor.max_memory;
                    let standing = if too_much { CheckStatus::Bad } else { CheckStatus::Ok };
                    let limit = format!("memory {memory} ({:.0} %)", memory_share * 100.0);
                    findings.add(standing, format!("{name}: CPU {cpu}, {limit}"));
                }
            }
        }
    }
    findings.item("resources", "no color runs in Compose on this machine")
}

/// Checks that databases and other dependencies can be reached.
async fn dependencies(service: &Service) -> ChecklistItem {
    let mut findings = FindingList::default();
    for project in &service.monitor.projects {
        match ContainerSelector::All(project.clone()).inspect().await {
            Err(why) => findings.add(CheckStatus::Unknown, format!("{project}: {why}")),
            Ok(containers) => {
                for Container { name, state, health, .. } in containers {
                    let well = state == "running" && health.as_deref().is_none_or(|health| health == "healthy");
                    let word = health.filter(|_| state == "running").unwrap_or(state);
                    findings.add(if well { CheckStatus::Ok } else { CheckStatus::Bad }, format!("{name} is {word}"));
                }
            }
        }
    }
    for url in &service.monitor.urls {
        match reach(url).await {
            Ok(how) => findings.add(CheckStatus::Ok, format!("{url} {how}")),
            Err(why) => findings.add(CheckStatus::Bad, format!("{url}: {why}")),
        }
    }
    findings.item("dependencies", "none configured: name them in monitor.projects and monitor.urls")
}

/// Connects to a `tcp://` address, or gets an `http://` URL.
async fn reach(url: &str) -> Result<String, DependencyError> {
    if let Some(address) = url.strip_prefix("tcp://") {
        return match timeout(REQUEST_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok("accepts connections".into()),
            Ok(Err(error)) => Err(DependencyError::Connect(error)),
            Err(_) => Err(DependencyError::Timeout),
        };
    }
    let base: BaseUrl = url.parse().map_err(DependencyError::Url)?;
    let has_path = url.matches('/').count() > 2 && !url.ends_with('/');
    let (status, _) =
        base.get(if has_path { "" } else { "/" }, REQUEST_TIMEOUT).await.map_err(DependencyError::Probe)?;
    if status.is_server_error() {
        Err(DependencyError::Status(status.as_u16()))
    } else {
        Ok(format!("answers {}", status.as_u16()))
    }
}

/// Checks that the proxy reports no problem and that no alert fires.
async fn alerts(service: &Service, status: &Status) -> ChecklistItem {
    let mut findings = FindingList::default();
    for problem in &status.problems {
        findings.add(CheckStatus::Bad, problem.clone());
    }
    if let Some(prometheus) = &service.monitor.prometheus {
        match firing(prometheus).await {
            Err(why) => findings.add(CheckStatus::Unknown, format!("Prometheus {prometheus}: {why}")),
            Ok(firing) if firing.is_empty() => findings.add(CheckStatus::Ok, format!("none is firing at {prometheus}")),
            Ok(firing) => firing.into_iter().for_each(|alert| findings.add(CheckStatus::Bad, alert)),
        }
    }
    findings.item("alerts", "the proxy has no problems; set monitor.prometheus to check alerts as well")
}

/// Explains why a dependency or Prometheus gave no good answer.
#[derive(Debug)]
enum DependencyError {
    Url(BaseUrlError),
    Connect(std::io::Error),
    Timeout,
    Probe(ProbeError),
    Status(u16),
    Unparsed(serde_json::Error),
}

impl fmt::Display for DependencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DependencyError::Url(error) => error.fmt(f),
            DependencyError::Connect(error) => error.fmt(f),
            DependencyError::Timeout => write!(f, "no connection within {REQUEST_TIMEOUT:?}"),
            DependencyError::Probe(error) => error.fmt(f),
            DependencyError::Status(status) => write!(f, "answers {status}"),
            DependencyError::Unparsed(error) => write!(f, "cannot be parsed: {error}"),
        }
    }
}

/// Asks Prometheus which alerts fire, one sentence each.
async fn firing(prometheus: &str) -> Result<Vec<String>, DependencyError> {
    #[derive(Deserialize)]
    struct AlertsResponse {
        data: AlertsData,
    }
    #[derive(Deserialize)]
    struct AlertsData {
        alerts: Vec<Alert>,
    }
    #[derive(Deserialize)]
    struct Alert {
        state: String,
        labels: Value,
        #[serde(default)]
        annotations: Value,
    }
    let base: BaseUrl = prometheus.parse().map_err(DependencyError::Url)?;
    let (status, body) = base.get("/api/v1/alerts", REQUEST_TIMEOUT).await.map_err(DependencyError::Probe)?;
    if !status.is_success() {
        return Err(DependencyError::Status(status.as_u16()));
    }
    let answer: AlertsResponse = serde_json::from_slice(&body).map_err(DependencyError::Unparsed)?;
    let sentence = |Alert { labels, annotations, .. }: &Alert| {
        let text = |value: &Value, key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} fires: {}", text(labels, "alertname"), text(annotations, "summary"))
    };
    Ok(answer.data.alerts.iter().filter(|alert| alert.state == "firing").map(sentence).collect())
}
