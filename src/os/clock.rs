//! The only place that reads a clock for decisions and for the ledger.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static BEGAN: OnceLock<Instant> = OnceLock::new();

/// Now on the monotonic clock, since this process (or the first of those that have followed each other) began; the
/// "now" that `domain` is given.
pub fn now() -> Duration {
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// Goes on with the clock of the process before this one, where it is `now` there. A clock that was read stays as it
/// is.
pub fn go_on_from(now: Duration) {
    let present = Instant::now();
    let _ = BEGAN.set(present.checked_sub(now).unwrap_or(present));
}

/// Now in UTC, to the second: `2025-09-30T12:34:10Z`.
pub fn utc() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// That second since 1970, written like [`utc`]. One that no calendar has is its last.
pub fn utc_of(unix_seconds: u64) -> String {
    let second = i64::try_from(unix_seconds).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    second.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now in UTC, in seconds since 1970, as certificates have it.
pub fn unix_seconds() -> i64 {
    i64::try_from(unix_now()).unwrap_or(i64::MAX)
}

/// The same, for what never was before 1970.
pub fn unix_now() -> u64 {
    unix_ms() / 1000
}

/// Now in UTC, in milliseconds since 1970; 0 for a clock before that. For what must survive a restart.
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
