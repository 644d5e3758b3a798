//! Holds `[service.NAME.freeze]`, which limits the cost of holding requests.

use std::time::Duration;

use super::section::Section;
use super::values::seconds;

/// The section `[service.NAME.freeze]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// Limits how long each request is held; after it the request gets 503. Default 30 s.
    pub hold: Duration,
    /// Limits the whole freeze, no matter how often it is renewed. Default 5 min.
    pub max: Duration,
    /// Limits the requests that are held at once; one more gets 503. Default 4,096.
    pub max_requests: usize,
    /// Limits the memory of all held requests together, at least 1 MiB; one more request gets 503. Default 64 MiB.
    pub max_bytes: u64,
    /// A freeze waits this long for the requests already in flight. Default 5 s; with 0 s it does not wait.
    pub finish: Duration,
    /// The held requests are released over this time, in the order in which they came. Default 500 ms; with 0 s all at
    /// once.
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
