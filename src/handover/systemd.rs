//! Tells systemd that the service is up, and which process it is now (`sd_notify(3)`).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells systemd that this process is ready and is the main one. Does nothing where `NOTIFY_SOCKET` is not set.
///
/// # Errors
/// Returns the system's error; systemd then does not know the service's main process.
pub fn notify_ready() -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let text = format!("MAINPID={}\nREADY=1", std::process::id());
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}
