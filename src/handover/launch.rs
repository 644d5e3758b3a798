//! Starting the successor: the program at the place this one was started from, with the same arguments and our sockets.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::messages::{UpgradeLink, UpgradeMessage, UpgradeState};
use super::{CLOCK, HANDED, numbers_of, pass_on};
use crate::os::clock;

/// For a successor to read its config and its state, and again to begin to serve.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at whether it is wanted any more.
const LOOK: Duration = Duration::from_millis(50);

/// How this process was started. Ask for it early: a folder may be renamed and a program replaced.
pub struct Launcher {
    program: PathBuf,
    args: Vec<OsString>,
}

/// A successor that serves.
pub struct RunningSuccessor {
    /// Its process id.
    pub pid: u32,
    /// To tell it what is counted from here on; it ends with us.
    pub link: UpgradeLink,
}

impl Launcher {
    /// The program by the name it was called by, so that a link that is moved to a new version is followed.
    ///
    /// # Errors
    /// The system does not say which program this is.
    pub fn find() -> io::Result<Self> {
        let mut args = std::env::args_os();
        let called = args.next().map(PathBuf::from).unwrap_or_default();
        let by_path = || {
            let folders = std::env::var_os("PATH")?;
            std::env::split_paths(&folders).map(|folder| folder.join(&called)).find(|path| path.is_file())
        };
        let named = if called.as_os_str().as_bytes().contains(&b'/') { Some(called.clone()) } else { by_path() };
        let program = match named.filter(|path| path.is_file()) {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(Launcher { program, args: args.collect() })
    }

    /// The program that would be started.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts the program, gives it the sockets and the state, and returns when it serves. It is given up as soon as
    /// that is `unwanted`.
    ///
    /// # Errors
    /// A sentence: why it does not. It has ended then, and nothing was taken from us.
    pub fn start(
        &self,
        sockets: &[OwnedFd],
        state: impl FnOnce() -> Result<UpgradeState, String>,
        unwanted: impl Fn() -> bool,
    ) -> Result<RunningSuccessor, String> {
        let program = self.program.display();
        let (mut child, mut link) = self.spawn(sockets).map_err(|error| format!("{program}: {error}"))?;
        match converse(&mut link, state, &unwanted) {
            Ok(()) => Ok(RunningSuccessor { pid: child.id(), link }),
            Err(why) => {
                // One that waits for a word of ours hears that there will be none.
                drop(link);
                let ended = end(&mut child);
                Err(format!("{program}: {why} ({ended})"))
            }
        }
    }

    fn spawn(&self, sockets: &[OwnedFd]) -> io::Result<(Child, UpgradeLink)> {
        let (ours, theirs) = UnixStream::pair()?;
        let numbers = numbers_of(&theirs, sockets);
        let words = std::iter::once(std::process::id().to_string()).chain(numbers.iter().map(ToString::to_string));
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        command.env(HANDED, words.collect::<Vec<_>>().join(" "));
        command.env(CLOCK, clock::now().as_millis().to_string());
        command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS").env_remove("LISTEN_FDNAMES");
        // SAFETY: between fork and exec it only calls fcntl, and allocates nothing.
        unsafe { command.pre_exec(move || numbers.iter().try_for_each(|&number| pass_on(number))) };
        Ok((command.spawn()?, UpgradeLink::new(ours)))
    }
}

fn converse(
    link: &mut UpgradeLink,
    state: impl FnOnce() -> Result<UpgradeState, String>,
    unwanted: &impl Fn() -> bool,
) -> Result<(), String> {
    expect(link, &UpgradeMessage::Ready, unwanted)?;
    let state = state()?;
    link.say(&state).map_err(|error| format!("it does not accept the state of this process: {error}"))?;
    expect(link, &UpgradeMessage::Serving, unwanted)
}

fn expect(link: &mut UpgradeLink, wanted: &UpgradeMessage, unwanted: &impl Fn() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match link.is_said(LOOK) {
            Ok(true) => break,
            Ok(false) if unwanted() => return Err("a stop was requested meanwhile".into()),
            Ok(false) if Instant::now() < deadline => {}
            Ok(false) => return Err(format!("it was silent for {LIMIT:?}")),
            Err(error) => return Err(format!("the link to it broke: {error}")),
        }
    }
    match link.hear::<UpgradeMessage>(Some(LIMIT)) {
        Ok(word) if word == *wanted => Ok(()),
        Ok(UpgradeMessage::Failed(why)) => Err(why),
        Ok(word @ (UpgradeMessage::Ready | UpgradeMessage::Serving)) => {
            Err(format!("it sent {word:?} where {wanted:?} was expected"))
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err("it stopped in the middle of a message".into()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err("what it sent is not from a cutover".into()),
        Err(_) => Err("it exited before it served; its output is in the log".into()),
    }
}

/// Makes sure that it has ended, and says how. One that ends by itself is given a moment for it.
fn end(child: &mut Child) -> String {
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return status.to_string();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // It is our own child and was not waited for: its number is nobody else's.
    let _ = child.kill();
    match child.wait() {
        Ok(status) => format!("killed: {status}"),
        Err(error) => format!("and it cannot be killed: {error}"),
    }
}
