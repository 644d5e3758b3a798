//! Computes what users saw, in numbers, from the load's records alone.
//!
//! The code is pure: it uses no clock and no sockets, and times come in as durations since the load began.

use std::time::Duration;

use serde::Serialize;

/// One request, as the user who sent it saw it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The time since the load began at which the request was sent, or was due if its connection was busy.
    pub begun: Duration,
    /// The time since the load began at which the last byte of the response arrived, or the user gave up.
    pub ended: Duration,
    /// The release that responded; `None` when no app did.
    pub release: Option<u8>,
    /// Whether the bad release failed the request, and the standby responded in its place.
    pub replayed: bool,
    /// Tells how the request ended.
    pub end: End,
}

/// Tells how a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A whole response with this status arrived.
    Answered(u16),
    /// No connection could be made.
    NoConnection,
    /// The connection broke before the whole response arrived.
    Broken,
    /// No whole response arrived in time.
    TimedOut,
}

impl End {
    /// Returns whether the request failed. Only a whole response below 400 is a success, because the load sends no
    /// request that an app could rightly refuse.
    pub fn is_failure(self) -> bool {
        match self {
            End::Answered(status) => !(200..400).contains(&status),
            End::NoConnection | End::Broken | End::TimedOut => true,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Answered(status) => write!(f, "answered {status}"),
            End::NoConnection => f.write_str("could not connect"),
            End::Broken => f.write_str("connection broke"),
            End::TimedOut => f.write_str("no response in time"),
        }
    }
}

/// Sums up some requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Counts all of them.
    pub requests: usize,
    /// Counts those that [failed](End::is_failure).
    pub failed: usize,
    /// The time that they took; `None` when there were none.
    #[serde(flatten)]
    pub latency: Option<Latency>,
}

/// The time that requests took, failed ones included, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50_ms: f64,
    /// Of 100 requests, 99 took no longer.
    pub p99_ms: f64,
    /// The slowest request took this long.
    pub slowest_ms: f64,
}

impl Figures {
    /// Computes the figures of `records`, in any order.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Figures {
        let mut failed = 0;
        let mut took = Vec::new();
        for record in records {
            failed += usize::from(record.end.is_failure());
            took.push(record.ended.saturating_sub(record.begun));
        }
        took.sort_unstable();
        let latency = took.last().map(|&slowest| Latency {
            p50_ms: ms(rank(&took, 50)),
            p99_ms: ms(rank(&took, 99)),
            slowest_ms: ms(slowest),
        });
        Figures { requests: took.len(), failed, latency }
    }
}

/// Converts to milliseconds, to the microsecond.
pub fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Returns the smallest value that `percent` of all do not exceed (nearest rank); `sorted` is not empty.
fn rank(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(took_ms: u64, end: End) -> Record {
        let begun = Duration::from_secs(1);
        Record { begun, ended: begun + Duration::from_millis(took_ms), release: Some(1), replayed: false, end }
    }

    mod figures {
        use super::*;

        #[test]
        fn of_nothing_have_no_latency() {
            assert_eq!(Figures::of([]), Figures { requests: 0, failed: 0, latency: None });
        }

        #[test]
        fn rank_by_the_nearest_request() {
            let records: Vec<_> = (1..=200).rev().map(|n| record(n, End::Answered(200))).collect();
            let latency = Some(Latency { p50_ms: 100.0, p99_ms: 198.0, slowest_ms: 200.0 });
            assert_eq!(Figures::of(&records), Figures { requests: 200, failed: 0, latency });
        }

        #[test]
        fn count_every_way_to_fail() {
            for (end, failed) in [
                (End::Answered(200), 0),
                (End::Answered(201), 0),
                (End::Answered(404), 1),
                (End::Answered(500), 1),
                (End::NoConnection, 1),
                (End::Broken, 1),
                (End::TimedOut, 1),
            ] {
                assert_eq!(Figures::of(&[record(1, end)]).failed, failed, "{end}");
            }
        }
    }
}
