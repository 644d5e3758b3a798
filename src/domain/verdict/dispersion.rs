//! How much a failure counts where failures come in clusters.
//!
//! The bound on needless rollbacks takes one failure as one piece of evidence. Ten failures of one looping client are
//! one piece, not ten. So before a release is judged, the rule is tried on the old color's own last hour: whatever it
//! would have needed to stay calm there, it gets. On failures that come one by one that is nothing at all.

use super::evidence::{Evidence, Stake};
use super::{Batch, Bets, DetectorConfig, tolerated_share};

/// The old color's own evidence may reach this: where a new color comes into doubt.
const CALM: f64 = 20.0;
/// No more than this power of two is tried.
const POWER_MAX: i32 = 16;

/// By how much evidence of failures is divided, 1 or more, from the old color's last hour, second by second.
pub fn dispersion(history: &[Batch], rule: &DetectorConfig) -> f64 {
    let whole: Batch = history.iter().copied().sum();
    least_calm(history, |dispersion| tolerated_share(whole, dispersion, rule))
}

/// The same for a criterion whose tolerated share is known, as that of slow requests is.
pub fn dispersion_at(history: &[Batch], tolerated: f64) -> f64 {
    least_calm(history, |_| tolerated)
}

/// 1, or twice the least power of two with which the history itself would have raised no doubt.
fn least_calm(history: &[Batch], tolerated: impl Fn(f64) -> f64) -> f64 {
    let stays_calm = |dispersion: f64| {
        let bets = Bets::new(tolerated(dispersion), dispersion);
        let mut evidence = Evidence::new(history.len() as f64);
        history.iter().all(|second| evidence.look(&bets, *second, Stake::Usual) <= CALM)
    };
    let tried = (0..POWER_MAX).map(|power| 2f64.powi(power));
    match tried.into_iter().find(|&dispersion| stays_calm(dispersion)) {
        Some(1.0) => 1.0,
        Some(dispersion) => 2.0 * dispersion,
        None => 2.0 * 2f64.powi(POWER_MAX),
    }
}
