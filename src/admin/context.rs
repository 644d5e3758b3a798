//! Holds what every request to the admin API needs, and the limits on how long its client may take.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::control::Handle;

/// Limits how long a client may keep the server waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdminLimits {
    /// Limits the wait for a request head, and the idle time between requests on a kept connection.
    pub(super) head: Duration,
    /// Limits the time in which a whole body must arrive.
    pub(super) body: Duration,
    /// A write that waits longer for its reader ends the connection.
    pub(super) write: Duration,
}

/// Says how names in `Host` are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostCheck {
    /// Loopback names, loopback addresses and the listen address are accepted.
    Known,
    /// Every name is accepted: the address is reachable under names that the proxy cannot know, and a token guards it.
    /// A page that makes its own name resolve to this address does not have the token.
    Any,
}

/// Carries what every request needs; all connections share it.
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
    // A sender that is gone stops the server as well. The guard is dropped here because it must not live across an
    // await.
    let _ = stop.wait_for(|stop| *stop).await;
}
