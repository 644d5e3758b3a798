//! What the machine of a cutover wants done: saves, publications, cuts, and notices for people.

use std::fmt;
use std::time::Duration;

use super::{Reason, SavedState};
use crate::domain::Color;
use crate::domain::health::UpstreamNotReady;
use crate::domain::rehearsal::TooManyDifferences;
use crate::domain::watch::{FaultReport, Outcomes, WatchEvent, WatchSummary};

/// What is to be done. The effects of one event are carried out in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the state to the disk; [`Event::Saved`](super::Event::Saved) reports how that went.
    Save {
        /// The number of the save, which grows with each.
        serial: u64,
        /// What is to be written.
        state: SavedState,
    },
    /// Let `color` take every request from now on.
    Publish {
        /// The new active color.
        color: Color,
        /// Its epoch.
        epoch: u64,
    },
    /// End what is still in flight on the color that was left as `epoch` ended.
    Cut {
        /// An epoch that has ended.
        epoch: u64,
    },
    /// Report something that an operator wants to know.
    Report(Notice),
}

/// Something that an operator wants to know: each one is a line of the ledger and an event of the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A flip was made.
    Flipped {
        /// The flip.
        change: Change,
        /// The gate had said no.
        forced: bool,
    },
    /// Traffic went back.
    RolledBack {
        /// The rollback.
        change: Change,
        /// The gate had said no.
        forced: bool,
        /// What the watch found, where it was the watch that took the traffic back.
        evidence: Option<Box<RollbackEvidence>>,
    },
    /// Somebody asked for a change, and nothing was changed.
    Refused {
        /// What was asked for.
        requested: Requested,
        /// Where it came from.
        reason: Reason,
        /// Who asked.
        by: String,
        /// Why it was not made.
        error: ChangeError,
    },
    /// The watch of `color` ended without taking traffic back.
    WatchEnded {
        /// The color that was judged.
        color: Color,
        /// Its epoch.
        epoch: u64,
        /// How it ended.
        end: WatchEnd,
        /// What had been counted by then.
        counts: Outcomes,
    },
    /// The watch of `color` goes on, and found something worth knowing.
    Noted {
        /// The color that is judged.
        color: Color,
        /// Its epoch.
        epoch: u64,
        /// What it found.
        note: WatchEvent,
    },
    /// `color`, which was left as `epoch` ended, holds no lease any more.
    Drained {
        /// The color that was replaced.
        color: Color,
        /// Its epoch.
        epoch: u64,
        /// The time from the flip to the end of the last lease.
        took: Duration,
        /// So many leases were cut.
        cut: u64,
    },
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The color before.
    pub from: Color,
    /// The color that takes new requests now.
    pub to: Color,
    /// The new epoch.
    pub epoch: u64,
    /// Where it came from.
    pub reason: Reason,
    /// Who asked.
    pub by: String,
}

/// Why a watch took traffic back.
#[derive(Clone, Debug, PartialEq)]
pub struct RollbackEvidence {
    /// What is wrong with the release.
    pub fault: FaultReport,
    /// The numbers of the watch at that moment.
    pub summary: WatchSummary,
}

/// What was asked for and refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// A flip to this color.
    Flip(Color),
    /// A rollback.
    Rollback,
}

/// How a watch ended without taking traffic back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The window is over, and the color is good.
    Kept,
    /// The window is over, and too little was answered to know.
    NotEnoughTraffic,
    /// The window is over; the color is bad, and there was no better place to go.
    NowhereToGo(FaultReport),
    /// Somebody moved the traffic.
    Superseded,
}

/// [`WatchEnd`] without what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchEndKind {
    /// The color is good.
    Kept,
    /// Too little was answered to know.
    NotEnoughTraffic,
    /// The color is bad, and there was no better place to go.
    NowhereToGo,
    /// Somebody moved the traffic.
    Superseded,
}

impl WatchEndKind {
    /// Every kind, in the order of the metrics.
    pub const ALL: [WatchEndKind; 4] =
        [WatchEndKind::Kept, WatchEndKind::NotEnoughTraffic, WatchEndKind::NowhereToGo, WatchEndKind::Superseded];

    /// The word that ledger and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            WatchEndKind::Kept => "keep",
            WatchEndKind::NotEnoughTraffic => "not-enough-traffic",
            WatchEndKind::NowhereToGo => "nowhere-to-go",
            WatchEndKind::Superseded => "superseded",
        }
    }
}

impl WatchEnd {
    /// How the watch ended, in a word.
    pub fn kind(&self) -> WatchEndKind {
        match self {
            WatchEnd::Kept => WatchEndKind::Kept,
            WatchEnd::NotEnoughTraffic => WatchEndKind::NotEnoughTraffic,
            WatchEnd::NowhereToGo(_) => WatchEndKind::NowhereToGo,
            WatchEnd::Superseded => WatchEndKind::Superseded,
        }
    }
}

/// Why a state is not known to be on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaveError {
    /// The disk's error.
    Disk(String),
    /// Too many saves wait for the disk already.
    QueueFull,
    /// The disk has not answered in time.
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

/// Why a flip or a rollback was not made.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeError {
    /// An upstream of the target is not ready.
    NotReady {
        /// The target.
        color: Color,
        /// The first upstream that is not ready.
        why: UpstreamNotReady,
    },
    /// The target failed its rehearsal.
    RehearsalFailed {
        /// The target.
        color: Color,
        /// The differences.
        why: TooManyDifferences,
    },
    /// The target is active, and nothing is under way.
    AlreadyActive {
        /// The target.
        color: Color,
    },
    /// Another cutover is being saved, watched or drained.
    UnderWay {
        /// What has to end first.
        what: UnderWay,
    },
    /// There was no flip since the start or the last rollback.
    NothingToRollBack {
        /// The color that stays.
        active: Color,
    },
    /// The asker has seen another epoch.
    StaleEpoch {
        /// The epoch that the asker has seen.
        asked: u64,
        /// The present one.
        epoch: u64,
    },
    /// The flip could not be saved, so a restart would undo it.
    Unsaved {
        /// What the disk did.
        why: SaveError,
    },
}

/// What another flip has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderWay {
    /// A flip to this color is being saved.
    Saving(Color),
    /// This color is being watched.
    Watching(Color),
    /// This color still holds leases.
    Draining(Color),
    /// A rollback overtook the flip while it was being saved.
    Overtaken,
}
