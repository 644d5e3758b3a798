//! How fast a client moves what we wait for it to move: silence has an end, and so has a byte now and then.

use std::time::{Duration, Instant};

/// What a client is given for its part of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silence at most, and the time over which the rate is looked at.
    pub silence: Duration,
    /// Bytes per second at least; 0: no limit.
    pub rate: u64,
}

impl Patience {
    /// With no rate.
    pub const fn of(silence: Duration) -> Self {
        Patience { silence, rate: 0 }
    }
}

/// What came of the wait for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Nothing moved.
    Silent,
    /// Too little did.
    Slow,
    /// Enough did: it goes on.
    No,
}

/// The wait for one side.
#[derive(Clone, Copy, Debug)]
pub struct Pace<K> {
    kind: K,
    silent_until: Instant,
    since: Instant,
    at: u64,
}

impl<K: Copy + Eq> Pace<K> {
    /// Goes on with `before`, or begins anew when somebody else is waited for. `moved` is what has moved so far, ever.
    pub fn follow(before: Option<Self>, kind: K, patience: Patience, moved: u64, now: Instant) -> Self {
        let silent_until = now + patience.silence;
        match before {
            Some(pace) if pace.kind == kind => Pace { silent_until, ..pace },
            Some(_) | None => Pace { kind, silent_until, since: now, at: moved },
        }
    }

    /// When to look at it again.
    pub fn due(&self, patience: Patience) -> Instant {
        if patience.rate == 0 { self.silent_until } else { self.silent_until.min(self.since + patience.silence) }
    }

    /// Looks at it.
    pub fn judge(&mut self, patience: Patience, moved: u64, now: Instant) -> Late {
        if now >= self.silent_until {
            return Late::Silent;
        }
        if now >= self.since + patience.silence {
            let least = patience.rate.saturating_mul(patience.silence.as_secs());
            if moved - self.at < least {
                return Late::Slow;
            }
            (self.since, self.at) = (now, moved);
        }
        Late::No
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::exchange::min_rate::*;

    const PATIENCE: Patience = Patience { silence: Duration::from_secs(10), rate: 100 };

    /// A client that moves `bytes` every `every` seconds: when it is late, and how.
    fn late(bytes: u64, every: u64, patience: Patience) -> Option<(u64, Late)> {
        let began = Instant::now();
        let mut pace = Pace::follow(None, (), patience, 0, began);
        let mut moved = 0;
        for second in 1..=100 {
            let now = began + Duration::from_secs(second);
            if second % every == 0 {
                moved += bytes;
                pace = Pace::follow(Some(pace), (), patience, moved, now);
            }
            if now >= pace.due(patience) {
                match pace.judge(patience, moved, now) {
                    Late::No => {}
                    late => return Some((second, late)),
                }
            }
        }
        None
    }

    #[test]
    fn a_client_may_pause_and_must_not_dribble() {
        assert_eq!(late(100, 1, PATIENCE), None);
        assert_eq!(late(900, 9, PATIENCE), Some((10, Late::Slow)), "900 in the first ten seconds");
        assert_eq!(late(5_000, 9, PATIENCE), None, "in leaps");
        assert_eq!(late(1, 1, PATIENCE), Some((10, Late::Slow)));
        assert_eq!(late(1, 60, PATIENCE), Some((10, Late::Silent)));
        assert_eq!(late(1, 9, Patience::of(Duration::from_secs(10))), None, "without a rate");
        assert_eq!(late(1, 60, Patience::of(Duration::from_secs(10))), Some((10, Late::Silent)));
    }

    #[test]
    fn waiting_for_another_begins_anew() {
        let began = Instant::now();
        let later = began + Duration::from_secs(9);
        let pace = Pace::follow(None, 'a', PATIENCE, 0, began);
        let mut pace = Pace::follow(Some(pace), 'b', PATIENCE, 0, later);
        assert_eq!(pace.due(PATIENCE), later + PATIENCE.silence);
        assert_eq!(pace.judge(PATIENCE, 0, began + Duration::from_secs(18)), Late::No);
    }
}
