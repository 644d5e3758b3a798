//! The first requests that a watched color failed or was slow to answer, until the evidence file takes them.

use tokio::sync::mpsc;

use crate::routing::{FailedRequest, FailedRequests};

/// Both ends of the channel through which the data plane describes failures under the watched epoch.
pub(in crate::control) struct FailureLog {
    /// The data plane's end.
    pub(in crate::control) sender: FailedRequests,
    /// Indexed by [`crate::routing::Symptom`].
    pub(in crate::control) received: [mpsc::Receiver<FailedRequest>; 2],
}

impl FailureLog {
    pub(in crate::control) fn new() -> Self {
        let (sender, received) = FailedRequests::new();
        FailureLog { sender, received }
    }

    /// Makes room for the next fault: what was described so far turned out to be nothing.
    pub(in crate::control) fn forget(&mut self) {
        self.received.iter_mut().for_each(|received| while received.try_recv().is_ok() {});
    }
}
