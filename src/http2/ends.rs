//! How often the sessions with clients were ended for what the client did.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a session ended before both sides had said all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
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

impl End {
    /// Each of them, in the order of their numbers.
    pub const ALL: [End; 5] = [End::Protocol, End::Frames, End::Resets, End::Headers, End::Stalled];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Protocol => "protocol",
            End::Frames => "frame_flood",
            End::Resets => "reset_flood",
            End::Headers => "header_flood",
            End::Stalled => "stalled",
        }
    }
}

/// Counters of all workers.
#[derive(Default)]
pub struct Ends([AtomicU64; End::ALL.len()]);

impl Ends {
    /// Counts one.
    pub fn count(&self, end: End) {
        self.0[end as usize].fetch_add(1, Relaxed);
    }

    /// How often each of them happened.
    pub fn counts(&self) -> Vec<(End, u64)> {
        End::ALL.into_iter().map(|end| (end, self.0[end as usize].load(Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_under_their_own_number() {
        assert!(End::ALL.iter().enumerate().all(|(at, end)| *end as usize == at));
    }
}
