//! Explains what a smoke test found instead of what it expects.

use std::fmt;
use std::time::Duration;

use crate::deploy::base_url::ProbeError;
use crate::docker::DockerError;

/// A container that was restarted repeatedly, the last time within so many minutes, is in a restart loop.
pub const LOOP_MINUTES: u64 = 10;

/// What was found instead of what a check expects.
#[derive(Debug)]
pub enum SmokeError {
    /// The containers could not be inspected.
    Docker(DockerError),
    /// gRPC's health check failed.
    Grpc(ProbeError),
    /// There was no usable response.
    Probe { url: String, error: ProbeError },
    /// The status is not 200.
    Status { url: String, status: u16 },
    /// The body denies readiness.
    DeniesReadiness { path: String, what: String },
    /// The body is not `{"ready": true}`.
    NotReadyBody { path: String, body: String },
    /// The body is not JSON.
    NotJson { path: String, body: String },
    /// Readiness was not seen in time; the last attempt says why.
    NeverReady { limit: Duration, last: Box<SmokeError> },
    /// `/version` lacks a field.
    NoField { field: &'static str, body: String },
    /// `/version` has another value than expected.
    WrongField { field: &'static str, found: String, want: String },
    /// A container did not become healthy in time; the text names it.
    Unhealthy { container: String, limit: Duration },
    /// A container was restarted during the test.
    Restarted { container: String },
    /// A container is restarted again and again.
    RestartLoop { container: String, restarts: u64 },
    /// A container logs many errors.
    ErrorSpike { container: String, errors: usize, lines_max: usize, last: String },
}

impl fmt::Display for SmokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SmokeError::Docker(error) => error.fmt(f),
            SmokeError::Grpc(error) => error.fmt(f),
            SmokeError::Probe { url, error } => write!(f, "{url}: {error}"),
            SmokeError::Status { url, status } => write!(f, "{url} returned {status}, not 200"),
            SmokeError::DeniesReadiness { path, what } => write!(f, "{path} returned 200 with {what}"),
            SmokeError::NotReadyBody { path, body } => write!(f, "{path} returned {body}, not {{\"ready\": true}}"),
            SmokeError::NotJson { path, body } => write!(f, "{path} returned {body}, which is not JSON"),
            SmokeError::NeverReady { limit, last } => write!(f, "not ready within {limit:?}: {last}"),
            SmokeError::NoField { field, body } => write!(f, "/version returned {body}, without a {field:?}"),
            SmokeError::WrongField { field, found, want } => {
                write!(f, "/version says {field} {found:?}, expected {want:?}")
            }
            SmokeError::Unhealthy { container, limit } => write!(f, "{container}, after {limit:?}"),
            SmokeError::Restarted { container } => {
                write!(f, "container {container} was restarted during the test; see `docker logs {container}`")
            }
            SmokeError::RestartLoop { container, restarts } => {
                write!(
                    f,
                    "container {container} was restarted {restarts} times, the last time within {LOOP_MINUTES} \
                     minutes: a restart loop"
                )
            }
            SmokeError::ErrorSpike { container, errors, lines_max, last } => write!(
                f,
                "container {container} logged {errors} errors in the last minute, more than {lines_max}; the \
                 last: {last}"
            ),
        }
    }
}

impl std::error::Error for SmokeError {}
