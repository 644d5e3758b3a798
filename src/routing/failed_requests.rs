//! The first requests that a watched color failed or was slow to answer, described for whoever has to find out why.
//!
//! Only those come here, and only while there is room: a good request costs nothing, and a release that fails
//! everything costs no more than its first failures. Workers never wait; the control plane takes them out.

use std::time::Duration;

use tokio::sync::mpsc;

/// So many are kept; those that come later are only counted.
pub const FAILED_MAX: usize = 20;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRequest {
    /// When it failed, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// One of [`crate::routing::METHODS`].
    pub method: &'static str,
    /// Path and query as they came, at most [`TARGET_BYTES_MAX`] of them: whoever shows it hides the query's values.
    pub target: String,
    /// What the upstream answered, where it did.
    pub status: Option<u16>,
    /// What went wrong, in the access log's word, where the answer was no whole one.
    pub fault: Option<&'static str>,
    /// From the request's head until it had failed.
    pub took: Duration,
    /// `X-Request-Id`
    pub request_id: String,
    /// Where it was sent.
    pub upstream: String,
    /// What came of asking the other color, one of [`crate::routing::REPLAY_RESULTS`]; `None` where it was not asked.
    pub replay: Option<&'static str>,
    /// It was the proxy's own, and nobody waited for it.
    pub synthetic: bool,
}

/// Of a target that is kept.
pub const TARGET_BYTES_MAX: usize = 1024;

/// Why a request is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// It failed.
    Failed,
    /// Its answer was slow; see [`crate::routing::SlowLimits`].
    Slow,
}

/// Where those of one epoch are left: [`FAILED_MAX`] that failed, and as many that were slow.
#[derive(Clone, Debug)]
pub struct FailedRequests([mpsc::Sender<FailedRequest>; 2]);

impl FailedRequests {
    /// Room for them, and by [`Ill`] the ends where they are taken out. Those end once the color holds no request any
    /// more.
    pub fn new() -> (Self, [mpsc::Receiver<FailedRequest>; 2]) {
        let [(failed, failed_out), (slow, slow_out)] = [(); 2].map(|()| mpsc::channel(FAILED_MAX));
        (FailedRequests([failed, slow]), [failed_out, slow_out])
    }

    /// Whether one more is wanted.
    pub fn has_room(&self, ill: Ill) -> bool {
        self.0[ill as usize].capacity() > 0
    }

    /// Leaves one. Never waits: what finds no room is dropped.
    pub fn add(&self, ill: Ill, request: FailedRequest) {
        // Full, or nobody asks any more.
        drop(self.0[ill as usize].try_send(request));
    }
}

#[cfg(test)]
mod tests {
    use crate::routing::failed_requests::*;

    #[test]
    fn the_first_ones_are_kept_and_nobody_waits() {
        let request = |n: u64| FailedRequest {
            at_unix_ms: n,
            method: "GET",
            target: "/".into(),
            status: Some(500),
            fault: None,
            took: Duration::ZERO,
            request_id: String::new(),
            upstream: String::new(),
            replay: None,
            synthetic: false,
        };
        let (place, [mut failed, mut slow]) = FailedRequests::new();
        (0..100).for_each(|n| place.add(Ill::Failed, request(n)));
        assert!(!place.has_room(Ill::Failed) && place.has_room(Ill::Slow));
        place.add(Ill::Slow, request(7));
        drop(place);
        let all: Vec<_> = std::iter::from_fn(|| failed.try_recv().ok()).map(|failed| failed.at_unix_ms).collect();
        assert_eq!(all, (0..FAILED_MAX as u64).collect::<Vec<_>>());
        assert_eq!(slow.try_recv().map(|slow| slow.at_unix_ms), Ok(7));
    }
}
