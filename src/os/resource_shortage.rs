//! Tells a want of something on this machine from a failure of an upstream: the first is evidence against nobody.

use std::io;

/// Whether a connection failed because this machine lacks descriptors, memory or ports.
pub fn is_local_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}
