//! How far a connection is closed.

/// The highest number of a stream. A GOAWAY names it while streams of the peer may still be on their way.
pub const LAST_STREAM_MAX: u32 = u32::MAX >> 1;

/// How far a connection is closed (RFC 9113 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    Open,
    /// The peer was told to open no more streams; those on their way are still served.
    Closing,
    /// No stream is opened any more.
    Closed,
}
