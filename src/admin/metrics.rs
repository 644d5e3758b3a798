//! The text of `/metrics`, made from a [`StatusSnapshot`] at each scrape.
//!
//! Nothing is counted here, and no label ever holds a path, a host or a method as a client sent it.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::api::status::{Phase, Status};
use crate::control::{FlipCount, StatusSnapshot};
use crate::domain::Color;
use crate::domain::cutover::Reason;
use crate::domain::freeze::What;
use crate::routing::{
    CodeClass, ColorStats, DURATION_BOUNDS_US, LeaseKind, METHODS, QueueOutcome, RehearsalResult, ReplayResult, Shard,
};

/// The exposition format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PHASES: [Phase; 4] = [Phase::Steady, Phase::Draining, Phase::Watching, Phase::RolledBack];

/// Everything that was observed, in the Prometheus text format.
pub fn text(observed: &StatusSnapshot) -> String {
    let families = traffic(observed).into_iter().chain(cutover(observed)).chain(held(observed)).chain(proxy(observed));
    // The encoder takes a family without a sample for a mistake; before the first request it is none.
    let families: Vec<_> = families.filter(|family| !family.get_metric().is_empty()).collect();
    TextEncoder::new().encode_to_string(&families).expect("every family has a name, samples and one type")
}

/// What is counted for each color of each service.
fn each(observed: &StatusSnapshot) -> impl Iterator<Item = (&str, Color, &ColorStats)> {
    observed.stats.iter().flat_map(|(name, stats)| {
        Color::BOTH.into_iter().zip(stats).map(move |(color, stats)| (name.as_str(), color, &**stats))
    })
}

fn traffic(observed: &StatusSnapshot) -> [MetricFamily; 8] {
    let durations = each(observed).map(|(name, color, stats)| duration(name, color, stats));
    let in_flight = each(observed).map(|(name, color, stats)| gauge(&of(name, color), stats.in_flight() as f64));
    let skew = each(observed)
        .map(|(name, color, stats)| counter(&of(name, color), stats.sum(|shard| shard.skew_answers.get())));
    [
        requests(observed),
        family(
            "request_duration_seconds",
            "From the complete request head to the last byte of the response.",
            MetricType::HISTOGRAM,
            durations,
        ),
        replays(observed),
        family(
            "skew_answers_total",
            "Static files that this color had and the color that was asked first did not.",
            MetricType::COUNTER,
            skew,
        ),
        rehearsals(observed),
        family("in_flight", "Requests and tunnels in flight now.", MetricType::GAUGE, in_flight),
        long_lived(observed),
        drain_ends(observed),
    ]
}

/// The two labels that most have.
fn of(service: &str, color: Color) -> [(&'static str, &str); 2] {
    [("service", service), ("color", color.as_str())]
}

fn requests(observed: &StatusSnapshot) -> MetricFamily {
    let counts = each(observed).flat_map(|(name, color, stats)| {
        let cells = CodeClass::ALL.into_iter().flat_map(|class| (0..METHODS.len()).map(move |method| (class, method)));
        cells.filter_map(move |(class, method)| {
            let count = stats.sum(|shard| shard.requests[class as usize][method].get());
            let [service, color] = of(name, color);
            let labels = [service, color, ("code_class", class.as_str()), ("method", METHODS[method])];
            (count > 0).then(|| counter(&labels, count))
        })
    });
    family("requests_total", "Requests that ended.", MetricType::COUNTER, counts)
}

fn replays(observed: &StatusSnapshot) -> MetricFamily {
    let counts = observed.stats.iter().flat_map(|(name, stats)| {
        let count = |result: ReplayResult| {
            stats.iter().map(|stats| stats.sum(|shard: &Shard| shard.replays[result as usize].get())).sum()
        };
        let metric = |result: ReplayResult| counter(&[("service", name), ("result", result.as_str())], count(result));
        ReplayResult::ALL.map(metric)
    });
    let help = "Failures of a watched color that were sent on to the other color.";
    family("replays_total", help, MetricType::COUNTER, counts)
}

fn rehearsals(observed: &StatusSnapshot) -> MetricFamily {
    let counts = observed.rehearsals.iter().flat_map(|(name, counts)| {
        RehearsalResult::ALL
            .map(|result| counter(&[("service", name), ("result", result.as_str())], counts[result as usize]))
    });
    let help = "Requests copied to the idle color, by how the responses compare.";
    family("rehearsals_total", help, MetricType::COUNTER, counts)
}

fn long_lived(observed: &StatusSnapshot) -> MetricFamily {
    let open = each(observed).flat_map(|(name, color, stats)| {
        // A request ends by itself.
        LeaseKind::ALL.into_iter().filter(|kind| *kind != LeaseKind::Request).map(move |kind| {
            let [service, color] = of(name, color);
            gauge(&[service, color, ("kind", kind.as_str())], stats.open(kind) as f64)
        })
    });
    family("long_lived", "Requests and tunnels in flight that do not end by themselves.", MetricType::GAUGE, open)
}

fn drain_ends(observed: &StatusSnapshot) -> MetricFamily {
    let counts = each(observed).flat_map(|(name, color, stats)| {
        LeaseKind::ALL.into_iter().flat_map(move |kind| {
            let closed = stats.sum(|shard: &Shard| shard.ends[kind as usize].closed.get());
            let cut = stats.sum(|shard: &Shard| shard.ends[kind as usize].cut.get());
            let [service, color] = of(name, color);
            [("closed", closed), ("cut", cut)]
                .map(|(end, count)| counter(&[service, color, ("kind", kind.as_str()), ("end", end)], count))
        })
    });
    let help = "What the proxy ended because its color was left: closed politely, or cut at the deadline.";
    family("drain_ends_total", help, MetricType::COUNTER, counts)
}

fn duration(service: &str, color: Color, stats: &ColorStats) -> Metric {
    let mut cumulative = 0;
    let mut count = |at: usize| {
        cumulative += stats.sum(|shard: &Shard| shard.durations[at].get());
        cumulative
    };
    let bucket = |(at, bound): (usize, &u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(count(at));
        bucket
    };
    let buckets = DURATION_BOUNDS_US.iter().enumerate().map(bucket).collect();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count(DURATION_BOUNDS_US.len()));
    histogram.set_sample_sum(stats.sum(|shard| shard.duration_sum_us.get()) as f64 / 1e6);
    let mut metric = Metric::from_label(labels(&[("service", service), ("color", color.as_str())]));
    metric.set_histogram(histogram);
    metric
}

fn cutover(observed: &StatusSnapshot) -> [MetricFamily; 7] {
    let services = &observed.status.services;
    let active = services.iter().flat_map(|(name, service)| {
        let is_active = |color| f64::from(u8::from(service.active == color));
        Color::BOTH.map(|color| gauge(&[("service", name), ("color", color.as_str())], is_active(color)))
    });
    let epoch = services.iter().map(|(name, service)| gauge(&[("service", name)], service.epoch as f64));
    let flips = services.keys().flat_map(|name| {
        Color::BOTH.into_iter().flat_map(move |to| Reason::ALL.map(|reason| (to, reason))).map(move |(to, reason)| {
            let is_it = |flip: &&FlipCount| (&flip.service, flip.to, flip.reason) == (name, to, reason);
            let labels = [("service", &**name), ("to", to.as_str()), ("reason", reason.as_str())];
            counter(&labels, observed.flips.iter().filter(is_it).map(|flip| flip.count).sum())
        })
    });
    let state = services.iter().flat_map(|(name, service)| {
        let is_in = |phase| f64::from(u8::from(service.phase == phase));
        PHASES.map(|phase| gauge(&[("service", name), ("state", phase.as_str())], is_in(phase)))
    });
    let ends = observed
        .watch_ends
        .iter()
        .map(|ended| counter(&[("service", &ended.service), ("end", ended.end.as_str())], ended.count));
    let evidence = services
        .iter()
        .map(|(name, service)| gauge(&[("service", name)], service.watch.as_ref().map_or(0.0, |watch| watch.evidence)));
    [
        family("active", "1 for the color that takes new requests.", MetricType::GAUGE, active),
        family("epoch", "Grows by one at every flip or rollback.", MetricType::GAUGE, epoch),
        family("flips_total", "Flips and rollbacks, by reason.", MetricType::COUNTER, flips),
        family("watch_state", "1 for the phase that the service is in.", MetricType::GAUGE, state),
        family("watch_ends_total", "Watches that ended without taking traffic back.", MetricType::COUNTER, ends),
        family(
            "watch_evidence",
            "From 0, nothing speaks against the new color, to 1: it is taken back.",
            MetricType::GAUGE,
            evidence,
        ),
        family(
            "upstream_up",
            "1 for an upstream that its probes find ready.",
            MetricType::GAUGE,
            upstreams(&observed.status),
        ),
    ]
}

fn held(observed: &StatusSnapshot) -> [MetricFamily; 3] {
    let frozen = observed.status.services.iter().flat_map(|(name, service)| {
        let is = |what| f64::from(u8::from(service.freeze.as_ref().is_some_and(|freeze| freeze.what == what)));
        [What::Writes, What::All].map(|what| gauge(&[("service", name), ("what", what.as_str())], is(what)))
    });
    let now = observed.held.iter().map(|held| gauge(&[("service", &held.service)], held.now as f64));
    let ends = observed.held.iter().flat_map(|held| {
        QueueOutcome::ALL
            .map(|end| counter(&[("service", &held.service), ("end", end.as_str())], held.ends[end as usize]))
    });
    [
        family("frozen", "1 for what a freeze in force holds.", MetricType::GAUGE, frozen),
        family("held_requests", "Requests that a freeze holds now.", MetricType::GAUGE, now),
        family(
            "held_requests_ended_total",
            "Requests that a freeze held, by how the wait ended.",
            MetricType::COUNTER,
            ends,
        ),
    ]
}

fn upstreams(status: &Status) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for (name, service) in &status.services {
        for (color, state) in &service.colors {
            metrics.extend(state.upstreams.iter().map(|upstream| {
                let labels = [("service", &**name), ("color", color.as_str()), ("upstream", &*upstream.address)];
                gauge(&labels, f64::from(u8::from(upstream.ready)))
            }));
        }
    }
    metrics
}

fn proxy(observed: &StatusSnapshot) -> [MetricFamily; 9] {
    let reloads = [("ok", observed.reloads_ok), ("failed", observed.reloads_failed)];
    let reloads = reloads.map(|(result, count)| counter(&[("result", result)], count));
    let connections = [gauge(&[], observed.status.connections as f64)];
    let ledger = [gauge(&[], f64::from(u8::from(observed.ledger_ok)))];
    let problems = [gauge(&[], observed.status.problems.len() as f64)];
    let certificates = observed.certificates.iter().map(|(file, end)| gauge(&[("cert", file)], *end as f64));
    let handshakes = observed.handshakes.iter().map(|(how, count)| counter(&[("result", how)], *count));
    let http2_ends = observed.http2_ends.iter().map(|(why, count)| counter(&[("reason", why)], *count));
    let refusals = observed.refusals.iter().map(|(why, count)| counter(&[("reason", why)], *count));
    let build = [gauge(&[("version", &observed.status.version)], 1.0)];
    [
        family("config_reloads_total", "Reloads of the config.", MetricType::COUNTER, reloads),
        family("connections", "Client connections open now.", MetricType::GAUGE, connections),
        family("ledger_ok", "1 when the ledger's last line reached the disk.", MetricType::GAUGE, ledger),
        family("problems", "Problems that the status lists now.", MetricType::GAUGE, problems),
        family(
            "certificate_expiry_timestamp_seconds",
            "Unix time of a certificate's last second.",
            MetricType::GAUGE,
            certificates,
        ),
        family("tls_handshakes_total", "TLS handshakes, by result.", MetricType::COUNTER, handshakes),
        family(
            "http2_connections_ended_total",
            "HTTP/2 connections ended for what the client did, by reason.",
            MetricType::COUNTER,
            http2_ends,
        ),
        family(
            "refused_total",
            "Clients refused or cut off by a limit or for a malformed request, by reason.",
            MetricType::COUNTER,
            refusals,
        ),
        family("build_info", "Always 1; the version is the label.", MetricType::GAUGE, build),
    ]
}

fn family(name: &str, help: &str, kind: MetricType, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("cutover_{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.into_iter().collect());
    family
}

fn counter(names: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels(names));
    metric.set_counter(counter);
    metric
}

fn gauge(names: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels(names));
    metric.set_gauge(gauge);
    metric
}

fn labels(names: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    names.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::admin::metrics::*;
    use crate::api::status::{ColorStatus, FreezeStatus, ServiceStatus, UpstreamStatus, WatchStatus};
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
        let count = |worker: usize, class: usize, method: usize, us: u64| {
            let shard = &stats[0].shards[worker];
            shard.begun.add(1);
            shard.ended.add(1);
            shard.requests[class as usize][method].add(1);
            shard.durations[DURATION_BOUNDS_US.partition_point(|&bound| bound < us)].add(1);
            shard.duration_sum_us.add(us);
        };
        count(0, 2, 0, 400);
        count(1, 2, 0, 1_500);
        count(1, 5, 2, 90_000_000);
        stats[0].shards[0].begun.add(1);
        stats[0].shards[0].replays[0].add(2);
        stats[1].shards[1].replays[0].add(3);
        stats[1].shards[0].skew_answers.add(6);
        let service = ServiceStatus {
            active: Color::Green,
            epoch: 7,
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
            colors: [
                (Color::Blue, color("127.0.0.1:8000", true)),
                (Color::Green, color("name\"with\\quote:8001", false)),
            ]
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

    /// A sample with its labels in order: their order means nothing.
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
}
