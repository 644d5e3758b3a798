//! What comes late: failures whose replay was still under way, and the end of the container's log.
//!
//! The file is written at once with what is known, so that a proxy that is killed in the next second has left it, and
//! once more when the rest has come or its time is up. Disks are waited for by threads of their own.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::{ColorConfig, EnvFile};
use crate::control::task::evidence::EvidenceResult;
use crate::control::task::evidence::file::{self, EvidenceError};
use crate::control::task::evidence::report::{ContainerLog, EvidenceReport, NoLog};
use crate::docker::{ContainerSelector, DockerError};
use crate::ledger::redact::Secrets;
use crate::os::batch_thread;
use crate::routing::{FAILED_MAX, FailedRequest};

/// Failures that are still being replayed are waited for so long.
const LATE_MAX: Duration = Duration::from_secs(2);
/// Docker has so long for everything it is asked.
const DOCKER_MAX: Duration = Duration::from_secs(5);
/// So many lines of each container's log are kept.
const LINES: usize = 50;

/// What is still to come, and where it goes.
pub(super) struct LateEvidence {
    /// Indexed by [`crate::routing::Symptom`].
    pub(super) failed: [mpsc::Receiver<FailedRequest>; 2],
    pub(super) path: PathBuf,
    pub(super) results: mpsc::Sender<EvidenceResult>,
}

impl LateEvidence {
    /// Writes `report` down, collects the rest, and writes it again.
    pub(super) async fn collect(mut self, mut report: EvidenceReport) {
        for (found, requests) in self.failed.iter_mut().zip(&mut report.requests) {
            while let Ok(request) = found.try_recv() {
                requests.push(request);
            }
        }
        self.write(&report).await;
        let ([failed, slow], [first, second]) = (&mut self.failed, &mut report.requests);
        let late = async { tokio::join!(rest_of(failed, first), rest_of(slow, second)) };
        let (_, log) = tokio::join!(timeout(LATE_MAX, late), log_of(&report.config));
        report.requests.iter_mut().for_each(|requests| requests.sort_by_key(|request| request.at_unix_ms));
        report.log = log;
        self.write(&report).await;
    }

    async fn write(&self, report: &EvidenceReport) {
        let (path, service, text) = (self.path.clone(), report.service.clone(), report.text());
        let (done, outcome) = oneshot::channel();
        let write = move || drop(done.send(file::write(&path, &service, &text)));
        let outcome = match batch_thread::spawn("evidence", write) {
            Ok(_) => outcome.await.unwrap_or(Err(EvidenceError::ThreadEnded)),
            Err(error) => Err(EvidenceError::NoThread(error)),
        };
        // Once the task has ended nobody hears; the file is there all the same.
        drop(self.results.send(EvidenceResult { service: report.service.clone(), outcome }).await);
    }
}

/// Until the color holds no request any more, or enough are known.
async fn rest_of(failed: &mut mpsc::Receiver<FailedRequest>, requests: &mut Vec<FailedRequest>) {
    while requests.len() < FAILED_MAX
        && let Some(failed) = failed.recv().await
    {
        requests.push(failed);
    }
}

/// The end of what the color's containers wrote, without its secrets.
async fn log_of(color: &ColorConfig) -> ContainerLog {
    let Some(project) = &color.project else { return ContainerLog::Missing(NoLog::NoProject) };
    let secrets = match color.env_file.as_ref().map(|path| EnvFile::load(path)).transpose() {
        Ok(file) => file.as_ref().map(Secrets::of).unwrap_or_default(),
        Err(_) => return ContainerLog::Missing(NoLog::EnvFileUnreadable),
    };
    match timeout(DOCKER_MAX, tails(&ContainerSelector::Project(project.clone()))).await {
        Ok(Ok(lines)) => ContainerLog::Lines(lines.iter().map(|line| secrets.hide(line)).collect()),
        Ok(Err(why)) => ContainerLog::Missing(NoLog::Docker(why)),
        Err(_) => ContainerLog::Missing(NoLog::TooSlow(DOCKER_MAX)),
    }
}

async fn tails(containers: &ContainerSelector) -> Result<Vec<String>, DockerError> {
    let mut lines = Vec::new();
    for container in containers.inspect().await? {
        let named = |line: String| format!("{} | {line}", container.name);
        lines.extend(container.tail(LINES).await?.into_iter().map(named));
    }
    Ok(lines)
}
