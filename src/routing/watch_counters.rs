//! Counters of a watched color: by the phase in which a request began, by client and route, and by age.
//!
//! Workers count; the control plane reads, and sets the [`WatchMode`]. A route that is not watched has a mode of zero,
//! which costs a request one relaxed load.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::domain::watch::{Outcomes, SOURCES, SourceCounts, Stratum, WatchMode};
use crate::routing::Counter;

/// The mode as workers read it: one number, 0 while nothing is watched.
#[derive(Debug, Default)]
pub struct ModeCell(AtomicU64);

const WATCHED: u64 = 1;
const WARM_UP: u64 = 2;

impl ModeCell {
    /// Makes a cell that has `mode` from the first request on.
    pub fn new(mode: Option<WatchMode>) -> Self {
        let cell = ModeCell::default();
        cell.set(mode);
        cell
    }

    /// The control plane sets the mode as the watch goes on; `None` when it is over.
    pub fn set(&self, mode: Option<WatchMode>) {
        let number = |source: Option<u8>| u64::from(source.map_or(0, |source| source + 1));
        let word = mode.map_or(0, |mode| {
            let warm_up = if mode.warm_up { WARM_UP } else { 0 };
            let one_in = u64::from(mode.keep_one_in);
            WATCHED | warm_up | one_in << 8 | number(mode.excluded.client) << 16 | number(mode.excluded.route) << 24
        });
        self.0.store(word, Relaxed);
    }

    /// Whether a watch runs.
    pub fn is_watched(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Returns the mode; `None` while nothing is watched.
    pub fn get(&self) -> Option<WatchMode> {
        let word = self.0.load(Relaxed);
        let byte = |at: u32| (word >> at) as u8;
        (word != 0).then(|| {
            let mut mode = WatchMode { warm_up: word & WARM_UP != 0, keep_one_in: byte(8), ..WatchMode::default() };
            (mode.excluded.client, mode.excluded.route) = (byte(16).checked_sub(1), byte(24).checked_sub(1));
            mode
        })
    }
}

/// The client and the route of a request, each hashed to one of [`SOURCES`] numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestSource {
    /// The number of the client's address.
    pub client: u8,
    /// The number of the path.
    pub route: u8,
}

impl RequestSource {
    /// Hashes both. `path` may have a query. All segments with a digit in them are the same: `/users/7` is `/users/8`.
    pub fn new(client: &[u8], path: &[u8]) -> Self {
        let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        let mut route = Fnv1a::default();
        for segment in path.split(|&byte| byte == b'/') {
            route.add(b"/");
            if !segment.iter().any(u8::is_ascii_digit) {
                route.add(segment);
            }
        }
        let mut who = Fnv1a::default();
        who.add(client);
        RequestSource { client: who.number(), route: route.number() }
    }

    /// Whether requests of this source are set excluded.
    pub fn is_excluded(&self, mode: &WatchMode) -> bool {
        mode.excluded.client == Some(self.client) || mode.excluded.route == Some(self.route)
    }
}

/// FNV-1a, 64 bits: short inputs, and nobody gains by a collision.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Fnv1a(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn number(&self) -> u8 {
        ((self.0 ^ self.0 >> 32) % SOURCES as u64) as u8
    }
}

/// Good and bad responses, as one worker counted them.
#[derive(Debug, Default)]
struct OutcomeCounts {
    good: Counter,
    bad: Counter,
}

impl OutcomeCounts {
    fn add(&self, is_bad: bool) {
        if is_bad { self.bad.add(1) } else { self.good.add(1) }
    }

    fn get(&self) -> Outcomes {
        Outcomes { good: self.good.get(), bad: self.bad.get() }
    }
}

/// Counts how the requests of one worker ended under one epoch.
#[derive(Debug)]
pub(super) struct StratumCounters {
    strata: [OutcomeCounts; Stratum::ALL.len()],
    /// The new color's requests that count, by client, then by route.
    sources: Box<[[OutcomeCounts; SOURCES]; 2]>,
    pub(super) cohorts: Option<Cohorts>,
}

impl StratumCounters {
    pub(super) fn new(limits: Option<SlowLimits>) -> Self {
        StratumCounters { strata: Default::default(), sources: Box::default(), cohorts: limits.map(Cohorts::new) }
    }

    pub(super) fn add(&self, phase: Stratum, source: Option<RequestSource>, is_bad: bool) {
        self.strata[phase as usize].add(is_bad);
        if let Some(source) = source {
            self.sources[0][usize::from(source.client)].add(is_bad);
            self.sources[1][usize::from(source.route)].add(is_bad);
        }
    }

    pub(super) fn ended(&self, phase: Stratum) -> Outcomes {
        self.strata[phase as usize].get()
    }

    pub(super) fn spread(&self) -> SourceCounts {
        let [clients, routes] = &*self.sources;
        SourceCounts {
            clients: clients.each_ref().map(OutcomeCounts::get),
            routes: routes.each_ref().map(OutcomeCounts::get),
        }
    }
}

/// The requests that begin within this time are judged together.
pub const COHORT: Duration = Duration::from_millis(100);
/// No response is waited for longer than this before it is slow.
pub const SLOW_MAX: Duration = Duration::from_secs(30);
/// Cohorts that are kept: those that wait for the longest limit, and some more for a late read.
pub const COHORTS: usize = 320;

/// The ages from which on a response is slow.
#[derive(Clone, Copy, Debug)]
pub struct SlowLimits {
    /// One limit per quantile (see [`crate::domain::verdict::SLOWER_THAN_QUANTILE`]), at most [`SLOW_MAX`]; `None`
    /// where too little is known of the old color.
    pub limits: [Option<Duration>; 3],
    /// The time at which the first cohort began.
    pub since: Instant,
}

/// Requests by the moment they began: how many, and how many had a response within each limit. The numbers only grow,
/// and the reader keeps what it has read.
#[derive(Debug)]
pub(super) struct Cohorts {
    limits: SlowLimits,
    rings: [Box<[Cohort; COHORTS]>; 2],
}

/// One cohort of one worker.
#[derive(Debug, Default)]
struct Cohort {
    begun: Counter,
    fast: [Counter; 3],
}

/// Counts the requests of a cohort that began, and those that had a response in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CohortCount {
    /// Requests that began.
    pub begun: u64,
    /// Counts the requests with a response in time, by quantile.
    pub fast: [u64; 3],
}

impl std::ops::AddAssign for CohortCount {
    fn add_assign(&mut self, more: CohortCount) {
        self.begun += more.begun;
        self.fast.iter_mut().zip(more.fast).for_each(|(sum, more)| *sum += more);
    }
}

/// The color of a route that a request is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The active color; the new one, while a watch runs.
    New,
    /// The other color, for split traffic and previews.
    Old,
}

impl Cohorts {
    fn new(limits: SlowLimits) -> Self {
        let ring = || Box::new(std::array::from_fn(|_| Cohort::default()));
        Cohorts { limits, rings: [ring(), ring()] }
    }

    /// EpochCounts a request in; the number is for [`Cohorts::answered`].
    pub(super) fn begin(&self, side: Side, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.limits.since);
        let at = (since.as_millis() / COHORT.as_millis()) as usize % COHORTS;
        self.rings[side as usize][at].begun.add(1);
        at
    }

    /// Whether a response that began after `age` is slow by one of the limits.
    pub(super) fn is_slow(&self, age: Duration) -> bool {
        self.limits.limits.iter().flatten().any(|limit| age > *limit)
    }

    /// Notes that the response began after `age`, or that none is waited for: it failed, or the client left.
    pub(super) fn answered(&self, side: Side, at: usize, age: Duration) {
        let cohort = &self.rings[side as usize][at];
        for (limit, fast) in self.limits.limits.iter().zip(&cohort.fast) {
            if limit.is_some_and(|limit| age <= limit) {
                fast.add(1);
            }
        }
    }

    pub(super) fn count(&self, side: Side, at: usize) -> CohortCount {
        let cohort = &self.rings[side as usize][at % COHORTS];
        // Fast before begun, so that `begun` is never the smaller one.
        let fast = cohort.fast.each_ref().map(Counter::get);
        CohortCount { begun: cohort.begun.get(), fast }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::watch::Excluded;
    use crate::routing::watch_counters::*;

    #[test]
    fn a_mode_reads_as_it_was_set() {
        let cell = ModeCell::default();
        assert_eq!(cell.get(), None);
        for excluded in [Excluded::default(), Excluded { client: Some(0), route: Some(31) }] {
            for mode in [
                WatchMode { warm_up: true, keep_one_in: 0, excluded },
                WatchMode { warm_up: false, keep_one_in: 10, excluded },
            ] {
                cell.set(Some(mode));
                assert_eq!(cell.get(), Some(mode));
            }
        }
        cell.set(None);
        assert_eq!(cell.get(), None);
    }

    #[test]
    fn a_route_is_known_by_its_words() {
        let route = |path: &str| RequestSource::new(b"", path.as_bytes()).route;
        assert_eq!(route("/users/7?tab=1"), route("/users/88"));
        assert_ne!(route("/users/7"), route("/orders/7"));
        assert_ne!(RequestSource::new(b"10.0.0.1", b"/").client, RequestSource::new(b"10.0.0.2", b"/").client);
    }

    #[test]
    fn a_cohort_tells_fast_from_slow() {
        let since = Instant::now();
        let limits = [Some(Duration::from_millis(10)), Some(Duration::from_millis(100)), None];
        let cohorts = Cohorts::new(SlowLimits { limits, since });
        for age in [5, 50, 500] {
            let at = cohorts.begin(Side::New, since + COHORT);
            cohorts.answered(Side::New, at, Duration::from_millis(age));
        }
        assert_eq!([10, 11, 500].map(|age| cohorts.is_slow(Duration::from_millis(age))), [false, true, true]);
        assert_eq!(cohorts.count(Side::New, 1), CohortCount { begun: 3, fast: [1, 2, 0] });
        assert_eq!(cohorts.count(Side::Old, 1), CohortCount::default());
    }
}
