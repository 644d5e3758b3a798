//! What comes late: failures whose replay was still under way, and the end of the container's log.
//!
//! The file is written at once with what is known, so that a proxy that is killed in the next second has left it, and
//! once more when the rest has come or its time is up. Disks are waited for by threads of their own.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::{ColorConfig, EnvFile};
use crate::control::task::evidence::case::EvidenceReport;
use crate::control::task::evidence::{EvidenceResult, file};
use crate::docker::ContainerSelector;
use crate::ledger::redact::Secrets;
use crate::os::batch_thread;
use crate::routing::{FAILED_MAX, FailedRequest};

/// For failures that are still being replayed.
const LATE_MAX: Duration = Duration::from_secs(2);
/// For all that is asked of Docker.
const DOCKER_MAX: Duration = Duration::from_secs(5);
/// Lines of each container's log.
const LINES: usize = 50;

/// What is still to come, and where it goes.
pub(super) struct LateEvidence {
    /// By [`crate::routing::Symptom`].
    pub(super) failed: [mpsc::Receiver<FailedRequest>; 2],
    pub(super) path: PathBuf,
    pub(super) kept: mpsc::Sender<EvidenceResult>,
}

impl LateEvidence {
    /// Writes `case` down, collects the rest, writes it again.
    pub(super) async fn collect(mut self, mut case: EvidenceReport) {
        for (found, requests) in self.failed.iter_mut().zip(&mut case.requests) {
            while let Ok(request) = found.try_recv() {
                requests.push(request);
            }
        }
        self.write(&case).await;
        let ([failed, slow], [first, second]) = (&mut self.failed, &mut case.requests);
        let late = async { tokio::join!(rest_of(failed, first), rest_of(slow, second)) };
        let (_, log) = tokio::join!(timeout(LATE_MAX, late), log_of(&case.config));
        case.requests.iter_mut().for_each(|requests| requests.sort_by_key(|request| request.at_unix_ms));
        case.log = log;
        self.write(&case).await;
    }

    async fn write(&self, case: &EvidenceReport) {
        let (path, service, text) = (self.path.clone(), case.service.clone(), case.text());
        let (done, outcome) = oneshot::channel();
        let write = move || drop(done.send(file::write(&path, &service, &text)));
        let outcome = match batch_thread::spawn("evidence", write) {
            Ok(_) => outcome.await.unwrap_or_else(|_| Err("evidence: the thread that writes it has ended".into())),
            Err(error) => Err(format!("evidence: no thread to write it: {error}")),
        };
        // Once the task has ended nobody hears; the file is there all the same.
        drop(self.kept.send(EvidenceResult { service: case.service.clone(), outcome }).await);
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

/// The end of what the color's containers wrote.
async fn log_of(color: &ColorConfig) -> Result<Vec<String>, String> {
    let Some(project) = &color.project else {
        return Err("no log: the color is given by address, and not by an env_file with a COMPOSE_PROJECT_NAME".into());
    };
    let secrets = match color.env_file.as_ref().map(|path| EnvFile::load(path)).transpose() {
        Ok(file) => file.as_ref().map(Secrets::of).unwrap_or_default(),
        Err(_) => return Err("no log: the env_file cannot be read, so its secrets could not be hidden in it".into()),
    };
    let asked = timeout(DOCKER_MAX, tails(&ContainerSelector::Project(project.clone()))).await;
    let lines = asked.unwrap_or_else(|_| Err(format!("Docker did not answer within {DOCKER_MAX:?}")));
    lines.map_err(|why| format!("no log: {why}")).map(|lines| lines.iter().map(|line| secrets.hide(line)).collect())
}

async fn tails(containers: &ContainerSelector) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for container in containers.inspect().await.map_err(|error| error.to_string())? {
        let named = |line: String| format!("{} | {line}", container.name);
        lines.extend(container.tail(LINES).await.map_err(|error| error.to_string())?.into_iter().map(named));
    }
    Ok(lines)
}
