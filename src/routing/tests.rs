//! The route, its leases and its drain.

use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use crate::config;
use crate::domain::Color;
use crate::domain::freeze::What;
use crate::domain::watch::{Outcomes, WatchCounts, WatchMode};
use crate::routing::epoch_counts::EpochCounts;
use crate::routing::*;

pub(super) fn address(port: u16) -> config::Address {
    config::Address { host: "127.0.0.1".into(), port }
}

fn upstreams() -> [Arc<[Arc<Upstream>]>; 2] {
    [1, 2].map(|port| Arc::from([Upstream::new(address(port))]))
}

/// A route to trackers that nobody else has.
fn terms(active: Color, epoch: u64) -> RouteSpec {
    terms_of(active, epoch, &trackers())
}

fn terms_of(active: Color, epoch: u64, trackers: &[LeaseTracker; 2]) -> RouteSpec {
    RouteSpec {
        active,
        epoch,
        upstreams: upstreams(),
        trackers: trackers.each_ref().map(LeaseTracker::handle),
        watch: None,
        freeze: None,
    }
}

fn trackers() -> [LeaseTracker; 2] {
    [1, 2].map(|_| LeaseTracker::new(2))
}

/// While the new color keeps one request in ten.
fn split(epoch: u64, trackers: &[LeaseTracker; 2]) -> RouteSpec {
    let mode = WatchMode { keep_one_in: 10, ..WatchMode::default() };
    let watch = Some(WatchSetup { mode, slow: None, failed: FailedRequests::new().0 });
    RouteSpec { watch, ..terms_of(Color::Green, epoch, trackers) }
}

/// Drains `color`; another generation of its leases begins, which `publish` is told of.
fn drain(
    trackers: &mut [LeaseTracker; 2],
    color: Color,
    publish: impl FnOnce(&[LeaseTracker; 2]) -> RouteHandle,
) -> (Draining, RouteHandle) {
    let left = std::mem::replace(&mut trackers[color.index()], LeaseTracker::new(2));
    let route_handle = publish(trackers);
    (left.drain(Duration::from_secs(30)), route_handle)
}

fn is_drained(left: &mut Draining) -> bool {
    left.poll_drained(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}

fn lease(service: &Service, worker: usize) -> Lease {
    service.route.load().lease(worker, Access::Read, Instant::now()).expect("nothing is held")
}

pub(super) fn service(name: &str) -> (Arc<Service>, RouteHandle) {
    service_of(name, terms(Color::Blue, 1))
}

fn service_of(name: &str, terms: RouteSpec) -> (Arc<Service>, RouteHandle) {
    let timeout = Duration::from_secs(1);
    let upstream = config::Upstream {
        connect_timeout: timeout,
        response_timeout: timeout,
        idle_timeout: timeout,
        protocol: config::Protocol::Http1,
        proxy_protocol: None,
    };
    let info = Arc::new(ServiceInfo {
        name: name.into(),
        upstream,
        replay: config::Replay::default(),
        tap: Arc::default(),
        preview: None,
        shield: None,
    });
    let stats = [1, 2].map(|_| Arc::new(ColorStats::new(2)));
    Service::new(info, stats, Arc::default(), terms)
}

#[test]
fn a_color_is_drained_when_its_last_lease_ends_and_not_before() {
    let mut trackers = trackers();
    let (service, mut route_handle) = service_of("a", terms_of(Color::Blue, 1, &trackers));
    let (first, second) = (lease(&service, 0), lease(&service, 1));
    assert_eq!((route_handle.in_flight(), trackers[0].in_flight()), (2, 2));
    let (mut left, mut next) =
        drain(&mut trackers, Color::Blue, |trackers| service.publish(terms_of(Color::Green, 2, trackers)));
    let is_over = |route_handle: &mut RouteHandle| {
        route_handle.poll_over(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    };
    drop(first);
    assert!(!is_drained(&mut left) && !is_over(&mut route_handle), "one lease is left");
    assert_eq!((route_handle.in_flight(), left.in_flight()), (1, 1));
    drop(second);
    assert!(is_drained(&mut left) && is_over(&mut route_handle));
    assert_eq!(route_handle.tally(), Tally { begun: 2, void: 2, ..Tally::default() }, "a tally outlives its route");
    assert!(!is_over(&mut next), "the route in force is not over, though it holds no lease");
}

#[test]
fn a_stay_outlasts_the_route_that_a_reload_replaces() {
    let mut trackers = trackers();
    let (service, mut route_handle) = service_of("a", terms_of(Color::Blue, 1, &trackers));
    let old = lease(&service, 0);
    let _reloaded = service.publish(terms_of(Color::Blue, 1, &trackers));
    let (mut left, _next) =
        drain(&mut trackers, Color::Blue, |trackers| service.publish(terms_of(Color::Green, 2, trackers)));
    assert!(!is_drained(&mut left), "a lease of the route before is left");
    drop(old);
    assert!(
        is_drained(&mut left) && route_handle.poll_over(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    );
}

/// The leases of both colors while traffic is split.
fn of_split(service: &Service) -> [Lease; 2] {
    let mut all: Vec<_> = (0..10).map(|_| lease(service, 0)).collect();
    let kept = all.iter().position(|lease| lease.color() == Color::Green).expect("one of each block");
    let new = all.swap_remove(kept);
    [new, all.swap_remove(0)]
}

#[test]
fn the_old_color_is_not_drained_before_its_part_of_split_traffic() {
    let mut trackers = trackers();
    let (service, _blue) = service_of("a", terms_of(Color::Blue, 1, &trackers));
    let (mut left, watched) = drain(&mut trackers, Color::Blue, |trackers| service.publish(split(2, trackers)));
    assert!(is_drained(&mut left));
    let [new, old] = of_split(&service);
    watched.set_mode(None); // kept
    let (mut left, _kept) =
        drain(&mut trackers, Color::Blue, |trackers| service.publish(terms_of(Color::Green, 2, trackers)));
    assert!(!is_drained(&mut left) && left.in_flight() == 1, "the old color's part");
    assert!(old.close_at(0.5).is_some() && new.close_at(0.5).is_none(), "only that is to leave");
    left.cut();
    assert!(old.is_cut() && !new.is_cut() && left.was_cut() == 1);
    drop(old);
    assert!(is_drained(&mut left), "the new color's lease is no concern");
}

#[test]
fn a_rollback_leaves_alone_who_is_on_the_old_color_already() {
    let mut trackers = trackers();
    let (service, _green) = service_of("a", split(2, &trackers));
    let [new, old] = of_split(&service);
    let (mut left, _back) =
        drain(&mut trackers, Color::Green, |trackers| service.publish(terms_of(Color::Blue, 3, trackers)));
    left.cut();
    assert!(new.is_cut() && !old.is_cut());
    drop(new);
    assert!(is_drained(&mut left), "green is");
    let (mut left, _again) =
        drain(&mut trackers, Color::Blue, |trackers| service.publish(terms_of(Color::Green, 4, trackers)));
    assert!(!is_drained(&mut left), "blue is not, whatever the epoch its lease was taken under");
    drop(old);
    assert!(is_drained(&mut left));
}

#[test]
fn a_visit_is_waited_for_and_none_begins_where_everybody_has_left() {
    let mut trackers = trackers();
    let (service, _blue) = service_of("a", terms_of(Color::Blue, 1, &trackers));
    let mut request = lease(&service, 0);
    assert!(request.begin_standby(), "green is there");
    request.set_kind(LeaseKind::EventStream);
    assert_eq!(
        (service.stats[1].open(LeaseKind::EventStream), service.stats[0].open(LeaseKind::EventStream)),
        (1, 0),
        "it is green's"
    );
    let (mut left, _same) =
        drain(&mut trackers, Color::Green, |trackers| service.publish(terms_of(Color::Blue, 1, trackers)));
    assert!(!is_drained(&mut left) && left.in_flight() == 1);
    assert!(request.close_at(0.5).is_some() && !request.is_cut());
    left.cut();
    assert!(request.is_cut(), "with either color that it is at");
    request.end_standby();
    assert!(!request.is_cut() && service.stats[1].open(LeaseKind::EventStream) == 0);
    assert!(is_drained(&mut left), "whoever might come again keeps nobody there");
    assert!(!request.begin_standby(), "it may have been stopped");
    assert!(lease(&service, 0).begin_standby(), "another generation of leases has begun");
}

#[test]
fn what_may_be_asked_again_has_an_end_and_grows_with_the_requests() {
    let (service, _handle) = service("a");
    let first = lease(&service, 0);
    assert_eq!((0..1_000).filter(|_| first.take_replay()).count(), 256);
    for _ in 0..100 {
        drop(lease(&service, 0));
    }
    assert_eq!((0..1_000).filter(|_| first.take_replay()).count(), 10, "a tenth of them, after any number of refusals");
    assert_eq!((0..1_000).filter(|_| first.take_search()).count(), 266, "files have a budget of their own");
}

#[test]
fn a_late_failure_counts_where_it_began() {
    let (service, old) = service("a");
    let mut late = lease(&service, 0);
    let new = service.publish(terms(Color::Green, 2));
    late.record(Outcome::Bad, Some(500), Method::Get, Duration::from_millis(3));
    assert_eq!((old.tally().begun, old.tally().seen.new_color()), (1, Outcomes { good: 0, bad: 1 }));
    assert_eq!(new.tally(), Tally::default());
    assert_eq!((service.stats[0].errors(), service.stats[1].errors()), (1, 0));
    assert_eq!((service.stats[0].requests(), service.stats[0].in_flight()), (1, 1));
    drop(late);
    assert_eq!(service.stats[0].in_flight(), 0);
}

#[tokio::test]
async fn a_frozen_route_leases_no_write_and_waits_for_those_it_took_before() {
    let (service, old) = service("a");
    let ask = |kind| service.route.load().lease(0, kind, Instant::now());
    let (read, write, tunnel) = (ask(Access::Read), ask(Access::Write), ask(Access::Upgrade));
    let mut ended = [What::Writes, What::All].map(|what| Box::pin(old.ended(what)));
    let mut is_ended =
        async |at: usize| tokio::time::timeout(Duration::from_millis(10), ended[at].as_mut()).await.is_ok();
    let held = Arc::new(QueueStats::default());
    let freeze = |what| Some(FreezeQueue::new(what, config::Freeze::default(), Arc::clone(&held)));
    let _handle = service.publish(RouteSpec { freeze: freeze(What::Writes), ..terms(Color::Blue, 1) });
    for (kind, is_held) in [(Access::Read, false), (Access::Write, true), (Access::Upgrade, true)] {
        assert_eq!(ask(kind).is_err(), is_held, "{kind:?}");
    }
    assert!(!is_ended(0).await, "a write is in flight");
    drop(write);
    assert!(is_ended(0).await, "neither a read nor a tunnel is waited for");
    let _handle = service.publish(RouteSpec { freeze: freeze(What::All), ..terms(Color::Blue, 1) });
    assert!(ask(Access::Read).is_err());
    drop(read);
    assert!(!is_ended(1).await, "the tunnel");
    drop(tunnel);
    assert!(is_ended(1).await);
}

fn guest_of(service: &Service) -> Lease {
    service.route.load().preview(0, Access::Read, Instant::now()).expect("nothing is held")
}

#[test]
fn a_guest_is_on_the_idle_color_counts_for_nothing_and_can_be_sent_away() {
    let mut trackers = trackers();
    let (service, route_handle) = service_of("a", terms_of(Color::Blue, 1, &trackers));
    let user = lease(&service, 0);
    let mut guest = guest_of(&service);
    assert_eq!((guest.color(), user.color()), (Color::Green, Color::Blue));
    assert_eq!((trackers[1].in_flight(), route_handle.in_flight(), route_handle.tally().in_flight_on_new()), (1, 2, 1));
    guest.answered();
    guest.record(Outcome::Bad, Some(500), Method::Get, Duration::from_millis(3));
    assert_eq!(route_handle.tally().seen, WatchCounts::default(), "no evidence");
    assert_eq!((service.stats[1].requests(), service.stats[1].errors()), (1, 1), "but a request of green");
    assert_eq!(service.stats[1].sum(|shard| shard.answers.iter().map(Counter::get).sum()), 0, "no yardstick either");
    let (mut left, _same) =
        drain(&mut trackers, Color::Green, |trackers| service.publish(terms_of(Color::Blue, 1, trackers)));
    left.cut();
    assert!(guest.is_cut() && !user.is_cut());
    let later = guest_of(&service);
    assert!(!later.is_cut(), "who comes later is not meant");
    drop((guest, later));
    assert!(is_drained(&mut left));
    assert_eq!((trackers[1].in_flight(), route_handle.in_flight()), (0, 1));
}

#[test]
fn of_split_traffic_each_block_keeps_one_request_and_nobody_knows_which() {
    let counts = EpochCounts::new(None);
    let mut places = [0; 10];
    for _ in 0..1000 {
        let kept: Vec<_> = (0..10).filter(|_| counts.keeps(10)).collect();
        assert_eq!(kept.len(), 1);
        places[kept[0]] += 1;
    }
    assert!(places.iter().all(|count| (50..150).contains(count)), "{places:?}");
}
