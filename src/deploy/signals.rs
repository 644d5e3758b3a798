//! Catches the signals that ask a deploy to stop, and asks at a terminal what a Ctrl-C was meant to do.

use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::domain::release::Step;

/// The operator's answer to the question that follows a Ctrl-C.
pub enum StopChoice {
    /// The deploy continues as if there had been no signal.
    Continue,
    /// Traffic returns to the old color at once.
    RollBack,
    /// The deploy ends as it does on a signal without a terminal.
    Stop,
}

/// Asks the operator what a Ctrl-C during `step` means. The step continues meanwhile; a second signal means
/// [`StopChoice::Stop`].
pub async fn ask(step: Step, signals: &mut StopSignals) -> StopChoice {
    let (question, is_watched) = match step {
        Step::Watch => ("[g]o on watching, [r]oll back now, or [l]eave the watch to the proxy?", true),
        Step::Drain | Step::Retire => ("[g]o on, or [l]eave the rest to the next run?", false),
        Step::Candidate
        | Step::Image
        | Step::Up
        | Step::Healthy
        | Step::Backup
        | Step::Migrate
        | Step::OldColor
        | Step::Smoke
        | Step::Rehearse
        | Step::EnvFile
        | Step::Flip => ("[g]o on, or [u]ndo it all? Nothing has been switched yet.", false),
    };
    loop {
        eprint!("\n  at {step}: {question} ");
        let line = tokio::select! {
            line = read_line() => line,
            _ = signals.next() => return StopChoice::Stop,
        };
        match line.as_deref().map(str::trim) {
            Some("g") => return StopChoice::Continue,
            Some("r") if is_watched => return StopChoice::RollBack,
            Some("l" | "u") | None => return StopChoice::Stop,
            Some(_) => {}
        }
    }
}

/// Reads a line from the terminal; `None` means that the terminal is gone. It is cancel safe, because a terminal hands
/// over whole lines.
async fn read_line() -> Option<String> {
    let stdin = std::io::stdin();
    // SAFETY: standard input stays open, and stays the same file, for as long as the process lives.
    let ready = unsafe { AsyncFd::register_with_interest(stdin.as_fd(), Interest::READABLE) }.ok()?;
    // Once the descriptor is readable a whole line is there, so the blocking read below returns at once.
    let _ = ready.readable().await.ok()?;
    let mut line = String::new();
    stdin.read_line(&mut line).ok().filter(|&bytes| bytes > 0).map(|_| line)
}

/// Receives the signals that ask a program to end.
pub struct StopSignals([(&'static str, Signal); 3]);

impl StopSignals {
    /// Installs the handlers; from now on the signals no longer end the process.
    ///
    /// # Errors
    /// The handlers could not be installed.
    pub fn new() -> std::io::Result<Self> {
        Ok(StopSignals([
            ("Ctrl-C", signal(SignalKind::interrupt())?),
            ("SIGTERM", signal(SignalKind::terminate())?),
            ("SIGHUP", signal(SignalKind::hangup())?),
        ]))
    }

    /// Waits for the next signal and returns its name. It is cancel safe.
    pub async fn next(&mut self) -> &'static str {
        let [(int, a), (term, b), (hup, c)] = &mut self.0;
        tokio::select! {
            _ = a.recv() => int,
            _ = b.recv() => term,
            _ = c.recv() => hup,
        }
    }
}
