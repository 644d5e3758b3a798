//! Puts together what the control plane shows of itself.

use crate::api::{CertificateStatus, Status};
use crate::control::service::{ServiceState, status};
use crate::control::status_snapshot::{HeldCount, StatusSnapshot};
use crate::control::task::Task;
use crate::os::clock;
use crate::tls::Identity;

/// The last lines of the ledger that the status shows.
const LEDGER_LINES: usize = 5;

impl Task {
    pub(in crate::control) fn observe(&self) -> StatusSnapshot {
        let ledger_problem = self.reporter.ledger().problem();
        let rehearsals =
            |(name, service): (&String, &ServiceState)| (name.clone(), service.route.service().info.tap.counts());
        let held = |(name, service): (&String, &ServiceState)| {
            let stats = &service.freeze.stats;
            HeldCount { service: name.clone(), now: stats.now(), ends: stats.ends() }
        };
        let certificate = |identity: &Identity| (identity.cert.display().to_string(), identity.not_after);
        let plane = &self.data_plane;
        let handshakes = plane.terminator.iter().flat_map(|terminator| terminator.handshakes());
        StatusSnapshot {
            ledger_ok: ledger_problem.is_none(),
            status: self.status(ledger_problem),
            stats: self.stats(),
            rehearsals: self.services.iter().map(rehearsals).collect(),
            held: self.services.iter().map(held).collect(),
            flips: self.counters.flips(),
            watch_ends: self.counters.watch_ends(self.services.keys()),
            certificates: self.config.tls.identities.iter().map(certificate).collect(),
            handshakes: handshakes.map(|(end, count)| (end.as_str(), count)).collect(),
            http2_ends: plane.client_ends.http2.counts().into_iter().map(|(end, n)| (end.as_str(), n)).collect(),
            refusals: plane.client_ends.refusals.counts().into_iter().map(|(why, n)| (why.as_str(), n)).collect(),
            reloads_ok: self.reloads.counts.ok,
            reloads_failed: self.reloads.counts.failed,
        }
    }

    fn status(&self, ledger_problem: Option<String>) -> Status {
        let now = clock::now();
        let certificate = |identity: &Identity| CertificateStatus {
            file: identity.cert.display().to_string(),
            names: identity.names.clone(),
            expires: identity.expires(),
        };
        let service = |(name, service): (&String, &ServiceState)| (name.clone(), status::service_status(service, now));
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: self.started.clone(),
            config: self.config.path.display().to_string(),
            connections: (self.data_plane.connections)(),
            problems: self.problems(ledger_problem),
            services: self.services.iter().map(service).collect(),
            certificates: self.config.tls.identities.iter().map(certificate).collect(),
            ledger: self.reporter.ledger().tail(LEDGER_LINES),
        }
    }

    /// A sentence for everything that an operator ought to mend, first what clients suffer from.
    fn problems(&self, ledger_problem: Option<String>) -> Vec<String> {
        let unsaved = self.services.iter().filter_map(|(name, service)| {
            let why = service.saving.problem.as_ref()?;
            Some(format!("state of {name} is not saved ({why}): a restart would restore an older one; trying again"))
        });
        let evidence = self.services.iter().filter_map(|(name, service)| {
            let why = service.watch.evidence_problem.as_ref()?;
            Some(format!("{why}; the rollback of {name} was made, and the ledger has its reason"))
        });
        let certificates = self.data_plane.terminator.iter().flat_map(|terminator| terminator.problems());
        let mut problems: Vec<String> = self.services.values().filter_map(ServiceState::outage).collect();
        problems.extend(self.disk_problem.clone());
        problems.extend(self.start_problems.clone());
        problems.extend(self.reloads.problem.clone());
        problems.extend(unsaved);
        problems.extend(evidence);
        problems.extend(ledger_problem);
        problems.extend((self.other_problem)());
        problems.extend(self.config.tls.warnings(clock::unix_seconds()));
        problems.extend(certificates);
        problems
    }
}
