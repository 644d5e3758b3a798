//! The control plane: one task owns every service's cutover machine. Events in, effects out.
//!
//! It never touches a client's bytes, and the data plane never waits for it. [`Handle`] is how the admin API, the
//! signals and the file watch reach it.

mod files;
mod probe;
mod sampler;
mod state;

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::domain::Color;
use crate::status::{ChangeRequest, Changed, Drained, Event, Refusal, RefusalCode, Reloaded, Status};
use crate::switch::ColorStats;

/// What is asked of the control task; each carries where to answer.
pub(crate) enum Command {
    Observe(oneshot::Sender<Observation>),
    Flip(Change, oneshot::Sender<Result<Changed, Refusal>>),
    Rollback(Change, oneshot::Sender<Result<Changed, Refusal>>),
    /// Waits until the idle color holds no lease.
    Drain(String, oneshot::Sender<Result<Drained, Refusal>>),
    Reload {
        by: String,
        answer: oneshot::Sender<Result<Reloaded, Refusal>>,
    },
}

/// A change of one service, as it was asked for.
pub(crate) struct Change {
    pub(crate) service: String,
    /// The epoch the asker has seen; another one is refused as stale.
    pub(crate) if_epoch: Option<u64>,
    pub(crate) request: ChangeRequest,
}

/// Everything that status and metrics are made of.
pub struct Observation {
    /// As `GET /v1/status` says it.
    pub status: Status,
    /// Counters of the data plane, by service name, indexed by [`Color::index`].
    pub stats: Vec<(String, [Arc<ColorStats>; 2])>,
    /// `(service, to, reason, count)`; reasons are "operator", "config", "verdict".
    pub flips: Vec<(String, Color, &'static str, u64)>,
    /// Reloads that took effect.
    pub reloads_ok: u64,
    /// Reloads that were refused.
    pub reloads_failed: u64,
}

/// The way to the control task; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: broadcast::Sender<Event>,
}

impl Handle {
    /// The present state of everything.
    ///
    /// # Errors
    /// [`RefusalCode::Stopping`] when the control task has ended.
    pub async fn observe(&self) -> Result<Observation, Refusal> {
        self.ask(Command::Observe).await
    }

    /// Makes `request.to` the active color. Answers when the old color is drained, unless `request.wait` is false.
    ///
    /// # Errors
    /// Every [`RefusalCode`] about a gate, a conflict or the state folder; nothing has changed then.
    pub async fn flip(
        &self,
        service: String,
        if_epoch: Option<u64>,
        request: ChangeRequest,
    ) -> Result<Changed, Refusal> {
        self.ask(|answer| Command::Flip(Change { service, if_epoch, request }, answer)).await?
    }

    /// Back to the color before this one. Answers like [`Handle::flip`].
    ///
    /// # Errors
    /// As for a flip, and [`RefusalCode::NothingToRollBack`].
    pub async fn rollback(
        &self,
        service: String,
        if_epoch: Option<u64>,
        request: ChangeRequest,
    ) -> Result<Changed, Refusal> {
        self.ask(|answer| Command::Rollback(Change { service, if_epoch, request }, answer)).await?
    }

    /// Answers when the idle color holds no lease.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn drain(&self, service: String) -> Result<Drained, Refusal> {
        self.ask(|answer| Command::Drain(service, answer)).await?
    }

    /// Reads the config again; `by` is "HUP", "file change" or "api", for the log.
    ///
    /// # Errors
    /// [`RefusalCode::BadConfig`] with every problem; the config in force stays.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, Refusal> {
        let by = by.to_owned();
        self.ask(|answer| Command::Reload { by, answer }).await?
    }

    /// What happens from now on. A reader that falls behind by 256 events loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refusal> {
        let stopping = || Refusal { code: RefusalCode::Stopping, message: "the proxy is stopping".into() };
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}
