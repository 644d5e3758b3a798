//! The route, its leases and its drain.

use super::*;
use crate::domain::watch::Ended;

pub(super) fn address(port: u16) -> config::Address {
    config::Address { host: "127.0.0.1".into(), port }
}

fn upstreams() -> [Arc<[Arc<Upstream>]>; 2] {
    [1, 2].map(|port| Arc::from([Upstream::new(address(port))]))
}

pub(super) fn service(name: &str) -> (Arc<Service>, Tenure) {
    let timeout = Duration::from_secs(1);
    let upstream = config::Upstream { connect_timeout: timeout, response_timeout: timeout, idle_timeout: timeout };
    let info = Arc::new(ServiceInfo {
        name: name.into(),
        upstream,
        replay: config::Replay::default(),
        tap: Arc::default(),
        preview: None,
        shield: None,
    });
    let stats = [1, 2].map(|_| Arc::new(ColorStats::new(2)));
    Service::new(info, stats, Arc::default(), Color::Blue, 1, upstreams(), None)
}

#[tokio::test]
async fn a_route_is_drained_when_its_last_lease_ends_and_not_before() {
    let (service, mut tenure) = service("a");
    let (first, second) =
        (service.route.load().lease(0, Instant::now()), service.route.load().lease(1, Instant::now()));
    assert_eq!(tenure.in_flight(), 2);
    let mut next = service.publish(Color::Green, 2, upstreams(), None);
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
    let mut late = service.route.load().lease(0, Instant::now());
    let new = service.publish(Color::Green, 2, upstreams(), None);
    late.record(Outcome::Bad, Some(500), 0, Duration::from_millis(3));
    assert_eq!((old.tally().begun, old.tally().seen.new_color()), (1, Ended { good: 0, bad: 1 }));
    assert_eq!(new.tally(), Tally::default());
    assert_eq!((service.stats[0].errors(), service.stats[1].errors()), (1, 0));
    assert_eq!((service.stats[0].requests(), service.stats[0].in_flight()), (1, 1));
    drop(late);
    assert_eq!(service.stats[0].in_flight(), 0);
}

#[test]
fn a_guest_is_on_the_idle_color_counts_for_nothing_and_can_be_sent_away() {
    let (service, tenure) = service("a");
    let (guests, user) = (tenure.guests(), service.route.load().lease(0, Instant::now()));
    let mut guest = service.route.load().preview(0, Instant::now());
    assert_eq!((guest.color(), user.color()), (Color::Green, Color::Blue));
    assert_eq!((guests.in_flight(), tenure.in_flight(), tenure.tally().in_flight_on_new()), (1, 2, 1));
    guest.answered();
    guest.record(Outcome::Bad, Some(500), 0, Duration::from_millis(3));
    assert_eq!(tenure.tally().seen, Seen::default(), "no evidence");
    assert_eq!((service.stats[1].requests(), service.stats[1].errors()), (1, 1), "but a request of green");
    assert_eq!(service.stats[1].sum(|shard| shard.answers.iter().map(Counter::get).sum()), 0, "no yardstick either");
    guests.send_away();
    assert!(guest.is_cut() && !user.is_cut());
    let later = service.route.load().preview(0, Instant::now());
    assert!(!later.is_cut(), "who comes later is not meant");
    drop((guest, later));
    assert_eq!((guests.in_flight(), tenure.in_flight()), (0, 1));
}
