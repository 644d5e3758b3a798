//! A rehearsal in the words of the API.

use crate::api::status::{Latency, Noise, RehearsalFinding, RehearsalReport, RehearsalStatus, RehearsedDifference};
use crate::control::service::ServiceState;
use crate::domain::rehearsal::{Difference, DifferingRoute, Results};
use crate::routing::RehearsalResult;

impl ServiceState {
    /// The line in the status; `None` while nothing is rehearsed.
    pub(in crate::control) fn rehearsal_status(&self) -> Option<RehearsalStatus> {
        let rehearsal = self.rehearsal.as_ref()?;
        let results = rehearsal.results();
        let totals = results.totals();
        Some(RehearsalStatus {
            compared: totals.compared,
            different: totals.different,
            latency_ratio: latency(&results).map(|latency| latency.ratio),
            refuses: rehearsal.gate_of(&results).err(),
        })
    }

    /// Everything that is known.
    pub(in crate::control) fn rehearsal_report(&self) -> RehearsalReport {
        let settings = &self.config.rehearse;
        let active = self.machine.active();
        let mut report = RehearsalReport {
            service: self.config.name.clone(),
            active,
            idle: active.other(),
            running: self.rehearsal.is_some(),
            why_not: self.why_no_rehearsal(),
            max_differences: settings.max_differences,
            min_requests: settings.min_requests,
            compared: 0,
            different: 0,
            noise: 0,
            failed: 0,
            dropped: 0,
            refuses: None,
            latency: None,
            findings: Vec::new(),
            noise_fields: Vec::new(),
        };
        let Some(rehearsal) = &self.rehearsal else { return report };
        let results = rehearsal.results();
        let (totals, counts) = (results.totals(), rehearsal.tap.counts());
        (report.compared, report.different, report.noise) = (totals.compared, totals.different, totals.noise);
        report.failed = counts[RehearsalResult::Failed as usize] - rehearsal.before[RehearsalResult::Failed as usize];
        report.dropped =
            counts[RehearsalResult::Dropped as usize] - rehearsal.before[RehearsalResult::Dropped as usize];
        report.latency = latency(&results);
        report.refuses = rehearsal.gate_of(&results).err();
        report.findings = results.findings().into_iter().map(finding).collect();
        let noise =
            results.noise().map(|(route, field, seen)| Noise { route: route.into(), field: field.into(), seen });
        report.noise_fields = noise.collect();
        report
    }

    fn why_no_rehearsal(&self) -> Option<String> {
        let idle = self.machine.active().other();
        if self.rehearsal.is_some() {
            return None;
        }
        Some(match self.flip_gate(idle) {
            _ if self.config.rehearse.share <= 0.0 => "rehearse.share is 0: it is switched off".into(),
            Err(why) => format!("{idle} is not ready ({why})"),
            Ok(()) => "it begins when no watch and no drain runs".into(),
        })
    }
}

fn latency(results: &Results) -> Option<Latency> {
    let [active, idle] = results.medians()?.map(|median| median.as_secs_f64());
    let ratio = (idle / active.max(1e-6) * 100.0).round() / 100.0;
    Some(Latency { active_seconds: active, idle_seconds: idle, ratio })
}

fn finding(finding: DifferingRoute) -> RehearsalFinding {
    let difference = |found: Difference| RehearsedDifference { field: found.field, was: found.was, is: found.is };
    RehearsalFinding {
        route: finding.route,
        compared: finding.compared,
        different: finding.different,
        example: finding.example,
        differences: finding.differences.into_iter().map(difference).collect(),
    }
}
