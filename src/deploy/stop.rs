//! Being asked to stop: the signals, and what is asked back where somebody is there to answer.

use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::domain::release::Step;

/// What is to be done after a Ctrl-C.
pub enum Answer {
    /// It meant nothing.
    GoOn,
    /// Traffic goes back to the old color, now.
    RollBack,
    /// What a signal means where nobody can be asked.
    Stop,
}

/// Asks what a Ctrl-C meant; the work goes on meanwhile. A second one means stop.
pub async fn ask(step: Step, stop: &mut Stop) -> Answer {
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
            _ = stop.heard() => return Answer::Stop,
        };
        match line.as_deref().map(str::trim) {
            Some("g") => return Answer::GoOn,
            Some("r") if is_watched => return Answer::RollBack,
            Some("l" | "u") | None => return Answer::Stop,
            Some(_) => {}
        }
    }
}

/// A line from the terminal; `None` when it is gone. Cancel safe: a terminal gives its lines whole.
async fn read_line() -> Option<String> {
    let stdin = std::io::stdin();
    // SAFETY: standard input stays open, and stays the same file, for as long as the process lives.
    let ready = unsafe { AsyncFd::register_with_interest(stdin.as_fd(), Interest::READABLE) }.ok()?;
    // A line that is there is read without waiting, so nothing blocks.
    let _ = ready.readable().await.ok()?;
    let mut line = String::new();
    stdin.read_line(&mut line).ok().filter(|&bytes| bytes > 0).map(|_| line)
}

/// The signals that ask a program to end.
pub struct Stop([(&'static str, Signal); 3]);

impl Stop {
    /// Hears them from now on, instead of being ended by them.
    ///
    /// # Errors
    /// They cannot be heard.
    pub fn new() -> std::io::Result<Self> {
        Ok(Stop([
            ("Ctrl-C", signal(SignalKind::interrupt())?),
            ("SIGTERM", signal(SignalKind::terminate())?),
            ("SIGHUP", signal(SignalKind::hangup())?),
        ]))
    }

    /// Returns at the next one. Cancel safe.
    pub async fn heard(&mut self) -> &'static str {
        let [(int, a), (term, b), (hup, c)] = &mut self.0;
        tokio::select! {
            _ = a.recv() => int,
            _ = b.recv() => term,
            _ = c.recv() => hup,
        }
    }
}
