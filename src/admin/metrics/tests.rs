//! Tests of the text of `/metrics`.

use std::sync::Arc;

use crate::admin::metrics::*;
use crate::api::{ColorStatus, FreezeStatus, ServiceStatus, UpstreamStatus, WatchStatus};
use crate::control::{HeldCount, WatchEndCount};
use crate::domain::cutover::WatchEndKind;

fn color(address: &str, ready: bool) -> ColorStatus {
    let upstreams = vec![UpstreamStatus { address: address.into(), ready, reason: None }];
    ColorStatus {
        ready,
        in_flight: 0,
        long_lived: Default::default(),
        requests: 0,
        errors: 0,
        image_tag: None,
        project: None,
        upstreams,
    }
}

/// Two workers; blue has answered three requests, one of them with 503, and holds one; green is watched.
fn example() -> StatusSnapshot {
    let stats = [ColorStats::new(2), ColorStats::new(2)].map(Arc::new);
    let count = |worker: usize, class: usize, method: Method, us: u64| {
        let shard = &stats[0].shards[worker];
        shard.begun.add(1);
        shard.ended.add(1);
        shard.requests[class][method as usize].add(1);
        shard.durations[DURATION_BOUNDS_US.partition_point(|&bound| bound < us)].add(1);
        shard.duration_sum_us.add(us);
    };
    count(0, 2, Method::Get, 400);
    count(1, 2, Method::Get, 1_500);
    count(1, 5, Method::Post, 90_000_000);
    stats[0].shards[0].begun.add(1);
    stats[0].shards[0].replays[0].add(2);
    stats[1].shards[1].replays[0].add(3);
    stats[1].shards[0].skew_answers.add(6);
    let service = ServiceStatus {
        active: Color::Green,
        epoch: 7,
        flip_pending: false,
        phase: Phase::Watching,
        summary: "a summary".into(),
        watch: Some(WatchStatus {
            remaining_seconds: 1.0,
            answered: 4,
            failed: 1,
            evidence: 0.25,
            ..WatchStatus::default()
        }),
        last_verdict: None,
        verdict: None,
        evidence_file: None,
        rehearsal: None,
        freeze: Some(FreezeStatus {
            what: What::All,
            by: "cli".into(),
            why: None,
            held: 7,
            seconds: 1.0,
            remaining_seconds: 2.0,
        }),
        colors: [(Color::Blue, color("127.0.0.1:8000", true)), (Color::Green, color("name\"with\\quote:8001", false))]
            .into(),
    };
    let status = Status {
        version: "0.1.0".into(),
        pid: 1,
        started: "2026-01-01T00:00:00Z".into(),
        config: "cutover.toml".into(),
        connections: 12,
        problems: vec!["the ledger is on fire".into()],
        services: [("recall".to_owned(), service)].into(),
        certificates: vec![],
        ledger: vec![],
    };
    let flip = |to, reason, count| FlipCount { service: "recall".into(), to, reason, count };
    let flips = vec![flip(Color::Green, Reason::Operator, 4), flip(Color::Blue, Reason::Verdict, 2)];
    let rehearsals = vec![("recall".into(), [5, 4, 3, 2, 1])];
    let ended = |end, count| WatchEndCount { service: "recall".into(), end, count };
    let watch_ends = vec![ended(WatchEndKind::Kept, 2), ended(WatchEndKind::NotEnoughTraffic, 0)];
    let stats = vec![("recall".into(), stats)];
    StatusSnapshot {
        status,
        stats,
        rehearsals,
        held: vec![HeldCount { service: "recall".into(), now: 7, ends: [6, 5, 4, 3] }],
        flips,
        watch_ends,
        ledger_ok: false,
        certificates: vec![("a.pem".into(), 2_000_000_000)],
        handshakes: vec![("full", 5), ("timed_out", 0)],
        http2_ends: vec![("reset_flood", 2)],
        refusals: vec![("body_rate", 3)],
        reloads_ok: 3,
        reloads_failed: 1,
    }
}

#[test]
fn say_what_was_observed() {
    let text = text(&example());
    for line in [
        "cutover_requests_total{color=\"blue\",code_class=\"2xx\",method=\"GET\",service=\"recall\"} 2",
        "cutover_requests_total{color=\"blue\",code_class=\"5xx\",method=\"POST\",service=\"recall\"} 1",
        "cutover_request_duration_seconds_bucket{color=\"blue\",service=\"recall\",le=\"0.0005\"} 1",
        "cutover_request_duration_seconds_bucket{color=\"blue\",service=\"recall\",le=\"0.001\"} 1",
        "cutover_request_duration_seconds_bucket{color=\"blue\",service=\"recall\",le=\"0.0025\"} 2",
        "cutover_request_duration_seconds_bucket{color=\"blue\",service=\"recall\",le=\"60\"} 2",
        "cutover_request_duration_seconds_bucket{color=\"blue\",service=\"recall\",le=\"+Inf\"} 3",
        "cutover_request_duration_seconds_sum{color=\"blue\",service=\"recall\"} 90.0019",
        "cutover_request_duration_seconds_count{color=\"blue\",service=\"recall\"} 3",
        "cutover_request_duration_seconds_count{color=\"green\",service=\"recall\"} 0",
        "cutover_replays_total{service=\"recall\",result=\"answered\"} 5",
        "cutover_replays_total{service=\"recall\",result=\"over_budget\"} 0",
        "cutover_skew_answers_total{color=\"blue\",service=\"recall\"} 0",
        "cutover_skew_answers_total{color=\"green\",service=\"recall\"} 6",
        "cutover_rehearsals_total{service=\"recall\",result=\"same\"} 5",
        "cutover_rehearsals_total{service=\"recall\",result=\"dropped\"} 1",
        "cutover_in_flight{color=\"blue\",service=\"recall\"} 1",
        "cutover_in_flight{color=\"green\",service=\"recall\"} 0",
        "cutover_active{color=\"blue\",service=\"recall\"} 0",
        "cutover_active{color=\"green\",service=\"recall\"} 1",
        "cutover_epoch{service=\"recall\"} 7",
        "cutover_flips_total{reason=\"operator\",service=\"recall\",to=\"green\"} 4",
        "cutover_flips_total{reason=\"verdict\",service=\"recall\",to=\"blue\"} 2",
        "cutover_flips_total{reason=\"config\",service=\"recall\",to=\"blue\"} 0",
        "cutover_watch_state{service=\"recall\",state=\"watching\"} 1",
        "cutover_watch_state{service=\"recall\",state=\"steady\"} 0",
        "cutover_watch_evidence{service=\"recall\"} 0.25",
        "cutover_upstream_up{color=\"blue\",service=\"recall\",upstream=\"127.0.0.1:8000\"} 1",
        "cutover_upstream_up{color=\"green\",service=\"recall\",upstream=\"name\\\"with\\\\quote:8001\"} 0",
        "cutover_frozen{service=\"recall\",what=\"all\"} 1",
        "cutover_frozen{service=\"recall\",what=\"writes\"} 0",
        "cutover_held_requests{service=\"recall\"} 7",
        "cutover_held_requests_ended_total{service=\"recall\",end=\"timed_out\"} 5",
        "cutover_config_reloads_total{result=\"ok\"} 3",
        "cutover_config_reloads_total{result=\"failed\"} 1",
        "cutover_connections 12",
        "cutover_watch_ends_total{service=\"recall\",end=\"keep\"} 2",
        "cutover_watch_ends_total{service=\"recall\",end=\"not-enough-traffic\"} 0",
        "cutover_ledger_ok 0",
        "cutover_problems 1",
        "cutover_certificate_expiry_timestamp_seconds{cert=\"a.pem\"} 2000000000",
        "cutover_tls_handshakes_total{result=\"full\"} 5",
        "cutover_tls_handshakes_total{result=\"timed_out\"} 0",
        "cutover_http2_connections_ended_total{reason=\"reset_flood\"} 2",
        "cutover_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|have| sorted(have) == sorted(line)), "{line}\nis not in\n{text}");
    }
    assert_eq!(text.matches("cutover_requests_total{").count(), 2, "only what has happened");
    assert_eq!(text.matches("cutover_flips_total{").count(), 6, "every flip that could happen");
    assert_eq!(text.matches("cutover_watch_state{").count(), 4, "every phase");
}

/// Sorts the labels of a sample, because their order has no meaning.
fn sorted(line: &str) -> String {
    let Some((name, (labels, value))) =
        line.split_once('{').and_then(|(name, rest)| Some((name, rest.rsplit_once('}')?)))
    else {
        return line.to_owned();
    };
    let mut labels: Vec<_> = labels.split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}{value}", labels.join(","))
}

#[test]
fn have_exactly_the_documented_names() {
    let text = text(&example());
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE cutover_")).collect();
    assert_eq!(
        names,
        [
            "requests_total counter",
            "request_duration_seconds histogram",
            "replays_total counter",
            "skew_answers_total counter",
            "rehearsals_total counter",
            "in_flight gauge",
            "long_lived gauge",
            "drain_ends_total counter",
            "active gauge",
            "epoch gauge",
            "flips_total counter",
            "watch_state gauge",
            "watch_ends_total counter",
            "watch_evidence gauge",
            "upstream_up gauge",
            "frozen gauge",
            "held_requests gauge",
            "held_requests_ended_total counter",
            "config_reloads_total counter",
            "connections gauge",
            "ledger_ok gauge",
            "problems gauge",
            "certificate_expiry_timestamp_seconds gauge",
            "tls_handshakes_total counter",
            "http2_connections_ended_total counter",
            "refused_total counter",
            "build_info gauge",
        ]
    );
}

#[test]
fn are_there_before_the_first_request_and_service() {
    let mut quiet = example();
    quiet.stats.clear();
    quiet.rehearsals.clear();
    quiet.held.clear();
    quiet.status.services.clear();
    assert!(text(&quiet).contains("cutover_build_info{version=\"0.1.0\"} 1\n"));
}
