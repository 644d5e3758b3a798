//! The detector of slowness: is a request slower than the old color's were?
//!
//! The same test with three other criteria. By definition half of the old color's requests are slower than its median,
//! a tenth than its p90, a hundredth than its p99: how much is tolerated needs no estimate. A criterion shows tails
//! when a request is slower than a multiple of that quantile. Requests are judged by age, each batch being those begun
//! in one tick once they are as old as the limit, whether they have ended or not: a color that hangs must not be judged
//! by the few that do not.

use super::DetectorConfig;
use super::detector::{CriterionSpec, Detector};

/// The shares of requests that are slower than the old color's p50, p90, p99.
pub const SLOWER_THAN_QUANTILE: [f64; 3] = [0.5, 0.1, 0.01];
/// In the warm-up only the p99 is judged, and against this: a color that hangs is found, a cold one is given time.
const TOLERATED_EARLY: [Option<f64>; 3] = [None, None, Some(0.5)];

/// A detector at the flip, for a service with `rate` requests per second, and a dispersion for each quantile (see
/// [`dispersion_at`](super::dispersion_at)).
pub fn slowness_detector(rate: f64, dispersions: [f64; 3], rule: DetectorConfig) -> Detector<3> {
    let criteria = std::array::from_fn(|at| CriterionSpec {
        tolerated: SLOWER_THAN_QUANTILE[at],
        tolerated_early: TOLERATED_EARLY[at],
        dispersion: dispersions[at],
    });
    // Strict evidence in the warm-up would starve a cold color of the requests it needs to get warm.
    Detector::new(criteria, rule.slowness_bar(), rate, rule, false)
}
