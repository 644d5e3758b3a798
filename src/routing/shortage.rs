//! Want of something on this machine, which says nothing about an upstream: not to its probes, and not to a watch.

use std::io;

/// Whether no connection came about for want of something here: descriptors, memory, ports.
pub fn is_own_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}
