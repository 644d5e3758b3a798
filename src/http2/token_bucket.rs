//! A token bucket: it fills by the second, and by useful work, and what a peer does takes tokens out of it.

use std::time::{Duration, Instant};

/// The tokens that are left.
pub struct TokenBucket {
    tokens: u32,
    capacity: u32,
    /// How long it takes for one token to come back.
    interval: Duration,
    /// The time up to which tokens have come back.
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket of `capacity` tokens, of which `per_second` come back every second, at least 1.
    pub fn new(capacity: u32, per_second: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        TokenBucket { tokens: capacity, capacity, interval, filled_at: now }
    }

    /// Takes `cost` tokens, or returns `false` when there are not so many.
    #[must_use]
    pub fn spend(&mut self, cost: u32, now: Instant) -> bool {
        self.fill(now);
        let is_enough = self.tokens >= cost;
        self.tokens -= if is_enough { cost } else { 0 };
        is_enough
    }

    /// Puts back what the time has brought since the last look. A full bucket gains nothing from waiting.
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let missing = self.capacity - self.tokens;
        let tokens = elapsed.as_micros() / self.interval.as_micros().max(1);
        match u32::try_from(tokens) {
            // Only whole tokens come back, and what is left of the time goes on counting.
            Ok(tokens) if tokens < missing => {
                self.tokens += tokens;
                self.filled_at += self.interval * tokens;
            }
            Ok(_) | Err(_) => (self.tokens, self.filled_at) = (self.capacity, now),
        }
    }

    /// Puts tokens back for useful work.
    pub fn earn(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 2, start);
        assert_eq!((0..12).filter(|_| bucket.spend(1, start)).count(), 10);
        assert!(!bucket.spend(1, start + Duration::from_millis(400)));
        assert!(bucket.spend(1, start + Duration::from_millis(600)));
        assert!(!bucket.spend(1, start + Duration::from_millis(700)));
        bucket.earn(100);
        assert_eq!((0..12).filter(|_| bucket.spend(1, start)).count(), 10, "never more than the most");
        assert!(bucket.spend(10, start + Duration::from_secs(60)));
    }

    #[test]
    fn a_quiet_while_is_not_saved_up_and_parts_of_a_point_are_not_lost() {
        let start = Instant::now();
        for (case, first) in [("a full bucket", 0), ("one that is nearly full", 1)] {
            let mut bucket = TokenBucket::new(10, 2, start);
            assert!(bucket.spend(first, start));
            let later = start + Duration::from_secs(60);
            assert_eq!((0..30).filter(|_| bucket.spend(1, later)).count(), 10, "{case}");
        }
        let mut bucket = TokenBucket::new(10, 2, start);
        let spent = (0..100).filter(|&nth| bucket.spend(1, start + Duration::from_millis(nth * 300))).count();
        assert_eq!(spent, 10 + 59, "two a second, whenever it is asked");
    }
}
