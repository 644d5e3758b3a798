//! The smoke test of a color: does it say it is ready, is it what was meant to be deployed, and is its container well?
//!
//! It only asks. What comes of its answer is for who runs it; it is written to the ledger by [`line()`].

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::deploy::http::{Base, Scheme};
use crate::docker::{Container, Containers};
use crate::http_client::says_ready;
use crate::ledger::Line;
use crate::ledger::redact::Secrets;
use crate::os::clock;

/// For one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at what is not there yet.
const LOOK: Duration = Duration::from_millis(250);
/// How far back a container's log is read.
const LOG_WINDOW: Duration = Duration::from_secs(60);
/// A container that was started again so often, the last time less than [`LOOP_WINDOW`] ago, is in a restart loop.
const RESTARTS_MIN: u64 = 3;
const LOOP_WINDOW: Duration = Duration::from_secs(600);
/// Error lines of one container within the last minute that are no spike yet, by default.
pub const ERROR_LINES_MAX: usize = 5;
/// How long is waited for `/readyz`, and then for a container's health, by default.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What is tested, and against what.
#[derive(Clone, Debug)]
pub struct Smoke {
    /// Where the color is.
    pub base: Base,
    /// What it is asked first. gRPC has its own question.
    pub ready: Ready,
    /// What `version` in `/version` must be; anything but nothing when not named. gRPC is not asked for it.
    pub expect_version: Option<String>,
    /// What `service` in `/version` must be; anything but nothing when not named.
    pub expect_service: Option<String>,
    /// How long to wait for readiness, and then for the containers' health. Default [`PATIENCE`].
    pub timeout: Duration,
    /// The containers to look at; none are when not named.
    pub containers: Option<Containers>,
    /// Error lines of one container within the last minute above which it is a spike. Default [`ERROR_LINES_MAX`].
    pub error_lines_max: usize,
    /// What must not be said of their logs. Nothing by default: who names no color has no env file.
    pub secrets: Secrets,
}

impl Smoke {
    /// A test of `base` with every default, and without a look at containers.
    pub fn of(base: Base) -> Self {
        Smoke {
            base,
            ready: Ready::Runbook,
            expect_version: None,
            expect_service: None,
            timeout: PATIENCE,
            containers: None,
            error_lines_max: ERROR_LINES_MAX,
            secrets: Secrets::default(),
        }
    }
}

/// How a color says that it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As the runbook has it: `/readyz` answers 200 with `{"ready": true}`.
    Runbook,
    /// As the proxy's probes ask: this path answers 200, and nothing in it says otherwise.
    Probed(String),
}

impl Ready {
    /// What the runbook's applications answer to.
    const PATH: &str = "/readyz";

    fn path(&self) -> &str {
        match self {
            Ready::Runbook => Self::PATH,
            Ready::Probed(path) => path,
        }
    }

    /// Whether `/healthz` is asked as well: an application with a path of its own is not one of the runbook's.
    fn has_healthz(&self) -> bool {
        self.path() == Self::PATH
    }

    fn understand(&self, body: &[u8]) -> Result<(), String> {
        let path = self.path();
        match self {
            Ready::Probed(_) => says_ready(body).map_err(|why| format!("{path} answered 200 with {why}")),
            Ready::Runbook => match json_of(path, body)?.get("ready") {
                Some(Value::Bool(true)) => Ok(()),
                Some(_) | None => Err(format!("{path} answered {}, not {{\"ready\": true}}", shown(body))),
            },
        }
    }
}

/// One thing that is looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// It answers as [`Ready`] has it, or the health check of gRPC says that it serves.
    Ready,
    /// `/healthz` answers 200, where `/readyz` is what it is ready by.
    Healthz,
    /// `/version` names the version and the service.
    Version,
    /// The containers run, are healthy, and are in no restart loop.
    Container,
    /// Their logs show no spike of errors.
    Log,
}

impl Check {
    /// The word in the ledger and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Check::Ready => "ready",
            Check::Healthz => "healthz",
            Check::Version => "version",
            Check::Container => "container",
            Check::Log => "log",
        }
    }
}

/// Everything held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// `version` in `/version`; gRPC has no such question.
    pub version: Option<String>,
    /// `service` in `/version`, likewise.
    pub service: Option<String>,
    /// The names of the containers that were looked at.
    pub containers: Vec<String>,
}

/// Something did not hold; what comes after it was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// What was looked at.
    pub check: Check,
    /// What was seen instead: a sentence.
    pub why: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Failed {}

/// Tests a color. `say` hears each line of the runbook's transcript as it happens: stamped, without its line end.
///
/// It takes at most twice `timeout` and some seconds more for the answers themselves.
///
/// # Errors
/// The first thing that did not hold; the transcript's last line says it as well.
pub async fn run(test: &Smoke, say: &mut dyn FnMut(&str)) -> Result<Passed, Failed> {
    let mut say = |text: String| say(&format!("[{}] {text}", clock::utc()));
    say(format!("=== Smoke test: {} ===", test.base));
    let outcome = check_all(test, &mut say).await;
    say(match &outcome {
        Ok(_) => "Smoke test completed successfully".to_owned(),
        Err(failed) => format!("Smoke test failed: {failed}"),
    });
    outcome
}

/// The ledger's line about a test of `base`.
pub fn line(base: &Base, outcome: &Result<Passed, Failed>, by: &str) -> Line {
    match outcome {
        Ok(passed) => {
            let line = Line::new(&format!("smoke {base}: passed"));
            let named = [("service", &passed.service), ("version", &passed.version)];
            let named = named.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
            named.fold(line, |line, (key, value)| line.with(key, value)).with("by", by)
        }
        Err(failed) => Line::new(&format!("smoke {base}: failed"))
            .with("check", failed.check.as_str())
            .with("why", &failed.why)
            .with("by", by),
    }
}

async fn check_all(test: &Smoke, say: &mut impl FnMut(String)) -> Result<Passed, Failed> {
    let fails = |check| move |why| Failed { check, why };
    // Before the wait for readiness: a restart in the meantime counts.
    let before = match &test.containers {
        Some(containers) => containers.look().await.map_err(fails(Check::Container))?,
        None => Vec::new(),
    };
    until_ready(test).await.map_err(fails(Check::Ready))?;
    let (version, service) = match test.base.scheme() {
        Scheme::Grpc => {
            say("The health check says it serves".to_owned());
            (None, None)
        }
        Scheme::Get(_) => {
            say("Ready endpoint returned success".to_owned());
            if test.ready.has_healthz() {
                say(format!("Checking {}/healthz", test.base));
                get(&test.base, "/healthz", ANSWER_TIMEOUT).await.map_err(fails(Check::Healthz))?;
            }
            say(format!("Checking {}/version", test.base));
            let (version, service) = check_version(test).await.map_err(fails(Check::Version))?;
            (Some(version), Some(service))
        }
    };
    let mut names = Vec::new();
    if let Some(containers) = &test.containers {
        let after = until_healthy(containers, test.timeout, say).await.map_err(fails(Check::Container))?;
        for container in after {
            check_restarts(&container, &before).map_err(fails(Check::Container))?;
            say(format!("Checking the log of {} for errors", container.name));
            check_log(&container, test).await.map_err(fails(Check::Log))?;
            names.push(container.name);
        }
    }
    Ok(Passed { version, service, containers: names })
}

/// A 200 with its body.
async fn get(base: &Base, path: &str, limit: Duration) -> Result<Vec<u8>, String> {
    match base.get(path, limit).await {
        Ok((status, body)) if status == 200 => Ok(body.to_vec()),
        Ok((status, _)) => Err(format!("{base}{path} answered {}, not 200", status.as_u16())),
        Err(why) => Err(format!("{base}{path}: {why}")),
    }
}

fn json_of(path: &str, body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|_| format!("{path} answered {}, which is not JSON", shown(body)))
}

/// The beginning of an answer, fit for one line.
fn shown(body: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(body).chars().take(80).collect::<String>())
}

async fn until_ready(test: &Smoke) -> Result<(), String> {
    let deadline = Instant::now() + test.timeout;
    let limit = test.timeout.clamp(LOOK, ANSWER_TIMEOUT);
    loop {
        let answer = match test.base.scheme() {
            Scheme::Grpc => test.base.check_grpc(limit).await,
            Scheme::Get(_) => {
                let body = get(&test.base, test.ready.path(), limit).await;
                body.and_then(|body| test.ready.understand(&body))
            }
        };
        match answer {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() + LOOK >= deadline => {
                return Err(format!("not ready within {:?}: {why}", test.timeout));
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn check_version(test: &Smoke) -> Result<(String, String), String> {
    let body = get(&test.base, "/version", ANSWER_TIMEOUT).await?;
    let json = json_of("/version", &body)?;
    let field = |name: &str, want: &Option<String>| {
        let found = json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let found = found.ok_or_else(|| format!("/version answered {}, without a {name:?}", shown(&body)))?;
        match want {
            Some(want) if want != found => Err(format!("/version says {name} {found:?}, expected {want:?}")),
            Some(_) | None => Ok(found.to_owned()),
        }
    };
    Ok((field("version", &test.expect_version)?, field("service", &test.expect_service)?))
}

async fn until_healthy(
    containers: &Containers,
    patience: Duration,
    say: &mut impl FnMut(String),
) -> Result<Vec<Container>, String> {
    let deadline = Instant::now() + patience;
    let mut is_first = true;
    loop {
        let found = containers.look().await?;
        if std::mem::take(&mut is_first) {
            found.iter().for_each(|container| say(format!("Checking container {}", container.name)));
        }
        let Some(worst) = found.iter().find_map(unwell) else { return Ok(found) };
        if Instant::now() + LOOK >= deadline {
            return Err(format!("{worst}, after {patience:?}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Why a container is not healthy.
fn unwell(container: &Container) -> Option<String> {
    let Container { name, state, health, .. } = container;
    match health.as_deref() {
        _ if state != "running" => Some(format!("container {name} is {state}, not running")),
        Some("healthy") => None,
        Some(health) => Some(format!("container {name} is {health}, not healthy")),
        None => Some(format!("container {name} has no health check; give its service a `healthcheck`")),
    }
}

/// A container that is up at this instant may still be one that does not stay up.
fn check_restarts(container: &Container, before: &[Container]) -> Result<(), String> {
    let Container { name, restarts, .. } = container;
    let restarted = before.iter().find(|before| before.id == container.id).is_some_and(|b| b.restarts < *restarts);
    if restarted {
        return Err(format!("container {name} was restarted during the test; see `docker logs {name}`"));
    }
    let is_young = container.up.is_none_or(|up| up < LOOP_WINDOW);
    if *restarts >= RESTARTS_MIN && is_young {
        let minutes = LOOP_WINDOW.as_secs() / 60;
        return Err(format!(
            "container {name} was restarted {restarts} times, the last time within {minutes} minutes: a restart loop"
        ));
    }
    Ok(())
}

async fn check_log(container: &Container, test: &Smoke) -> Result<(), String> {
    let lines_max = test.error_lines_max;
    let log = container.log(LOG_WINDOW).await?;
    let errors: Vec<_> = log.lines().filter(|line| is_error(line)).collect();
    if errors.len() <= lines_max {
        return Ok(());
    }
    let last = test.secrets.hide(errors.last().expect("there are more than some"));
    let last = last.chars().take(200).collect::<String>();
    Err(format!(
        "container {} logged {} errors within the last minute, more than {lines_max}; the last: {}",
        container.name,
        errors.len(),
        last.trim()
    ))
}

/// Whether a line of a log tells of an error: one of the words that loggers write for a level, in capitals or as the
/// value of a `level`, or the beginning of a Python traceback.
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
            let said = unwell(&Container { state: state.into(), health: health.map(Into::into), ..container() });
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
        assert!(check_restarts(&after, &[container()]).unwrap_err().contains("during the test"));
        let other = Container { id: "other".into(), ..container() };
        assert!(check_restarts(&after, &[other]).is_ok(), "it was replaced, not restarted");
    }
}
