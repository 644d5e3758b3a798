//! What both planes share: the published [`Route`] of each service, the [`Lease`] of each request, and the counters.
//!
//! The data plane only reads routes and writes its own worker's counters; the control plane only publishes routes and
//! reads counters. Nothing here waits.
//!
//! **The race that matters.** A worker that loads a route and *then* counts itself in can be overtaken by a flip and a
//! drain, and its request arrives at a stopped upstream. Here the count *is* the reference: a [`Route`] holds one
//! [`Lane`] per worker, a lease is a clone of the worker's lane taken while the arc-swap guard still protects the
//! route, and "drained" is the moment the last clone of the last lane is gone. There is no moment in between.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use crate::config;
use crate::domain::Color;

mod tap;

pub use tap::{Copied, REHEARSAL_RESULTS, Tap};

/// A number that one thread adds to and any thread reads: no locked instruction, no shared write.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it; a second writer would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
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
#[derive(Debug, Default)]
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
    /// Failures of this color that the other one was asked to answer, by index into [`REPLAY_RESULTS`].
    pub replays: [Counter; REPLAY_RESULTS.len()],
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
}

/// The counters of one color: a [`Shard`] per worker.
#[derive(Debug)]
pub struct ColorStats {
    /// Indexed by worker.
    pub shards: Box<[Arc<Shard>]>,
}

impl ColorStats {
    /// Counters at zero for that many workers.
    pub fn new(workers: usize) -> Self {
        ColorStats { shards: (0..workers).map(|_| Arc::default()).collect() }
    }

    /// A sum over the workers.
    pub fn sum(&self, of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(shard)).sum()
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
}

/// How a request ended, as the watch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, with a status below 500.
    Good,
    /// Answered 5xx, or not answered: no connection, time-out, broken answer.
    Bad,
    /// No evidence: the client left, or the proxy itself refused.
    Void,
}

/// What one worker counted under one epoch. Outlives the lane, so that a tally never shrinks.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    begun: Counter,
    good: Counter,
    bad: Counter,
    void: Counter,
    replays: Counter,
}

/// The color that is not active: while the active one is watched, it answers once for each of its failures that can be
/// repeated without harm.
pub struct Standby {
    /// The color.
    pub color: Color,
    /// Where it is; at least one.
    pub upstreams: Arc<[Arc<Upstream>]>,
    stats: Arc<ColorStats>,
    open: AtomicBool,
}

/// Replays of one worker under one epoch at most, beside [`REPLAY_SHARE`] of its requests: the standby carries no
/// traffic, and a release that fails all at once must not bring it down with it.
const REPLAY_BURST: u64 = 256;

/// One replay for so many requests begun.
const REPLAY_SHARE: u64 = 10;

impl Standby {
    /// Whether a watch runs.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Set by the control plane as the watch begins and ends.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Relaxed);
    }

    /// Counts a replay in.
    pub fn visit(&self, worker: usize) -> Visit {
        let shard = Arc::clone(&self.stats.shards[worker]);
        shard.begun.add(1);
        Visit(shard)
    }
}

/// One replay in flight on the standby; it ends when dropped.
pub struct Visit(Arc<Shard>);

impl Visit {
    /// Counts its answer for the color that gave it.
    pub fn record(&self, status: Option<u16>, method: usize, duration: Duration) {
        self.0.count(status, method, duration);
        if status.is_none_or(|code| code >= 500) {
            self.0.errors.add(1);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.ended.add(1);
    }
}

impl Lane {
    /// Whether one more replay is within the budget of 256 and a tenth of this worker's requests.
    pub fn may_replay(&self) -> bool {
        let replays: u64 = self.counts.replays.get();
        replays < REPLAY_BURST + self.counts.begun.get() / REPLAY_SHARE
    }

    /// Counts a replay, by index into [`REPLAY_RESULTS`].
    pub fn count_replay(&self, result: usize) {
        self.counts.replays.add(1);
        self.stats.replays[result].add(1);
    }
}

/// One worker's part of a route: the token that its leases hold.
#[repr(align(128))]
pub struct Lane {
    /// The service this lane belongs to.
    pub service: Arc<ServiceInfo>,
    /// The color that serves.
    pub color: Color,
    /// Names who served a request.
    pub epoch: u64,
    /// Where requests go; at least one.
    pub upstreams: Arc<[Arc<Upstream>]>,
    /// This worker's lasting counters for the color.
    pub stats: Arc<Shard>,
    /// Who answers for this color while it is watched.
    pub standby: Arc<Standby>,
    counts: Arc<Counts>,
    cut: Arc<AtomicBool>,
    failure_bell: Arc<Notify>,
    _drained: mpsc::Sender<Infallible>,
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
}

/// One request (or tunnel) in flight on one color. It ends when this is dropped, which is after the last byte.
pub struct Lease {
    lane: Arc<Lane>,
    recorded: bool,
}

impl Lease {
    fn new(lane: Arc<Lane>) -> Self {
        lane.counts.begun.add(1);
        lane.stats.begun.add(1);
        Lease { lane, recorded: false }
    }

    /// The lane it was taken from.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Whether the drain deadline has passed: the request must end now.
    pub fn is_cut(&self) -> bool {
        self.lane.cut.load(Relaxed)
    }

    /// Records how the request ended; `status` is `None` when none was sent, `method` an index into [`METHODS`].
    pub fn record(&mut self, outcome: Outcome, status: Option<u16>, method: usize, duration: Duration) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        let stats = &self.lane.stats;
        stats.count(status, method, duration);
        match outcome {
            Outcome::Good => self.lane.counts.good.add(1),
            Outcome::Void => self.lane.counts.void.add(1),
            Outcome::Bad => {
                stats.errors.add(1);
                self.lane.counts.bad.add(1);
                self.lane.failure_bell.notify_one();
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.recorded {
            self.lane.counts.void.add(1);
        }
        self.lane.stats.ended.add(1);
    }
}

/// What is published for one service: who takes its requests. Replaced whole, never changed.
pub struct Route {
    /// The color that takes new requests.
    pub active: Color,
    /// Grows by one at every flip or rollback.
    pub epoch: u64,
    lanes: Box<[Arc<Lane>]>,
}

impl Route {
    /// Takes a lease for `worker`. Call it while the arc-swap guard is held, and drop the guard after.
    pub fn lease(&self, worker: usize) -> Lease {
        Lease::new(Arc::clone(&self.lanes[worker]))
    }
}

/// Counts of one epoch, summed over the workers. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests begun.
    pub begun: u64,
    /// Ended [`Outcome::Good`].
    pub good: u64,
    /// Ended [`Outcome::Bad`].
    pub bad: u64,
    /// Ended [`Outcome::Void`].
    pub void: u64,
}

/// The control plane's end of a [`Route`]: reads its counts, hears when it is drained, and can cut it.
///
/// It does not keep the route alive.
pub struct Tenure {
    /// The color that serves under it.
    pub color: Color,
    /// Its epoch.
    pub epoch: u64,
    /// The other color, opened for replays while this one is watched.
    pub standby: Arc<Standby>,
    counts: Box<[Arc<Counts>]>,
    cut: Arc<AtomicBool>,
    drained: mpsc::Receiver<Infallible>,
}

impl Tenure {
    /// Counts so far.
    pub fn tally(&self) -> Tally {
        self.counts.iter().fold(Tally::default(), |sum, counts| {
            // Ended before begun, so that `begun` is never the smaller one.
            let (good, bad, void) = (counts.good.get(), counts.bad.get(), counts.void.get());
            Tally {
                begun: sum.begun + counts.begun.get(),
                good: sum.good + good,
                bad: sum.bad + bad,
                void: sum.void + void,
            }
        })
    }

    /// Leases in flight.
    pub fn in_flight(&self) -> u64 {
        let tally = self.tally();
        tally.begun - tally.good - tally.bad - tally.void
    }

    /// Returns when the route has been replaced and the last lease on it is gone. Cancel safe.
    pub async fn drained(&mut self) {
        // No lane ever sends: the channel ends when the last lane is dropped.
        let _ = self.drained.recv().await;
    }

    /// Marks every lease as to be ended now. The caller then wakes the workers' connections.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
    }
}

/// A service as the data plane sees it.
pub struct Service {
    /// Name and time-outs.
    pub info: Arc<ServiceInfo>,
    /// Who takes its requests. Publish with [`Service::publish`], never cache what it holds.
    pub route: ArcSwap<Route>,
    /// Indexed by [`Color::index`]; survives reloads.
    pub stats: [Arc<ColorStats>; 2],
    failure_bell: Arc<Notify>,
}

impl Service {
    /// A service with its first route. `failure_bell` is rung at every [`Outcome::Bad`].
    pub fn new(
        info: Arc<ServiceInfo>,
        stats: [Arc<ColorStats>; 2],
        failure_bell: Arc<Notify>,
        active: Color,
        epoch: u64,
        upstreams: [Arc<[Arc<Upstream>]>; 2],
        watched: bool,
    ) -> (Arc<Self>, Tenure) {
        let (route, tenure) = make_route(&info, &stats, &failure_bell, active, epoch, upstreams, watched);
        (Arc::new(Service { info, route: ArcSwap::from_pointee(route), stats, failure_bell }), tenure)
    }

    /// Makes `active` take every request that begins from now on: one atomic store.
    ///
    /// The tenure of the route before it ends ([`Tenure::drained`]) when its last lease does.
    /// `upstreams` is indexed by [`Color::index`]; `watched` opens the standby from the first request on.
    pub fn publish(&self, active: Color, epoch: u64, upstreams: [Arc<[Arc<Upstream>]>; 2], watched: bool) -> Tenure {
        let (route, tenure) =
            make_route(&self.info, &self.stats, &self.failure_bell, active, epoch, upstreams, watched);
        self.route.store(Arc::new(route));
        tenure
    }
}

fn make_route(
    info: &Arc<ServiceInfo>,
    stats: &[Arc<ColorStats>; 2],
    failure_bell: &Arc<Notify>,
    active: Color,
    epoch: u64,
    upstreams: [Arc<[Arc<Upstream>]>; 2],
    watched: bool,
) -> (Route, Tenure) {
    let idle = active.other();
    let standby = Arc::new(Standby {
        color: idle,
        upstreams: Arc::clone(&upstreams[idle.index()]),
        stats: Arc::clone(&stats[idle.index()]),
        open: AtomicBool::new(watched),
    });
    let upstreams = &upstreams[active.index()];
    let (alive, drained) = mpsc::channel(1);
    let cut = Arc::new(AtomicBool::new(false));
    let lanes: Box<[Arc<Lane>]> = stats[active.index()]
        .shards
        .iter()
        .map(|shard| {
            Arc::new(Lane {
                service: Arc::clone(info),
                color: active,
                epoch,
                upstreams: Arc::clone(upstreams),
                stats: Arc::clone(shard),
                standby: Arc::clone(&standby),
                counts: Arc::default(),
                cut: Arc::clone(&cut),
                failure_bell: Arc::clone(failure_bell),
                _drained: alive.clone(),
            })
        })
        .collect();
    let tenure = Tenure {
        color: active,
        epoch,
        standby,
        counts: lanes.iter().map(|lane| Arc::clone(&lane.counts)).collect(),
        cut,
        drained,
    };
    (Route { active, epoch, lanes }, tenure)
}

/// Which service a request is for: by host, then by the longest path prefix.
#[derive(Default)]
pub struct Table {
    exact: HashMap<Box<[u8]>, Vec<Entry>>,
    wildcard: HashMap<Box<[u8]>, Vec<Entry>>,
    fallback: Vec<Entry>,
}

struct Entry {
    prefix: Box<[u8]>,
    service: Arc<Service>,
}

impl Entry {
    fn matches(&self, path: &[u8]) -> bool {
        if path == b"*" {
            return *self.prefix == *b"/"; // OPTIONS of the whole server
        }
        let Some(rest) = path.strip_prefix(&*self.prefix) else { return false };
        self.prefix.ends_with(b"/") || matches!(rest.first(), None | Some(b'/' | b'?'))
    }
}

/// The longest host name (RFC 1035 2.3.4); a longer one matches no configured host.
const HOST_BYTES_MAX: usize = 255;

impl Table {
    /// Builds the table; of two services with the same host and prefix the first is found (the config refuses that).
    pub fn new<'a>(services: impl IntoIterator<Item = (&'a config::Service, Arc<Service>)>) -> Self {
        let mut table = Table::default();
        for (config, service) in services {
            let entry = || Entry { prefix: config.path_prefix.as_bytes().into(), service: Arc::clone(&service) };
            if config.hosts.is_empty() {
                table.fallback.push(entry());
            }
            for host in &config.hosts {
                match host.strip_prefix("*.") {
                    Some(parent) => table.wildcard.entry(parent.as_bytes().into()).or_default().push(entry()),
                    None => table.exact.entry(host.as_bytes().into()).or_default().push(entry()),
                }
            }
        }
        let lists = table.exact.values_mut().chain(table.wildcard.values_mut()).chain([&mut table.fallback]);
        for list in lists {
            list.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.len()));
        }
        table
    }

    /// The service for `host` (without port, any case) and `path` (with or without query).
    ///
    /// Tried in turn: the host itself, `*.` before each of its parents, services without hosts; the first of these
    /// that has a matching prefix wins.
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<&Arc<Service>> {
        let first = |list: &'_ [Entry]| list.iter().position(|entry| entry.matches(path));
        if (!self.exact.is_empty() || !self.wildcard.is_empty()) && host.len() <= HOST_BYTES_MAX {
            let mut buffer = [0; HOST_BYTES_MAX];
            let lower = &mut buffer[..host.len()];
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            if let Some(list) = self.exact.get(&*lower)
                && let Some(at) = first(list)
            {
                return Some(&list[at].service);
            }
            let mut rest = &*lower;
            while !self.wildcard.is_empty()
                && let Some(dot) = memchr::memchr(b'.', rest)
            {
                rest = &rest[dot + 1..];
                if let Some(list) = self.wildcard.get(rest)
                    && let Some(at) = first(list)
                {
                    return Some(&list[at].service);
                }
            }
        }
        first(&self.fallback).map(|at| &self.fallback[at].service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> config::Address {
        config::Address { host: "127.0.0.1".into(), port }
    }

    fn upstreams() -> [Arc<[Arc<Upstream>]>; 2] {
        [1, 2].map(|port| Arc::from([Upstream::new(address(port))]))
    }

    fn service(name: &str) -> (Arc<Service>, Tenure) {
        let timeout = Duration::from_secs(1);
        let upstream = config::Upstream { connect_timeout: timeout, response_timeout: timeout, idle_timeout: timeout };
        let info = Arc::new(ServiceInfo {
            name: name.into(),
            upstream,
            replay: config::Replay::default(),
            tap: Arc::default(),
        });
        let stats = [1, 2].map(|_| Arc::new(ColorStats::new(2)));
        Service::new(info, stats, Arc::default(), Color::Blue, 1, upstreams(), false)
    }

    fn configured(name: &str, hosts: &[&str], path_prefix: &str) -> config::Service {
        let color = config::ColorConfig { upstreams: vec![address(1)], env_file: None, project: None, image_tag: None };
        let timeout = Duration::from_secs(1);
        config::Service {
            name: name.into(),
            hosts: hosts.iter().map(|&host| host.into()).collect(),
            path_prefix: path_prefix.into(),
            active: Color::Blue,
            colors: [color.clone(), color],
            upstream: config::Upstream { connect_timeout: timeout, response_timeout: timeout, idle_timeout: timeout },
            health: config::Health { path: "/".into(), interval: timeout, timeout, rise: 1, fall: 1 },
            watch: config::Watch { window: timeout },
            replay: config::Replay::default(),
            rehearse: config::Rehearse::default(),
            drain: config::Drain { timeout },
            deploy: config::Deploy::default(),
        }
    }

    #[test]
    fn a_service_is_found_by_host_then_by_the_longest_prefix() {
        let configs = [
            configured("shop", &["shop.example"], "/"),
            configured("shop-api", &["shop.example"], "/api"),
            configured("wild", &["*.example"], "/"),
            configured("rest", &[], "/"),
            configured("rest-api", &[], "/api/"),
        ];
        let table = Table::new(configs.iter().map(|config| (config, service(&config.name).0)));
        for (host, path, want) in [
            ("shop.example", "/", "shop"),
            ("SHOP.example", "/api", "shop-api"),
            ("shop.example", "/api?x", "shop-api"),
            ("shop.example", "/api/x", "shop-api"),
            ("shop.example", "/apix", "shop"),
            ("a.example", "/", "wild"),
            ("a.b.example", "/", "wild"),
            ("example", "/", "rest"),
            ("other", "/api/x", "rest-api"),
            ("other", "/api", "rest"),
            ("", "*", "rest"),
        ] {
            let found = table.find(host.as_bytes(), path.as_bytes()).map_or("", |service| service.info.name.as_str());
            assert_eq!(found, want, "{host} {path}");
        }
        assert!(table.find(&[b'a'; 300], b"/").is_some(), "an endless host is every other host");
    }

    #[tokio::test]
    async fn a_route_is_drained_when_its_last_lease_ends_and_not_before() {
        let (service, mut tenure) = service("a");
        let (first, second) = (service.route.load().lease(0), service.route.load().lease(1));
        assert_eq!(tenure.in_flight(), 2);
        let mut next = service.publish(Color::Green, 2, upstreams(), false);
        let drained =
            async |tenure: &mut Tenure| tokio::time::timeout(Duration::from_millis(10), tenure.drained()).await.is_ok();
        drop(first);
        assert!(!drained(&mut tenure).await, "one lease is left");
        assert_eq!(tenure.in_flight(), 1);
        drop(second);
        assert!(drained(&mut tenure).await);
        assert_eq!(tenure.tally(), Tally { begun: 2, void: 2, ..Tally::default() }, "a tally outlives its route");
        assert!(!drained(&mut next).await, "the route in force is not drained, though it holds no lease");
    }

    #[test]
    fn a_late_failure_counts_where_it_began() {
        let (service, old) = service("a");
        let mut late = service.route.load().lease(0);
        let new = service.publish(Color::Green, 2, upstreams(), false);
        late.record(Outcome::Bad, Some(500), 0, Duration::from_millis(3));
        assert_eq!(old.tally(), Tally { begun: 1, bad: 1, ..Tally::default() });
        assert_eq!(new.tally(), Tally::default());
        assert_eq!((service.stats[0].errors(), service.stats[1].errors()), (1, 0));
        assert_eq!((service.stats[0].requests(), service.stats[0].in_flight()), (1, 1));
        drop(late);
        assert_eq!(service.stats[0].in_flight(), 0);
    }
}
