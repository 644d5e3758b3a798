//! The thread that saves state, one state after the other, and the queue to it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::control::saved_state::StateFolder;
use crate::domain::cutover::{SaveError, SavedState};
use crate::os::{batch_thread, clock};

/// Messages to or from the control task that may wait; more make the sender wait.
pub(in crate::control) const QUEUE_MAX: usize = 1024;

/// A state on its way to the disk.
struct Save {
    service: String,
    serial: u64,
    state: SavedState,
    /// The monotonic time that the moments in `state` are relative to.
    now: Duration,
}

/// How a save went.
pub(in crate::control) struct Saved {
    pub(in crate::control) service: String,
    pub(in crate::control) serial: u64,
    pub(in crate::control) outcome: Result<(), SaveError>,
}

/// The control task's end of the queue.
pub(in crate::control) struct SaveQueue {
    saves: SyncSender<Save>,
    /// States that were handed over and not reported on yet.
    on_their_way: usize,
}

impl SaveQueue {
    /// Starts the thread that writes to `folder`; it ends when this is dropped, after the last save.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(in crate::control) fn start(folder: StateFolder) -> std::io::Result<(Self, mpsc::Receiver<Saved>)> {
        let (saves, queue) = sync_channel(QUEUE_MAX);
        let (reports, saved) = mpsc::channel(QUEUE_MAX);
        batch_thread::spawn("state", move || save_each(&folder, &queue, &reports))?;
        Ok((SaveQueue { saves, on_their_way: 0 }, saved))
    }

    /// Hands a state over. Where there is no room for it, that is reported at once.
    #[must_use = "a save that found no room has failed"]
    pub(in crate::control) fn push(&mut self, service: &str, serial: u64, state: SavedState) -> Option<Saved> {
        let service = service.to_owned();
        self.on_their_way += 1;
        let refused = self.saves.try_send(Save { service, serial, state, now: clock::now() }).err()?;
        let Save { service, serial, .. } = match refused {
            std::sync::mpsc::TrySendError::Full(save) | std::sync::mpsc::TrySendError::Disconnected(save) => save,
        };
        Some(Saved { service, serial, outcome: Err(SaveError::QueueFull) })
    }

    /// A save was reported on.
    pub(in crate::control) fn on_saved(&mut self) {
        self.on_their_way -= 1;
    }

    /// Whether some state is not known to be on the disk.
    pub(in crate::control) fn is_busy(&self) -> bool {
        self.on_their_way > 0
    }
}

fn save_each(folder: &StateFolder, saves: &Receiver<Save>, saved: &mpsc::Sender<Saved>) {
    while let Ok(Save { service, serial, state, now }) = saves.recv() {
        let outcome = folder.save(&service, &state, now).map_err(|error| SaveError::Disk(error.to_string()));
        // Once the task has ended nobody hears; what it decided is kept all the same.
        drop(saved.blocking_send(Saved { service, serial, outcome }));
    }
}
