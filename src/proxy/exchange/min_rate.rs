//! Measures how fast one side moves what is awaited of it: silence has a limit, and so has a byte now and then.

use std::time::{Duration, Instant};

/// What a side is given for its part of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// The longest silence, and the time over which the rate is measured.
    pub silence: Duration,
    /// The least bytes per second; 0 is no limit.
    pub bytes_per_second: u64,
}

impl RateLimits {
    /// A limit of silence, and none of the rate.
    pub const fn silence(silence: Duration) -> Self {
        RateLimits { silence, bytes_per_second: 0 }
    }
}

/// Which limit a side has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Nothing moved.
    Silent,
    /// Too little moved.
    Slow,
}

/// Measures the side that is awaited at present.
#[derive(Clone, Copy, Debug)]
pub struct RateGuard<K> {
    side: K,
    silent_until: Instant,
    /// When the present measurement of the rate began, and how much had moved by then.
    measured_since: Instant,
    moved_before: u64,
}

impl<K: Copy + Eq> RateGuard<K> {
    /// Goes on with `before`, or begins anew when another side is awaited. `moved` is what has moved so far, ever.
    pub fn resume(before: Option<Self>, side: K, limits: RateLimits, moved: u64, now: Instant) -> Self {
        let silent_until = now + limits.silence;
        match before {
            Some(guard) if guard.side == side => RateGuard { silent_until, ..guard },
            Some(_) | None => RateGuard { side, silent_until, measured_since: now, moved_before: moved },
        }
    }

    /// When to check again.
    pub fn due(&self, limits: RateLimits) -> Instant {
        if limits.bytes_per_second == 0 {
            self.silent_until
        } else {
            self.silent_until.min(self.measured_since + limits.silence)
        }
    }

    /// Checks the limits; `None` where none is broken.
    pub fn check(&mut self, limits: RateLimits, moved: u64, now: Instant) -> Option<Violation> {
        if now >= self.silent_until {
            return Some(Violation::Silent);
        }
        if now >= self.measured_since + limits.silence {
            let least = limits.bytes_per_second.saturating_mul(limits.silence.as_secs());
            if moved - self.moved_before < least {
                return Some(Violation::Slow);
            }
            (self.measured_since, self.moved_before) = (now, moved);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::exchange::min_rate::*;

    const LIMITS: RateLimits = RateLimits { silence: Duration::from_secs(10), bytes_per_second: 100 };

    /// A client that moves `bytes` every `every` seconds: when it breaks a limit, and which.
    fn violation(bytes: u64, every: u64, limits: RateLimits) -> Option<(u64, Violation)> {
        let began = Instant::now();
        let mut guard = RateGuard::resume(None, (), limits, 0, began);
        let mut moved = 0;
        for second in 1..=100 {
            let now = began + Duration::from_secs(second);
            if second % every == 0 {
                moved += bytes;
                guard = RateGuard::resume(Some(guard), (), limits, moved, now);
            }
            if now >= guard.due(limits)
                && let Some(violation) = guard.check(limits, moved, now)
            {
                return Some((second, violation));
            }
        }
        None
    }

    #[test]
    fn a_client_may_pause_and_must_not_dribble() {
        assert_eq!(violation(100, 1, LIMITS), None);
        assert_eq!(violation(900, 9, LIMITS), Some((10, Violation::Slow)), "900 in the first ten seconds");
        assert_eq!(violation(5_000, 9, LIMITS), None, "in leaps");
        assert_eq!(violation(1, 1, LIMITS), Some((10, Violation::Slow)));
        assert_eq!(violation(1, 60, LIMITS), Some((10, Violation::Silent)));
        assert_eq!(violation(1, 9, RateLimits::silence(Duration::from_secs(10))), None, "without a rate");
        let silence = RateLimits::silence(Duration::from_secs(10));
        assert_eq!(violation(1, 60, silence), Some((10, Violation::Silent)));
    }

    #[test]
    fn waiting_for_another_begins_anew() {
        let began = Instant::now();
        let later = began + Duration::from_secs(9);
        let guard = RateGuard::resume(None, 'a', LIMITS, 0, began);
        let mut guard = RateGuard::resume(Some(guard), 'b', LIMITS, 0, later);
        assert_eq!(guard.due(LIMITS), later + LIMITS.silence);
        assert_eq!(guard.check(LIMITS, 0, began + Duration::from_secs(18)), None);
    }
}
