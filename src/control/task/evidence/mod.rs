//! What is written down when a watch takes a release back: the first failing requests, the counts, the rule's numbers
//! and the end of the container's log.
//!
//! The traffic is back before any of this begins, and waits for none of it. `case` is what is known, `file` is where it
//! is kept, `collect` is what comes late.

mod case;
mod collect;
mod file;

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::control::service::ServiceState;
use crate::control::task::Task;
use crate::domain::cutover::{Change, RollbackEvidence};
use crate::ledger::Line;
use crate::os::clock;
use crate::routing::{FailedRequest, FailedRequests};
use case::EvidenceReport;
pub(in crate::control) use file::{folder_of, of_epoch};

/// How writing one down went.
pub(in crate::control) struct EvidenceResult {
    service: String,
    outcome: Result<(), String>,
}

/// Where what failed or was slow under the watched epoch is left, and taken out.
pub(in crate::control) struct FailureLog {
    pub(in crate::control) place: FailedRequests,
    /// By [`crate::routing::Symptom`].
    found: [mpsc::Receiver<FailedRequest>; 2],
}

impl FailureLog {
    pub(in crate::control) fn new() -> Self {
        let (place, found) = FailedRequests::new();
        FailureLog { place, found }
    }

    /// Makes room for the next fault: what was there so far was nothing.
    pub(in crate::control) fn forget(&mut self) {
        self.found.iter_mut().for_each(|found| while found.try_recv().is_ok() {});
    }
}

impl Task {
    /// Begins to write down why the traffic went back, and says into which file. Never waits.
    pub(in crate::control) fn keep_evidence(
        &mut self,
        name: &str,
        change: &Change,
        found: &RollbackEvidence,
        what: &str,
    ) -> Option<PathBuf> {
        let folder = folder_of(&self.config.state.ledger);
        let managed = self.services.get_mut(name)?;
        let failures = managed.failures.take()?;
        let epoch = change.epoch - 1;
        let path = folder.join(file::name(&clock::utc(), name, change.from, epoch));
        let case = EvidenceReport {
            what: what.to_owned(),
            service: name.to_owned(),
            color: change.from,
            epoch,
            config: managed.config.colors[change.from.index()].clone(),
            flipped: managed.flipped.clone(),
            taken_back: clock::utc(),
            finding: found.fault,
            account: found.summary,
            tally: managed.judged_tally(),
            replays: managed.replays(change.from),
            synthetic: managed.synthetic_status(),
            notes: managed.notes.clone(),
            requests: Default::default(),
            log: Err("Docker has not been asked yet; this file is written again with the answer".into()),
        };
        managed.evidence_file = Some(path.display().to_string());
        let late = collect::LateEvidence { failed: failures.found, path: path.clone(), kept: self.kept.clone() };
        // Its own sender goes here: once the color holds no request any more, no more failures are waited for.
        drop(failures.place);
        tokio::spawn(late.collect(case));
        Some(path)
    }

    pub(in crate::control) fn on_kept(&mut self, EvidenceResult { service, outcome }: EvidenceResult) {
        let Some(managed) = self.services.get_mut(&service) else { return };
        let before = std::mem::replace(&mut managed.evidence_problem, outcome.err());
        // Each file is written twice.
        if let Some(why) = managed.evidence_problem.as_ref().filter(|why| before.as_ref() != Some(why)) {
            tracing::error!(service, "{why}");
            self.ledger.write(Line::new(&format!("evidence {service}: not written")).with("why", why));
        }
    }
}

impl ServiceState {
    /// What went wrong with the last one, for the status.
    pub(in crate::control) fn evidence_problem(&self) -> Option<String> {
        let why = self.evidence_problem.as_ref()?;
        Some(format!("{why}; the rollback of {} itself is made, and the ledger has its reason", self.config.name))
    }
}
