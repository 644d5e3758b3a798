//! Eight bets that the new color's share of bad requests is some larger one than the tolerated one.
//!
//! A bet multiplies its stake by how much likelier an answer is under its own share than under the tolerated one: up
//! at a bad answer, down a little at a good one. Several are needed because nobody knows how large the fault will be:
//! the bet on a small rise finds a small rise, the bet on 95 % finds a dead color within a few answers.

use serde::{Deserialize, Serialize};

use super::Batch;

/// How many there are; five or sixteen found faults no sooner.
pub(super) const BETS: usize = 8;
/// The odds of a bad request in the smallest bet, as a multiple of the tolerated odds.
const SMALLEST: f64 = 1.4;
/// The share in the largest bet.
const LARGEST: f64 = 0.95;
/// One batch multiplies a stake by no more than this, as a natural logarithm: it keeps everything finite.
pub(super) const GROWTH_MAX: f64 = 400.0;

/// What each bet gains and loses by one answer, as natural logarithms.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bets {
    gain: [f64; BETS],
    loss: [f64; BETS],
}

impl Bets {
    /// Bets against the share `tolerated`, with gains and losses divided by `dispersion`, which is 1 or more.
    pub fn new(tolerated: f64, dispersion: f64) -> Self {
        let against =
            |ratio: fn(f64, f64) -> f64| shares(tolerated).map(|share| ratio(share, tolerated).ln() / dispersion);
        Bets {
            gain: against(|share, tolerated| share / tolerated),
            loss: against(|share, tolerated| (1.0 - tolerated) / (1.0 - share)),
        }
    }

    /// By how much, as a natural logarithm, bet number `at` grows or shrinks by `batch`.
    pub(super) fn growth(&self, at: usize, batch: Batch) -> f64 {
        batch.bad * self.gain[at] - batch.good() * self.loss[at]
    }

    /// The best bet's growth per request, as a natural logarithm, where `share` of the requests are bad.
    pub fn best_growth(&self, share: f64) -> f64 {
        let each = Batch::new(1.0, share);
        (0..BETS).map(|at| self.growth(at, each)).fold(0.0, f64::max)
    }

    /// The sum of what equal stakes of one in all would have become over `batch`.
    pub fn evidence_of(&self, batch: Batch) -> f64 {
        (0..BETS).map(|at| self.growth(at, batch).min(GROWTH_MAX).exp()).sum::<f64>() / BETS as f64
    }

    /// What bet number `at` gains by a bad answer and loses by a good one.
    #[cfg(test)]
    pub(super) fn gain_and_loss(&self, at: usize) -> (f64, f64) {
        (self.gain[at], self.loss[at])
    }
}

/// The shares that are bet on, from just above `tolerated` up to [`LARGEST`]: closely spaced where they are small.
pub(super) fn shares(tolerated: f64) -> [f64; BETS] {
    let log_odds = |share: f64| (share / (1.0 - share)).ln();
    let from = log_odds(tolerated);
    let nearest = SMALLEST.ln();
    // Above the tolerated share even where that is beyond the largest bet.
    let farthest = (log_odds(LARGEST) - from).max(nearest);
    std::array::from_fn(|at| {
        let step = at as f64 / (BETS - 1) as f64;
        let odds = (from + nearest * (farthest / nearest).powf(step)).exp();
        odds / (1.0 + odds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_all_on_something_worse_than_tolerated() {
        for tolerated in [1e-6, 0.001, 0.3, 0.5, 0.9, 0.999] {
            let shares = shares(tolerated);
            assert!(shares.iter().all(|share| *share > tolerated && *share < 1.0), "{tolerated}: {shares:?}");
            assert!(shares.is_sorted(), "{tolerated}: {shares:?}");
            let bets = Bets::new(tolerated, 1.0);
            assert_eq!(bets.best_growth(tolerated), 0.0, "nothing grows at the tolerated share {tolerated}");
            assert!(bets.best_growth(1.0) > 0.0);
        }
    }
}
