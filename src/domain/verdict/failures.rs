//! The detector of failures: did a request end badly?
//!
//! Bad is a 5xx, a connection that failed, a time-out, a body that broke off. A client that left, a 4xx, a probe and a
//! refusal of the proxy's own are neither bad nor good, and must not be among the counts at all.

use super::DetectorConfig;
use super::detector::{CriterionSpec, Detector};

/// Tolerated in the warm-up: a cold start may stumble, and a dead release is still found.
const TOLERATED_EARLY: f64 = 0.3;

/// A detector at the flip, against the share `tolerated`, for a service with `rate` requests per second and a history
/// that asks for `dispersion` (see [`dispersion`](super::dispersion)).
pub fn failure_detector(tolerated: f64, rate: f64, dispersion: f64, rule: DetectorConfig) -> Detector<1> {
    let criterion = CriterionSpec { tolerated, tolerated_early: Some(TOLERATED_EARLY), dispersion };
    Detector::new([criterion], rule.failures_bar(), rate, rule, true)
}
