//! A rehearsal in the words of the API.

use crate::api::{Latency, Noise, RehearsalFinding, RehearsalReport, RehearsalStatus, RehearsedDifference};
use crate::config;
use crate::control::service::rehearsal::RehearsalState;
use crate::control::service::upstreams::Upstreams;
use crate::domain::Color;
use crate::domain::rehearsal::{Difference, DifferingRoute, Results};
use crate::routing::RehearsalResult;

impl RehearsalState {
    /// The line in the status; `None` while nothing is rehearsed.
    pub(in crate::control) fn status(&self) -> Option<RehearsalStatus> {
        let running = self.running.as_ref()?;
        let results = running.results();
        let totals = results.totals();
        Some(RehearsalStatus {
            compared: totals.compared,
            different: totals.different,
            latency_ratio: latency(&results).map(|latency| latency.ratio),
            refuses: running.gate(&results).err().map(|why| why.to_string()),
        })
    }

    /// Everything that is known.
    pub(in crate::control) fn report(
        &self,
        config: &config::Service,
        active: Color,
        upstreams: &Upstreams,
    ) -> RehearsalReport {
        let settings = &config.rehearse;
        let mut report = RehearsalReport {
            service: config.name.clone(),
            active,
            idle: active.other(),
            running: self.running.is_some(),
            why_not: self.why_not(settings, active.other(), upstreams),
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
        let Some(running) = &self.running else { return report };
        let results = running.results();
        let totals = results.totals();
        (report.compared, report.different, report.noise) = (totals.compared, totals.different, totals.noise);
        report.failed = running.count(RehearsalResult::Failed);
        report.dropped = running.count(RehearsalResult::Dropped);
        report.latency = latency(&results);
        report.refuses = running.gate(&results).err().map(|why| why.to_string());
        report.findings = results.findings().into_iter().map(finding).collect();
        let noise =
            results.noise().map(|(route, field, seen)| Noise { route: route.into(), field: field.into(), seen });
        report.noise_fields = noise.collect();
        report
    }

    fn why_not(&self, settings: &config::Rehearse, idle: Color, upstreams: &Upstreams) -> Option<String> {
        if self.running.is_some() {
            return None;
        }
        Some(match upstreams.flip_gate(idle) {
            _ if settings.share <= 0.0 => "rehearse.share is 0: it is off".into(),
            Err(why) => format!("{idle} is not ready ({why})"),
            Ok(()) => "it begins when no watch or drain is running".into(),
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
