//! Holds `[service.NAME.watch]`, its synthetic requests, and `[service.NAME.replay]`.

use std::time::Duration;

use super::section::Section;
use super::values::{absolute_path, seconds};

/// The section `[service.NAME.watch]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The length of the watch. Default 15 min; 0 s switches it off.
    pub window: Duration,
    /// The chance per flip of rolling a good release back: 0.000001 to 0.1. Default 0.001.
    pub max_false_rollbacks: f64,
    /// A smaller rise of the share of failures is not worth a rollback: 0 to 0.5. Default 0.001.
    pub min_effect: f64,
    /// Fewer failures never cause a rollback; at least 1. Default 5.
    pub min_failures: u32,
    /// A cold start is judged mildly for this long. Default 2 s; at most a quarter of the window.
    pub warm_up: Duration,
    /// A response is slow if it takes more than this many times the old color's p50, p90 or p99: 0 (not judged) to 100.
    /// Default 2.
    pub slow_factor: f64,
    /// Whether a doubted color shares the traffic with the old one until it is settled. Default true.
    pub split: bool,
    /// Whether a watch without enough traffic stays open past its window. Default false.
    pub stay_open: bool,
    /// A route with a smaller share of the requests never causes a rollback alone: 0 to 0.5. Default 0.02.
    pub rare_route: f64,
    /// The proxy's own requests to both colors while the new one is judged. None by default.
    pub synthetic: Option<Synthetic>,
}

/// The section `[service.NAME.watch.synthetic]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// The path is requested with GET; it may have a query.
    pub path: String,
    /// The time from one request to the next, for each color. Default 1 s.
    pub interval: Duration,
    /// Limits a whole response; after it the request has failed. Default 5 s.
    pub timeout: Duration,
}

/// `[service.NAME.replay]`: which requests that failed on the new color are sent once more to the old one, during the
/// watch. A request that no upstream could be connected for is, whatever its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// GET, HEAD and OPTIONS. Default true.
    pub safe: bool,
    /// PUT, DELETE and requests with an `Idempotency-Key`. Default false.
    pub idempotent: bool,
}

impl Default for Replay {
    fn default() -> Self {
        Replay { safe: true, idempotent: false }
    }
}

pub(super) fn watch(section: &Section<'_, '_>) -> Watch {
    let watch = Watch {
        window: section.duration_or_zero("window", seconds(900)).unwrap_or(seconds(900)),
        max_false_rollbacks: section.fraction("max_false_rollbacks", 0.000_001..=0.1, 0.001),
        min_effect: section.fraction("min_effect", 0.0..=0.5, 0.001),
        min_failures: u32::try_from(section.integer("min_failures", 1..=1000, 5)).unwrap_or(5),
        warm_up: section.duration_or_zero("warm_up", seconds(2)).unwrap_or(seconds(2)),
        slow_factor: section.fraction("slow_factor", 0.0..=100.0, 2.0),
        split: section.boolean("split", true),
        stay_open: section.boolean("stay_open", false),
        rare_route: section.fraction("rare_route", 0.0..=0.5, 0.02),
        synthetic: synthetic(section),
    };
    section.refuse_unknown();
    watch
}

pub(super) fn replay(section: &Section<'_, '_>) -> Replay {
    let replay = Replay { safe: section.boolean("safe", true), idempotent: section.boolean("idempotent", false) };
    section.refuse_unknown();
    replay
}

/// `None` where it is not configured.
fn synthetic(watch: &Section<'_, '_>) -> Option<Synthetic> {
    let given = watch.get("synthetic")?;
    let section = watch.section("synthetic");
    if section.get("path").is_none() {
        watch.problem("synthetic", given, "names no path", "{ path = \"/\", interval = \"1s\" }");
    }
    let synthetic = Synthetic {
        path: absolute_path(&section, "path", "/"),
        interval: section.duration("interval", seconds(1)),
        timeout: section.duration("timeout", seconds(5)),
    };
    section.refuse_unknown();
    Some(synthetic)
}
