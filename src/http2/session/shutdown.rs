//! How a connection ends (RFC 9113 6.8).

use crate::http2::connection_state::{ConnectionState, LAST_STREAM_MAX};
use crate::http2::frame::{ErrorCode, FrameType};
use crate::http2::session::Session;

/// The payload of our PING during a graceful shutdown.
pub(super) const SHUTDOWN_PING: &[u8; 8] = b"cutover.";

impl Session {
    /// Tells the peer to open no more streams, and goes on serving those that are on their way. The answer to a PING
    /// shows that they have arrived; then, or when the caller has waited long enough, [`Session::close`] follows.
    pub fn shut_down(&mut self) {
        if self.state == ConnectionState::Open {
            self.state = ConnectionState::Closing;
            self.put_go_away(LAST_STREAM_MAX, ErrorCode::NoError);
            self.output.put_frame(FrameType::Ping, 0, 0, SHUTDOWN_PING);
        }
    }

    /// Serves no more streams than have been opened.
    pub fn close(&mut self) {
        if self.state != ConnectionState::Closed {
            self.state = ConnectionState::Closed;
            self.put_go_away(self.history.last_opened(), ErrorCode::NoError);
        }
    }

    /// Ends every stream at once. What waits to be written ends with the reason for the peer.
    pub fn terminate(&mut self, code: ErrorCode) {
        self.put_go_away(self.history.last_opened(), code);
        self.disconnected();
    }

    /// The connection is gone, and every stream with it.
    pub fn disconnected(&mut self) {
        self.state = ConnectionState::Closed;
        for at in 0..self.streams.slots.len() {
            if self.streams.id(at) != 0 || self.streams.is_serving(at) {
                self.was_reset(at, ErrorCode::Cancel as u32);
            }
            self.streams.slots[at].wake();
        }
        // No task takes these any more, which would release them.
        while let Some(at) = self.streams.next_unserved() {
            self.release(at);
        }
    }

    /// Whether no stream is opened any more.
    pub fn is_closed(&self) -> bool {
        self.state == ConnectionState::Closed
    }

    /// Whether the peer was told, or has told us, to open no more streams.
    pub fn is_closing(&self) -> bool {
        self.state != ConnectionState::Open
    }

    fn put_go_away(&mut self, last: u32, code: ErrorCode) {
        // RFC 9113 6.8: the number never grows.
        self.last_served = self.last_served.min(last);
        self.output.put_go_away(self.last_served, code);
    }
}
