//! `[service.NAME.freeze]`: what holding requests may cost.

use std::time::Duration;

use super::section::Section;
use super::values::seconds;

/// `[service.NAME.freeze]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// For each request; past it 503. Default 30 s.
    pub hold: Duration,
    /// For the whole freeze, whoever renews it. Default 5 min.
    pub max: Duration,
    /// Requests held at once; one more is 503. Default 4,096.
    pub max_requests: usize,
    /// Bytes of memory that held requests may take together, at least 1 MiB; one more request is 503. Default 64 MiB.
    pub max_bytes: u64,
    /// How long a freeze waits for what is in flight already. Default 5 s; 0 s: not at all.
    pub finish: Duration,
    /// Over how long the held requests are let go, in the order in which they came. Default 500 ms; 0 s: all at once.
    pub release_spread: Duration,
}

impl Default for Freeze {
    fn default() -> Self {
        Freeze {
            hold: seconds(30),
            max: seconds(300),
            max_requests: 4096,
            max_bytes: 64 << 20,
            finish: seconds(5),
            release_spread: Duration::from_millis(500),
        }
    }
}

const BYTES_MIN: u64 = 1 << 20;

/// Reads the section.
pub(super) fn freeze(section: &Section<'_, '_>) -> Freeze {
    let default = Freeze::default();
    let max_requests = section.integer("max_requests", 1..=1_000_000, 4096);
    let freeze = Freeze {
        hold: section.duration("hold", default.hold),
        max: section.duration("max", default.max),
        max_requests: usize::try_from(max_requests).unwrap_or(default.max_requests),
        max_bytes: section.bytes("max_bytes", default.max_bytes),
        finish: section.duration_or_zero("finish", default.finish).unwrap_or(default.finish),
        release_spread: section
            .duration_or_zero("release_spread", default.release_spread)
            .unwrap_or(default.release_spread),
    };
    if let (true, Some(value)) = (freeze.max_bytes < BYTES_MIN, section.get("max_bytes")) {
        let help = "a held request takes 16 KiB: write at least \"1MiB\"; the default is \"64MiB\"";
        section.problem("max_bytes", value, "is too small", help);
    }
    section.refuse_unknown();
    freeze
}
