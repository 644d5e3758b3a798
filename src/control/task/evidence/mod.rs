//! What is written down when a watch takes a release back: the first failing requests, the counts, the rule's numbers
//! and the end of the container's log.
//!
//! The traffic is back before any of this begins, and waits for none of it. `report` is what is known, `file` is where
//! it is kept, `collect` is what comes late.

mod collect;
mod file;
mod report;

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::control::service::ServiceState;
use crate::control::task::reporter::Reporter;
use crate::domain::cutover::{Change, RollbackEvidence};
use crate::ledger::Line;
use crate::os::clock;
use file::EvidenceError;
pub(in crate::control) use file::{folder_of, of_epoch};
use report::{ContainerLog, EvidenceReport};

/// How writing one file went.
pub(in crate::control) struct EvidenceResult {
    pub(in crate::control) service: String,
    outcome: Result<(), EvidenceError>,
}

/// Begins to write down why the traffic went back, and says into which file; `None` where no failures were described.
/// Never waits.
pub(in crate::control) fn begin(
    service: &mut ServiceState,
    change: &Change,
    found: &RollbackEvidence,
    what: String,
    folder: &Path,
    results: &mpsc::Sender<EvidenceResult>,
) -> Option<PathBuf> {
    let failures = service.watch.take_failures()?;
    let (name, color, epoch) = (service.config.name.clone(), change.from, change.epoch - 1);
    let path = folder.join(file::name(&clock::utc(), &name, color, epoch));
    let report = EvidenceReport {
        what,
        service: name,
        color,
        epoch,
        config: service.config.colors[color.index()].clone(),
        flipped: service.watch.flipped.clone(),
        taken_back: clock::utc(),
        fault: found.fault,
        summary: found.summary,
        tally: service.previous_epoch_tally(),
        replays: service.watch.replays(service.route.stats(color)),
        synthetic: service.synthetic_status(),
        notes: service.watch.notes.clone(),
        requests: Default::default(),
        log: ContainerLog::NotAsked,
    };
    service.watch.evidence_file = Some(path.display().to_string());
    let late = collect::LateEvidence { failed: failures.received, path: path.clone(), results: results.clone() };
    // The log's own sender goes here: once the color holds no request any more, no more failures are waited for.
    drop(failures.sender);
    tokio::spawn(late.collect(report));
    Some(path)
}

/// A file was written, or was not.
pub(in crate::control) fn on_written(service: &mut ServiceState, result: EvidenceResult, reporter: &Reporter) {
    let EvidenceResult { service: name, outcome } = result;
    let problem = outcome.err().map(|error| error.to_string());
    let before = std::mem::replace(&mut service.watch.evidence_problem, problem);
    // Each file is written twice; the same problem is told once.
    if let Some(why) = service.watch.evidence_problem.as_ref().filter(|why| before.as_ref() != Some(why)) {
        tracing::error!(service = name, "{why}");
        reporter.write(Line::new(&format!("evidence {name}: not written")).with("why", why));
    }
}
