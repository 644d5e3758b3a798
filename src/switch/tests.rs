//! The route, its leases and its drain.

use super::*;
use crate::domain::watch::Ended;

pub(super) fn address(port: u16) -> config::Address {
    config::Address { host: "127.0.0.1".into(), port }
}

fn upstreams() -> [Arc<[Arc<Upstream>]>; 2] {
    [1, 2].map(|port| Arc::from([Upstream::new(address(port))]))
}

fn terms(active: Color, epoch: u64) -> Terms {
    Terms { active, epoch, upstreams: upstreams(), trial: None, hold: None }
}

fn lease(service: &Service, worker: usize) -> Lease {
    service.route.load().lease(worker, Access::Read, Instant::now()).expect("nothing is held")
}

pub(super) fn service(name: &str) -> (Arc<Service>, Tenure) {
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
    Service::new(info, stats, Arc::default(), terms(Color::Blue, 1))
}

#[tokio::test]
async fn a_route_is_drained_when_its_last_lease_ends_and_not_before() {
    let (service, mut tenure) = service("a");
    let (first, second) = (lease(&service, 0), lease(&service, 1));
    assert_eq!(tenure.in_flight(), 2);
    let mut next = service.publish(terms(Color::Green, 2));
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
    let mut late = lease(&service, 0);
    let new = service.publish(terms(Color::Green, 2));
    late.record(Outcome::Bad, Some(500), 0, Duration::from_millis(3));
    assert_eq!((old.tally().begun, old.tally().seen.new_color()), (1, Ended { good: 0, bad: 1 }));
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
    let held = Arc::new(Held::default());
    let hold = |what| Some(Hold::new(what, config::Freeze::default(), Arc::clone(&held)));
    let _tenure = service.publish(Terms { hold: hold(What::Writes), ..terms(Color::Blue, 1) });
    for (kind, is_held) in [(Access::Read, false), (Access::Write, true), (Access::Upgrade, true)] {
        assert_eq!(ask(kind).is_err(), is_held, "{kind:?}");
    }
    assert!(!is_ended(0).await, "a write is in flight");
    drop(write);
    assert!(is_ended(0).await, "neither a read nor a tunnel is waited for");
    let _tenure = service.publish(Terms { hold: hold(What::All), ..terms(Color::Blue, 1) });
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
    let (service, tenure) = service("a");
    let (guests, user) = (tenure.guests(), lease(&service, 0));
    let mut guest = guest_of(&service);
    assert_eq!((guest.color(), user.color()), (Color::Green, Color::Blue));
    assert_eq!((guests.in_flight(), tenure.in_flight(), tenure.tally().in_flight_on_new()), (1, 2, 1));
    guest.answered();
    guest.record(Outcome::Bad, Some(500), 0, Duration::from_millis(3));
    assert_eq!(tenure.tally().seen, Seen::default(), "no evidence");
    assert_eq!((service.stats[1].requests(), service.stats[1].errors()), (1, 1), "but a request of green");
    assert_eq!(service.stats[1].sum(|shard| shard.answers.iter().map(Counter::get).sum()), 0, "no yardstick either");
    guests.send_away();
    assert!(guest.is_cut() && !user.is_cut());
    let later = guest_of(&service);
    assert!(!later.is_cut(), "who comes later is not meant");
    drop((guest, later));
    assert_eq!((guests.in_flight(), tenure.in_flight()), (0, 1));
}

#[test]
fn of_split_traffic_each_block_keeps_one_request_and_nobody_knows_which() {
    let counts = Counts::new(None);
    let mut places = [0; 10];
    for _ in 0..1000 {
        let kept: Vec<_> = (0..10).filter(|_| counts.keeps(10)).collect();
        assert_eq!(kept.len(), 1);
        places[kept[0]] += 1;
    }
    assert!(places.iter().all(|count| (50..150).contains(count)), "{places:?}");
}
