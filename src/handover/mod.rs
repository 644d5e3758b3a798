//! Takes over listening sockets from the process that this one replaces, or from systemd.
//!
//! A socket that is handed over never stops listening, so no client is refused between one process and the next.
//! `messages` defines what the two processes send to each other, and `launch` starts the next one. Nothing here decides
//! when to upgrade, and nothing here is on the path of a request.

mod launch;
mod messages;
mod systemd;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use socket2::{SockAddr, SockRef};

use crate::os::clock;
pub use launch::{LaunchError, Launcher, PassedOn, RunningSuccessor};
pub use messages::{
    CountedFlip, CountedWatchEnd, UpgradeLink, UpgradeMessage, UpgradeState, VERSION as UPGRADE_STATE_VERSION,
};
pub use systemd::notify_ready;

/// This variable is set for a successor: it holds the predecessor's process id, the link to it, and the sockets, as
/// numbers with spaces between.
const HANDED: &str = "CUTOVER_HANDED_OVER";
/// This variable is set for a successor: it holds the time of the predecessor's clock, in milliseconds.
const CLOCK: &str = "CUTOVER_CLOCK_MS";
/// Set for a successor: the lock on the state folder, as a number.
const STATE_LOCK: &str = "CUTOVER_STATE_LOCK";
/// The first socket that systemd passes (`sd_listen_fds(3)`).
const SYSTEMD_FIRST: RawFd = 3;
/// At most this many sockets are taken; more are left alone.
const SOCKETS_MAX: usize = 256;

/// Holds the sockets and the link that this process was started with.
#[derive(Default)]
pub struct Inherited {
    sockets: Vec<OwnedFd>,
    /// The link to the process that this one replaces.
    pub link: Option<UpgradeLink>,
    /// The lock on the state folder, which that process holds as well.
    pub state_lock: Option<OwnedFd>,
}

impl Inherited {
    /// Takes what is meant for this process, and continues the clock of the process that it replaces. Call it once,
    /// before anything else opens or closes descriptors, or reads the clock.
    pub fn take() -> Self {
        if let Some(numbers) = handed_to(std::os::unix::process::parent_id()) {
            if let Some(now) = std::env::var(CLOCK).ok().and_then(|now| now.parse().ok()) {
                clock::go_on_from(Duration::from_millis(now));
            }
            let mut owned = numbers.into_iter().take(SOCKETS_MAX + 1).filter_map(own);
            let link = owned.next().map(|link| UpgradeLink::new(UnixStream::from(link)));
            let lock = std::env::var(STATE_LOCK).ok().and_then(|number| number.parse().ok());
            return Inherited { sockets: owned.collect(), link, state_lock: lock.and_then(own) };
        }
        let count = systemd_count(std::process::id()).min(SOCKETS_MAX);
        let last = SYSTEMD_FIRST + i32::try_from(count).expect("at most 256");
        Inherited { sockets: (SYSTEMD_FIRST..last).filter_map(own).collect(), ..Inherited::default() }
    }

    /// Returns the socket that listens at `address`, if there is one.
    pub fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.find(|bound| bound.as_socket() == Some(address)).map(TcpListener::from)
    }

    /// Returns the socket that listens at `path`, if there is one.
    pub fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        self.find(|bound| bound.as_pathname() == Some(path)).map(UnixListener::from)
    }

    /// Lists the sockets that no listener of the config uses; they are closed when this is dropped.
    pub fn left(&self) -> Vec<String> {
        let name = |socket: &OwnedFd| {
            let bound = SockRef::from(socket).local_addr().ok()?;
            let path = || bound.as_pathname().map(|path| path.display().to_string());
            bound.as_socket().map(|address| address.to_string()).or_else(path)
        };
        self.sockets.iter().filter_map(name).collect()
    }

    /// Tells the predecessor why this process does not replace it.
    pub fn refuse(&mut self, why: &str) {
        if let Some(link) = &mut self.link {
            // A predecessor that does not receive this sees this process end.
            let _ = link.say(&UpgradeMessage::Failed(why.into()));
        }
    }

    fn find(&mut self, is_it: impl Fn(&SockAddr) -> bool) -> Option<OwnedFd> {
        let at =
            self.sockets.iter().position(|socket| SockRef::from(socket).local_addr().is_ok_and(|at| is_it(&at)))?;
        Some(self.sockets.swap_remove(at))
    }
}

/// Returns the descriptors only if the parent meant them for this process, because variables outlive the process for
/// which they were set.
fn handed_to(parent: u32) -> Option<Vec<RawFd>> {
    let text = std::env::var(HANDED).ok()?;
    let mut numbers = text.split(' ').map(str::parse);
    let is_ours = numbers.next()?.ok()? == i32::try_from(parent).ok()?;
    is_ours.then(|| numbers.collect::<Result<_, _>>().ok())?
}

fn systemd_count(own: u32) -> usize {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let is_ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(own));
    number("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0)
}

/// Takes an open descriptor, and keeps it from this process's children.
fn own(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl only reads and sets a flag; it returns an error for a number that is not a descriptor.
    if number < SYSTEMD_FIRST || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and the parent left it to this process; nothing else in this process uses it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets a child inherit a descriptor; for use between fork and exec.
fn pass_on(number: RawFd) -> io::Result<()> {
    // SAFETY: fcntl is safe to call there, and only sets a flag.
    if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn numbers_of(link: &UnixStream, sockets: &[OwnedFd]) -> Vec<RawFd> {
    std::iter::once(link.as_raw_fd()).chain(sockets.iter().map(AsRawFd::as_raw_fd)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_where_it_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
        let address = tcp.local_addr().unwrap();
        let mut inherited = Inherited { sockets: vec![tcp.into(), unix.into()], ..Inherited::default() };
        assert!(inherited.tcp("127.0.0.1:1".parse().unwrap()).is_none());
        assert_eq!(inherited.unix(&path).unwrap().local_addr().unwrap().as_pathname(), Some(path.as_path()));
        assert_eq!(inherited.left(), [address.to_string()]);
        assert_eq!(inherited.tcp(address).unwrap().local_addr().unwrap(), address);
        assert!(inherited.tcp(address).is_none(), "it was taken");
    }

    #[test]
    fn a_number_that_is_not_open_is_not_taken() {
        assert!(own(1_000_000).is_none());
        assert!(own(2).is_none(), "standard error is nobody's socket");
    }
}
