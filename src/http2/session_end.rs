//! Why sessions with clients were ended, and how often.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a session ended before both sides had finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The peer violated the protocol.
    Protocol,
    /// The peer sent too many frames that carry nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown
    /// ones.
    Frames,
    /// The peer reset too many streams ("rapid reset"), or made us reset them.
    Resets,
    /// The peer sent a field block without end, or one that grows into far more than is allowed.
    Headers,
    /// The peer does not read, or does not go on with what it began.
    Stalled,
}

impl SessionEnd {
    /// All of them, in the order of their declaration.
    pub const ALL: [SessionEnd; 5] =
        [SessionEnd::Protocol, SessionEnd::Frames, SessionEnd::Resets, SessionEnd::Headers, SessionEnd::Stalled];

    /// The word in metrics and logs.
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

/// Counts the ends of sessions, for all workers.
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
