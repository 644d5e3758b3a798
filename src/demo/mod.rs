//! Runs `cutover demo`, which shows what the proxy promises on one screen, with nothing to set up.
//!
//! The demo runs two small apps, this very binary as the proxy between them, a steady load, and a story in three acts.
//! The load measures every number that is shown, from outside. Nothing here reaches into the proxy: the demo talks to
//! its ports, like any user.

mod api;
mod app;
mod figures;
mod load;
pub mod sample;
mod screen;
mod stage;
mod story;
mod verdict;

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// The options of the demo.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Leaves everything running after the story, until Ctrl-C.
    pub stay: bool,
    /// Prints one JSON object at the end instead of the screen.
    pub json: bool,
}

/// Plays the demo; it takes about 10 s, without `stay`.
///
/// The exit code is 0 only if the story held: no request failed except by the bad release's own responses, and the
/// proxy took that release back by itself. It is 1 otherwise, and when a port or the temporary folder was not
/// available.
pub fn run(options: Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cutover demo: cannot start the runtime: {error}; are too many files open?");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(play(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            // On a terminal the live line has no line end yet.
            let line_end = if std::io::stdout().is_terminal() { "\n" } else { "" };
            eprintln!("{line_end}cutover demo: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the story, and stays if asked to. However it ends, the stage is dropped here: the proxy and the apps stop, and
/// the folder is removed.
async fn play(options: Options) -> Result<bool, String> {
    let played = tokio::select! {
        played = story::play(options) => played.map_err(|trouble| trouble.to_string())?,
        name = stop_signal() => return Err(format!("stopped by {name} before the end of the story")),
    };
    if options.stay {
        tokio::select! {
            trouble = played.stay() => {
                let Err(trouble) = trouble;
                return Err(trouble.to_string());
            }
            _ = stop_signal() => println!(),
        }
    }
    Ok(played.held)
}

/// Returns at the first signal that asks a program to end. Never returns where signals cannot be heard.
async fn stop_signal() -> &'static str {
    let heard = |kind| async move {
        match signal(kind) {
            Ok(mut stream) => drop(stream.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = heard(SignalKind::interrupt()) => "Ctrl-C",
        () = heard(SignalKind::terminate()) => "SIGTERM",
        () = heard(SignalKind::hangup()) => "SIGHUP",
    }
}
