//! What the machine of a cutover is told: requests for a change, and reports of what its effects came to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SaveError;
use crate::domain::Color;
use crate::domain::health::UpstreamNotReady;
use crate::domain::rehearsal::TooManyDifferences;
use crate::domain::watch::{WatchConfig, WatchSample};

/// The settings of one service that the machine decides by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// How the new color is watched, and how long; a window of zero switches the watch off.
    pub watch: WatchConfig,
    /// Requests that are still in flight on the old color so long after a change are cut.
    pub drain: Duration,
}

/// What of a cutover survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The color that takes new requests.
    pub active: Color,
    /// The number of the present color's turn; it grows by one at every flip or rollback.
    pub epoch: u64,
    /// Where a rollback goes; `None` before the first flip and after a rollback.
    pub previous: Option<Color>,
    /// The config's `active` when it was last loaded.
    pub config_active: Color,
    /// When the running watch ends.
    pub watch_until: Option<Duration>,
    /// Why the last watch took traffic back, until somebody flips.
    pub rolled_back: Option<String>,
}

/// Where a flip or rollback comes from.
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
    /// Every reason, in the order of the metrics.
    pub const ALL: [Reason; 3] = [Reason::Operator, Reason::Config, Reason::Verdict];

    /// The word that ledger and metrics use.
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
    /// Who asks; the ledger has it.
    pub by: String,
    /// The epoch that the asker has seen. A change that was made since then makes the request stale.
    pub if_epoch: Option<u64>,
    /// The change is made although the gate says no.
    pub force: bool,
    /// What the gate says of the target.
    pub gate: Result<(), GateError>,
}

impl ChangeRequest {
    /// Whether the change is made past a gate that says no.
    pub(super) fn is_forced(&self) -> bool {
        self.gate.is_err()
    }
}

/// Why a color may not take the traffic.
#[derive(Clone, Debug, PartialEq)]
pub enum GateError {
    /// An upstream is not ready.
    NotReady(UpstreamNotReady),
    /// It answered copied requests otherwise than the active color.
    RehearsalFailed(TooManyDifferences),
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody asks to make `to` the active color.
    Flip {
        /// The target.
        to: Color,
        /// The gate in it is the target's.
        request: ChangeRequest,
    },
    /// Somebody asks to go back to the color before this one.
    RollBack(ChangeRequest),
    /// The config was loaded, and `active` is what it says.
    ConfigActive {
        /// The config's `active`.
        active: Color,
        /// The gate in it is that color's.
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
        /// So many of them did not end by themselves.
        cut: u64,
    },
    /// Time has passed.
    Tick,
}
