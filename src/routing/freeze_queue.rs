//! The queue in which requests wait while a freeze is in force, counted and bounded.
//!
//! A frozen route carries a [`FreezeQueue`]; on any other a request looks at an empty option, and that is all it costs.
//! A held request has no lease yet, so no drain waits for it, and it loads the route anew when it is released. Only
//! held requests touch what workers share here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{oneshot, watch};

use crate::config;
use crate::domain::freeze::What;

/// The token that one worker's writes hold: its end tells the control plane that they are over.
#[repr(align(128))]
pub(super) struct WriteToken(
    #[expect(dead_code, reason = "its end is all that is heard of it")] pub(super) watch::Sender<()>,
);

/// Tells how a freeze classifies a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The request changes nothing.
    Read,
    /// The request may change something.
    Write,
    /// The request asks for another protocol: nobody can see what that changes, and it may never end.
    Upgrade,
}

/// Tells how a held request's wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOutcome {
    /// The request went on.
    Released,
    /// `freeze.hold` passed: 503.
    TimedOut,
    /// There was no room for the request: 503.
    Refused,
    /// The client left, or the proxy stopped.
    Gone,
}

impl QueueOutcome {
    /// Every outcome, in the order of declaration.
    pub const ALL: [QueueOutcome; 4] =
        [QueueOutcome::Released, QueueOutcome::TimedOut, QueueOutcome::Refused, QueueOutcome::Gone];

    /// The word in the status and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            QueueOutcome::Released => "released",
            QueueOutcome::TimedOut => "timed_out",
            QueueOutcome::Refused => "refused",
            QueueOutcome::Gone => "gone",
        }
    }
}

/// The held requests of one service, over all freezes since the process began.
#[derive(Debug, Default)]
pub struct QueueStats {
    now: AtomicU64,
    bytes: AtomicU64,
    ends: [AtomicU64; QueueOutcome::ALL.len()],
}

impl QueueStats {
    /// Returns the number of requests held now.
    pub fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// Returns how waits have ended, by [`QueueOutcome`].
    pub fn ends(&self) -> [u64; QueueOutcome::ALL.len()] {
        self.ends.each_ref().map(|count| count.load(Relaxed))
    }

    fn count(&self, end: QueueOutcome) {
        self.ends[end as usize].fetch_add(1, Relaxed);
    }
}

/// There is no room for one more request.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull;

/// A request that is held, through however many queues. It gives its room back when dropped, and counts as gone unless
/// `end` was set to something else.
#[derive(Debug)]
pub struct QueueSlot {
    held: Arc<QueueStats>,
    bytes: u64,
    since: Instant,
    /// The time at which the request has waited long enough.
    pub until: Instant,
    /// Tells how the wait ended.
    pub end: QueueOutcome,
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.held.now.fetch_sub(1, Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Relaxed);
        self.held.count(self.end);
    }
}

/// The requests that a freeze holds, in order of arrival.
#[derive(Debug)]
pub struct FreezeQueue {
    what: What,
    limits: config::Freeze,
    held: Arc<QueueStats>,
    /// Ordered by arrival; `None` once the freeze is over.
    queue: Mutex<Option<Vec<QueuedRequest>>>,
}

/// A request in the queue.
#[derive(Debug)]
struct QueuedRequest {
    since: Instant,
    /// Tells the request that its turn has come.
    turn: oneshot::Sender<()>,
}

/// A queue is swept for requests that have left when it is this long, and twice as long as the number held.
const QUEUE_MIN: usize = 64;

impl FreezeQueue {
    /// Makes an empty queue; `held` counts the service's held requests.
    pub fn new(what: What, limits: config::Freeze, held: Arc<QueueStats>) -> Arc<Self> {
        Arc::new(FreezeQueue { what, limits, held, queue: Mutex::new(Some(Vec::new())) })
    }

    /// Whether a request is held that is a write (or is not).
    pub fn holds(&self, is_write: bool) -> bool {
        self.what.holds(is_write)
    }

    /// Takes room for one request that needs `bytes` of memory while it waits.
    ///
    /// # Errors
    /// [`QueueFull`]: `freeze.max_requests` or `freeze.max_bytes` is reached, and the request is counted as refused.
    pub fn admit(&self, bytes: usize, now: Instant) -> Result<QueueSlot, QueueFull> {
        let (held, bytes) = (Arc::clone(&self.held), bytes as u64);
        let requests = held.now.fetch_add(1, Relaxed);
        let kept = held.bytes.fetch_add(bytes, Relaxed) + bytes;
        let mut slot = QueueSlot { held, bytes, since: now, until: now + self.limits.hold, end: QueueOutcome::Gone };
        if requests < self.limits.max_requests as u64 && kept <= self.limits.max_bytes {
            return Ok(slot);
        }
        slot.end = QueueOutcome::Refused;
        Err(QueueFull)
    }

    /// Queues the request by when it arrived, even if it has waited in another queue before, and returns what tells it
    /// that its turn has come. Returns `None` if the freeze is over: load the route again.
    pub fn queue(&self, slot: &QueueSlot) -> Option<oneshot::Receiver<()>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_mut()?;
        let held = usize::try_from(self.held.now()).unwrap_or(usize::MAX);
        if queue.len() >= QUEUE_MIN.max(held.saturating_mul(2)) {
            queue.retain(|waiting| !waiting.turn.is_closed());
        }
        let (turn, heard) = oneshot::channel();
        let at = queue.iter().rposition(|waiting| waiting.since <= slot.since).map_or(0, |before| before + 1);
        queue.insert(at, QueuedRequest { since: slot.since, turn });
        Some(heard)
    }

    /// Ends the queue and returns those that wait, in order of arrival. Publish the route without it first.
    pub fn end(&self) -> Vec<oneshot::Sender<()>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = queue.take().unwrap_or_default().into_iter().map(|waiting| waiting.turn);
        waiting.filter(|turn| !turn.is_closed()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::routing::freeze_queue::*;

    fn hold(limits: config::Freeze) -> (Arc<FreezeQueue>, Arc<QueueStats>) {
        let held = Arc::new(QueueStats::default());
        (FreezeQueue::new(What::Writes, limits, Arc::clone(&held)), held)
    }

    #[test]
    fn is_bounded_in_number_and_bytes_and_gives_room_back() {
        let (hold, held) = hold(config::Freeze { max_requests: 2, max_bytes: 100, ..config::Freeze::default() });
        let now = Instant::now();
        let first = hold.admit(60, now).unwrap();
        assert_eq!(first.until, now + Duration::from_secs(30));
        assert_eq!(hold.admit(41, now).unwrap_err(), QueueFull, "too many bytes");
        let second = hold.admit(40, now).unwrap();
        assert_eq!(hold.admit(0, now).unwrap_err(), QueueFull, "too many");
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
