//! Binds the two endpoints before anything else is started, so that a failure to bind is reported at once.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config;
use crate::handover::Inherited;

/// Limits the connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Holds the bound endpoints. Dropping it removes the socket's file.
pub struct Bound {
    /// `admin.listen`
    pub(super) tcp: TcpListener,
    /// The address that is bound: a configured port 0 has become a real one.
    pub(super) address: SocketAddr,
    /// `admin.socket`
    pub(super) socket: Option<UnixListener>,
    pub(super) file: Option<SocketFile>,
}

impl Bound {
    /// Returns the address on which the API listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Duplicates the sockets, to hand them over.
    ///
    /// # Errors
    /// Fails when too many files are open.
    pub fn duplicate(&self) -> io::Result<Vec<OwnedFd>> {
        let tcp = self.tcp.try_clone().map(OwnedFd::from);
        let socket = self.socket.iter().map(|socket| socket.try_clone().map(OwnedFd::from));
        std::iter::once(tcp).chain(socket).collect()
    }

    /// Returns the flag that keeps the file; it is set once another process listens on the sockets.
    pub fn stays(&self) -> Arc<AtomicBool> {
        self.file.as_ref().map(|file| Arc::clone(&file.stays)).unwrap_or_default()
    }
}

/// Removes the file when dropped, unless it was made by another process or another process listens there.
pub(super) struct SocketFile {
    path: PathBuf,
    stays: Arc<AtomicBool>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that is left is replaced by the next start.
        if !self.stays.load(Relaxed) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Reports an endpoint that could not be bound: its address, the reason, and what the operator can do.
#[derive(Debug)]
pub struct BindError {
    door: String,
    hint: &'static str,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.door, self.source, self.hint)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Binds `admin.listen` and `admin.socket`, where they are not inherited. Needs no runtime.
///
/// The socket's file gets mode 0600 before anybody can connect. A file left by a process that is gone is replaced.
///
/// # Errors
/// Fails when an address is in use, when another process responds on the socket, when the path is something other than
/// a socket, or when permissions are missing.
pub fn bind(admin: &config::Admin, inherited: &mut Inherited) -> Result<Bound, BindError> {
    let adopt = |tcp: TcpListener| tcp.set_nonblocking(true).map(|()| tcp);
    let tcp =
        inherited.tcp(admin.listen).map_or_else(|| bind_tcp(admin.listen), adopt).map_err(|source| BindError {
            door: format!("admin.listen {}", admin.listen),
            hint: match source.kind() {
                io::ErrorKind::AddrInUse => "is another cutover running? Stop it, or give this one its own address",
                io::ErrorKind::AddrNotAvailable => "name an address of this machine",
                io::ErrorKind::PermissionDenied => "ports under 1024 need a privilege; take a higher one",
                _ => "give it another address",
            },
            source,
        })?;
    let address = tcp.local_addr().unwrap_or(admin.listen);
    let Some(path) = admin.socket.as_deref() else { return Ok(Bound { tcp, address, socket: None, file: None }) };
    let adopted = inherited.unix(path);
    // The file of an inherited socket belongs to the process that handed it over: a successor that fails must not close
    // the endpoint of its predecessor.
    let stays = Arc::new(AtomicBool::new(adopted.is_some()));
    let socket = match adopted {
        Some(socket) => socket.set_nonblocking(true).map(|()| socket).map_err(|source| BindError {
            door: format!("admin.socket {}", path.display()),
            hint: "the inherited descriptor is not a listening socket",
            source,
        })?,
        None => bind_socket(path)?,
    };
    let file = SocketFile { path: path.to_owned(), stays };
    Ok(Bound { tcp, address, socket: Some(socket), file: Some(file) })
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind_socket(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |hint, source| BindError { door: format!("admin.socket {}", path.display()), hint, source };
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            let source = io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is not a socket");
            return Err(failed("move it away, or name another path", source));
        }
        if is_answered(path) {
            let source = io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it");
            return Err(failed("is another cutover running? Stop it, or give this one its own socket", source));
        }
        std::fs::remove_file(path)
            .map_err(|source| failed("the socket that an ended process left cannot be removed", source))?;
    }
    listen_privately(path).map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => "create its folder",
            io::ErrorKind::PermissionDenied => "its folder must be writable for this user",
            _ => "name another path",
        };
        failed(hint, source)
    })
}

fn is_answered(path: &Path) -> bool {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A full backlog makes a non-blocking connect return at once instead of waiting.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    // Only a refused connection proves that nobody listens.
    !matches!(connect(), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect between bind and listen, whatever mode the umask gave the file.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(listen: SocketAddr, socket: Option<PathBuf>) -> config::Admin {
        config::Admin { listen, token: None, socket }
    }

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn an_address_in_use_is_named() {
        let first = bind(&admin(any(), None), &mut Inherited::default()).unwrap();
        let error = bind(&admin(first.address(), None), &mut Inherited::default())
            .err()
            .expect("two cannot listen on one address")
            .to_string();
        assert!(error.starts_with(&format!("admin.listen {}: Address already in use", first.address())), "{error}");
        assert!(error.contains("another cutover"), "{error}");
    }

    #[test]
    fn a_socket_is_private_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let bound = bind(&admin(any(), Some(path.clone())), &mut Inherited::default()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind, like a killed process");
        let live = bind(&admin(any(), Some(path.clone())), &mut Inherited::default()).unwrap();
        let error = bind(&admin(any(), Some(path.clone())), &mut Inherited::default())
            .err()
            .expect("somebody is there")
            .to_string();
        assert!(error.contains("admin.sock: another process listens on it"), "{error}");
        assert!(path.exists(), "the live one keeps its file");
        drop(live);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let error =
            bind(&admin(any(), Some(path.clone())), &mut Inherited::default()).err().expect("it is a file").to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
        let missing = folder.path().join("no/such/folder.sock");
        let error = bind(&admin(any(), Some(missing)), &mut Inherited::default())
            .err()
            .expect("there is no folder")
            .to_string();
        assert!(error.contains("create its folder"), "{error}");
    }
}
