//! Defines the events of the cutover machine: requests for a change, and reports on its effects.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Color;
use crate::domain::health::UpstreamNotReady;
use crate::domain::rehearsal::TooManyDifferences;
use crate::domain::watch::{WatchConfig, WatchSample};

/// The settings of one service that the machine decides by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Sets how, and for how long, the new color is watched; a window of zero switches the watch off.
    pub watch: WatchConfig,
    /// Requests that are still in flight on the old color this long after a change are cut.
    pub drain: Duration,
}

/// The part of a cutover that survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The color that takes new requests.
    pub active: Color,
    /// The epoch of the active color; it grows by one at every flip or rollback.
    pub epoch: u64,
    /// The color to which a rollback goes; `None` before the first flip and after a rollback.
    pub previous: Option<Color>,
    /// The config's `active` when it was last loaded.
    pub config_active: Color,
    /// The time at which the running watch ends.
    pub watch_until: Option<Duration>,
    /// The fault for which the last watch took traffic back, until somebody flips.
    pub rolled_back: Option<String>,
}

/// The origin of a flip or rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Somebody asked for it.
    Operator,
    /// The config's `active` changed.
    Config,
    /// The watch found the new color bad.
    Verdict,
}

impl Reason {
    /// Lists every reason, in the order of the metrics.
    pub const ALL: [Reason; 3] = [Reason::Operator, Reason::Config, Reason::Verdict];

    /// Returns the word that ledger and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Operator => "operator",
            Reason::Config => "config",
            Reason::Verdict => "verdict",
        }
    }
}

/// A flip or rollback as somebody asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeRequest {
    /// The name of the caller, for the ledger.
    pub by: String,
    /// The epoch that the caller has seen. A change that was made since then makes the request stale.
    pub if_epoch: Option<u64>,
    /// Whether the change is made although the gate refuses it.
    pub force: bool,
    /// The decision of the gate about the target.
    pub gate: Result<(), GateError>,
}

impl ChangeRequest {
    /// Whether the change is made although the gate refuses it.
    pub(super) fn is_forced(&self) -> bool {
        self.gate.is_err()
    }
}

/// Says why a color may not take the traffic.
#[derive(Clone, Debug, PartialEq)]
pub enum GateError {
    /// A deploy is at work on it; the text says which, and how far it is.
    UnderDeploy(String),
    /// An upstream is not ready.
    NotReady(UpstreamNotReady),
    /// The color responded to copied requests differently from the active color.
    RehearsalFailed(TooManyDifferences),
}

/// An event that the machine handles.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody asks to make `to` the active color.
    Flip {
        /// The target.
        to: Color,
        /// The request, with the gate's decision about the target.
        request: ChangeRequest,
    },
    /// Somebody asks to go back to the color before this one.
    RollBack(ChangeRequest),
    /// The config was loaded, and its `active` is this color.
    ConfigActive {
        /// The config's `active`.
        active: Color,
        /// The request, with the gate's decision about that color.
        request: ChangeRequest,
    },
    /// The save with this number has reached the disk, or has failed.
    Saved {
        /// The number that [`Effect::Save`](super::Effect::Save) gave it.
        serial: u64,
        /// The error says why it failed.
        outcome: Result<(), SaveError>,
    },
    /// The counters were read.
    Sample {
        /// The epoch under which the requests were counted.
        epoch: u64,
        /// The counts, and whether there is a way back.
        sample: Box<WatchSample>,
    },
    /// The color that was left as `epoch` ended holds no lease any more.
    Drained {
        /// The epoch under which the leases were taken.
        epoch: u64,
        /// The number of leases that were cut.
        cut: u64,
    },
    /// Time has passed.
    Tick,
}

/// Says why a state is not known to be on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaveError {
    /// The disk reported this error.
    Disk(String),
    /// Too many saves wait for the disk already.
    QueueFull,
    /// The disk did not respond in this time.
    TooSlow(Duration),
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SaveError::Disk(error) => f.write_str(error),
            SaveError::QueueFull => f.write_str("too many saves wait for the disk"),
            SaveError::TooSlow(limit) => write!(f, "the disk took longer than {} s", limit.as_secs()),
        }
    }
}
