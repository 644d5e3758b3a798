//! The open connections of one endpoint, and which of them makes room for another when there are too many.
//!
//! A connection that has not sent a request yet costs a stranger nothing, so a few hundred of them must not keep the
//! operator out: the oldest of them goes first. Where there is a token, connections that have not shown it go next.
//! Those that have are never ended for somebody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use tokio::task::AbortHandle;

/// What the client of a connection has shown of itself so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Nothing.
    Silent,
    /// A request.
    Asked,
    /// A request with the token, where there is one.
    Known,
}

impl Trust {
    const ALL: [Trust; 3] = [Trust::Silent, Trust::Asked, Trust::Known];
}

/// The trust of one connection: it only grows.
#[derive(Default)]
pub(super) struct ConnectionTrust(AtomicU8);

impl ConnectionTrust {
    pub(super) fn raise(&self, to: Trust) {
        self.0.fetch_max(to as u8, Relaxed);
    }

    fn get(&self) -> Trust {
        Trust::ALL[usize::from(self.0.load(Relaxed)).min(Trust::ALL.len() - 1)]
    }
}

/// One connection and the task that serves it.
struct OpenConnection {
    trust: Arc<ConnectionTrust>,
    task: AbortHandle,
}

/// The connections of one endpoint, oldest first.
pub(super) struct OpenConnections {
    open: Vec<OpenConnection>,
    max: usize,
    /// A connection with this trust or more is not ended for another.
    kept_from: Trust,
}

impl OpenConnections {
    /// At most `max` connections; `has_token` says whether a token tells the operator from a stranger.
    pub(super) fn new(max: usize, has_token: bool) -> Self {
        OpenConnections { open: Vec::new(), max, kept_from: if has_token { Trust::Known } else { Trust::Asked } }
    }

    /// Makes room for one more connection, by ending another one where that is needed. False: there is no room.
    pub(super) fn make_room(&mut self) -> bool {
        if self.open.len() < self.max {
            return true;
        }
        self.open.retain(|connection| !connection.task.is_finished());
        if self.open.len() < self.max {
            return true;
        }
        let least = self.open.iter().enumerate().min_by_key(|(at, connection)| (connection.trust.get(), *at));
        let Some((at, _)) = least.filter(|(_, connection)| connection.trust.get() < self.kept_from) else {
            return false;
        };
        self.open.remove(at).task.abort();
        true
    }

    /// A connection is served by `task` from now on.
    pub(super) fn add(&mut self, trust: Arc<ConnectionTrust>, task: AbortHandle) {
        self.open.push(OpenConnection { trust, task });
    }
}
