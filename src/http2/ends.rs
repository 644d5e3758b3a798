//! How often the sessions with clients were ended for what the client did.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a session ended before both sides had said all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The peer violated the protocol.
    Protocol,
    /// Too many frames that bring nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones.
    Frames,
    /// Too many streams were reset: rapid reset, or made us reset.
    Resets,
    /// A header block without end, or one that grows into more than anybody needs.
    Headers,
    /// The peer does not read, or does not go on with what it began.
    Stalled,
}

impl SessionEnd {
    /// Each of them, in the order of their numbers.
    pub const ALL: [SessionEnd; 5] =
        [SessionEnd::Protocol, SessionEnd::Frames, SessionEnd::Resets, SessionEnd::Headers, SessionEnd::Stalled];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionEnd::Protocol => "protocol",
            SessionEnd::Frames => "frame_flood",
            SessionEnd::Resets => "reset_flood",
            SessionEnd::Headers => "header_flood",
            SessionEnd::Stalled => "stalled",
        }
    }
}

/// Counters of all workers.
#[derive(Default)]
pub struct SessionEndCounts([AtomicU64; SessionEnd::ALL.len()]);

impl SessionEndCounts {
    /// Counts one.
    pub fn count(&self, end: SessionEnd) {
        self.0[end as usize].fetch_add(1, Relaxed);
    }

    /// How often each of them happened.
    pub fn counts(&self) -> Vec<(SessionEnd, u64)> {
        SessionEnd::ALL.into_iter().map(|end| (end, self.0[end as usize].load(Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_under_their_own_number() {
        assert!(SessionEnd::ALL.iter().enumerate().all(|(at, end)| *end as usize == at));
    }
}
