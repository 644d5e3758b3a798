//! The lasting counters of a color: what metrics and the status show. They survive flips and reloads, and go along to
//! the next process in an upgrade.

use std::sync::Arc;
use std::time::Duration;

use crate::http1::method::Method;
use crate::routing::latency::ANSWER_BUCKETS;
use crate::routing::{Counter, KindCounts, LeaseKind};

/// The class of a status code, as the metric label `code_class` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeClass {
    /// The request got no status, because the client left before there was one.
    None,
    /// 1xx
    Informational,
    /// 2xx
    Success,
    /// 3xx
    Redirection,
    /// 4xx
    ClientError,
    /// 5xx and above
    ServerError,
}

impl CodeClass {
    /// Every class, in the order of declaration.
    pub const ALL: [CodeClass; 6] = [
        CodeClass::None,
        CodeClass::Informational,
        CodeClass::Success,
        CodeClass::Redirection,
        CodeClass::ClientError,
        CodeClass::ServerError,
    ];

    /// The class that a status code belongs to.
    pub fn of(status: Option<u16>) -> Self {
        let class = status.map_or(0, |code| usize::from(code / 100));
        CodeClass::ALL[class.min(CodeClass::ALL.len() - 1)]
    }

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CodeClass::None => "none",
            CodeClass::Informational => "1xx",
            CodeClass::Success => "2xx",
            CodeClass::Redirection => "3xx",
            CodeClass::ClientError => "4xx",
            CodeClass::ServerError => "5xx",
        }
    }
}

/// Tells how a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayResult {
    /// The standby gave a response below 500.
    Answered,
    /// The standby gave a 5xx, or no response.
    Failed,
    /// The replay was not begun, because too many had been.
    OverBudget,
}

impl ReplayResult {
    /// Every result, in the order of declaration.
    pub const ALL: [ReplayResult; 3] = [ReplayResult::Answered, ReplayResult::Failed, ReplayResult::OverBudget];

    /// The word in the status, in evidence files and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplayResult::Answered => "answered",
            ReplayResult::Failed => "failed",
            ReplayResult::OverBudget => "over_budget",
        }
    }
}

/// Upper bounds of the duration histogram, in microseconds; one more bucket takes what is slower.
pub const DURATION_BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Counts, for one worker, the requests of one color of one service since the process began.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    /// Requests that took a lease.
    pub begun: Counter,
    /// Leases given back; `begun - ended` are in flight.
    pub ended: Counter,
    /// Responses with 5xx, and requests without a response.
    pub errors: Counter,
    /// Requests that ended, by [`CodeClass`], then by [`Method`].
    pub requests: [[Counter; Method::ALL.len()]; CodeClass::ALL.len()],
    /// Durations, by index into [`DURATION_BOUNDS_US`].
    pub durations: [Counter; DURATION_BOUNDS_US.len() + 1],
    /// The sum of all durations, in microseconds.
    pub duration_sum_us: Counter,
    /// Times to the response head, by bucket; see [`crate::routing::bucket_end`].
    pub answers: [Counter; ANSWER_BUCKETS],
    /// Failures of this color that the other one was asked to answer, by [`ReplayResult`].
    pub replays: [Counter; ReplayResult::ALL.len()],
    /// Counts how leases ended, by [`LeaseKind`].
    pub ends: [KindCounts; LeaseKind::ALL.len()],
    /// Static files that this color had and the one that was asked first had not.
    pub skew_answers: Counter,
}

impl Default for Shard {
    fn default() -> Self {
        Shard {
            begun: Counter::default(),
            ended: Counter::default(),
            errors: Counter::default(),
            requests: Default::default(),
            durations: Default::default(),
            duration_sum_us: Counter::default(),
            answers: std::array::from_fn(|_| Counter::default()),
            replays: Default::default(),
            ends: Default::default(),
            skew_answers: Counter::default(),
        }
    }
}

impl Shard {
    /// Counts a request that ended.
    pub(super) fn count(&self, status: Option<u16>, method: Method, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.requests[CodeClass::of(status) as usize][method as usize].add(1);
        self.durations[DURATION_BOUNDS_US.partition_point(|&bound| bound < us)].add(1);
        self.duration_sum_us.add(us);
    }

    /// Every counter that goes along to the next process, always in this order: the two processes of an upgrade agree
    /// by it. Times to the response head stay behind, because a history of bursts begins with its process.
    fn counters(&self) -> impl Iterator<Item = &Counter> {
        // `ended` first: see `ColorStats::in_flight`.
        let ends = self.ends.iter().flat_map(KindCounts::counters);
        [&self.ended, &self.begun, &self.errors, &self.duration_sum_us, &self.skew_answers]
            .into_iter()
            .chain(self.requests.iter().flatten())
            .chain(&self.durations)
            .chain(&self.replays)
            .chain(ends)
    }
}

/// The counters of one color: a [`Shard`] per worker.
#[derive(Debug)]
pub struct ColorStats {
    /// Indexed by worker.
    pub shards: Box<[Arc<Shard>]>,
    /// Holds the counts of earlier processes; only the link to the predecessor writes to it.
    before: Arc<Shard>,
}

impl ColorStats {
    /// Makes counters at zero for that many workers.
    pub fn new(workers: usize) -> Self {
        ColorStats { shards: (0..workers).map(|_| Arc::default()).collect(), before: Arc::default() }
    }

    /// Sums `of` over the workers and the processes before.
    pub fn sum(&self, of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(shard)).sum::<u64>() + of(&self.before)
    }

    /// Returns everything counted so far, for the process that takes over.
    pub fn export(&self) -> Vec<u64> {
        let mut sums: Vec<u64> = self.before.counters().map(Counter::get).collect();
        for shard in &self.shards {
            sums.iter_mut().zip(shard.counters()).for_each(|(sum, counter)| *sum += counter.get());
        }
        sums
    }

    /// Takes over what [`ColorStats::export`] gave in the process before. Returns false, and changes nothing, if that
    /// was of another form.
    pub fn import(&self, counted: &[u64]) -> bool {
        let fits = self.before.counters().count() == counted.len();
        if fits {
            self.before.counters().zip(counted).for_each(|(counter, &n)| counter.set(n));
        }
        fits
    }

    /// Notes that the process before has ended, and with it whatever it had in flight.
    pub fn end_before(&self) {
        self.before.ended.set(self.before.begun.get());
        for ends in &self.before.ends {
            ends.ended.set(ends.begun.get());
        }
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> u64 {
        // `ended` first: a request that begins and ends in between must not make the difference negative.
        let ended = self.sum(|s| s.ended.get());
        self.sum(|s| s.begun.get()).saturating_sub(ended)
    }

    /// Returns the number of requests that have ended.
    pub fn requests(&self) -> u64 {
        self.sum(|s| s.requests.iter().flatten().map(Counter::get).sum())
    }

    /// Returns the number of responses with 5xx and of requests without a response.
    pub fn errors(&self) -> u64 {
        self.sum(|s| s.errors.get())
    }

    /// Returns the leases of that kind in flight; zero for [`LeaseKind::Request`], which are all the others.
    pub fn open(&self, kind: LeaseKind) -> u64 {
        let ends = kind as usize;
        let ended = self.sum(|s| s.ends[ends].ended.get());
        self.sum(|s| s.ends[ends].begun.get()).saturating_sub(ended)
    }
}
