//! The runbook's monitoring checklist as one look: errors and restarts, CPU and memory, dependencies, alerts.
//!
//! What cannot be known is said to be unknown, and never taken for well.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::client::{Client, ClientError};
use crate::api::status::{ServiceStatus, Status};
use crate::config::Service;
use crate::deploy::http::Base;
use crate::docker::{Container, Containers, Usage, usage};
use crate::domain::Color;

/// For an answer of a dependency or of Prometheus.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A container that Docker started again within this time is not at rest.
const RESTART_WINDOW: Duration = Duration::from_secs(600);

/// How one line of the checklist stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// As it should be.
    Ok,
    /// Nothing was configured to be looked at.
    None,
    /// It could not be looked at.
    Unknown,
    /// Not as it should be.
    Bad,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Standing::Ok => "ok",
            Standing::None => "-",
            Standing::Unknown => "UNKNOWN",
            Standing::Bad => "BAD",
        })
    }
}

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// `errors`, `resources`, `dependencies`, `alerts`
    pub name: &'static str,
    /// The worst of its findings.
    pub standing: Standing,
    /// What was found, one sentence each.
    pub findings: Vec<String>,
}

/// Sentences on their way to an [`Item`].
#[derive(Default)]
struct Findings(Vec<(Standing, String)>);

impl Findings {
    fn add(&mut self, standing: Standing, sentence: impl Into<String>) {
        self.0.push((standing, sentence.into()));
    }

    fn item(self, name: &'static str, nothing: &str) -> Item {
        if self.0.is_empty() {
            return Item { name, standing: Standing::None, findings: vec![nothing.to_owned()] };
        }
        let rank = |standing: Standing| standing as u8;
        let worst = self.0.iter().map(|(standing, _)| *standing).max_by_key(|standing| rank(*standing));
        let findings = self.0.into_iter().map(|(_, sentence)| sentence).collect();
        Item { name, standing: worst.unwrap_or(Standing::None), findings }
    }
}

/// Why nothing could be looked at.
#[derive(Debug)]
pub enum Blind {
    /// The proxy does not say how it stands.
    NoStatus(ClientError),
    /// It does not know the service of this name.
    NoService(String),
}

impl From<ClientError> for Blind {
    fn from(error: ClientError) -> Self {
        Blind::NoStatus(error)
    }
}

impl fmt::Display for Blind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blind::NoStatus(error) => error.fmt(f),
            Blind::NoService(name) => write!(f, "the proxy has no service {name:?}; does it run with this config?"),
        }
    }
}

impl std::error::Error for Blind {}

/// Looks at everything, the traffic for as long as `over`.
///
/// # Errors
/// [`Blind`]
pub async fn look(service: &Service, client: &Client, over: Duration) -> Result<[Item; 4], Blind> {
    let before = status(client, service).await?;
    let (containers, ()) = tokio::join!(look_at_colors(service), tokio::time::sleep(over));
    let after = status(client, service).await?;
    let (resources, dependencies) = (resources(service, &containers).await, dependencies(service).await);
    Ok([
        errors(service, &before.1, &after.1, over, &containers),
        resources,
        dependencies,
        alerts(service, &after.0).await,
    ])
}

async fn status(client: &Client, service: &Service) -> Result<(Status, ServiceStatus), Blind> {
    let status = client.status().await?;
    let found = status.services.get(&service.name).cloned();
    Ok((status, found.ok_or_else(|| Blind::NoService(service.name.clone()))?))
}

type Found = Vec<(Color, Result<Vec<Container>, String>)>;

/// The containers of each color that Compose runs.
async fn look_at_colors(service: &Service) -> Found {
    let mut found = Vec::new();
    for color in Color::BOTH {
        if let Some(project) = &service.colors[color.index()].project {
            found.push((color, Containers::Project(project.clone()).look().await));
        }
    }
    found
}

/// Section 6: error rate stable, no repeated restarts.
fn errors(
    service: &Service,
    before: &ServiceStatus,
    after: &ServiceStatus,
    over: Duration,
    containers: &Found,
) -> Item {
    let mut findings = Findings::default();
    for color in Color::BOTH {
        let (Some(before), Some(after)) = (before.colors.get(&color), after.colors.get(&color)) else { continue };
        let requests = after.requests.saturating_sub(before.requests);
        let failed = after.errors.saturating_sub(before.errors);
        if requests == 0 {
            findings.add(Standing::Ok, format!("{color}: no request in {over:?}"));
            continue;
        }
        let share = failed as f64 / requests as f64;
        let standing = if share > service.monitor.max_error_rate { Standing::Bad } else { Standing::Ok };
        findings.add(
            standing,
            format!("{color}: {failed} of {requests} requests failed in {over:?} ({:.2} %)", share * 100.0),
        );
    }
    for (color, found) in containers {
        match found {
            // Nothing runs in a color that was retired.
            Err(_) if *color != after.active => {}
            Err(why) => findings.add(Standing::Unknown, format!("{color}: restarts are not known: {why}")),
            Ok(containers) => {
                for Container { name, restarts, up, state, .. } in containers.iter().filter(|found| found.restarts > 0)
                {
                    let lately = state == "restarting" || up.is_none_or(|up| up < RESTART_WINDOW);
                    let when = if lately { ", the last time within 10 minutes" } else { "" };
                    let standing = if lately { Standing::Bad } else { Standing::Ok };
                    findings.add(standing, format!("{name} was restarted {restarts} times{when}"));
                }
            }
        }
    }
    findings.item("errors", "nothing is known")
}

/// Section 6: CPU and memory within limits.
async fn resources(service: &Service, containers: &Found) -> Item {
    let mut findings = Findings::default();
    let running = |container: &&Container| container.state == "running";
    let ids: Vec<_> =
        containers.iter().filter_map(|(_, found)| found.as_ref().ok()).flatten().filter(running).collect();
    let ids: Vec<_> = ids.iter().map(|container| container.id.as_str()).collect();
    if !ids.is_empty() {
        match usage(&ids).await {
            Err(why) => findings.add(Standing::Unknown, format!("not known: {why}")),
            Ok(used) => {
                for Usage { name, cpu, memory, memory_share } in used {
                    let too_much = memory_share > service.monitor.max_memory;
                    let standing = if too_much { Standing::Bad } else { Standing::Ok };
                    let limit = format!("memory {memory} ({:.0} %)", memory_share * 100.0);
                    findings.add(standing, format!("{name}: CPU {cpu}, {limit}"));
                }
            }
        }
    }
    findings.item("resources", "no color runs in Compose here")
}

/// Section 6: database and Redis reachable, AI endpoint responsive.
async fn dependencies(service: &Service) -> Item {
    let mut findings = Findings::default();
    for project in &service.monitor.projects {
        match Containers::All(project.clone()).look().await {
            Err(why) => findings.add(Standing::Unknown, format!("{project}: {why}")),
            Ok(containers) => {
                for Container { name, state, health, .. } in containers {
                    let well = state == "running" && health.as_deref().is_none_or(|health| health == "healthy");
                    let word = health.filter(|_| state == "running").unwrap_or(state);
                    findings.add(if well { Standing::Ok } else { Standing::Bad }, format!("{name} is {word}"));
                }
            }
        }
    }
    for url in &service.monitor.urls {
        match reach(url).await {
            Ok(how) => findings.add(Standing::Ok, format!("{url} {how}")),
            Err(why) => findings.add(Standing::Bad, format!("{url}: {why}")),
        }
    }
    findings.item("dependencies", "none configured: monitor.projects and monitor.urls of the service say which")
}

async fn reach(url: &str) -> Result<String, String> {
    if let Some(address) = url.strip_prefix("tcp://") {
        return match timeout(ANSWER_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok("takes connections".into()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {ANSWER_TIMEOUT:?}")),
        };
    }
    let base: Base = url.parse().map_err(|error| format!("{error}"))?;
    let has_path = url.matches('/').count() > 2 && !url.ends_with('/');
    let (status, _) = base.get(if has_path { "" } else { "/" }, ANSWER_TIMEOUT).await?;
    if status.is_server_error() {
        Err(format!("answers {}", status.as_u16()))
    } else {
        Ok(format!("answers {}", status.as_u16()))
    }
}

/// Section 6: health endpoint and 5xx watch configured; what they say now.
async fn alerts(service: &Service, status: &Status) -> Item {
    let mut findings = Findings::default();
    for problem in &status.problems {
        findings.add(Standing::Bad, problem.clone());
    }
    if let Some(prometheus) = &service.monitor.prometheus {
        match firing(prometheus).await {
            Err(why) => findings.add(Standing::Unknown, format!("Prometheus {prometheus}: {why}")),
            Ok(firing) if firing.is_empty() => findings.add(Standing::Ok, format!("none fires at {prometheus}")),
            Ok(firing) => firing.into_iter().for_each(|alert| findings.add(Standing::Bad, alert)),
        }
    }
    findings.item("alerts", "no problem of the proxy's; monitor.prometheus of the service says who else is asked")
}

async fn firing(prometheus: &str) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        alerts: Vec<Alert>,
    }
    #[derive(Deserialize)]
    struct Alert {
        state: String,
        labels: Value,
        #[serde(default)]
        annotations: Value,
    }
    let base: Base = prometheus.parse().map_err(|error| format!("{error}"))?;
    let (status, body) = base.get("/api/v1/alerts", ANSWER_TIMEOUT).await?;
    if !status.is_success() {
        return Err(format!("answers {}", status.as_u16()));
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| format!("is not understood: {error}"))?;
    let sentence = |Alert { labels, annotations, .. }: &Alert| {
        let text = |value: &Value, key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} fires: {}", text(labels, "alertname"), text(annotations, "summary"))
    };
    Ok(answer.data.alerts.iter().filter(|alert| alert.state == "firing").map(sentence).collect())
}
