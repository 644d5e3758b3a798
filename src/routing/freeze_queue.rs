//! Where requests wait while a freeze is in force: a place in a queue, counted and bounded.
//!
//! A route that is frozen carries a [`Hold`]; one that is not costs a request the look at an empty option. A held
//! request has no lease yet, so no drain waits for it, and it loads the route anew when it is let go. What is shared
//! here between workers is touched by held requests only. Nothing here waits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{oneshot, watch};

use crate::config;
use crate::domain::freeze::What;

/// One worker's part of a route that only its writes hold.
#[repr(align(128))]
pub(super) struct WriteToken(
    #[expect(dead_code, reason = "its end is all that is heard of it")] pub(super) watch::Sender<()>,
);

/// What a freeze makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It changes nothing.
    Read,
    /// It may change something.
    Write,
    /// It wants to speak another protocol: nobody can see what it changes, and it may never end.
    Upgrade,
}

/// How a held request's wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldEnd {
    /// It went on.
    Released,
    /// `freeze.hold` passed: 503.
    TimedOut,
    /// There was no room for it: 503.
    Refused,
    /// Its client left, or the proxy stopped.
    Gone,
}

impl HeldEnd {
    /// Every end, in the order of their declaration.
    pub const ALL: [HeldEnd; 4] = [HeldEnd::Released, HeldEnd::TimedOut, HeldEnd::Refused, HeldEnd::Gone];

    /// The word in the status and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            HeldEnd::Released => "released",
            HeldEnd::TimedOut => "timed_out",
            HeldEnd::Refused => "refused",
            HeldEnd::Gone => "gone",
        }
    }
}

/// The held requests of one service, over all freezes since the process began.
#[derive(Debug, Default)]
pub struct Held {
    now: AtomicU64,
    bytes: AtomicU64,
    ends: [AtomicU64; HeldEnd::ALL.len()],
}

impl Held {
    /// Requests held now.
    pub fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// How waits have ended, indexed like [`HeldEnd::ALL`].
    pub fn ends(&self) -> [u64; HeldEnd::ALL.len()] {
        self.ends.each_ref().map(|count| count.load(Relaxed))
    }

    fn count(&self, end: HeldEnd) {
        self.ends[end as usize].fetch_add(1, Relaxed);
    }
}

/// No room for one more.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// A request that is held, through however many queues. Gives its room back when dropped, and counts as gone unless it
/// was said otherwise.
#[derive(Debug)]
pub struct Place {
    held: Arc<Held>,
    bytes: u64,
    since: Instant,
    /// When it has waited long enough.
    pub until: Instant,
    /// How its wait ends.
    pub end: HeldEnd,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.now.fetch_sub(1, Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Relaxed);
        self.held.count(self.end);
    }
}

/// What a freeze holds, in the order in which it came.
#[derive(Debug)]
pub struct Hold {
    what: What,
    limits: config::Freeze,
    held: Arc<Held>,
    /// By arrival; `None` once it is over.
    queue: Mutex<Option<Vec<Waiting>>>,
}

/// Since when somebody waits, and what says that it is their turn.
type Waiting = (Instant, oneshot::Sender<()>);

/// A queue is looked through for those that have left when it is this long and twice as long as those that are held.
const QUEUE_MIN: usize = 64;

impl Hold {
    /// An empty queue; `held` is the service's.
    pub fn new(what: What, limits: config::Freeze, held: Arc<Held>) -> Arc<Self> {
        Arc::new(Hold { what, limits, held, queue: Mutex::new(Some(Vec::new())) })
    }

    /// Whether a request is held that is a write, or is none.
    pub fn holds(&self, is_write: bool) -> bool {
        self.what.holds(is_write)
    }

    /// Room for one request that takes `bytes` of memory while it waits.
    ///
    /// # Errors
    /// [`Full`]: `freeze.max_requests` or `freeze.max_bytes` is reached, and the request is counted as refused.
    pub fn admit(&self, bytes: usize, now: Instant) -> Result<Place, Full> {
        let (held, bytes) = (Arc::clone(&self.held), bytes as u64);
        let requests = held.now.fetch_add(1, Relaxed);
        let kept = held.bytes.fetch_add(bytes, Relaxed) + bytes;
        let mut place = Place { held, bytes, since: now, until: now + self.limits.hold, end: HeldEnd::Gone };
        if requests < self.limits.max_requests as u64 && kept <= self.limits.max_bytes {
            return Ok(place);
        }
        place.end = HeldEnd::Refused;
        Err(Full)
    }

    /// Its place in the queue, by when it came, also if it has waited in another one before: it hears when its turn has
    /// come. `None`: the hold is over, load the route again.
    pub fn queue(&self, place: &Place) -> Option<oneshot::Receiver<()>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_mut()?;
        let held = usize::try_from(self.held.now()).unwrap_or(usize::MAX);
        if queue.len() >= QUEUE_MIN.max(held.saturating_mul(2)) {
            queue.retain(|(_, turn)| !turn.is_closed());
        }
        let (turn, heard) = oneshot::channel();
        let at = queue.iter().rposition(|(since, _)| *since <= place.since).map_or(0, |before| before + 1);
        queue.insert(at, (place.since, turn));
        Some(heard)
    }

    /// Ends it, and hands out those that wait, the first to come first. Publish the route without it before.
    pub fn end(&self) -> Vec<oneshot::Sender<()>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = queue.take().unwrap_or_default().into_iter().map(|(_, turn)| turn);
        waiting.filter(|turn| !turn.is_closed()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::routing::freeze_queue::*;

    fn hold(limits: config::Freeze) -> (Arc<Hold>, Arc<Held>) {
        let held = Arc::new(Held::default());
        (Hold::new(What::Writes, limits, Arc::clone(&held)), held)
    }

    #[test]
    fn is_bounded_in_number_and_bytes_and_gives_room_back() {
        let (hold, held) = hold(config::Freeze { max_requests: 2, max_bytes: 100, ..config::Freeze::default() });
        let now = Instant::now();
        let first = hold.admit(60, now).unwrap();
        assert_eq!(first.until, now + Duration::from_secs(30));
        assert_eq!(hold.admit(41, now).unwrap_err(), Full, "too many bytes");
        let second = hold.admit(40, now).unwrap();
        assert_eq!(hold.admit(0, now).unwrap_err(), Full, "too many");
        assert_eq!((held.now(), held.ends()), (2, [0, 0, 2, 0]));
        drop((first, second));
        assert_eq!((held.now(), held.ends()), (0, [0, 0, 2, 2]));
        assert!(hold.admit(100, now).is_ok());
    }

    #[test]
    fn lets_go_in_the_order_of_arrival() {
        let (hold, _) = hold(config::Freeze::default());
        let began = Instant::now();
        let places: Vec<_> = (0..10).map(|n| hold.admit(0, began + Duration::from_millis(n)).unwrap()).collect();
        // One that has waited in another queue before comes last, and goes first.
        let mut waiting: Vec<_> = places[1..].iter().map(|place| hold.queue(place).unwrap()).collect();
        waiting.insert(0, hold.queue(&places[0]).unwrap());
        drop(waiting.remove(3));
        let turns = hold.end();
        assert_eq!(turns.len(), 9, "who has left has no turn");
        for turn in turns {
            turn.send(()).unwrap();
            assert!(waiting.remove(0).try_recv().is_ok(), "the one that came first");
            assert!(waiting.iter_mut().all(|other| other.try_recv().is_err()));
        }
        assert!(hold.queue(&places[0]).is_none(), "whoever comes late loads the route again");
        assert!(hold.end().is_empty());
    }

    #[test]
    fn forgets_those_that_have_left() {
        let (hold, _) = hold(config::Freeze::default());
        let place = hold.admit(0, Instant::now()).unwrap();
        for _ in 0..10_000 {
            drop(hold.queue(&place));
        }
        assert!(hold.queue.lock().unwrap().as_ref().unwrap().len() <= QUEUE_MIN);
    }
}
