//! What users saw, in numbers: from the load's records alone.
//!
//! Pure: no clock and no sockets, times come in as durations since the load began.

use std::time::Duration;

use serde::Serialize;

/// One request, as the user who sent it saw it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// When it was sent, or should have been sent had its connection not been busy; since the load began.
    pub begun: Duration,
    /// When the last byte of its answer was there, or it was given up; since the load began.
    pub ended: Duration,
    /// Which release answered; `None` when no app did.
    pub release: Option<u8>,
    /// The bad release had failed it, and the standby answered in its place.
    pub replayed: bool,
    /// How it ended.
    pub end: End,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A whole answer with this status.
    Answered(u16),
    /// No connection could be made.
    NoConnection,
    /// The connection broke before the whole answer was there.
    Broken,
    /// There was no whole answer in time.
    TimedOut,
}

impl End {
    /// Anything but a whole answer below 400 is a failure: the load asks for nothing that could rightly be refused.
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

/// A sum over some requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// All of them.
    pub requests: usize,
    /// Those that [failed](End::is_failure).
    pub failed: usize,
    /// How long they took; `None` when there were none.
    #[serde(flatten)]
    pub latency: Option<Latency>,
}

/// How long requests took, failed ones included, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The one that took longest.
    pub slowest_ms: f64,
}

impl Figures {
    /// Figures of `records`, in any order.
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

/// Milliseconds, to the microsecond.
pub fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The smallest value that `percent` of all do not exceed (nearest rank); `sorted` is not empty.
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
