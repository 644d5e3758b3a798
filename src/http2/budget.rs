//! How much trouble a peer may make: a bucket of points that fills by the second, and by useful work.

use std::time::{Duration, Instant};

/// Points to spend.
pub struct TokenBucket {
    left: u32,
    most: u32,
    /// For one point to come back.
    takes: Duration,
    /// Up to then, what has come back is counted.
    filled: Instant,
}

impl TokenBucket {
    /// Full, with `most` points; `per_second` come back every second, at least 1.
    pub fn new(most: u32, per_second: u32, now: Instant) -> Self {
        TokenBucket { left: most, most, takes: Duration::from_secs(1) / per_second.max(1), filled: now }
    }

    /// Takes `cost` points; `false` when there are not so many.
    #[must_use]
    pub fn spend(&mut self, cost: u32, now: Instant) -> bool {
        self.fill(now);
        let pays = self.left >= cost;
        self.left -= if pays { cost } else { 0 };
        pays
    }

    /// Gives back what the time since the last look has brought. A full bucket gains nothing from waiting.
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        let missing = self.most - self.left;
        let points = elapsed.as_micros() / self.takes.as_micros().max(1);
        match u32::try_from(points) {
            // Whole points only: what is left of the time goes on counting.
            Ok(points) if points < missing => {
                self.left += points;
                self.filled += self.takes * points;
            }
            Ok(_) | Err(_) => (self.left, self.filled) = (self.most, now),
        }
    }

    /// Gives points back for useful work.
    pub fn earn(&mut self, points: u32) {
        self.left = self.left.saturating_add(points).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let start = Instant::now();
        let mut budget = TokenBucket::new(10, 2, start);
        assert_eq!((0..12).filter(|_| budget.spend(1, start)).count(), 10);
        assert!(!budget.spend(1, start + Duration::from_millis(400)));
        assert!(budget.spend(1, start + Duration::from_millis(600)));
        assert!(!budget.spend(1, start + Duration::from_millis(700)));
        budget.earn(100);
        assert_eq!((0..12).filter(|_| budget.spend(1, start)).count(), 10, "never more than the most");
        assert!(budget.spend(10, start + Duration::from_secs(60)));
    }

    #[test]
    fn a_quiet_while_is_not_saved_up_and_parts_of_a_point_are_not_lost() {
        let start = Instant::now();
        for (case, first) in [("a full bucket", 0), ("one that is nearly full", 1)] {
            let mut budget = TokenBucket::new(10, 2, start);
            assert!(budget.spend(first, start));
            let later = start + Duration::from_secs(60);
            assert_eq!((0..30).filter(|_| budget.spend(1, later)).count(), 10, "{case}");
        }
        let mut budget = TokenBucket::new(10, 2, start);
        let spent = (0..100).filter(|&nth| budget.spend(1, start + Duration::from_millis(nth * 300))).count();
        assert_eq!(spent, 10 + 59, "two a second, whenever it is asked");
    }
}
