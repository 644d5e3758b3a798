//! The jury of failures: did a request end badly?
//!
//! Bad is a 5xx, a connection that failed, a time-out, a body that broke off. A client that left, a 4xx, a probe and a
//! refusal of the proxy's own are neither bad nor good, and must not be among the counts at all.

use super::Rule;
use super::jury::{CoinRule, Jury};

/// Tolerated in the warm-up: a cold start may stumble, and a dead release is still found.
const TOLERATED_EARLY: f64 = 0.3;

/// A jury at the flip, against the share `tolerated`, for a service with `rate` requests per second and a history that
/// asks for `blunt` (see [`blunting`](super::blunting)).
pub fn jury_of_failures(tolerated: f64, rate: f64, blunt: f64, rule: Rule) -> Jury<1> {
    let coin = CoinRule { tolerated, tolerated_early: Some(TOLERATED_EARLY), blunt };
    Jury::new([coin], rule.failures_bar(), rate, rule, true)
}
