//! The capital that the bets have made: how much speaks against the new color.
//!
//! One unit is staked in all. Half of it is bet at the flip; the other half is spread over the looks of the window, a
//! little at each. Capital that was bet early has shrunk by the time a late fault begins, but what was bet just before
//! the fault has not, and so a late fault is found about as fast as an early one. Because all stakes together are one
//! unit, the sum cannot be expected to grow while the new color is no worse than tolerated.

use serde::{Deserialize, Serialize};

use super::Batch;
use super::bets::{BETS, Bets, GROWTH_MAX};

/// Past this a verdict is long certain, and a product of two such numbers is still finite.
const CAPITAL_MAX: f64 = 1e100;
/// Staked at the flip; as much is held back.
const STAKED: f64 = 0.5;

/// What is added to the bets at a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stake {
    /// A small part of what is held back, where anything was answered: silence is no evidence and costs none.
    Usual,
    /// Half of what is held back. Once, at the end of the warm-up, whose mild bets are worth little after it.
    Large,
}

/// The bets' capital.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Evidence {
    capital: [f64; BETS],
    held_back: f64,
    starts: f64,
}

impl Evidence {
    /// Evidence at the flip: the sum is 0.5. What is held back is spread over `starts` looks, at least 1.
    pub fn new(starts: f64) -> Self {
        Evidence { capital: [STAKED / BETS as f64; BETS], held_back: 1.0 - STAKED, starts: starts.max(1.0) }
    }

    /// Takes in what was answered since the last look, and returns the sum.
    pub fn look(&mut self, bets: &Bets, batch: Batch, stake: Stake) -> f64 {
        let added = match stake {
            Stake::Large => self.held_back / 2.0,
            Stake::Usual if batch.requests > 0.0 => self.held_back / self.starts,
            Stake::Usual => 0.0,
        };
        self.held_back -= added;
        for (at, capital) in self.capital.iter_mut().enumerate() {
            let growth = bets.growth(at, batch).min(GROWTH_MAX).exp();
            *capital = ((*capital + added / BETS as f64) * growth).min(CAPITAL_MAX);
        }
        self.sum()
    }

    /// The sum of the bets' capital.
    pub fn sum(&self) -> f64 {
        self.capital.iter().sum()
    }

    /// The sum that would be left if `in_flight` more requests all turned out good. Failures often answer sooner than
    /// successes, and must not convict before the successes are heard.
    pub fn sum_if_good(&self, bets: &Bets, in_flight: f64) -> f64 {
        let good = Batch::new(in_flight, 0.0);
        self.capital.iter().enumerate().map(|(at, capital)| capital * bets.growth(at, good).exp()).sum()
    }

    /// Each bet's part of the sum, where that is above zero.
    pub(super) fn proportions(&self) -> [f64; BETS] {
        let sum = self.sum();
        self.capital.map(|capital| capital / sum)
    }

    /// Drops what was made so far; what is held back stays, so that the next fault is found.
    pub(super) fn forget(&mut self) {
        self.capital = [0.0; BETS];
    }

    /// What has not been staked yet.
    #[cfg(test)]
    pub(super) fn held_back(&self) -> f64 {
        self.held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_finite_and_comes_back_to_earth() {
        let bets = Bets::new(1e-6, 1.0);
        let mut evidence = Evidence::new(9000.0);
        for _ in 0..1_000 {
            assert!(evidence.look(&bets, Batch::new(1e6, 1e6), Stake::Usual).is_finite());
        }
        for _ in 0..1_000 {
            evidence.look(&bets, Batch::new(1e6, 0.0), Stake::Usual);
        }
        assert!(evidence.sum() < 1.0, "{}", evidence.sum());
        assert!(evidence.look(&bets, Batch::new(5.0, 5.0), Stake::Usual) > 2_000.0, "and is found again");
    }

    #[test]
    fn silence_moves_nothing() {
        let mut evidence = Evidence::new(9000.0);
        for _ in 0..9_000 {
            evidence.look(&Bets::new(0.001, 1.0), Batch::default(), Stake::Usual);
        }
        assert_eq!((evidence.sum(), evidence.held_back()), (0.5, 0.5));
    }
}
