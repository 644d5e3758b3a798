//! The first requests that a watched color failed or was slow to answer, described for whoever has to find out why.
//!
//! Only those come here, and only while there is room: a good request costs nothing, and a release that fails
//! everything costs no more than its first failures. Workers never wait; the control plane takes them out.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::routing::ReplayResult;

/// Limits the requests that are kept; later ones are only counted.
pub const FAILED_MAX: usize = 20;

/// A request that failed, or was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRequest {
    /// The time of the failure, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// A name of [`Method`](crate::http1::method::Method).
    pub method: &'static str,
    /// Path and query as they came, at most [`TARGET_BYTES_MAX`] of them: whoever shows it hides the query's values.
    pub target: String,
    /// The status of the response, where there was one.
    pub status: Option<u16>,
    /// The fault, in the access log's word, where the response was not complete.
    pub fault: Option<&'static str>,
    /// From the request's head until it had failed.
    pub took: Duration,
    /// `X-Request-Id`
    pub request_id: String,
    /// The address it was sent to.
    pub upstream: String,
    /// The outcome of the replay; `None` where there was none.
    pub replay: Option<ReplayResult>,
    /// Whether the proxy itself sent the request, so that nobody waited for it.
    pub synthetic: bool,
}

/// Limits the part of a target that is kept.
pub const TARGET_BYTES_MAX: usize = 1024;

/// The fault of a described request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// It failed.
    Failed,
    /// Its response was slow; see [`crate::routing::SlowLimits`].
    Slow,
}

/// Takes the failed requests of one epoch: [`FAILED_MAX`] that failed, and as many that were slow.
#[derive(Clone, Debug)]
pub struct FailedRequests([mpsc::Sender<FailedRequest>; 2]);

impl FailedRequests {
    /// Makes room for them; the receivers, by [`Symptom`], end once the color has no request in flight.
    pub fn new() -> (Self, [mpsc::Receiver<FailedRequest>; 2]) {
        let [(failed, failed_out), (slow, slow_out)] = [(); 2].map(|()| mpsc::channel(FAILED_MAX));
        (FailedRequests([failed, slow]), [failed_out, slow_out])
    }

    /// Whether there is room for one more.
    pub fn has_room(&self, ill: Symptom) -> bool {
        self.0[ill as usize].capacity() > 0
    }

    /// Leaves one. It never waits: what finds no room is dropped.
    pub fn add(&self, ill: Symptom, request: FailedRequest) {
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
        (0..100).for_each(|n| place.add(Symptom::Failed, request(n)));
        assert!(!place.has_room(Symptom::Failed) && place.has_room(Symptom::Slow));
        place.add(Symptom::Slow, request(7));
        drop(place);
        let all: Vec<_> = std::iter::from_fn(|| failed.try_recv().ok()).map(|failed| failed.at_unix_ms).collect();
        assert_eq!(all, (0..FAILED_MAX as u64).collect::<Vec<_>>());
        assert_eq!(slow.try_recv().map(|slow| slow.at_unix_ms), Ok(7));
    }
}
