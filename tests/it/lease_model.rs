//! Every interleaving of a request with a flip, a drain and the stop of the old upstream, walked through by loom.
//!
//! It is a model of `src/routing/`, not the code itself. A reference to the route, taken under a mutex that is let go
//! at once, stands for arc-swap's guard: the route lives while it does, and a flip may come at any moment of it. A flag
//! that the lane sets as it is dropped stands for the channel that ends with the last lane. The hammer under real
//! traffic is another test; here no interleaving is left to luck.

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// One color's server: it must hear of no request once it is stopped.
#[derive(Default)]
struct Upstream {
    stopped: AtomicBool,
    /// Leases, as the naive protocol counts them: apart from the route.
    counted: AtomicUsize,
}

impl Upstream {
    fn receive(&self) {
        assert!(!self.stopped.load(SeqCst), "a request arrived at a stopped upstream");
    }
}

/// The token that leases clone; one worker, so one lane.
struct Lane {
    upstream: Arc<Upstream>,
    drained: Arc<AtomicBool>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.drained.store(true, SeqCst);
    }
}

/// What is published. Replaced whole.
struct Route {
    lane: Arc<Lane>,
}

/// The proxy before the flip: blue is published; green is what the flip publishes.
struct World {
    blue: Arc<Upstream>,
    blue_drained: Arc<AtomicBool>,
    green: Arc<Upstream>,
    published: Mutex<Arc<Route>>,
}

impl World {
    fn new() -> Arc<Self> {
        let (blue, green) = (Arc::new(Upstream::default()), Arc::new(Upstream::default()));
        let blue_drained = Arc::new(AtomicBool::new(false));
        let published = Mutex::new(route(&blue, &blue_drained));
        Arc::new(World { blue, blue_drained, green, published })
    }

    /// Stands for `ArcSwap::load`.
    fn load(&self) -> Arc<Route> {
        Arc::clone(&self.published.lock().expect("no holder panics"))
    }

    /// Publishes green. The route before it goes when its last reader does.
    fn flip(&self) {
        let green = route(&self.green, &Arc::new(AtomicBool::new(false)));
        let before = std::mem::replace(&mut *self.published.lock().expect("no holder panics"), green);
        drop(before);
    }
}

fn route(upstream: &Arc<Upstream>, drained: &Arc<AtomicBool>) -> Arc<Route> {
    Arc::new(Route { lane: Arc::new(Lane { upstream: Arc::clone(upstream), drained: Arc::clone(drained) }) })
}

/// Stops blue if it is drained at this instant. One look is enough: loom tries every instant, and a wait would only
/// add turns in which nothing happens.
fn stop_blue_if(drained: bool, world: &World) {
    if drained {
        world.blue.stopped.store(true, SeqCst);
    }
}

/// As in `src/routing/`: the token is cloned while the guard lives, and held until the last byte.
fn request_with_a_lease(world: &World) {
    let guard = world.load();
    let lease = Arc::clone(&guard.lane);
    drop(guard);
    lease.upstream.receive();
}

/// The tempting one: load the route, let it go, count, send, count back.
fn request_counted_after_the_load(world: &World) {
    let upstream = Arc::clone(&world.load().lane.upstream);
    upstream.counted.fetch_add(1, SeqCst);
    upstream.receive();
    upstream.counted.fetch_sub(1, SeqCst);
}

/// Runs `workers` requests against one flip, in every interleaving. `drained` says when blue may be stopped.
fn explore(workers: usize, request: fn(&World), drained: fn(&World) -> bool) {
    loom::model(move || {
        let world = World::new();
        let requests: Vec<_> = (0..workers)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || request(&world))
            })
            .collect();
        world.flip();
        stop_blue_if(drained(&world), &world);
        for request in requests {
            request.join().expect("the request's own assertion has failed the model already");
        }
        stop_blue_if(drained(&world), &world);
        assert!(world.blue.stopped.load(SeqCst), "with all requests ended, blue is drained");
    });
}

#[test]
fn no_request_reaches_an_upstream_that_was_drained_and_stopped() {
    for workers in [1, 2] {
        explore(workers, request_with_a_lease, |world| world.blue_drained.load(SeqCst));
    }
}

#[test]
fn counting_after_the_load_is_caught_by_the_model() {
    let naive = || explore(1, request_counted_after_the_load, |world| world.blue.counted.load(SeqCst) == 0);
    let panic = std::panic::catch_unwind(naive).expect_err("the model must find the interleaving that loses a request");
    let message = panic.downcast_ref::<&str>().copied().expect("an assertion with a fixed message");
    assert_eq!(message, "a request arrived at a stopped upstream");
}
