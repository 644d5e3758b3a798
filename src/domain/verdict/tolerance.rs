//! Which share of bad requests the old color's history excuses.
//!
//! A history is a sample: forty good requests do not prove that the forty-first is good. So the upper bound counts, the
//! largest true share that the sample leaves credible; but never less than half as much again as was seen, and never
//! less than `min_effect` more than was seen, because smaller rises are not worth a rollback.

use super::{Batch, DetectorConfig};

/// Rises below half of what was usual are nobody's fault.
const RATIO: f64 = 1.5;
/// A short history excuses at most this share more than it shows.
const DOUBT_MAX: f64 = 0.05;
/// A floor above zero, so that a bet never gains an infinity from one failure.
const LEAST: f64 = 1e-6;
/// At most, unless the old color is known to be worse.
const MOST: f64 = 0.5;
/// An old color that failed every time excuses everything: going back to it would help nobody.
const HOPELESS: f64 = 0.999;
/// Requests without which no old color is that hopeless: one unlucky request must not excuse every release after it.
const HOPELESS_MIN: f64 = 20.0;

/// The share of bad requests up to which the new color is left alone, 0.000001 to 0.999.
///
/// `dispersion` is how much less the history is worth than its number of requests says; 1 where errors come one by one.
pub fn tolerated_share(history: Batch, dispersion: f64, rule: &DetectorConfig) -> f64 {
    let seen = history.share();
    let worth = Batch::new(history.requests / dispersion, history.bad / dispersion);
    let credible = upper_bound(worth, (4.0 / rule.max_false_rollbacks).ln()).min(seen + DOUBT_MAX);
    let most = if history.requests < HOPELESS_MIN { MOST } else { HOPELESS };
    credible.max(RATIO * seen).max(seen + rule.min_effect).clamp(LEAST, most)
}

/// The largest true share under which `history` is not yet too surprising: less than `nats` nats of Chernoff's bound.
/// 1 without any history.
pub fn upper_bound(history: Batch, nats: f64) -> f64 {
    if history.requests <= 0.0 {
        return 1.0;
    }
    let seen = history.share();
    let (mut credible, mut surprising) = (seen, 1.0);
    for _ in 0..100 {
        let middle = 0.5 * (credible + surprising);
        // Just below 1, where the divergence is infinite.
        let distance = divergence(seen, f64::min(middle, 1.0 - 1e-16));
        if history.requests * distance <= nats { credible = middle } else { surprising = middle }
    }
    credible
}

/// Kullback-Leibler divergence of a coin that shows `seen` from one that shows `believed`, in nats; `0 * ln 0` is 0.
fn divergence(seen: f64, believed: f64) -> f64 {
    let part = |seen: f64, believed: f64| if seen > 0.0 { seen * (seen / believed).ln() } else { 0.0 };
    part(seen, believed) + part(1.0 - seen, 1.0 - believed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hopeless_old_color_excuses_everything_but_one_request_does_not() {
        let rule = DetectorConfig::default();
        assert_eq!(tolerated_share(Batch::new(100.0, 100.0), 1.0, &rule), HOPELESS);
        assert_eq!(tolerated_share(Batch::new(1.0, 1.0), 1.0, &rule), MOST);
    }

    #[test]
    fn more_history_excuses_less() {
        let rule = DetectorConfig::default();
        let mut before = 1.0;
        for requests in [0.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6] {
            let share = tolerated_share(Batch::new(requests, 0.0), 1.0, &rule);
            assert!(share <= before && share >= rule.min_effect, "{requests}: {share}");
            before = share;
        }
    }
}
