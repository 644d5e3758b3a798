//! The tap of a rehearsal: the data plane leaves copies of requests there, and the control plane takes them.
//!
//! Closed, it costs a request one relaxed load. Open, a request that is not taken costs a random number, and one that
//! is a copy of its head. Nothing here waits: what finds no room is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use globset::{GlobBuilder, GlobSet};
use tokio::sync::mpsc;

use crate::config;

/// Tells how the rehearsal of one copied request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RehearsalResult {
    /// Both colors answered the same.
    Same,
    /// The two colors answered differently.
    Different,
    /// They differed only in what differs on the active color as well.
    Noise,
    /// There was nothing to compare.
    Failed,
    /// There was no room for the copy.
    Dropped,
}

impl RehearsalResult {
    /// Every result, in the order of declaration.
    pub const ALL: [RehearsalResult; 5] = [
        RehearsalResult::Same,
        RehearsalResult::Different,
        RehearsalResult::Noise,
        RehearsalResult::Failed,
        RehearsalResult::Dropped,
    ];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RehearsalResult::Same => "same",
            RehearsalResult::Different => "different",
            RehearsalResult::Noise => "noise",
            RehearsalResult::Failed => "failed",
            RehearsalResult::Dropped => "dropped",
        }
    }
}

/// Limits the copies that may wait; each is a request's head.
const WAITING_MAX: usize = 32;
/// A longer head is not copied.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Limits the allowance that a quiet time saves up, in microseconds.
const BURST_US: u64 = 1_000_000;

/// A request's head, as it went upstream.
pub type RequestCopy = Box<[u8]>;

/// The tap of one service; it outlives reloads and flips.
#[derive(Debug, Default)]
pub struct RehearsalTap {
    open: AtomicBool,
    filter: ArcSwapOption<TapFilter>,
    counts: [AtomicU64; RehearsalResult::ALL.len()],
}

/// Selects the requests that are copied while the tap is open.
#[derive(Debug)]
struct TapFilter {
    share: f64,
    rate: RateLimit,
    allow: Option<GlobSet>,
    deny: GlobSet,
    copies: mpsc::Sender<RequestCopy>,
}

impl RehearsalTap {
    /// Whether copies are wanted.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Opens the tap; the copies come out of what is returned. Called by the control plane.
    pub fn open(&self, rehearse: &config::Rehearse) -> mpsc::Receiver<RequestCopy> {
        let (copies, out) = mpsc::channel(WAITING_MAX);
        let allow = (!rehearse.allow.is_empty()).then(|| set_of(&rehearse.allow));
        let rate = RateLimit::new(rehearse.rate);
        let filter = TapFilter { share: rehearse.share, rate, allow, deny: set_of(&rehearse.deny), copies };
        self.filter.store(Some(Arc::new(filter)));
        self.open.store(true, Relaxed);
        out
    }

    /// Closes the tap.
    pub fn close(&self) {
        self.open.store(false, Relaxed);
        self.filter.store(None);
    }

    /// Leaves a copy of the request with this path and head, if it is one of those that are wanted.
    pub fn offer(&self, path: &str, head: &[u8]) {
        let filter = self.filter.load();
        let Some(filter) = filter.as_ref().filter(|filter| filter.wants(path, head)) else { return };
        match filter.copies.try_send(head.into()) {
            // Closed: the rehearsal has just ended.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.count(RehearsalResult::Dropped),
        }
    }

    /// Counts a copy.
    pub fn count(&self, result: RehearsalResult) {
        self.counts[result as usize].fetch_add(1, Relaxed);
    }

    /// Returns the copies since the process began, by [`RehearsalResult`].
    pub fn counts(&self) -> [u64; RehearsalResult::ALL.len()] {
        self.counts.each_ref().map(|count| count.load(Relaxed))
    }
}

impl TapFilter {
    fn wants(&self, path: &str, head: &[u8]) -> bool {
        fastrand::f64() < self.share
            && head.len() <= HEAD_BYTES_MAX
            && self.allow.as_ref().is_none_or(|allow| allow.is_match(path))
            && !self.deny.is_match(path)
            && self.rate.take()
    }
}

/// A token bucket that all workers share. Only requests that would be copied come to it.
#[derive(Debug)]
struct RateLimit {
    began: Instant,
    gap_us: u64,
    /// When the next may be taken; at least a burst ago. Times are a burst ahead, so that none is negative.
    next_us: AtomicU64,
}

impl RateLimit {
    fn new(per_second: u32) -> Self {
        let gap_us = 1_000_000 / u64::from(per_second.max(1));
        RateLimit { began: Instant::now(), gap_us, next_us: AtomicU64::new(0) }
    }

    fn take(&self) -> bool {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX) + BURST_US;
        let taken = |next: u64| (next <= now).then(|| next.max(now - BURST_US) + self.gap_us);
        self.next_us.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }
}

/// Builds the set of these globs. `*` and `?` stay within a segment of the path; `**` does not.
pub(super) fn set_of(globs: &[String]) -> GlobSet {
    let mut set = GlobSet::builder();
    for glob in globs.iter().filter_map(|glob| GlobBuilder::new(glob).literal_separator(true).build().ok()) {
        set.add(glob);
    }
    // The config has checked each of them.
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

#[cfg(test)]
mod tests {
    use crate::routing::rehearsal::*;

    fn rehearse(share: f64, rate: u32) -> config::Rehearse {
        config::Rehearse { share, rate, ..config::Rehearse::default() }
    }

    #[test]
    fn takes_what_is_allowed_and_not_denied() {
        let tap = RehearsalTap::default();
        let globs = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect();
        let settings = config::Rehearse {
            allow: globs(&["/api/**", "/*"]),
            deny: globs(&["/api/admin/**", "/logout"]),
            ..rehearse(1.0, 1000)
        };
        assert!(!tap.is_open());
        let mut copies = tap.open(&settings);
        for path in ["/", "/index", "/logout", "/a/b", "/api/x/y", "/api/admin/x", "/api/administer"] {
            tap.offer(path, path.as_bytes());
        }
        tap.close();
        tap.offer("/index", b"late");
        let mut taken = Vec::new();
        while let Ok(copy) = copies.try_recv() {
            taken.push(String::from_utf8(copy.into()).unwrap());
        }
        assert_eq!(taken, ["/", "/index", "/api/x/y", "/api/administer"]);
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let tap = RehearsalTap::default();
        let copies = tap.open(&rehearse(1.0, 1000));
        for _ in 0..WAITING_MAX + 3 {
            tap.offer("/", b"head");
        }
        assert_eq!(tap.counts()[RehearsalResult::Dropped as usize], 3);
        drop(copies);
        tap.offer("/", b"head");
        assert_eq!(tap.counts()[RehearsalResult::Dropped as usize], 3, "the end of a rehearsal is no drop");
    }

    #[test]
    fn share_and_rate_are_limits() {
        let tap = RehearsalTap::default();
        let mut copies = tap.open(&rehearse(0.5, 10));
        (0..10).for_each(|_| tap.offer("/", b"head"));
        (0..10_000).for_each(|_| tap.offer("/", b"head"));
        let taken = std::iter::from_fn(|| copies.try_recv().ok()).count();
        assert!((10..=12).contains(&taken), "a second's worth at once, not {taken}");
        assert_eq!(tap.counts()[RehearsalResult::Dropped as usize], 0, "more than the rate is not a drop");
        let rate = RateLimit::new(1000);
        let taken = (0..100_000).filter(|_| rate.take()).count();
        assert!((1_000..2_000).contains(&taken), "{taken}");
    }
}
