//! Streams of the past: which ones the peer has opened, and which ones were reset a moment ago.

use std::collections::VecDeque;

/// How many of the streams that we have reset are remembered, because frames of them may still be on their way.
const RESETS_MAX: usize = 128;

/// What is remembered of streams that are over.
#[derive(Default)]
pub struct StreamHistory {
    last_opened: u32,
    /// Of the peer's last 128 streams, from `last_opened` down, those that it has opened: it may have skipped some.
    opened: u128,
    reset_by_us: VecDeque<u32>,
}

impl StreamHistory {
    /// The highest stream that the peer has opened.
    pub fn last_opened(&self) -> u32 {
        self.last_opened
    }

    /// Remembers that the peer has opened `stream`, which is above all others.
    pub fn add_opened(&mut self, stream: u32) {
        let skipped = (stream - self.last_opened).div_ceil(2);
        self.opened = self.opened.checked_shl(skipped).unwrap_or(0) | 1;
        self.last_opened = stream;
    }

    /// Whether the peer has opened `stream`, as far as that is remembered; it is not above the last one.
    pub fn was_opened(&self, stream: u32) -> bool {
        let back = (self.last_opened - stream) / 2;
        back < 128 && self.opened >> back & 1 == 1
    }

    /// Remembers that we have reset `stream`, and forgets the oldest such stream.
    pub fn add_reset(&mut self, stream: u32) {
        if self.reset_by_us.len() == RESETS_MAX {
            self.reset_by_us.pop_front();
        }
        self.reset_by_us.push_back(stream);
    }

    /// Whether we have reset `stream` and the peer may not know it yet: what comes of it means nothing (RFC 9113 5.1).
    /// With `ends`, this is the last that the peer may send on it, and it is forgotten.
    pub fn was_reset(&mut self, stream: u32, ends: bool) -> bool {
        let found = self.reset_by_us.iter().position(|&reset| reset == stream);
        if let (Some(at), true) = (found, ends) {
            self.reset_by_us.remove(at);
        }
        found.is_some()
    }
}
