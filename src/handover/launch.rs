//! Starts the successor: the program at the path from which this one was started, with the same arguments and the
//! sockets of this process.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::messages::{UpgradeLink, UpgradeMessage, UpgradeState};
use super::{CLOCK, HANDED, STATE_LOCK, numbers_of, pass_on};
use crate::os::clock;

/// A successor has so long to read its config and its state, and again to begin to serve.
const LIMIT: Duration = Duration::from_secs(20);
/// The pause between two looks at whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Records how this process was started. Create it early, because a folder may be renamed and a program replaced.
pub struct Launcher {
    program: PathBuf,
    args: Vec<OsString>,
}

/// A successor that is serving.
pub struct RunningSuccessor {
    pub pid: u32,
    /// The way to tell it what is counted from here on.
    pub link: UpgradeLink,
}

impl Launcher {
    /// Finds the program by the name it was called by, so that a link that is moved to a new version is followed.
    ///
    /// # Errors
    /// Fails when the system does not say which program this is.
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

    /// Returns the path of the program that would be started.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts the program, gives it what it goes on with, and returns when it serves. It is given up as soon as that is
    /// `unwanted`.
    ///
    /// # Errors
    /// Says why it does not serve. The successor has ended by then, and this process has kept everything.
    pub fn start<E: fmt::Display>(
        &self,
        passed: PassedOn<'_>,
        state: impl FnOnce() -> Result<UpgradeState, E>,
        unwanted: impl Fn() -> bool,
    ) -> Result<RunningSuccessor, LaunchError> {
        let failed = |why, ended| LaunchError { program: self.program.clone(), why, ended };
        let (mut child, mut link) =
            self.spawn(passed).map_err(|error| failed(LaunchFailure::NotStarted(error), None))?;
        match converse(&mut link, state, &unwanted) {
            Ok(()) => Ok(RunningSuccessor { pid: child.id(), link }),
            Err(why) => {
                // A successor that waits for a word of ours hears that there will be none.
                drop(link);
                Err(failed(why, Some(end(&mut child))))
            }
        }
    }

    fn spawn(&self, passed: PassedOn<'_>) -> io::Result<(Child, UpgradeLink)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut numbers = numbers_of(&theirs, passed.sockets);
        let words = std::iter::once(std::process::id().to_string()).chain(numbers.iter().map(ToString::to_string));
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        command.env(HANDED, words.collect::<Vec<_>>().join(" "));
        command.env(CLOCK, clock::now().as_millis().to_string());
        // The lock is named apart from the sockets: a version that knows nothing of it keeps it open all the same.
        if let Some(lock) = passed.state_lock {
            command.env(STATE_LOCK, lock.as_raw_fd().to_string());
            numbers.push(lock.as_raw_fd());
        }
        command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS").env_remove("LISTEN_FDNAMES");
        // SAFETY: between fork and exec it only calls fcntl, and allocates nothing.
        unsafe { command.pre_exec(move || numbers.iter().try_for_each(|&number| pass_on(number))) };
        Ok((command.spawn()?, UpgradeLink::new(ours)))
    }
}

/// What a successor is given beside the state.
#[derive(Clone, Copy)]
pub struct PassedOn<'a> {
    /// Everything that listens.
    pub sockets: &'a [OwnedFd],
    /// The lock on the state folder; it is held as long as either process lives.
    pub state_lock: Option<&'a OwnedFd>,
}

/// Says why there is no successor that serves.
#[derive(Debug)]
pub struct LaunchError {
    program: PathBuf,
    why: LaunchFailure,
    /// Tells how the successor ended, where it had begun.
    ended: Option<SuccessorEnd>,
}

/// What went wrong with a successor.
#[derive(Debug)]
enum LaunchFailure {
    NotStarted(io::Error),
    /// There is nothing to hand over now; the text is the control plane's.
    NoState(String),
    Unwanted,
    Silent,
    LinkBroke(io::Error),
    StateNotTaken(io::Error),
    /// The successor's own reason.
    Refused(String),
    OutOfTurn {
        said: UpgradeMessage,
        wanted: UpgradeMessage,
    },
    CutShort,
    NotUnderstood,
    Exited,
}

/// Tells how a successor that does not serve was ended.
#[derive(Debug)]
enum SuccessorEnd {
    ByItself(ExitStatus),
    Killed(ExitStatus),
    Unkillable(io::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.program.display(), self.why)?;
        match &self.ended {
            None => Ok(()),
            Some(SuccessorEnd::ByItself(status)) => write!(f, " ({status})"),
            Some(SuccessorEnd::Killed(status)) => write!(f, " (killed: {status})"),
            Some(SuccessorEnd::Unkillable(error)) => write!(f, " (and it cannot be killed: {error})"),
        }
    }
}

impl std::error::Error for LaunchError {}

impl fmt::Display for LaunchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchFailure::NotStarted(error) => write!(f, "{error}"),
            LaunchFailure::NoState(why) | LaunchFailure::Refused(why) => f.write_str(why),
            LaunchFailure::Unwanted => f.write_str("a stop was requested meanwhile"),
            LaunchFailure::Silent => write!(f, "it was silent for {LIMIT:?}"),
            LaunchFailure::LinkBroke(error) => write!(f, "the link to it broke: {error}"),
            LaunchFailure::StateNotTaken(error) => {
                write!(f, "it does not accept the state of this process: {error}")
            }
            LaunchFailure::OutOfTurn { said, wanted } => {
                write!(f, "it sent {said:?} where {wanted:?} was expected")
            }
            LaunchFailure::CutShort => f.write_str("it stopped in the middle of a message"),
            LaunchFailure::NotUnderstood => f.write_str("what it sent is not from a cutover"),
            LaunchFailure::Exited => f.write_str("it exited before it served; its output is in the log"),
        }
    }
}

fn converse<E: fmt::Display>(
    link: &mut UpgradeLink,
    state: impl FnOnce() -> Result<UpgradeState, E>,
    unwanted: &impl Fn() -> bool,
) -> Result<(), LaunchFailure> {
    expect(link, UpgradeMessage::Ready, unwanted)?;
    let state = state().map_err(|why| LaunchFailure::NoState(why.to_string()))?;
    link.say(&state).map_err(LaunchFailure::StateNotTaken)?;
    expect(link, UpgradeMessage::Serving, unwanted)
}

fn expect(link: &mut UpgradeLink, wanted: UpgradeMessage, unwanted: &impl Fn() -> bool) -> Result<(), LaunchFailure> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match link.is_said(LOOK) {
            Ok(true) => break,
            Ok(false) if unwanted() => return Err(LaunchFailure::Unwanted),
            Ok(false) if Instant::now() < deadline => {}
            Ok(false) => return Err(LaunchFailure::Silent),
            Err(error) => return Err(LaunchFailure::LinkBroke(error)),
        }
    }
    match link.hear::<UpgradeMessage>(Some(LIMIT)) {
        Ok(said) if said == wanted => Ok(()),
        Ok(UpgradeMessage::Failed(why)) => Err(LaunchFailure::Refused(why)),
        Ok(said @ (UpgradeMessage::Ready | UpgradeMessage::Serving)) => Err(LaunchFailure::OutOfTurn { said, wanted }),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(LaunchFailure::CutShort),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(LaunchFailure::NotUnderstood),
        Err(_) => Err(LaunchFailure::Exited),
    }
}

/// Makes sure that it has ended. One that ends by itself is given a moment for it.
fn end(child: &mut Child) -> SuccessorEnd {
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return SuccessorEnd::ByItself(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // The child has not been waited for, so its process id cannot belong to another process.
    let _ = child.kill();
    child.wait().map_or_else(SuccessorEnd::Unkillable, SuccessorEnd::Killed)
}
