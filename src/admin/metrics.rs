//! Builds the text of `/metrics` from a [`StatusSnapshot`] at each scrape.
//!
//! Nothing is counted here, and no label ever holds a path, a host or a method as a client sent it.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::api::{Phase, Status};
use crate::control::{FlipCount, StatusSnapshot};
use crate::domain::Color;
use crate::domain::cutover::Reason;
use crate::domain::freeze::What;
use crate::routing::{
    CodeClass, ColorStats, DURATION_BOUNDS_US, LeaseKind, Method, QueueOutcome, RehearsalResult, ReplayResult, Shard,
};

/// The content type of the exposition format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PHASES: [Phase; 4] = [Phase::Steady, Phase::Draining, Phase::Watching, Phase::RolledBack];

/// Returns everything that was observed, in the Prometheus text format.
pub fn text(observed: &StatusSnapshot) -> String {
    let families = traffic(observed).into_iter().chain(cutover(observed)).chain(held(observed)).chain(proxy(observed));
    // The encoder treats a family without a sample as an error, but before the first request an empty family is normal.
    let families: Vec<_> = families.filter(|family| !family.get_metric().is_empty()).collect();
    TextEncoder::new().encode_to_string(&families).expect("every family has a name, samples and one type")
}

/// Returns the counts of each color of each service.
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

/// Returns the two labels that most metrics have.
fn of(service: &str, color: Color) -> [(&'static str, &str); 2] {
    [("service", service), ("color", color.as_str())]
}

fn requests(observed: &StatusSnapshot) -> MetricFamily {
    let counts = each(observed).flat_map(|(name, color, stats)| {
        let cells =
            CodeClass::ALL.into_iter().flat_map(|class| Method::ALL.into_iter().map(move |method| (class, method)));
        cells.filter_map(move |(class, method)| {
            let count = stats.sum(|shard| shard.requests[class as usize][method as usize].get());
            let [service, color] = of(name, color);
            let labels = [service, color, ("code_class", class.as_str()), ("method", method.as_str())];
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
        // A plain request ends by itself, so it is not a long-lived lease.
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
mod tests;
