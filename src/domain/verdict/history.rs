//! What of the old color's past is a yardstick.
//!
//! An outage of some seconds says nothing about how the service usually is, and would excuse a bad release. A single
//! bad second is no outage: it is how this service's errors come, and dispersion has to learn from it.

use serde::{Deserialize, Serialize};

use super::{Batch, DetectorConfig, dispersion, tolerated_share};

/// Bad seconds in a row that are an outage.
const OUTAGE: usize = 3;
/// Requests without which a second is not judged.
const BUSY: f64 = 10.0;

/// The last seconds alone are the yardstick where they hold enough requests: the nearest past is the likest.
const RECENT: usize = 300;
/// Enough.
const ENOUGH: f64 = 10_000.0;

/// What a new color is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureBaseline {
    /// What the old color answered lately, without outages.
    pub answered: Batch,
    /// Its requests per second.
    pub rate: f64,
    /// What evidence is divided by, 1 or more.
    pub dispersion: f64,
}

impl Default for FailureBaseline {
    /// Nothing is known of the old color.
    fn default() -> Self {
        FailureBaseline { answered: Batch::default(), rate: 0.0, dispersion: 1.0 }
    }
}

impl FailureBaseline {
    /// From the old color's last seconds, at most an hour of them, oldest first; silent seconds are empty ones.
    pub fn new(mut seconds: Vec<Batch>, rule: &DetectorConfig) -> Self {
        if seconds.is_empty() {
            return FailureBaseline::default();
        }
        leave_outages_out(&mut seconds);
        let sum = |seconds: &[Batch]| seconds.iter().copied().sum::<Batch>();
        let recent = &seconds[seconds.len().saturating_sub(RECENT)..];
        let (last, all) = (sum(recent), sum(&seconds));
        // By the number of requests only, never by how many were bad.
        let (answered, span) = if last.requests >= ENOUGH { (last, recent.len()) } else { (all, seconds.len()) };
        FailureBaseline { answered, rate: answered.requests / span as f64, dispersion: dispersion(&seconds, rule) }
    }

    /// The share of bad requests up to which a new color is left alone.
    pub fn tolerated(&self, rule: &DetectorConfig) -> f64 {
        tolerated_share(self.answered, self.dispersion, rule)
    }
}

/// Empties the seconds of `history` that belong to an outage: three or more in a row, in each of which more than half
/// of at least ten requests were bad.
pub fn leave_outages_out(history: &mut [Batch]) {
    let is_bad = |second: &Batch| second.requests >= BUSY && second.bad > second.requests / 2.0;
    let alike = history.chunk_by_mut(|a, b| is_bad(a) == is_bad(b));
    for run in alike.filter(|run| run.len() >= OUTAGE && is_bad(&run[0])) {
        run.fill(Batch::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_past_is_taken_where_it_is_enough() {
        let rule = DetectorConfig::default();
        let (bad, good) = (Batch::new(100.0, 2.0), Batch::new(100.0, 0.0));
        let busy = FailureBaseline::new([[bad; 300], [good; 300]].concat(), &rule);
        assert_eq!((busy.answered, busy.rate), (Batch::new(30_000.0, 0.0), 100.0));
        let quiet = FailureBaseline::new([[Batch::new(1.0, 0.0); 300], [Batch::default(); 300]].concat(), &rule);
        assert_eq!((quiet.answered, quiet.rate), (Batch::new(300.0, 0.0), 0.5));
        assert_eq!(FailureBaseline::new(Vec::new(), &rule), FailureBaseline::default());
    }

    #[test]
    fn three_bad_seconds_are_an_outage_and_two_are_not() {
        let (good, bad) = (Batch::new(20.0, 1.0), Batch::new(20.0, 15.0));
        let mut history = [bad, bad, good, bad, bad, bad, good, bad];
        leave_outages_out(&mut history);
        let none = Batch::default();
        assert_eq!(history, [bad, bad, good, none, none, none, good, bad]);
    }
}
