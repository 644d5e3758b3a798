//! How much a peer may send before it is read (RFC 9113 5.2 and 6.9).

/// The window of a stream, in bytes: what a peer may send on it before that is read.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// What a client may send on all of its streams together before it is read: what it can make one connection hold. An
/// upstream may fill the window of each of its streams.
pub const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// The size of a window before a setting says otherwise (RFC 9113 6.9.2).
pub const DEFAULT_WINDOW: u32 = 65_535;

/// The largest size of a window (RFC 9113 6.9.1).
pub const WINDOW_MAX: i64 = 0x7fff_ffff;

/// Credit is granted once it is worth a frame.
const GRANT_MIN: u32 = STREAM_WINDOW / 2;

/// The peer has sent more than its window allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct WindowExceeded;

/// What a peer may still send on one stream, or on the connection.
#[derive(Default)]
pub struct ReceiveWindow {
    left: i64,
    /// Bytes that were read, and that the peer has not been told of.
    credit: u32,
}

impl ReceiveWindow {
    /// A window of `size` bytes, none of which is used.
    pub fn new(size: u32) -> Self {
        ReceiveWindow { left: i64::from(size), credit: 0 }
    }

    /// The bytes that the peer may still send.
    pub fn left(&self) -> i64 {
        self.left
    }

    /// Takes `n` bytes that have come.
    ///
    /// # Errors
    /// [`WindowExceeded`]
    pub fn receive(&mut self, n: usize) -> Result<(), WindowExceeded> {
        self.left -= n as i64;
        if self.left < 0 { Err(WindowExceeded) } else { Ok(()) }
    }

    /// Remembers that `n` bytes were read.
    pub fn add_credit(&mut self, n: usize) {
        self.credit += n as u32;
    }

    /// Widens the window by the credit and returns by how much, once that is worth a WINDOW_UPDATE.
    pub fn grant(&mut self) -> Option<u32> {
        (self.credit >= GRANT_MIN).then(|| {
            self.left += i64::from(self.credit);
            std::mem::take(&mut self.credit)
        })
    }
}
