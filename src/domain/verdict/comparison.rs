//! Is the new color worse than the old one at this very moment?
//!
//! While both colors take traffic, their answers of the same seconds are set against each other. Whatever hurts both
//! alike, such as a database that is gone, cancels out, so this needs no history. It is an e-process for two shares
//! after Turner, Ly and Grünwald: per block, how much likelier the answers are if the new color has a bet's share and
//! the old one the tolerated share, than if both have the mean of the two.
//!
//! Only requests begun while traffic was split may enter. A block that joined a bad time of the new color alone with a
//! good time of both would convict the innocent.

use serde::{Deserialize, Serialize};

use super::Batch;
use super::bets::{BETS, GROWTH_MAX, shares};

/// No bet sinks below this part of its start, so that a fault after long peace is still found.
const FLOOR: f64 = 1e-3 / BETS as f64;
/// The cap that keeps everything finite.
const CAPITAL_MAX: f64 = 1e100;

/// The comparison of the two colors.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Comparison {
    tolerated: f64,
    shares: [f64; BETS],
    capital: [f64; BETS],
    /// The block that is being filled: it ends when both colors have answered.
    new: Batch,
    old: Batch,
}

impl Comparison {
    /// A comparison that knows nothing yet: its [`worse`](Comparison::worse) is 1.
    pub fn new(tolerated: f64) -> Self {
        Comparison {
            tolerated,
            shares: shares(tolerated),
            capital: [1.0 / BETS as f64; BETS],
            new: Batch::default(),
            old: Batch::default(),
        }
    }

    /// Begins anew, with the capital given.
    pub(super) fn begin(&mut self, capital: [f64; BETS]) {
        self.capital = capital;
        self.drop_block();
    }

    /// Takes in what both colors answered since the last look, all of it begun while traffic was split.
    pub fn look(&mut self, new: Batch, old: Batch) {
        self.new += new;
        self.old += old;
        if self.new.requests > 0.0 && self.old.requests > 0.0 {
            for at in 0..BETS {
                let grown = self.capital[at] * self.block(self.shares[at]).min(GROWTH_MAX).exp();
                self.capital[at] = grown.clamp(FLOOR, CAPITAL_MAX);
            }
            self.drop_block();
        }
    }

    /// Forgets an unfinished block: traffic is not split any more.
    pub fn drop_block(&mut self) {
        (self.new, self.old) = (Batch::default(), Batch::default());
    }

    /// How much speaks for the new color being the worse one: far above 1 it is, far below 1 both suffer alike.
    pub fn worse(&self) -> f64 {
        self.capital.iter().sum()
    }

    /// The logarithm of the block's likelihood ratio for the bet on `share`.
    fn block(&self, share: f64) -> f64 {
        let (new, old) = (self.new, self.old);
        let mean = (new.requests * share + old.requests * self.tolerated) / (new.requests + old.requests);
        let likelihood = |batch: Batch, share: f64| batch.bad * share.ln() + batch.good() * (1.0 - share).ln();
        let both = Batch::new(new.requests + old.requests, new.bad + old.bad);
        likelihood(new, share) + likelihood(old, self.tolerated) - likelihood(both, mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_fault_of_one_from_a_fault_of_both() {
        let (mut own, mut shared) = (Comparison::new(0.002), Comparison::new(0.002));
        for _ in 0..20 {
            own.look(Batch::new(5.0, 2.0), Batch::new(5.0, 0.0));
            shared.look(Batch::new(5.0, 2.0), Batch::new(5.0, 2.0));
        }
        assert!(own.worse() > 20.0 && shared.worse() < 0.05, "{} {}", own.worse(), shared.worse());
    }
}
