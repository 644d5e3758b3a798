//! How much trouble a peer may make: a bucket of points that fills by the second, and by useful work.

use std::time::Instant;

/// Points to spend.
pub struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    filled: Instant,
}

impl Budget {
    /// Full, with `most` points; `per_second` come back every second.
    pub fn new(most: u32, per_second: u32, now: Instant) -> Self {
        Budget { left: most, most, per_second, filled: now }
    }

    /// Takes `cost` points; `false` when there are not so many.
    #[must_use]
    pub fn spend(&mut self, cost: u32, now: Instant) -> bool {
        if self.left < cost {
            // Whole points only: what is left of a second goes on counting.
            let elapsed = now.saturating_duration_since(self.filled);
            let points = elapsed.as_millis() * u128::from(self.per_second) / 1000;
            if points > 0 {
                self.filled = now;
                self.earn(u32::try_from(points).unwrap_or(u32::MAX));
            }
        }
        let pays = self.left >= cost;
        self.left -= if pays { cost } else { 0 };
        pays
    }

    /// Gives points back for useful work.
    pub fn earn(&mut self, points: u32) {
        self.left = self.left.saturating_add(points).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let start = Instant::now();
        let mut budget = Budget::new(10, 2, start);
        assert_eq!((0..12).filter(|_| budget.spend(1, start)).count(), 10);
        assert!(!budget.spend(1, start + Duration::from_millis(400)));
        assert!(budget.spend(1, start + Duration::from_millis(600)));
        assert!(!budget.spend(1, start + Duration::from_millis(700)));
        budget.earn(100);
        assert_eq!((0..12).filter(|_| budget.spend(1, start)).count(), 10, "never more than the most");
        assert!(budget.spend(10, start + Duration::from_secs(60)));
    }
}
