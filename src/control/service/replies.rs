//! Who waits for an answer about one service: for a flip to be saved, for a drain, for the idle color to be empty.

use tokio::sync::oneshot;

use crate::api::{Changed, Drained, Refusal};

/// Whether the answer to a change comes when the change is made, or when the old color is drained as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum ReplyAt {
    Change,
    Drained,
}

/// Where the answer to a flip or rollback goes.
pub(in crate::control) struct ChangeReply {
    pub(in crate::control) answer: oneshot::Sender<Result<Changed, Refusal>>,
    pub(in crate::control) at: ReplyAt,
}

/// The answer to a change that is made, while its drain goes on.
pub(in crate::control) struct DrainReply {
    /// The epoch of the color that drains.
    epoch: u64,
    answer: oneshot::Sender<Result<Changed, Refusal>>,
    changed: Changed,
}

/// An answer, and where it goes.
pub(in crate::control) struct Reply<T> {
    pub(in crate::control) answer: oneshot::Sender<Result<T, Refusal>>,
    pub(in crate::control) value: T,
}

/// The answers about one service that are still due.
pub(in crate::control) struct PendingReplies {
    /// The flip that is being saved.
    change: Option<ChangeReply>,
    drains: Vec<DrainReply>,
    /// Those who wait for the idle color to be empty.
    idle: Vec<oneshot::Sender<Result<Drained, Refusal>>>,
    /// How the last drain ended.
    pub(in crate::control) last_drain: Drained,
}

impl Default for PendingReplies {
    fn default() -> Self {
        PendingReplies {
            change: None,
            drains: Vec::new(),
            idle: Vec::new(),
            last_drain: Drained { seconds: 0.0, cut: 0 },
        }
    }
}

impl PendingReplies {
    /// A flip is being saved for whoever waits at `reply`.
    pub(in crate::control) fn await_change(&mut self, reply: ChangeReply) {
        self.change = Some(reply);
    }

    /// Takes out who waits for the flip that was being saved.
    pub(in crate::control) fn take_change(&mut self) -> Option<ChangeReply> {
        self.change.take()
    }

    /// A change is made. Returns the answer if it is due now; otherwise it is due when `epoch` is drained.
    pub(in crate::control) fn on_change(
        &mut self,
        reply: ChangeReply,
        epoch: u64,
        changed: Changed,
    ) -> Option<Reply<Changed>> {
        let ChangeReply { answer, at } = reply;
        match at {
            ReplyAt::Change => Some(Reply { answer, value: changed }),
            ReplyAt::Drained => {
                self.drains.push(DrainReply { epoch, answer, changed });
                None
            }
        }
    }

    /// The color that was left as `epoch` ended is drained. Returns the answers that waited for it.
    pub(in crate::control) fn on_drained(&mut self, epoch: u64, drained: Drained) -> Vec<Reply<Changed>> {
        self.last_drain = drained;
        let due = self.drains.extract_if(.., |reply| reply.epoch == epoch);
        due.map(|DrainReply { answer, changed, .. }| Reply {
            answer,
            value: Changed { drain: Some(drained), ..changed },
        })
        .collect()
    }

    /// Somebody waits for the idle color to be empty.
    pub(in crate::control) fn await_idle(&mut self, answer: oneshot::Sender<Result<Drained, Refusal>>) {
        self.idle.push(answer);
    }

    /// Whether somebody waits for the idle color to be empty.
    pub(in crate::control) fn wants_idle_empty(&self) -> bool {
        !self.idle.is_empty()
    }

    /// The idle color is empty. Returns the answers that waited for it.
    pub(in crate::control) fn on_idle_empty(&mut self, drained: Drained) -> Vec<Reply<Drained>> {
        std::mem::take(&mut self.idle).into_iter().map(|answer| Reply { answer, value: drained }).collect()
    }

    /// The service goes away. Returns everybody who waits, for a refusal.
    pub(in crate::control) fn into_unanswered(self) -> Unanswered {
        let drains = self.drains.into_iter().map(|reply| reply.answer);
        Unanswered { changes: drains.chain(self.change.map(|reply| reply.answer)).collect(), idle: self.idle }
    }
}

/// Everybody who waited for a service that is gone.
pub(in crate::control) struct Unanswered {
    pub(in crate::control) changes: Vec<oneshot::Sender<Result<Changed, Refusal>>>,
    pub(in crate::control) idle: Vec<oneshot::Sender<Result<Drained, Refusal>>>,
}
