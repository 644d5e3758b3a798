//! The way to the control task: what may be asked of it, and who may ask.

use std::fmt;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::api::{
    ChangeRequest, Changed, Drained, Event, FreezeRequest, Frozen, Pass, Refusal, RefusalCode, RehearsalReport,
    Reloaded, ThawRequest, Thawed, Upgraded,
};
use crate::control::status_snapshot::StatusSnapshot;
use crate::handover::{LaunchError, UpgradeState};

/// What is asked of the control task; each carries where to answer.
pub(crate) enum Command {
    Observe(oneshot::Sender<StatusSnapshot>),
    Flip(ChangeCommand, oneshot::Sender<Result<Changed, Refusal>>),
    Rollback(ChangeCommand, oneshot::Sender<Result<Changed, Refusal>>),
    /// Waits until the idle color holds no lease.
    Drain(String, oneshot::Sender<Result<Drained, Refusal>>),
    Freeze(String, FreezeRequest, oneshot::Sender<Result<Frozen, Refusal>>),
    Thaw(String, ThawRequest, oneshot::Sender<Result<Thawed, Refusal>>),
    Rehearsal(String, oneshot::Sender<Result<RehearsalReport, Refusal>>),
    /// Makes a pass to the idle color of a service that is good for so long; the last part says who wants it.
    Preview(String, Duration, String, oneshot::Sender<Result<Pass, Refusal>>),
    Reload {
        by: String,
        answer: oneshot::Sender<Result<Reloaded, Refusal>>,
    },
    Upgrade {
        by: String,
        answer: oneshot::Sender<Result<Upgraded, Refusal>>,
    },
    /// Nothing is judged from now on; answers what a successor goes on from.
    HandOver(oneshot::Sender<Result<UpgradeState, HandOverError>>),
    /// The upgrade that was asked for has ended, in one way or the other.
    UpgradeEnded(Result<Upgraded, UpgradeError>),
    /// The process before this one judges no more.
    Judge,
    /// The process before this one has ended.
    Alone,
}

/// A flip or rollback of one service, as it was asked for.
pub(crate) struct ChangeCommand {
    pub(crate) service: String,
    /// The epoch the asker has seen; another one is refused as stale.
    pub(crate) if_epoch: Option<u64>,
    pub(crate) request: ChangeRequest,
}

/// Why an upgrade in place has failed; the process goes on.
#[derive(Debug)]
pub enum UpgradeError {
    /// A container ends with its first process.
    FirstProcess,
    /// The system does not say which program this process runs.
    NoProgram(String),
    /// The successor does not serve.
    Launch(LaunchError),
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpgradeError::FirstProcess => {
                f.write_str("this is the first process of its container, which ends with it; start a new container")
            }
            UpgradeError::NoProgram(error) => write!(f, "cannot find the program of this process: {error}"),
            UpgradeError::Launch(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for UpgradeError {}

/// Why nothing is handed over to a successor.
#[derive(Debug)]
pub enum HandOverError {
    /// Something is under way that a successor would not know of.
    Busy(Refusal),
    /// A release was taken back after the successor had read the state.
    TakenBack,
    /// The control task has ended.
    Stopping,
}

impl fmt::Display for HandOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandOverError::Busy(refusal) => f.write_str(&refusal.message),
            HandOverError::TakenBack => f.write_str("a release was taken back meanwhile; upgrade again"),
            HandOverError::Stopping => f.write_str("the proxy is stopping"),
        }
    }
}

impl std::error::Error for HandOverError {}

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
    pub async fn observe(&self) -> Result<StatusSnapshot, Refusal> {
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
        self.ask(|answer| Command::Flip(ChangeCommand { service, if_epoch, request }, answer)).await?
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
        self.ask(|answer| Command::Rollback(ChangeCommand { service, if_epoch, request }, answer)).await?
    }

    /// Answers when the idle color holds no lease.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn drain(&self, service: String) -> Result<Drained, Refusal> {
        self.ask(|answer| Command::Drain(service, answer)).await?
    }

    /// Holds requests of a service from now on. Answers when those in flight have ended or `freeze.finish` has passed,
    /// unless `request.wait` is false.
    ///
    /// # Errors
    /// [`RefusalCode::AlreadyFrozen`] by somebody else, [`RefusalCode::NotFrozen`] for a renewal,
    /// [`RefusalCode::BadRequest`], [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn freeze(&self, service: String, request: FreezeRequest) -> Result<Frozen, Refusal> {
        self.ask(|answer| Command::Freeze(service, request, answer)).await?
    }

    /// Lets the held requests of a service go. That it was not frozen is said, and is no error.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn thaw(&self, service: String, request: ThawRequest) -> Result<Thawed, Refusal> {
        self.ask(|answer| Command::Thaw(service, request, answer)).await?
    }

    /// What the rehearsal of the idle color has shown so far.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn rehearsal(&self, service: String) -> Result<RehearsalReport, Refusal> {
        self.ask(|answer| Command::Rehearsal(service, answer)).await?
    }

    /// A pass to the idle color that is good for `lasting`; `by` says who wants it, for the log.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::PreviewOff`], [`RefusalCode::Stopping`].
    pub async fn preview(&self, service: String, lasting: Duration, by: String) -> Result<Pass, Refusal> {
        self.ask(|answer| Command::Preview(service, lasting, by, answer)).await?
    }

    /// Reads the config again; `by` is "HUP", "file change" or "api", for the log.
    ///
    /// # Errors
    /// [`RefusalCode::BadConfig`] with every problem; the config in force stays.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, Refusal> {
        let by = by.to_owned();
        self.ask(|answer| Command::Reload { by, answer }).await?
    }

    /// Starts the binary anew and hands everything over to it; answers when the new process serves. `by` is for the
    /// ledger.
    ///
    /// # Errors
    /// [`RefusalCode::CutoverUnderWay`] while anything is under way, [`RefusalCode::UpgradeFailed`] with the reason.
    pub async fn upgrade(&self, by: &str) -> Result<Upgraded, Refusal> {
        let by = by.to_owned();
        self.ask(|answer| Command::Upgrade { by, answer }).await?
    }

    /// What happens from now on. A reader that falls behind by 256 events loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// As [`Handle::observe`], for a thread without a runtime. `None` when the control task has ended.
    pub fn observe_blocking(&self) -> Option<StatusSnapshot> {
        let (answer, answered) = oneshot::channel();
        self.commands.blocking_send(Command::Observe(answer)).ok()?;
        answered.blocking_recv().ok()
    }

    /// Stops judging until an upgrade has failed, and says what a successor goes on from; for a thread without a
    /// runtime.
    ///
    /// # Errors
    /// What has begun since the upgrade was asked for.
    pub fn hand_over_blocking(&self) -> Result<UpgradeState, HandOverError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.commands.blocking_send(Command::HandOver(answer)).ok();
        asked.and_then(|()| answered.blocking_recv().ok()).unwrap_or(Err(HandOverError::Stopping))
    }

    /// Says that the process before this one judges no more, for a thread without a runtime.
    pub fn judge(&self) {
        // A task that has ended needs no telling, here and below.
        drop(self.commands.blocking_send(Command::Judge));
    }

    /// Says how an upgrade ended, for a thread without a runtime: with a new process, or with the reason.
    pub fn upgrade_ended(&self, outcome: Result<Upgraded, UpgradeError>) {
        drop(self.commands.blocking_send(Command::UpgradeEnded(outcome)));
    }

    /// Says that the process before this one has ended, for a thread without a runtime.
    pub fn be_alone(&self) {
        drop(self.commands.blocking_send(Command::Alone));
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refusal> {
        let stopping = || Refusal { code: RefusalCode::Stopping, message: "the proxy is stopping".into() };
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}
