//! The state of an upgrade in place: which process may change a color, and who waits for the end of the upgrade.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::api::{Refusal, RefusalCode, Upgraded};
use crate::routing::ColorStats;

/// The counters of one service, indexed by [`Color::index`].
pub(in crate::control) type ServiceStats = (String, [Arc<ColorStats>; 2]);

/// The reason why nothing may change color now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeBlock {
    /// A successor is being started, or serves already.
    Upgrading,
    /// The process before this one finishes what it has in flight.
    Predecessor,
}

/// Tells which process judges releases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Judge {
    /// This process does.
    #[default]
    Here,
    /// Nobody does: what this process knows is on its way to another one, or from there to here.
    Nobody,
}

/// Leases that this process holds none of any more, and its predecessor may.
pub(in crate::control) struct GivenBack {
    pub(in crate::control) service: String,
    /// The epoch under which they were taken.
    pub(in crate::control) epoch: u64,
    /// So many of them were cut.
    pub(in crate::control) cut: u64,
}

/// Who asked for the upgrade, and where the answer goes.
pub(super) struct UpgradeReply {
    pub(super) by: String,
    pub(super) answer: oneshot::Sender<Result<Upgraded, Refusal>>,
}

/// Where an upgrade stands, as the control task knows it.
#[derive(Default)]
pub(in crate::control) struct UpgradeTracker {
    pub(super) judge: Judge,
    pub(super) block: Option<ChangeBlock>,
    pub(super) given_back: Vec<GivenBack>,
    /// Starts the successor, on another thread.
    pub(super) begin: Option<Box<dyn Fn() + Send>>,
    /// The epoch of every service when the upgrade began: the successor reads the state folder after that.
    pub(super) epochs: Vec<u64>,
    pub(super) reply: Option<UpgradeReply>,
    /// The config is to be read once it may be.
    pub(super) is_reload_due: bool,
}

impl UpgradeTracker {
    pub(in crate::control) fn set_begin(&mut self, begin: Box<dyn Fn() + Send>) {
        self.begin = Some(begin);
    }

    /// Whether this process judges.
    pub(in crate::control) fn judges(&self) -> bool {
        self.judge == Judge::Here
    }

    /// The process before this one judges no more, so this one does.
    pub(in crate::control) fn judge_from_now_on(&mut self) {
        self.judge = Judge::Here;
    }

    /// This process begins beside its predecessor.
    pub(in crate::control) fn begin_as_successor(&mut self) {
        (self.block, self.judge) = (Some(ChangeBlock::Predecessor), Judge::Nobody);
    }

    /// Why nothing may change color now; `None` when it may.
    pub(in crate::control) fn blocks_changes(&self) -> Option<Refusal> {
        let message = match self.block? {
            ChangeBlock::Upgrading => {
                "the proxy is being upgraded in place: the new process decides; try again in a moment"
            }
            ChangeBlock::Predecessor => {
                "the process before the upgrade still finishes requests; try again when it has ended, at the latest \
                 after proxy.shutdown_timeout"
            }
        };
        Some(Refusal { code: RefusalCode::CutoverUnderWay, message: message.into() })
    }

    /// Returns what was given back, unless the predecessor may still hold leases of the same color: then it is kept
    /// until that process has ended.
    pub(in crate::control) fn keep_while_predecessor_lives(&mut self, given_back: GivenBack) -> Option<GivenBack> {
        match self.block {
            Some(ChangeBlock::Predecessor) => {
                self.given_back.push(given_back);
                None
            }
            Some(ChangeBlock::Upgrading) | None => Some(given_back),
        }
    }

    /// Notes that the config is to be read once it may be.
    pub(in crate::control) fn reload_later(&mut self) {
        self.is_reload_due = true;
    }
}
