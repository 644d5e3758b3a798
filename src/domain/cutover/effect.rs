//! Defines the effects of the cutover machine: saves, publications, cuts, and notices for people.

use std::time::Duration;

use super::{Reason, SaveError, SavedState};
use crate::domain::Color;
use crate::domain::health::UpstreamNotReady;
use crate::domain::rehearsal::TooManyDifferences;
use crate::domain::watch::{FaultReport, Outcomes, WatchEvent, WatchSummary};

/// Something that the machine wants done. The effects of one event are carried out in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Writes the state to the disk; [`Event::Saved`](super::Event::Saved) reports the outcome.
    Save {
        /// The number of the save, which grows with each.
        serial: u64,
        /// The state to write.
        state: SavedState,
    },
    /// Makes `color` take every request from now on.
    Publish {
        /// The new active color.
        color: Color,
        /// Its epoch.
        epoch: u64,
    },
    /// Ends the requests that are still in flight on the color that was left when `epoch` ended.
    Cut {
        /// An epoch that has ended.
        epoch: u64,
    },
    /// Reports something to the operator.
    Report(Notice),
}

/// Something that an operator wants to know: each notice is a line of the ledger and an event of the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A flip was made.
    Flipped {
        /// The flip.
        change: Change,
        /// Whether the gate had refused the change.
        forced: bool,
    },
    /// Traffic went back.
    RolledBack {
        /// The rollback.
        change: Change,
        /// Whether the gate had refused the change.
        forced: bool,
        /// The evidence of the watch, where the watch took the traffic back.
        evidence: Option<Box<RollbackEvidence>>,
    },
    /// Somebody asked for a change, and nothing was changed.
    Refused {
        /// The change that was asked for.
        requested: Requested,
        /// The origin of the request.
        reason: Reason,
        /// The name of the caller.
        by: String,
        /// The reason for the refusal.
        error: ChangeError,
    },
    /// The watch of `color` ended without taking traffic back.
    WatchEnded {
        /// The color that was judged.
        color: Color,
        /// Its epoch.
        epoch: u64,
        /// Tells how the watch ended.
        end: WatchEnd,
        /// The counts at that time.
        counts: Outcomes,
    },
    /// The watch of `color` goes on, and found something worth knowing.
    Noted {
        /// The color that is judged.
        color: Color,
        /// Its epoch.
        epoch: u64,
        /// The event that the watch noted.
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
        /// The number of leases that were cut.
        cut: u64,
    },
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The color that was active before.
    pub from: Color,
    /// The color that takes new requests now.
    pub to: Color,
    /// The new epoch.
    pub epoch: u64,
    /// The origin of the change.
    pub reason: Reason,
    /// The name of the caller.
    pub by: String,
}

/// The evidence for which a watch took traffic back.
#[derive(Clone, Debug, PartialEq)]
pub struct RollbackEvidence {
    /// Describes the fault of the release.
    pub fault: FaultReport,
    /// The numbers of the watch at that moment.
    pub summary: WatchSummary,
}

/// A change that was asked for and refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// A flip to this color.
    Flip(Color),
    /// A rollback.
    Rollback,
}

/// Tells how a watch ended without taking traffic back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The window is over, and the color is good.
    Kept,
    /// The window is over, and there was too little traffic to judge the color.
    NotEnoughTraffic,
    /// The window is over; the color is bad, but the other one was no better.
    NowhereToGo(FaultReport),
    /// Traffic was moved by somebody else before the watch ended.
    Superseded,
}

/// The kind of a [`WatchEnd`], without its fault report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchEndKind {
    /// The color is good.
    Kept,
    /// There was too little traffic to judge the color.
    NotEnoughTraffic,
    /// The color is bad, but the other one was no better.
    NowhereToGo,
    /// Traffic was moved by somebody else before the watch ended.
    Superseded,
}

impl WatchEndKind {
    /// Lists every kind, in the order of the metrics.
    pub const ALL: [WatchEndKind; 4] =
        [WatchEndKind::Kept, WatchEndKind::NotEnoughTraffic, WatchEndKind::NowhereToGo, WatchEndKind::Superseded];

    /// Returns the word that ledger and metrics use.
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
    /// Returns the kind of the end.
    pub fn kind(&self) -> WatchEndKind {
        match self {
            WatchEnd::Kept => WatchEndKind::Kept,
            WatchEnd::NotEnoughTraffic => WatchEndKind::NotEnoughTraffic,
            WatchEnd::NowhereToGo(_) => WatchEndKind::NowhereToGo,
            WatchEnd::Superseded => WatchEndKind::Superseded,
        }
    }
}

/// Says why a flip or a rollback was not made.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeError {
    /// An upstream of the target is not ready.
    NotReady {
        /// The target.
        color: Color,
        /// The first upstream that is not ready.
        why: UpstreamNotReady,
    },
    /// A deploy is at work on the target.
    UnderDeploy {
        /// The target.
        color: Color,
        /// "a deploy of sha-2 to green is at smoke …"
        why: String,
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
        /// The operation that has to end first.
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
        /// The error of the save.
        why: SaveError,
    },
}

/// The operation that another flip has to wait for.
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
