//! How fast a client moves what we wait for it to move: silence has an end, and so has a byte now and then.

use std::time::{Duration, Instant};

/// What a client is given for its part of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Silence at most, and the time over which the rate is looked at.
    pub silence: Duration,
    /// Bytes per second at least; 0: no limit.
    pub rate: u64,
}

impl RateLimits {
    /// With no rate.
    pub const fn of(silence: Duration) -> Self {
        RateLimits { silence, rate: 0 }
    }
}

/// What came of the wait for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Nothing moved.
    Silent,
    /// Too little did.
    Slow,
    /// Enough did: it goes on.
    No,
}

/// The wait for one side.
#[derive(Clone, Copy, Debug)]
pub struct RateGuard<K> {
    kind: K,
    silent_until: Instant,
    since: Instant,
    at: u64,
}

impl<K: Copy + Eq> RateGuard<K> {
    /// Goes on with `before`, or begins anew when somebody else is waited for. `moved` is what has moved so far, ever.
    pub fn follow(before: Option<Self>, kind: K, patience: RateLimits, moved: u64, now: Instant) -> Self {
        let silent_until = now + patience.silence;
        match before {
            Some(pace) if pace.kind == kind => RateGuard { silent_until, ..pace },
            Some(_) | None => RateGuard { kind, silent_until, since: now, at: moved },
        }
    }

    /// When to look at it again.
    pub fn due(&self, patience: RateLimits) -> Instant {
        if patience.rate == 0 { self.silent_until } else { self.silent_until.min(self.since + patience.silence) }
    }

    /// Looks at it.
    pub fn judge(&mut self, patience: RateLimits, moved: u64, now: Instant) -> Violation {
        if now >= self.silent_until {
            return Violation::Silent;
        }
        if now >= self.since + patience.silence {
            let least = patience.rate.saturating_mul(patience.silence.as_secs());
            if moved - self.at < least {
                return Violation::Slow;
            }
            (self.since, self.at) = (now, moved);
        }
        Violation::No
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::exchange::min_rate::*;

    const PATIENCE: RateLimits = RateLimits { silence: Duration::from_secs(10), rate: 100 };

    /// A client that moves `bytes` every `every` seconds: when it is late, and how.
    fn late(bytes: u64, every: u64, patience: RateLimits) -> Option<(u64, Violation)> {
        let began = Instant::now();
        let mut pace = RateGuard::follow(None, (), patience, 0, began);
        let mut moved = 0;
        for second in 1..=100 {
            let now = began + Duration::from_secs(second);
            if second % every == 0 {
                moved += bytes;
                pace = RateGuard::follow(Some(pace), (), patience, moved, now);
            }
            if now >= pace.due(patience) {
                match pace.judge(patience, moved, now) {
                    Violation::No => {}
                    late => return Some((second, late)),
                }
            }
        }
        None
    }

    #[test]
    fn a_client_may_pause_and_must_not_dribble() {
        assert_eq!(late(100, 1, PATIENCE), None);
        assert_eq!(late(900, 9, PATIENCE), Some((10, Violation::Slow)), "900 in the first ten seconds");
        assert_eq!(late(5_000, 9, PATIENCE), None, "in leaps");
        assert_eq!(late(1, 1, PATIENCE), Some((10, Violation::Slow)));
        assert_eq!(late(1, 60, PATIENCE), Some((10, Violation::Silent)));
        assert_eq!(late(1, 9, RateLimits::of(Duration::from_secs(10))), None, "without a rate");
        assert_eq!(late(1, 60, RateLimits::of(Duration::from_secs(10))), Some((10, Violation::Silent)));
    }

    #[test]
    fn waiting_for_another_begins_anew() {
        let began = Instant::now();
        let later = began + Duration::from_secs(9);
        let pace = RateGuard::follow(None, 'a', PATIENCE, 0, began);
        let mut pace = RateGuard::follow(Some(pace), 'b', PATIENCE, 0, later);
        assert_eq!(pace.due(PATIENCE), later + PATIENCE.silence);
        assert_eq!(pace.judge(PATIENCE, 0, began + Duration::from_secs(18)), Violation::No);
    }
}
