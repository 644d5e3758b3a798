//! The present state of one service in the words of `GET /v1/status`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::{Answered, ColorStatus, LongLived, Phase, ServiceStatus, UpstreamStatus, WatchStanding, WatchStatus};
use crate::control::messages::{seconds, span};
use crate::control::service::ServiceState;
use crate::domain::Color;
use crate::domain::cutover::{self, GateError};
use crate::domain::health::Readiness;
use crate::domain::watch::{Watch, WatchState, WatchSummary};
use crate::routing::{ColorStats, Counter, KindCounts, LeaseKind};

/// The status of one service.
pub(in crate::control) fn service_status(service: &ServiceState, now: Duration) -> ServiceStatus {
    let (machine, record) = (&service.machine, &service.watch);
    let (phase, watch) = match machine.phase() {
        cutover::Phase::Steady if machine.drains().is_empty() => (Phase::Steady, None),
        cutover::Phase::Steady => (Phase::Draining, None),
        cutover::Phase::RolledBack { .. } => (Phase::RolledBack, None),
        cutover::Phase::Watching(watch) => (Phase::Watching, Some(watch_status(service, watch, now))),
    };
    ServiceStatus {
        active: machine.active(),
        epoch: machine.epoch(),
        flip_pending: machine.is_saving(),
        phase,
        summary: summary(service, now),
        watch,
        last_verdict: record.last_verdict.as_ref().map(|last| last.sentence.clone()),
        verdict: record.last_verdict.as_ref().and_then(|last| last.word),
        evidence_file: record.evidence_file.clone(),
        rehearsal: service.rehearsal.status(),
        freeze: service.freeze.status(now),
        colors: Color::BOTH.into_iter().map(|color| (color, color_status(service, color))).collect::<BTreeMap<_, _>>(),
    }
}

fn watch_status(service: &ServiceState, watch: &Watch, now: Duration) -> WatchStatus {
    let WatchSummary { standing, counts, old, mode, tolerated, .. } = watch.account(now);
    let aside = [("client", mode.excluded.client), ("route", mode.excluded.route)];
    WatchStatus {
        remaining_seconds: seconds(watch.until().saturating_sub(now)),
        answered: counts.all(),
        failed: counts.bad,
        evidence: watch.evidence(),
        standing: match standing {
            WatchState::Calm => WatchStanding::Calm,
            WatchState::WarmUp => WatchStanding::WarmUp,
            WatchState::Doubted => WatchStanding::Doubted,
            WatchState::Shared => WatchStanding::SharedFault,
            WatchState::NowhereToGo => WatchStanding::NowhereToGo,
        },
        tolerated,
        keeps_one_in: (mode.keep_one_in > 0).then_some(mode.keep_one_in),
        old_color: (old.all() > 0).then(|| Answered { answered: old.all(), failed: old.bad }),
        set_aside: aside.into_iter().filter(|(_, number)| number.is_some()).map(|(what, _)| what.to_owned()).collect(),
        replays: service.watch.replays(service.route.stats(service.machine.active())),
        synthetic: service.synthetic.status(&service.config),
        notes: service.watch.notes.clone(),
    }
}

fn color_status(service: &ServiceState, color: Color) -> ColorStatus {
    let (stats, config) = (service.route.stats(color), &service.config.colors[color.index()]);
    let upstreams = service.upstreams.of(color).iter().map(|probed| UpstreamStatus {
        address: probed.upstream.address.to_string(),
        ready: probed.health().readiness() == Readiness::Up,
        reason: probed.health().reason().map(str::to_owned),
    });
    ColorStatus {
        ready: service.upstreams.flip_gate(color).is_ok(),
        in_flight: stats.in_flight(),
        long_lived: LeaseKind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind.as_str().into(), ends(stats, kind)?)))
            .collect(),
        requests: stats.requests(),
        errors: stats.errors(),
        image_tag: config.image_tag.clone(),
        project: config.project.clone(),
        upstreams: upstreams.collect(),
    }
}

/// What became of the leases of one kind; `None` where there was nothing to tell.
fn ends(stats: &ColorStats, kind: LeaseKind) -> Option<LongLived> {
    let sum = |of: fn(&KindCounts) -> &Counter| stats.sum(|shard| of(&shard.ends[kind as usize]).get());
    let ends = LongLived { open: stats.open(kind), closed: sum(|ends| &ends.closed), cut: sum(|ends| &ends.cut) };
    (ends != LongLived::default()).then_some(ends)
}

/// One sentence for somebody who was just woken up.
fn summary(service: &ServiceState, now: Duration) -> String {
    let machine = &service.machine;
    let (active, idle) = (machine.active(), machine.active().other());
    let unwell = if service.upstreams.may_be_up(active) {
        String::new()
    } else {
        format!(", though no upstream of {active} is up")
    };
    let standby = match service.upstreams.rollback_gate(idle) {
        Ok(()) => format!("{idle} stands by"),
        Err(why) => format!("{idle} could not take the traffic back ({why})"),
    };
    let draining = machine.drains().iter().map(|drain| {
        let left = service.route.stats(drain.color).in_flight();
        let then = match drain.deadline {
            Some(deadline) => format!("what is left is cut in {}", span(deadline.saturating_sub(now))),
            None => "what was left has been cut".into(),
        };
        format!("; {} finishes {left} in flight, {then}", drain.color)
    });
    let draining: String = draining.collect();
    match machine.phase() {
        cutover::Phase::Steady if machine.drains().is_empty() => {
            let next = match service.flip_gate(idle) {
                Ok(()) => format!("{idle} is ready to flip to"),
                Err(GateError::NotReady(why)) => format!("{idle} is not ready ({why})"),
                Err(GateError::UnderDeploy(why)) => format!("{idle} cannot be flipped to ({why})"),
                Err(GateError::RehearsalFailed(why)) => format!("{idle} is ready, but failed its rehearsal ({why})"),
            };
            format!("{active} takes every request{unwell}; {next}")
        }
        cutover::Phase::Steady => format!("{active} takes every new request{unwell}{draining}"),
        cutover::Phase::Watching(watch) => {
            let (left, counts) = (span(watch.until().saturating_sub(now)), watch.counts());
            let seen = format!("{} of {} requests failed so far", counts.bad, counts.all());
            format!(
                "{active} takes every new request{unwell} and is watched for {left} more: {seen}; {standby}{draining}"
            )
        }
        cutover::Phase::RolledBack { why } => {
            let see = service.watch.evidence_file.as_ref().map_or(String::new(), |file| format!("; see {file}"));
            format!(
                "{idle} was bad and {active} has the traffic back{unwell} ({why}{see}); it stays so until somebody flips{draining}"
            )
        }
    }
}
