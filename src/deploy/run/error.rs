//! Explains why a step of a deploy did not succeed.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::api::Refusal;
use crate::api::client::ClientError;
use crate::deploy::command::CommandError;
use crate::deploy::compose::ComposeError;
use crate::deploy::freeze_lease::FreezeError;
use crate::deploy::journal::JournalError;
use crate::deploy::smoke::SmokeFailure;
use crate::deploy::snapshot::SnapshotError;
use crate::deploy::target::{NotReady, TargetError};
use crate::docker::DockerError;
use crate::domain::Color;
use crate::domain::release::HookPoint;
use crate::domain::release::state::TakenBackBy;

/// Why a step did not succeed, sorted by what has to follow.
#[derive(Debug)]
pub enum StepError {
    /// The step failed.
    Failed(FailureCause),
    /// The proxy refused it, and nothing was changed.
    Refused(Refusal),
    /// Traffic is back on the old color; the text says why.
    TakenBack(TakenBackBy, String),
    /// Somebody else has moved the traffic since the flip, so the verdict is not about this release.
    Overtaken(String),
    /// The release is bad, and the old color was not up to take the traffic; the text is the verdict.
    NowhereToGo(String),
    /// The proxy does not answer, so it is not known where the traffic is.
    ProxyLost(ClientError),
    /// A signal asked the deploy to stop; the text is the signal's name.
    Stopped(&'static str),
    /// The operator asked at the terminal for the traffic to go back.
    RollbackWanted,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepError::Failed(cause) => cause.fmt(f),
            StepError::Refused(refusal) => refusal.fmt(f),
            StepError::TakenBack(_, why) | StepError::Overtaken(why) | StepError::NowhereToGo(why) => f.write_str(why),
            StepError::ProxyLost(error) => error.fmt(f),
            StepError::Stopped(name) => write!(f, "stopped by {name}"),
            StepError::RollbackWanted => f.write_str("the traffic is to go back to the old color"),
        }
    }
}

impl std::error::Error for StepError {}

/// What made a step fail.
#[derive(Debug)]
pub enum FailureCause {
    Command(CommandError),
    Compose(ComposeError),
    Docker(DockerError),
    Target(TargetError),
    Journal(JournalError),
    Snapshot(SnapshotError),
    Freeze(FreezeError),
    /// The smoke test failed; `hint` explains a version that never says its image tag.
    Smoke {
        failure: SmokeFailure,
        hint: Option<&'static str>,
    },
    /// A required hook failed.
    Hook {
        point: HookPoint,
        error: Box<StepError>,
    },
    /// A file could not be read or written.
    File {
        path: PathBuf,
        error: io::Error,
    },
    /// The Compose file runs another image than the tag says.
    FixedImage {
        file: PathBuf,
        image: String,
    },
    /// A container will never be ready; the text says why.
    HopelessContainer(String),
    /// The color did not become healthy in time.
    NotHealthy {
        limit: Duration,
        last: HealthWait,
    },
    /// The migration was still running at its limit. It runs on in the container until an undo stops that.
    MigrationTimeout(CommandError),
    /// The old color does not live with the migrated data.
    OldColorHurt {
        color: Color,
        why: Hurt,
    },
    /// The idle color answers copied requests otherwise; the text is the proxy's.
    Rehearsal(String),
    /// The proxy did not answer the flip, and has not made it.
    FlipLost(ClientError),
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureCause::Command(error) => error.fmt(f),
            FailureCause::Compose(error) => error.fmt(f),
            FailureCause::Docker(error) => error.fmt(f),
            FailureCause::Target(error) => error.fmt(f),
            FailureCause::Journal(error) => error.fmt(f),
            FailureCause::Snapshot(error) => error.fmt(f),
            FailureCause::Freeze(error) => error.fmt(f),
            FailureCause::Smoke { failure, hint } => write!(f, "{failure}{}", hint.unwrap_or_default()),
            FailureCause::Hook { point, error } => write!(f, "the hook {point}: {error}"),
            FailureCause::File { path, error } => {
                write!(f, "{}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str("; may this user write there?"),
                    _ => Ok(()),
                }
            }
            FailureCause::FixedImage { file, image } => write!(
                f,
                "{} runs {image} whatever IMAGE_TAG says; write image: ${{IMAGE_REPO}}:${{IMAGE_TAG}}",
                file.display()
            ),
            FailureCause::HopelessContainer(why) => f.write_str(why),
            FailureCause::NotHealthy { limit, last } => write!(f, "not healthy within {limit:?}: {last}"),
            FailureCause::MigrationTimeout(error) => {
                write!(f, "{error}; if it needs longer, raise deploy.migrate.timeout")
            }
            FailureCause::OldColorHurt { color, why } => {
                write!(f, "{color} does not work with the migration, and it is the way back: {why}")
            }
            FailureCause::Rehearsal(why) => write!(f, "{why}; see `cutover rehearsal`"),
            FailureCause::FlipLost(error) => error.fmt(f),
        }
    }
}

/// What a color still lacks before it may take traffic.
#[derive(Debug)]
pub enum HealthWait {
    Docker(DockerError),
    /// A container does not run, or its health check does not pass; the text says which.
    Container(String),
    Probe(NotReady),
    Proxy(ClientError),
    /// The proxy's own probes have not found the color ready.
    ProxyProbes(Color),
}

impl fmt::Display for HealthWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthWait::Docker(error) => error.fmt(f),
            HealthWait::Container(why) => f.write_str(why),
            HealthWait::Probe(error) => error.fmt(f),
            HealthWait::Proxy(error) => error.fmt(f),
            HealthWait::ProxyProbes(color) => write!(f, "the proxy has not found {color} ready yet"),
        }
    }
}

/// How a migration has hurt the old color.
#[derive(Debug)]
pub enum Hurt {
    /// It is not ready any more.
    NotReady(NotReady),
    /// It fails more requests than before; the text has the counts.
    Failures(String),
}

impl fmt::Display for Hurt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hurt::NotReady(error) => error.fmt(f),
            Hurt::Failures(counts) => f.write_str(counts),
        }
    }
}

impl From<FailureCause> for StepError {
    fn from(cause: FailureCause) -> Self {
        StepError::Failed(cause)
    }
}

macro_rules! from_cause {
    ($($error:ident => $variant:ident),*) => {
        $(
            impl From<$error> for FailureCause {
                fn from(error: $error) -> Self {
                    FailureCause::$variant(error)
                }
            }

            impl From<$error> for StepError {
                fn from(error: $error) -> Self {
                    StepError::Failed(FailureCause::$variant(error))
                }
            }
        )*
    };
}

from_cause! {
    CommandError => Command,
    ComposeError => Compose,
    DockerError => Docker,
    TargetError => Target,
    JournalError => Journal,
    SnapshotError => Snapshot
}
