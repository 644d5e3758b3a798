//! The text of `/metrics`, made from an [`Observation`] at each scrape.
//!
//! Nothing is counted here, and no label ever holds a path, a host or a method as a client sent it.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::control::Observation;
use crate::domain::Color;
use crate::status::{Phase, Status};
use crate::switch::{CODE_CLASSES, ColorStats, DURATION_BOUNDS_US, METHODS, Shard};

/// The exposition format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PHASES: [Phase; 4] = [Phase::Steady, Phase::Draining, Phase::Watching, Phase::RolledBack];
const REASONS: [&str; 3] = ["operator", "config", "verdict"];

/// Everything that was observed, in the Prometheus text format.
pub fn text(observed: &Observation) -> String {
    let families = traffic(observed).into_iter().chain(cutover(observed)).chain(proxy(observed));
    // The encoder takes a family without a sample for a mistake; before the first request it is none.
    let families: Vec<_> = families.filter(|family| !family.get_metric().is_empty()).collect();
    TextEncoder::new().encode_to_string(&families).expect("every family has a name, samples and one type")
}

fn traffic(observed: &Observation) -> [MetricFamily; 3] {
    let each = || {
        let colors = |(name, stats): &'_ (String, [_; 2])| (name.clone(), stats.clone());
        observed.stats.iter().map(colors).flat_map(|(name, stats)| {
            Color::BOTH.into_iter().zip(stats).map(move |(color, stats)| (name.clone(), color, stats))
        })
    };
    let requests = each().flat_map(|(name, color, stats)| {
        let cells = CODE_CLASSES
            .iter()
            .enumerate()
            .flat_map(|(c, class)| METHODS.iter().enumerate().map(move |(m, method)| ((c, m), *class, *method)));
        let count = move |((c, m), class, method): ((usize, usize), &str, &str)| {
            let count = stats.sum(|shard| shard.requests[c][m].get());
            let labels = [("service", &*name), ("color", color.as_str()), ("code_class", class), ("method", method)];
            (count > 0).then(|| counter(&labels, count))
        };
        cells.filter_map(count).collect::<Vec<_>>()
    });
    let durations = each().map(|(name, color, stats)| duration(&name, color, &stats));
    let in_flight = each()
        .map(|(name, color, stats)| gauge(&[("service", &name), ("color", color.as_str())], stats.in_flight() as f64));
    [
        family("requests_total", "Requests that ended, to their last byte.", MetricType::COUNTER, requests),
        family(
            "request_duration_seconds",
            "From a request's first byte to its answer's last.",
            MetricType::HISTOGRAM,
            durations,
        ),
        family("in_flight", "Requests and tunnels in flight now.", MetricType::GAUGE, in_flight),
    ]
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

fn cutover(observed: &Observation) -> [MetricFamily; 6] {
    let services = &observed.status.services;
    let active = services.iter().flat_map(|(name, service)| {
        let is_active = |color| f64::from(u8::from(service.active == color));
        Color::BOTH.map(|color| gauge(&[("service", name), ("color", color.as_str())], is_active(color)))
    });
    let epoch = services.iter().map(|(name, service)| gauge(&[("service", name)], service.epoch as f64));
    let flips = services.keys().flat_map(|name| {
        Color::BOTH.into_iter().flat_map(move |to| REASONS.map(|reason| (to, reason))).map(move |(to, reason)| {
            let counted = observed.flips.iter().filter(|flip| (&flip.0, flip.1, flip.2) == (name, to, reason));
            let labels = [("service", &**name), ("to", to.as_str()), ("reason", reason)];
            counter(&labels, counted.map(|flip| flip.3).sum())
        })
    });
    let state = services.iter().flat_map(|(name, service)| {
        let is_in = |phase| f64::from(u8::from(service.phase == phase));
        PHASES.map(|phase| gauge(&[("service", name), ("state", phase.as_str())], is_in(phase)))
    });
    let evidence = services
        .iter()
        .map(|(name, service)| gauge(&[("service", name)], service.watch.as_ref().map_or(0.0, |watch| watch.evidence)));
    [
        family("active", "1 for the color that takes new requests.", MetricType::GAUGE, active),
        family("epoch", "Grows by one at every flip or rollback.", MetricType::GAUGE, epoch),
        family("flips_total", "Flips and rollbacks made, by why.", MetricType::COUNTER, flips),
        family("watch_state", "1 for the phase that the service is in.", MetricType::GAUGE, state),
        family(
            "watch_evidence",
            "0: nothing speaks against the new color; 1: it is taken back.",
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

fn proxy(observed: &Observation) -> [MetricFamily; 3] {
    let reloads = [("ok", observed.reloads_ok), ("failed", observed.reloads_failed)];
    let reloads = reloads.map(|(result, count)| counter(&[("result", result)], count));
    let connections = [gauge(&[], observed.status.connections as f64)];
    let build = [gauge(&[("version", &observed.status.version)], 1.0)];
    [
        family("config_reloads_total", "Reloads of the config.", MetricType::COUNTER, reloads),
        family("connections", "Client connections open now.", MetricType::GAUGE, connections),
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
