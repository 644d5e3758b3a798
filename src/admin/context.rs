//! What every request to the admin API needs, and how long its client may take.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::control::Handle;

/// How long a client may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdminLimits {
    /// The time for a request head, and between requests on a kept connection.
    pub(super) head: Duration,
    /// The time for a whole body.
    pub(super) body: Duration,
    /// A write that waits longer for its reader ends the connection.
    pub(super) write: Duration,
}

/// How names in `Host` are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostCheck {
    /// Loopback names and addresses, and the listen address.
    Known,
    /// Any: the address is reachable from elsewhere under names we cannot know, and a token guards it. A page that
    /// makes its own name resolve to us does not have the token.
    Any,
}

/// What every request needs, shared by all connections.
pub(super) struct AdminContext {
    pub(super) handle: Handle,
    pub(super) token: Option<String>,
    pub(super) host_check: HostCheck,
    pub(super) readers: Arc<Semaphore>,
    pub(super) limits: AdminLimits,
    pub(super) stop: watch::Receiver<bool>,
}

/// Returns when the server is to stop. Cancel safe.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone stops us as well. The guard inside is dropped here: it must not live across an await.
    let _ = stop.wait_for(|stop| *stop).await;
}
