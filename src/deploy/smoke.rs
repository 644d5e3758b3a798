//! Runs the smoke test of a color: it must be ready, it must be the expected release, and its containers must be well.
//!
//! The test only asks. The caller decides what a failure means, and writes the outcome to the ledger with [`line()`].

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::deploy::base_url::{BaseUrl, ProbeScheme};
use crate::deploy::smoke_error::{LOOP_MINUTES, SmokeError};
use crate::docker::{Container, ContainerSelector};
use crate::http_client::says_ready;
use crate::ledger::Line;
use crate::ledger::redact::Secrets;
use crate::os::clock;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How far back a container's log is read.
const LOG_WINDOW: Duration = Duration::from_secs(60);
/// A container that was restarted this often, the last time within [`LOOP_WINDOW`], is in a restart loop.
const RESTARTS_MIN: u64 = 3;
const LOOP_WINDOW: Duration = Duration::from_secs(LOOP_MINUTES * 60);
/// How many error lines a container may have logged within the last minute, by default.
pub const ERROR_LINES_MAX: usize = 5;
/// How long the test waits for readiness, and then again for the containers' health, by default.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Describes a smoke test: the color, and what is expected of it.
#[derive(Clone, Debug)]
pub struct SmokeTest {
    /// The URL of the color.
    pub base: BaseUrl,
    /// How readiness is checked. A `grpc://` color is checked by gRPC's health check instead.
    pub ready: ReadyCheck,
    /// The value that `version` in `/version` must have; `None` accepts any that is not empty. gRPC has no `/version`.
    pub expect_version: Option<String>,
    /// The value that `service` in `/version` must have; `None` accepts any that is not empty.
    pub expect_service: Option<String>,
    /// How long to wait for readiness, and then again for the containers' health. Default [`READY_TIMEOUT`].
    pub timeout: Duration,
    /// The containers to inspect; `None` inspects none.
    pub containers: Option<ContainerSelector>,
    /// How many error lines a container may have logged within the last minute. Default [`ERROR_LINES_MAX`].
    pub error_lines_max: usize,
    /// The secrets to hide in quoted log lines. There are none by default, because a bare URL has no env file.
    pub secrets: Secrets,
}

impl SmokeTest {
    /// Describes a test of `base` with every default, without containers.
    pub fn of(base: BaseUrl) -> Self {
        SmokeTest {
            base,
            ready: ReadyCheck::Readyz,
            expect_version: None,
            expect_service: None,
            timeout: READY_TIMEOUT,
            containers: None,
            error_lines_max: ERROR_LINES_MAX,
            secrets: Secrets::default(),
        }
    }
}

/// The condition under which a color counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyCheck {
    /// `/readyz` answers 200 with `{"ready": true}`, as the operator's runbook asks for.
    Readyz,
    /// This path answers 200 and its body does not deny readiness, as for the proxy's probes.
    Probed(String),
}

impl ReadyCheck {
    /// The path of [`ReadyCheck::Readyz`].
    const PATH: &str = "/readyz";

    fn path(&self) -> &str {
        match self {
            ReadyCheck::Readyz => Self::PATH,
            ReadyCheck::Probed(path) => path,
        }
    }

    /// Returns whether `/healthz` is checked as well. An application with a path of its own need not have one.
    fn has_healthz(&self) -> bool {
        self.path() == Self::PATH
    }

    fn check_body(&self, body: &[u8]) -> Result<(), SmokeError> {
        let path = self.path();
        match self {
            ReadyCheck::Probed(_) => {
                says_ready(body).map_err(|what| SmokeError::DeniesReadiness { path: path.into(), what })
            }
            ReadyCheck::Readyz => match json_of(path, body)?.get("ready") {
                Some(Value::Bool(true)) => Ok(()),
                Some(_) | None => Err(SmokeError::NotReadyBody { path: path.into(), body: shown(body) }),
            },
        }
    }
}

/// The checks of the test, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SmokeCheck {
    /// [`ReadyCheck`] holds, or gRPC's health check says that the color serves.
    ReadyCheck,
    /// `/healthz` answers 200. Only [`ReadyCheck::Readyz`] includes this check.
    Healthz,
    /// `/version` names the version and the service.
    Version,
    /// The containers run, are healthy, and are in no restart loop.
    Container,
    /// The containers' logs show no spike of errors.
    Log,
}

impl SmokeCheck {
    /// Returns the word in the ledger and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            SmokeCheck::ReadyCheck => "ready",
            SmokeCheck::Healthz => "healthz",
            SmokeCheck::Version => "version",
            SmokeCheck::Container => "container",
            SmokeCheck::Log => "log",
        }
    }
}

/// The result of a test in which every check held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SmokePassed {
    /// `version` in `/version`; `None` for gRPC.
    pub version: Option<String>,
    /// `service` in `/version`; `None` for gRPC.
    pub service: Option<String>,
    /// The names of the containers that were inspected.
    pub containers: Vec<String>,
}

/// The first check that did not hold. The checks behind it were not made.
#[derive(Debug)]
pub struct SmokeFailure {
    pub check: SmokeCheck,
    pub cause: SmokeError,
}

impl fmt::Display for SmokeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for SmokeFailure {}

/// Tests a color. Each line of the transcript is handed to `say` as it happens, with a time stamp and without its line
/// end.
///
/// The test takes at most twice `timeout`, and some seconds for the requests themselves.
///
/// # Errors
/// [`SmokeFailure`]; the last line of the transcript says the same.
pub async fn run(test: &SmokeTest, say: &mut dyn FnMut(&str)) -> Result<SmokePassed, SmokeFailure> {
    let mut say = |text: String| say(&format!("[{}] {text}", clock::utc()));
    say(format!("=== Smoke test: {} ===", test.base));
    let outcome = check_all(test, &mut say).await;
    say(match &outcome {
        Ok(_) => "Smoke test completed successfully".to_owned(),
        Err(failed) => format!("Smoke test failed: {failed}"),
    });
    outcome
}

/// Formats the ledger's line about a test of `base`.
pub fn line(base: &BaseUrl, outcome: &Result<SmokePassed, SmokeFailure>, by: &str) -> Line {
    match outcome {
        Ok(passed) => {
            let line = Line::new(&format!("smoke {base}: passed"));
            let named = [("service", &passed.service), ("version", &passed.version)];
            let named = named.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
            named.fold(line, |line, (key, value)| line.with(key, value)).with("by", by)
        }
        Err(failed) => Line::new(&format!("smoke {base}: failed"))
            .with("check", failed.check.as_str())
            .with("why", &failed.cause)
            .with("by", by),
    }
}

async fn check_all(test: &SmokeTest, say: &mut impl FnMut(String)) -> Result<SmokePassed, SmokeFailure> {
    let fails = |check| move |cause| SmokeFailure { check, cause };
    let unseen = |error| SmokeFailure { check: SmokeCheck::Container, cause: SmokeError::Docker(error) };
    // The containers are inspected before the wait for readiness, so that a restart during the test is noticed.
    let before = match &test.containers {
        Some(containers) => containers.inspect().await.map_err(unseen)?,
        None => Vec::new(),
    };
    until_ready(test).await.map_err(fails(SmokeCheck::ReadyCheck))?;
    let (version, service) = match test.base.scheme() {
        ProbeScheme::Grpc => {
            say("The health check says it serves".to_owned());
            (None, None)
        }
        ProbeScheme::Get(_) => {
            say("Ready endpoint returned success".to_owned());
            if test.ready.has_healthz() {
                say(format!("Checking {}/healthz", test.base));
                get(&test.base, "/healthz", REQUEST_TIMEOUT).await.map_err(fails(SmokeCheck::Healthz))?;
            }
            say(format!("Checking {}/version", test.base));
            let (version, service) = check_version(test).await.map_err(fails(SmokeCheck::Version))?;
            (Some(version), Some(service))
        }
    };
    let mut names = Vec::new();
    if let Some(containers) = &test.containers {
        let after = until_healthy(containers, test.timeout, say).await.map_err(fails(SmokeCheck::Container))?;
        for container in after {
            check_restarts(&container, &before).map_err(fails(SmokeCheck::Container))?;
            say(format!("Checking the log of {} for errors", container.name));
            check_log(&container, test).await.map_err(fails(SmokeCheck::Log))?;
            names.push(container.name);
        }
    }
    Ok(SmokePassed { version, service, containers: names })
}

/// Gets `path`, and returns the body of a 200.
async fn get(base: &BaseUrl, path: &str, limit: Duration) -> Result<Vec<u8>, SmokeError> {
    match base.get(path, limit).await {
        Ok((status, body)) if status == 200 => Ok(body.to_vec()),
        Ok((status, _)) => Err(SmokeError::Status { url: format!("{base}{path}"), status: status.as_u16() }),
        Err(error) => Err(SmokeError::Probe { url: format!("{base}{path}"), error }),
    }
}

fn json_of(path: &str, body: &[u8]) -> Result<Value, SmokeError> {
    serde_json::from_slice(body).map_err(|_| SmokeError::NotJson { path: path.into(), body: shown(body) })
}

/// Quotes the beginning of a body, so that it fits into one line.
fn shown(body: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(body).chars().take(80).collect::<String>())
}

async fn until_ready(test: &SmokeTest) -> Result<(), SmokeError> {
    let deadline = Instant::now() + test.timeout;
    let limit = test.timeout.clamp(RETRY_PAUSE, REQUEST_TIMEOUT);
    loop {
        let answer = match test.base.scheme() {
            ProbeScheme::Grpc => test.base.check_grpc(limit).await.map_err(SmokeError::Grpc),
            ProbeScheme::Get(_) => {
                let body = get(&test.base, test.ready.path(), limit).await;
                body.and_then(|body| test.ready.check_body(&body))
            }
        };
        match answer {
            Ok(()) => return Ok(()),
            Err(last) if Instant::now() + RETRY_PAUSE >= deadline => {
                return Err(SmokeError::NeverReady { limit: test.timeout, last: Box::new(last) });
            }
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

async fn check_version(test: &SmokeTest) -> Result<(String, String), SmokeError> {
    let body = get(&test.base, "/version", REQUEST_TIMEOUT).await?;
    let json = json_of("/version", &body)?;
    let field = |name: &'static str, want: &Option<String>| {
        let found = json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let found = found.ok_or_else(|| SmokeError::NoField { field: name, body: shown(&body) })?;
        match want {
            Some(want) if want != found => {
                Err(SmokeError::WrongField { field: name, found: found.to_owned(), want: want.clone() })
            }
            Some(_) | None => Ok(found.to_owned()),
        }
    };
    Ok((field("version", &test.expect_version)?, field("service", &test.expect_service)?))
}

async fn until_healthy(
    containers: &ContainerSelector,
    limit: Duration,
    say: &mut impl FnMut(String),
) -> Result<Vec<Container>, SmokeError> {
    let deadline = Instant::now() + limit;
    let mut is_first = true;
    loop {
        let found = containers.inspect().await.map_err(SmokeError::Docker)?;
        if std::mem::take(&mut is_first) {
            found.iter().for_each(|container| say(format!("Checking container {}", container.name)));
        }
        let Some(unhealthy) = found.iter().find_map(unhealthy) else { return Ok(found) };
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(SmokeError::Unhealthy { container: unhealthy, limit });
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Explains why a container is not healthy.
fn unhealthy(container: &Container) -> Option<String> {
    let Container { name, state, health, .. } = container;
    match health.as_deref() {
        _ if state != "running" => Some(format!("container {name} is {state}, not running")),
        Some("healthy") => None,
        Some(health) => Some(format!("container {name} is {health}, not healthy")),
        None => Some(format!("container {name} has no health check; give its service a `healthcheck`")),
    }
}

/// Refuses a container that is up at this instant but does not stay up.
fn check_restarts(container: &Container, before: &[Container]) -> Result<(), SmokeError> {
    let Container { name, restarts, .. } = container;
    let restarted = before.iter().find(|before| before.id == container.id).is_some_and(|b| b.restarts < *restarts);
    if restarted {
        return Err(SmokeError::Restarted { container: name.clone() });
    }
    let is_young = container.up.is_none_or(|up| up < LOOP_WINDOW);
    if *restarts >= RESTARTS_MIN && is_young {
        return Err(SmokeError::RestartLoop { container: name.clone(), restarts: *restarts });
    }
    Ok(())
}

async fn check_log(container: &Container, test: &SmokeTest) -> Result<(), SmokeError> {
    let lines_max = test.error_lines_max;
    let log = container.log(LOG_WINDOW).await.map_err(SmokeError::Docker)?;
    let errors: Vec<_> = log.lines().filter(|line| is_error(line)).collect();
    if errors.len() <= lines_max {
        return Ok(());
    }
    let last = test.secrets.hide(errors.last().map_or("", |line| line));
    let last = last.chars().take(200).collect::<String>().trim().to_owned();
    Err(SmokeError::ErrorSpike { container: container.name.clone(), errors: errors.len(), lines_max, last })
}

/// Returns whether a log line reports an error: it has a level word in capitals or as the value of a `level`, or begins
/// a Python traceback.
fn is_error(line: &str) -> bool {
    const LEVELS: [&str; 5] = ["ERROR", "CRITICAL", "FATAL", "PANIC", "EMERG"];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if line.starts_with("Traceback (most recent call last)") {
        return true;
    }
    if line.split(|c| !is_word(c)).any(|word| LEVELS.contains(&word)) {
        return true;
    }
    let mut rest = line;
    while let Some(at) = rest.find("level") {
        rest = &rest[at + "level".len()..];
        let value = rest.strip_prefix("name").unwrap_or(rest).trim_start_matches(['"', ' ', ':', '=']);
        let value = value.split(|c| !is_word(c)).next().unwrap_or_default();
        if LEVELS.iter().any(|level| level.eq_ignore_ascii_case(value)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use crate::deploy::smoke::*;

    fn container() -> Container {
        Container {
            id: "ab12".into(),
            name: "recall_green-api-1".into(),
            state: "running".into(),
            health: Some("healthy".into()),
            restarts: 0,
            image: "cutover-sample:sha-1".into(),
            service: Some("api".into()),
            up: Some(Duration::from_secs(5)),
        }
    }

    #[test]
    fn errors_are_told_from_words() {
        for (line, want) in [
            ("2026-11-23 08:00:00,000 ERROR in app: no such table", true),
            ("[2026-11-23 08:00:00 +0000] [7] [CRITICAL] WORKER TIMEOUT (pid:8)", true),
            ("Traceback (most recent call last):", true),
            (r#"{"level":"error","msg":"x"}"#, true),
            (r#"{"msg":"x", "levelname": "CRITICAL"}"#, true),
            ("time=1 level=fatal msg=x", true),
            (r#"{"level":"info","msg":"0 errors"}"#, false),
            ("10.0.0.1 - - \"GET /error HTTP/1.1\" 200", false),
            ("INFO ERRORS=0", false),
            ("level", false),
            ("", false),
        ] {
            assert_eq!(is_error(line), want, "{line}");
        }
    }

    #[test]
    fn a_container_that_is_not_healthy_says_why() {
        for (case, state, health, want) in [
            ("well", "running", Some("healthy"), None),
            ("not yet", "running", Some("starting"), Some("is starting")),
            ("ill", "running", Some("unhealthy"), Some("is unhealthy")),
            ("crashing", "restarting", Some("healthy"), Some("is restarting")),
            ("nobody looks", "running", None, Some("has no health check")),
        ] {
            let said = unhealthy(&Container { state: state.into(), health: health.map(Into::into), ..container() });
            match want {
                None => assert_eq!(said, None, "{case}"),
                Some(want) => assert!(said.as_ref().is_some_and(|said| said.contains(want)), "{case}: {said:?}"),
            }
        }
    }

    #[test]
    fn one_restart_at_the_start_is_no_loop() {
        let (minute, day) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(86_400)));
        for (case, restarts, up, is_loop) in [
            ("none", 0, minute, false),
            ("the database was late", 2, minute, false),
            ("three, just now", 3, minute, true),
            ("three, and a day of peace", 3, day, false),
            ("three, and nobody knows when", 3, None, true),
        ] {
            let container = Container { restarts, up, ..container() };
            assert_eq!(check_restarts(&container, std::slice::from_ref(&container)).is_err(), is_loop, "{case}");
        }
        let after = Container { restarts: 1, ..container() };
        assert!(check_restarts(&after, &[container()]).unwrap_err().to_string().contains("during the test"));
        let other = Container { id: "other".into(), ..container() };
        assert!(check_restarts(&after, &[other]).is_ok(), "it was replaced, not restarted");
    }
}
