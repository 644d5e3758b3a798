//! Passes the signals of `cutover serve` on to whoever acts on them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::Handle;
use crate::proxy::AccessLog;

/// A command for the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessCommand {
    Stop,
    Upgrade,
    /// The control thread has ended without being told to, so nobody is left to judge a release.
    GiveUp,
}

/// Counts how often a stop was asked for.
#[derive(Default)]
pub(super) struct StopRequests(AtomicU32);

impl StopRequests {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn any(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// Returns whether the stop must not wait any longer.
    pub(super) fn again(&self) -> bool {
        self.0.load(Relaxed) > 1
    }
}

/// Passes signals on.
pub(super) struct SignalHandler {
    pub(super) asked: std::sync::mpsc::Sender<ProcessCommand>,
    pub(super) stops: Arc<StopRequests>,
    pub(super) handle: Handle,
    pub(super) access_log: AccessLog,
}

impl SignalHandler {
    /// Handles signals from now on, until the process ends. It uses a thread of its own, so that a stop is handled
    /// whatever the other threads wait for.
    ///
    /// # Errors
    /// Returns the reason when it cannot handle signals.
    pub(super) fn open(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let heard = {
            let _entered = runtime.enter();
            [
                SignalKind::hangup(),
                SignalKind::user_defined1(),
                SignalKind::user_defined2(),
                SignalKind::terminate(),
                SignalKind::interrupt(),
                SignalKind::quit(),
            ]
            .map(signal)
        };
        let [hup, usr1, usr2, term, int, quit] = heard;
        let signals = [hup?, usr1?, usr2?, term?, int?, quit?];
        std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(self.hear(signals))).map(drop)
    }

    /// Reloads on HUP, reopens the access log on USR1, upgrades on USR2. The first TERM, INT or QUIT asks for a
    /// graceful stop, the second for a stop now.
    async fn hear(self, [mut hup, mut usr1, mut usr2, mut term, mut int, mut quit]: [Signal; 6]) {
        loop {
            let handle = self.handle.clone();
            tokio::select! {
                // A reload may wait for a disk; the next signal must not.
                _ = hup.recv() => {
                    self.access_log.reopen();
                    drop(tokio::spawn(async move { handle.reload("HUP").await }));
                }
                _ = usr1.recv() => self.access_log.reopen(),
                _ = usr2.recv() => drop(tokio::spawn(async move { handle.upgrade("USR2").await })),
                _ = term.recv() => self.stop(),
                _ = int.recv() => self.stop(),
                _ = quit.recv() => self.stop(),
            }
        }
    }

    fn stop(&self) {
        self.stops.add();
        // A main thread that has ended needs no telling.
        let _ = self.asked.send(ProcessCommand::Stop);
    }
}
