//! What both planes share: the published [`Route`] of each service, the [`Lease`] of each request, and the counters.
//!
//! The data plane only reads routes and writes its own worker's counters; the control plane only publishes routes and
//! reads counters. Nothing here waits.
//!
//! **The race that matters.** A worker that loads a route and *then* counts itself in can be overtaken by a flip and a
//! drain, and its request arrives at a stopped upstream. Here the count *is* the reference: a [`Route`] holds one
//! [`Lane`] of each color per worker, a lease is a clone of the worker's lane taken while the arc-swap guard still
//! protects the route, and "drained" is the moment the last clone of the last lane that leads to a color's [`Stay`] is
//! gone. There is no moment in between.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use tokio::sync::{Notify, mpsc, watch};

use crate::config;
use crate::domain::Color;
use crate::domain::freeze::What;
use crate::domain::watch::{Stratum, WatchCounts, WatchMode};

mod failed_requests;
mod freeze_queue;
mod graceful_close;
mod host_table;
mod latency;
mod lease_tracker;
mod preview;
pub mod preview_token;
mod refusals;
mod rehearsal;
mod service;
mod shortage;
mod standby;
#[cfg(test)]
mod tests;
mod watch_counters;

pub use failed_requests::{FAILED_MAX, FailedRequest, FailedRequests, Ill, TARGET_BYTES_MAX};
use freeze_queue::WriteToken;
pub use freeze_queue::{Access, Full, Held, HeldEnd, Hold, Place};
use graceful_close::Drain;
pub use graceful_close::{Ends, KINDS, Kind, goodbye};
pub use host_table::Table;
pub use latency::{ANSWER_BUCKETS, answer_bucket, bucket_end};
use lease_tracker::Seat;
pub use lease_tracker::{Leave, Stay, WayIn};
pub use preview::{Door, Gate, Shield};
pub use refusals::{ClientEnds, Refusal, Refusals};
pub use rehearsal::{Copied, REHEARSAL_RESULTS, Tap};
pub use service::{Service, Terms, Trial};
pub use shortage::is_own_shortage;
pub use standby::Other;
use standby::Visit;
use watch_counters::Tallies;
pub use watch_counters::{COHORT, COHORTS, CohortCount, Judging, SLOW_MAX, Side, SlowLimits, Source};

/// A number that one thread adds to and any thread reads: no locked instruction, no shared write.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it; a second writer would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets it. Only the owning worker may call it, or whoever sets a counter without one.
    fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One address of one color. It outlives reloads that do not change it, and with it the workers' connections to it.
#[derive(Debug)]
pub struct Upstream {
    /// Where it is.
    pub address: config::Address,
    /// The address, where it needs no name resolution.
    pub socket: Option<SocketAddr>,
    /// Unique in this process: the workers keep their connections under it.
    pub id: usize,
    down: AtomicBool,
}

impl Upstream {
    /// An upstream that counts as up until a probe says otherwise.
    pub fn new(address: config::Address) -> Arc<Self> {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(0);
        let socket = address.socket();
        Arc::new(Upstream { address, socket, id: NEXT_ID.fetch_add(1, Relaxed), down: AtomicBool::new(false) })
    }

    /// Whether the probes found it down. A color whose upstreams are all down is tried all the same.
    pub fn is_down(&self) -> bool {
        self.down.load(Relaxed)
    }

    /// Set by the control plane from its probes.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Relaxed);
    }
}

/// Methods with a metric label of their own; all others are `OTHER`.
pub const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "OTHER"];

/// Labels of `code_class`; `none` is a request that got no status, because the client left before there was one.
pub const CODE_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// How a replay ended: with an answer below 500, without one, or not begun because too many had been.
pub const REPLAY_RESULTS: [&str; 3] = ["answered", "failed", "over_budget"];

/// Upper bounds of the duration histogram, in microseconds; one more bucket takes what is slower.
pub const DURATION_BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// What one worker counted for one color of one service since the process began. It survives reloads.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    /// Requests that took a lease.
    pub begun: Counter,
    /// Leases given back; `begun - ended` are in flight.
    pub ended: Counter,
    /// Answers with 5xx, and failures to answer at all.
    pub errors: Counter,
    /// By index into [`CODE_CLASSES`], then [`METHODS`].
    pub requests: [[Counter; METHODS.len()]; CODE_CLASSES.len()],
    /// By index into [`DURATION_BOUNDS_US`].
    pub durations: [Counter; DURATION_BOUNDS_US.len() + 1],
    /// Microseconds of all durations together.
    pub duration_sum_us: Counter,
    /// By the time to the head of the answer; see [`bucket_end`].
    pub answers: [Counter; ANSWER_BUCKETS],
    /// Failures of this color that the other one was asked to answer, by index into [`REPLAY_RESULTS`].
    pub replays: [Counter; REPLAY_RESULTS.len()],
    /// How leases came to their end, by index into [`KINDS`].
    pub ends: [Ends; KINDS.len()],
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
    /// Counts a request that ended; `class` and `method` are indexes into [`CODE_CLASSES`] and [`METHODS`].
    fn count(&self, status: Option<u16>, method: usize, duration: Duration) {
        let class = status.map_or(0, |code| usize::from(code / 100).min(CODE_CLASSES.len() - 1));
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.requests[class][method].add(1);
        self.durations[DURATION_BOUNDS_US.partition_point(|&bound| bound < us)].add(1);
        self.duration_sum_us.add(us);
    }

    /// Every counter that goes along to the next process, in an order that a change here changes; the times to the
    /// head of an answer do not: a history of bursts begins with its process.
    fn counters(&self) -> impl Iterator<Item = &Counter> {
        // `ended` first: see `ColorStats::in_flight`.
        let ends = self.ends.iter().flat_map(Ends::counters);
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
    /// What the processes before this one counted; only the link to the one before writes to it.
    before: Arc<Shard>,
}

impl ColorStats {
    /// Counters at zero for that many workers.
    pub fn new(workers: usize) -> Self {
        ColorStats { shards: (0..workers).map(|_| Arc::default()).collect(), before: Arc::default() }
    }

    /// A sum over the workers.
    pub fn sum(&self, of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(shard)).sum::<u64>() + of(&self.before)
    }

    /// Everything counted so far, for the process that takes over.
    pub fn export(&self) -> Vec<u64> {
        let mut sums: Vec<u64> = self.before.counters().map(Counter::get).collect();
        for shard in &self.shards {
            sums.iter_mut().zip(shard.counters()).for_each(|(sum, counter)| *sum += counter.get());
        }
        sums
    }

    /// Takes over what [`ColorStats::export`] gave in the process before. False, and nothing is changed, if it is of
    /// another form.
    pub fn import(&self, counted: &[u64]) -> bool {
        let fits = self.before.counters().count() == counted.len();
        if fits {
            self.before.counters().zip(counted).for_each(|(counter, &n)| counter.set(n));
        }
        fits
    }

    /// The process before has ended, and with it whatever it had in flight.
    pub fn end_before(&self) {
        self.before.ended.set(self.before.begun.get());
        for ends in &self.before.ends {
            ends.ended.set(ends.begun.get());
        }
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> u64 {
        // `ended` first: a request that begins and ends in between must not make the difference negative.
        let ended = self.sum(|s| s.ended.get());
        self.sum(|s| s.begun.get()).saturating_sub(ended)
    }

    /// Requests that have ended.
    pub fn requests(&self) -> u64 {
        self.sum(|s| s.requests.iter().flatten().map(Counter::get).sum())
    }

    /// Answers with 5xx, and failures to answer at all.
    pub fn errors(&self) -> u64 {
        self.sum(|s| s.errors.get())
    }

    /// Leases of that kind in flight now; none for [`Kind::Request`], which are all the others.
    pub fn open(&self, kind: usize) -> u64 {
        let ended = self.sum(|s| s.ends[kind].ended.get());
        self.sum(|s| s.ends[kind].begun.get()).saturating_sub(ended)
    }
}

/// How a request ended, as the watch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, with a status below 500.
    Good,
    /// Answered 5xx, or not answered: time-out, broken answer.
    Bad,
    /// Not answered, because no upstream took a connection. Bad, and nobody else's fault.
    Refused,
    /// No evidence: the client left, or the proxy itself refused.
    Void,
}

/// What one worker counted under one epoch. Outlives the lane, so that a tally never shrinks.
#[derive(Debug)]
#[repr(align(128))]
struct Counts {
    begun: Counter,
    void: Counter,
    /// Of `begun` and `void`, those that went to the old color while traffic was split.
    old_begun: Counter,
    old_void: Counter,
    replays: Counter,
    searches: Counter,
    refused: Counter,
    /// Requests while traffic is split, and which one of the present block the new color keeps.
    turn: Counter,
    kept: Counter,
    tallies: Tallies,
}

impl Counts {
    /// Whether the new color keeps this request: one in each block of so many, by chance. By client, one that loops on
    /// a failure would land on one side alone; by turns, so might a route that comes at every other request; and by
    /// chance alone, a verdict would now and then wait for several times as long.
    fn keeps(&self, one_in: u64) -> bool {
        let at = self.turn.get() % one_in;
        if at == 0 {
            self.kept.set(fastrand::u64(..one_in));
        }
        self.turn.add(1);
        at == self.kept.get()
    }

    fn new(slow: Option<SlowLimits>) -> Self {
        Counts {
            begun: Counter::default(),
            void: Counter::default(),
            old_begun: Counter::default(),
            old_void: Counter::default(),
            replays: Counter::default(),
            searches: Counter::default(),
            refused: Counter::default(),
            turn: Counter::default(),
            kept: Counter::default(),
            tallies: Tallies::new(slow),
        }
    }
}

/// One worker's way to one color of a route: the token that its leases hold.
#[repr(align(128))]
pub struct Lane {
    /// The service this lane belongs to.
    pub service: Arc<ServiceInfo>,
    /// The color that serves: the active one, or ([`Side::Old`]) the other.
    pub color: Color,
    /// Names who served a request.
    pub epoch: u64,
    /// Where requests go; at least one.
    pub upstreams: Arc<[Arc<Upstream>]>,
    /// This worker's lasting counters for the color.
    pub stats: Arc<Shard>,
    side: Side,
    seat: Seat,
    other: Other,
    judging: Arc<Judging>,
    counts: Arc<Counts>,
    failure_bell: Arc<Notify>,
    /// While a watch runs.
    failed: Option<FailedRequests>,
    _over: mpsc::Sender<Infallible>,
    _ended: watch::Sender<()>,
}

/// What does not change about a service until the next reload.
#[derive(Debug)]
pub struct ServiceInfo {
    /// Its name in config, API and metrics.
    pub name: String,
    /// Time-outs towards its upstreams.
    pub upstream: config::Upstream,
    /// What may be replayed.
    pub replay: config::Replay,
    /// Where copies of its requests are left for a rehearsal.
    pub tap: Arc<Tap>,
    /// Who is let through to the idle color; `None`: nobody.
    pub preview: Option<Gate>,
    /// Which files are asked of the other color when one does not have them; `None`: none.
    pub shield: Option<Shield>,
}

/// One request (or tunnel) in flight on one color. It ends when this is dropped, which is after the last byte.
pub struct Lease {
    lane: Arc<Lane>,
    _write: Option<Arc<WriteToken>>,
    recorded: bool,
    kind: Cell<Kind>,
    began: Instant,
    /// Whether the head of an answer has come.
    answered: Cell<bool>,
    /// While a watch runs.
    watched: Option<Watched>,
    guest: Guest,
    /// While the other color answers in place of the one that it is on.
    visit: Option<Visit>,
}

/// Whether somebody has a pass to the idle color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    Yes,
    No,
}

/// A request that a watch counts.
struct Watched {
    mode: WatchMode,
    source: Source,
    /// Where its cohort is counted, until it has an answer.
    cohort: Cell<Option<usize>>,
    is_slow: Cell<bool>,
}

impl Lease {
    /// `lanes` are one worker's, by [`Side`].
    fn new(lanes: &[Arc<Lane>; 2], write: Option<Arc<WriteToken>>, began: Instant) -> Self {
        let [new, old] = lanes;
        let (counts, mode) = (&new.counts, new.judging.mode());
        counts.begun.add(1);
        let lane = match mode {
            Some(mode) if mode.keep_one_in > 0 && !counts.keeps(u64::from(mode.keep_one_in)) => {
                counts.old_begun.add(1);
                old
            }
            Some(_) | None => new,
        };
        let watched = mode.map(|mode| {
            let cohort = counts.tallies.cohorts.as_ref().map(|cohorts| cohorts.begin(lane.side, began));
            Watched { mode, source: Source::default(), cohort: Cell::new(cohort), is_slow: Cell::new(false) }
        });
        Lease::with(Arc::clone(lane), write, began, watched, Guest::No)
    }

    /// For somebody with a pass: on the idle color, and no evidence whatever comes of it.
    fn preview([_, old]: &[Arc<Lane>; 2], write: Option<Arc<WriteToken>>, began: Instant) -> Self {
        old.counts.begun.add(1);
        old.counts.old_begun.add(1);
        Lease::with(Arc::clone(old), write, began, None, Guest::Yes)
    }

    fn with(
        lane: Arc<Lane>,
        write: Option<Arc<WriteToken>>,
        began: Instant,
        watched: Option<Watched>,
        guest: Guest,
    ) -> Self {
        lane.seat.begin();
        lane.stats.begun.add(1);
        let (kind, answered) = (Cell::default(), Cell::new(false));
        Lease { lane, _write: write, recorded: false, kind, began, answered, watched, guest, visit: None }
    }

    /// The lane it was taken from.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The color that serves this request: the active one, or the other one's part of split traffic.
    pub fn color(&self) -> Color {
        self.lane.color
    }

    /// Where it goes; at least one.
    pub fn upstreams(&self) -> &Arc<[Arc<Upstream>]> {
        &self.lane.upstreams
    }

    /// Whether the color that serves it is being judged, so that the other one may answer for it.
    pub fn has_standby(&self) -> bool {
        self.lane.side == Side::New && self.lane.judging.is_on()
    }

    /// Whether a watch wants to know who asks for what; then say so by [`Lease::name_source`].
    pub fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Says who asks for what.
    pub fn name_source(&mut self, source: Source) {
        if let Some(watched) = &mut self.watched {
            watched.source = source;
        }
    }

    /// Where it is to be described if it fails; `None` where nobody wants to know.
    pub fn failed(&self) -> Option<&FailedRequests> {
        let is_evidence = self.watched.is_some() && !matches!(self.phase().0, Stratum::Old | Stratum::Excluded);
        self.lane.failed.as_ref().filter(|_| is_evidence)
    }

    /// Whether its answer took longer than one of the limits of its watch.
    pub fn is_slow(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.is_slow.get())
    }

    /// The head of its answer came now.
    pub fn answered(&self) {
        if self.is_preview() || self.answered.replace(true) {
            return;
        }
        let age = self.began.elapsed();
        self.lane.stats.answers[answer_bucket(age)].add(1);
        if let (Some(watched), Some(cohorts)) = (&self.watched, &self.lane.counts.tallies.cohorts) {
            watched.is_slow.set(cohorts.is_slow(age));
        }
        self.leave_cohort(age);
    }

    fn leave_cohort(&self, age: Duration) {
        if let Some(cohort) = self.watched.as_ref().and_then(|watched| watched.cohort.take())
            && let Some(cohorts) = &self.lane.counts.tallies.cohorts
        {
            cohorts.answered(self.lane.side, cohort, age);
        }
    }

    /// Whether the drain deadline has passed: the request must end now.
    pub fn is_cut(&self) -> bool {
        self.drains().any(Drain::is_cut)
    }

    /// Says what it turned out to be, once.
    pub fn set_kind(&self, kind: Kind) {
        self.kind.set(kind);
        self.ends().begun.add(1);
    }

    /// While its color is left, when it should say goodbye if its turn is `turn`, from 0 (first) to 1 (last).
    pub fn goodbye(&self, turn: f64) -> Option<Instant> {
        self.drains().filter_map(|drain| drain.goodbye(turn)).min()
    }

    /// It is ended with a goodbye.
    pub fn count_closed(&self) {
        self.ends().closed.add(1);
    }

    /// It is cut at the drain deadline.
    pub fn count_cut(&self) {
        self.ends().cut.add(1);
    }

    fn ends(&self) -> &Ends {
        let stats = self.visit.as_ref().map_or(&self.lane.stats, |visit| &visit.stats);
        &stats.ends[self.kind.get() as usize]
    }

    /// Of each color that it is at.
    fn drains(&self) -> impl Iterator<Item = &Drain> {
        [Some(&self.lane.seat), self.visit.as_ref().map(|visit| &visit.seat)].into_iter().flatten().map(Seat::drain)
    }

    /// Records how the request ended; `status` is `None` when none was sent, `method` an index into [`METHODS`].
    pub fn record(&mut self, outcome: Outcome, status: Option<u16>, method: usize, duration: Duration) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        self.lane.stats.count(status, method, duration);
        let counts = &self.lane.counts;
        let is_bad = match outcome {
            Outcome::Good => false,
            Outcome::Bad | Outcome::Refused => true,
            Outcome::Void => return self.count_void(),
        };
        if self.is_preview() {
            if is_bad {
                self.lane.stats.errors.add(1);
            }
            return self.count_void();
        }
        let (phase, source) = self.phase();
        counts.tallies.add(phase, source, is_bad);
        // An ended request is not a slow one, whatever came of it.
        self.leave_cohort(Duration::ZERO);
        if is_bad {
            self.lane.stats.errors.add(1);
            if outcome == Outcome::Refused && self.lane.side == Side::New {
                self.lane.counts.refused.add(1);
            }
            self.lane.failure_bell.notify_one();
        }
    }

    fn count_void(&mut self) {
        self.leave_cohort(Duration::ZERO);
        self.lane.counts.void.add(1);
        if self.lane.side == Side::Old {
            self.lane.counts.old_void.add(1);
        }
    }

    /// How the watch counts it, and whose it is where that matters.
    fn phase(&self) -> (Stratum, Option<Source>) {
        let Some(Watched { mode, source, .. }) = &self.watched else { return (Stratum::Calm, None) };
        match self.lane.side {
            Side::Old => (Stratum::Old, None),
            Side::New if source.is_excluded(mode) => (Stratum::Excluded, None),
            Side::New => (mode.phase(), Some(*source)),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.recorded {
            self.count_void();
        }
        self.end_kind();
        self.lane.stats.ended.add(1);
        self.lane.seat.end();
    }
}

/// What is published for one service: who takes its requests. Replaced whole, never changed.
pub struct Route {
    /// The color that takes new requests.
    pub active: Color,
    /// Grows by one at every flip or rollback.
    pub epoch: u64,
    /// By worker, then by [`Side`].
    lanes: Box<[[Arc<Lane>; 2]]>,
    writes: Box<[Arc<WriteToken>]>,
    hold: Option<Arc<Hold>>,
}

impl Route {
    /// Takes a lease for `worker`. Call it while the arc-swap guard is held, and drop the guard after.
    ///
    /// # Errors
    /// The service is frozen for this `access`: wait there, and load the route again.
    pub fn lease(&self, worker: usize, access: Access, now: Instant) -> Result<Lease, Arc<Hold>> {
        let write = self.enter(worker, access)?;
        Ok(Lease::new(&self.lanes[worker], write, now))
    }

    /// The same for somebody with a pass: on the idle color, which writes to the same data.
    ///
    /// # Errors
    /// As for [`Route::lease`].
    pub fn preview(&self, worker: usize, access: Access, now: Instant) -> Result<Lease, Arc<Hold>> {
        let write = self.enter(worker, access)?;
        Ok(Lease::preview(&self.lanes[worker], write, now))
    }

    /// The token of a write, unless it is held.
    fn enter(&self, worker: usize, access: Access) -> Result<Option<Arc<WriteToken>>, Arc<Hold>> {
        match &self.hold {
            Some(hold) if hold.holds(access != Access::Read) => Err(Arc::clone(hold)),
            Some(_) | None => Ok((access == Access::Write).then(|| Arc::clone(&self.writes[worker]))),
        }
    }
}

/// Counts of one epoch, summed over the workers. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests begun.
    pub begun: u64,
    /// Ended without evidence.
    pub void: u64,
    /// Of `begun` and `void`, those that the old color got while traffic was split.
    pub old_begun: u64,
    /// See `old_begun`.
    pub old_void: u64,
    /// Ended with evidence.
    pub seen: WatchCounts,
}

impl std::ops::AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, more: &Tally) {
        self.begun += more.begun;
        self.void += more.void;
        self.old_begun += more.old_begun;
        self.old_void += more.old_void;
        self.seen += &more.seen;
    }
}

impl Tally {
    /// In flight on either color.
    pub fn in_flight(&self) -> u64 {
        let ended = self.seen.new_color().all() + self.seen.of(Stratum::Old).all() + self.void;
        self.begun.saturating_sub(ended)
    }

    /// Without what has not ended: whoever adds another route's counts to it does not hear of those any more.
    pub fn without_in_flight(mut self) -> Self {
        self.old_begun = self.old_void + self.seen.of(Stratum::Old).all();
        self.begun -= self.in_flight();
        self
    }

    /// In flight on the new color.
    pub fn in_flight_on_new(&self) -> u64 {
        let old = self.old_begun.saturating_sub(self.old_void + self.seen.of(Stratum::Old).all());
        self.in_flight().saturating_sub(old)
    }
}

/// The control plane's end of a [`Route`]: reads its counts, and hears when the last request that came through it is
/// gone. What a drain waits for is a [`Stay`].
///
/// It does not keep the route alive.
pub struct Tenure {
    /// The color that serves under it.
    pub color: Color,
    /// Its epoch.
    pub epoch: u64,
    counts: Box<[Arc<Counts>]>,
    judging: Arc<Judging>,
    slow: Option<SlowLimits>,
    over: mpsc::Receiver<Infallible>,
    all_ended: watch::Receiver<()>,
    writes_ended: watch::Receiver<()>,
}

impl Tenure {
    /// Counts so far.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for counts in &self.counts {
            // Ended before begun, so that `begun` is never the smaller one.
            sum.seen.refused += counts.refused.get();
            for phase in Stratum::ALL {
                sum.seen.strata[phase as usize] += counts.tallies.ended(phase);
            }
            sum.seen.spread += &counts.tallies.spread();
            (sum.old_void, sum.void) = (sum.old_void + counts.old_void.get(), sum.void + counts.void.get());
            sum.old_begun += counts.old_begun.get();
            sum.begun += counts.begun.get();
        }
        sum
    }

    /// Leases in flight, on either color.
    pub fn in_flight(&self) -> u64 {
        self.tally().in_flight()
    }

    /// The requests of that cohort, by [`Side`]; the ring of cohorts is [`COHORTS`] long.
    pub fn cohort(&self, at: usize) -> [CohortCount; 2] {
        let mut sums = [CohortCount::default(); 2];
        for cohorts in self.counts.iter().filter_map(|counts| counts.tallies.cohorts.as_ref()) {
            for (sum, side) in sums.iter_mut().zip([Side::New, Side::Old]) {
                *sum += cohorts.count(side, at);
            }
        }
        sums
    }

    /// From when on answers are slow; `None` where that is not judged.
    pub fn slow(&self) -> Option<SlowLimits> {
        self.slow
    }

    /// Sets how requests that begin from now on are sent and counted; `None` when the watch is over.
    pub fn set_mode(&self, mode: Option<WatchMode>) {
        self.judging.set(mode);
    }

    /// Ready when the route has been replaced and the last lease of it is gone.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // No lane ever sends: the channel ends when the last lane is dropped.
        self.over.poll_recv(cx).map(drop)
    }

    /// Returns when the route has been replaced and its last write has ended, or (`What::All`) its last lease. Tunnels
    /// are no writes here: they may never end. Outlives the tenure.
    pub fn ended(&self, what: What) -> impl Future<Output = ()> + use<> {
        let mut ended = match what {
            What::Writes => self.writes_ended.clone(),
            What::All => self.all_ended.clone(),
        };
        // Nothing is ever sent there either.
        async move { while ended.changed().await.is_ok() {} }
    }
}
