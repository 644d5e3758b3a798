//! The text of `/metrics`, made anew at each scrape from what the planes counted. Seconds; no label by path or host.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::control::Observation;
use crate::domain::Color;
use crate::status::{Phase, ServiceStatus};
use crate::switch::{CODE_CLASSES, ColorStats, DURATION_BOUNDS_US, METHODS, REPLAY_RESULTS};

/// Every phase, for the one-hot `cutover_watch_state`.
const PHASES: [Phase; 4] = [Phase::Steady, Phase::Draining, Phase::Watching, Phase::RolledBack];

/// Writes the page in the Prometheus text format.
///
/// # Errors
/// The encoder refuses a family; that would be a bug of ours.
pub fn page(seen: &Observation) -> Result<String, prometheus::Error> {
    let mut families = vec![
        Family::counter(
            "cutover_requests_total",
            "Requests that ended, by status class (none: the client left before).",
        )
        .of(requests(seen)),
        durations(seen),
        Family::counter("cutover_replays_total", "Failures of a watched color that the other one was asked to answer.")
            .of(replays(seen)),
    ];
    let of_color = |value: fn(&ServiceStatus, Color) -> f64| {
        let services = seen.status.services.iter();
        services.flat_map(move |(name, service)| {
            service.colors.keys().map(move |&color| {
                (vec![("service", name.clone()), ("color", color.to_string())], value(service, color))
            })
        })
    };
    families.push(
        Family::gauge("cutover_in_flight", "Requests and tunnels in flight.")
            .of(of_color(|service, color| service.colors.get(&color).map_or(0.0, |status| number(status.in_flight)))),
    );
    families.push(
        Family::gauge("cutover_active", "1 for the color that takes new requests.")
            .of(of_color(|service, color| f64::from(service.active == color))),
    );
    families.extend(of_services(seen));
    families
        .push(Family::gauge("cutover_upstream_up", "1 while the probes find the upstream ready.").of(upstreams(seen)));
    let reloads = [("ok", seen.reloads_ok), ("failed", seen.reloads_failed)];
    families.push(
        Family::counter("cutover_config_reloads_total", "Reloads of the config, by result.")
            .of(reloads.map(|(result, count)| (vec![("result", result.to_owned())], number(count)))),
    );
    families.push(
        Family::gauge("cutover_connections", "Client connections open.")
            .of([(vec![], number(seen.status.connections))]),
    );
    let build = vec![("version", seen.status.version.clone())];
    families.push(Family::gauge("cutover_build_info", "1, with the version as a label.").of([(build, 1.0)]));
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}

/// Labels and value of one sample.
type Sample = (Vec<(&'static str, String)>, f64);

fn of_services(seen: &Observation) -> [MetricFamily; 4] {
    let each = |value: fn(&ServiceStatus) -> f64| -> Vec<Sample> {
        let services = seen.status.services.iter();
        services.map(|(name, service)| (vec![("service", name.clone())], value(service))).collect()
    };
    let flips = seen.flips.iter().map(|(service, to, reason, count)| {
        (vec![("service", service.clone()), ("to", to.to_string()), ("reason", (*reason).to_owned())], number(*count))
    });
    let states = seen.status.services.iter().flat_map(|(name, service)| {
        PHASES.map(|phase| {
            let labels = vec![("service", name.clone()), ("state", phase.as_str().to_owned())];
            (labels, f64::from(service.phase == phase))
        })
    });
    [
        Family::gauge("cutover_epoch", "Grows by one at every flip or rollback.")
            .of(each(|service| number(service.epoch))),
        Family::counter("cutover_flips_total", "Flips and rollbacks, by target and reason.").of(flips),
        Family::gauge("cutover_watch_state", "1 for the phase the service is in.").of(states),
        Family::gauge("cutover_watch_evidence", "What speaks against the new color: 0 nothing, 1 it is rolled back.")
            .of(each(|service| service.watch.as_ref().map_or(0.0, |watch| watch.evidence))),
    ]
}

fn upstreams(seen: &Observation) -> impl Iterator<Item = Sample> {
    seen.status.services.iter().flat_map(|(name, service)| {
        service.colors.iter().flat_map(move |(color, status)| {
            status.upstreams.iter().map(move |upstream| {
                let labels = vec![
                    ("service", name.clone()),
                    ("color", color.to_string()),
                    ("upstream", upstream.address.clone()),
                ];
                (labels, f64::from(upstream.ready))
            })
        })
    })
}

/// Every `(service, color)` with its counters.
fn stats(seen: &Observation) -> impl Iterator<Item = (&str, Color, &ColorStats)> {
    seen.stats
        .iter()
        .flat_map(|(name, colors)| Color::BOTH.map(|color| (name.as_str(), color, &*colors[color.index()])))
}

fn requests(seen: &Observation) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (service, color, stats) in stats(seen) {
        for (class_at, class) in CODE_CLASSES.iter().enumerate() {
            for (method_at, method) in METHODS.iter().enumerate() {
                let count = stats.sum(|shard| shard.requests[class_at][method_at].get());
                // 54 combinations a color, most of which never happen.
                if count > 0 {
                    let labels = vec![
                        ("service", service.to_owned()),
                        ("color", color.to_string()),
                        ("code_class", (*class).to_owned()),
                        ("method", (*method).to_owned()),
                    ];
                    samples.push((labels, number(count)));
                }
            }
        }
    }
    samples
}

fn replays(seen: &Observation) -> impl Iterator<Item = Sample> {
    seen.stats.iter().flat_map(|(service, colors)| {
        REPLAY_RESULTS.iter().enumerate().map(move |(at, result)| {
            let count = colors.iter().map(|stats| stats.sum(|shard| shard.replays[at].get())).sum();
            (vec![("service", service.clone()), ("result", (*result).to_owned())], number(count))
        })
    })
}

fn durations(seen: &Observation) -> MetricFamily {
    let metrics = stats(seen).map(|(service, color, stats)| {
        let mut below = 0;
        let mut buckets = Vec::new();
        for (at, &bound) in DURATION_BOUNDS_US.iter().enumerate() {
            below += stats.sum(|shard| shard.durations[at].get());
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(below);
            bucket.set_upper_bound(number(bound) / 1e6);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_sample_count(below + stats.sum(|shard| shard.durations[DURATION_BOUNDS_US.len()].get()));
        histogram.set_sample_sum(number(stats.sum(|shard| shard.duration_sum_us.get())) / 1e6);
        histogram.set_bucket(buckets);
        let mut metric = Metric::from_label(pairs(vec![("service", service.to_owned()), ("color", color.to_string())]));
        metric.set_histogram(histogram);
        metric
    });
    let help = "Seconds from a request's complete head to the last byte of its answer.";
    Family("cutover_request_duration_seconds", help, MetricType::HISTOGRAM).holding(metrics.collect())
}

/// Name, help and type of a family that is being written.
struct Family(&'static str, &'static str, MetricType);

impl Family {
    fn counter(name: &'static str, help: &'static str) -> Self {
        Family(name, help, MetricType::COUNTER)
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Family(name, help, MetricType::GAUGE)
    }

    fn of(self, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
        let is_counter = self.2 == MetricType::COUNTER;
        let metric = |(labels, value)| {
            let mut metric = Metric::from_label(pairs(labels));
            if is_counter {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        };
        let metrics = samples.into_iter().map(metric).collect();
        self.holding(metrics)
    }

    fn holding(self, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.0.to_owned());
        family.set_help(self.1.to_owned());
        family.set_field_type(self.2);
        family.set_metric(metrics);
        family
    }
}

fn pairs(labels: Vec<(&'static str, String)>) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}

/// Prometheus has no integers; counts stay exact up to 2^53.
fn number(count: u64) -> f64 {
    count as f64
}
