//! Log lines about what clients do wrong, at most ten a second from each worker: a client that floods the proxy must
//! not flood its log as well. What is left out is counted, and the count is logged once the second is over.

use std::cell::Cell;
use std::net::SocketAddr;

/// Lines of one worker per second.
const LINES_PER_SECOND: u32 = 10;

/// One worker's log of its clients' mistakes.
#[derive(Default)]
pub struct RateLimitedLog {
    written: Cell<u32>,
    left_out: Cell<u32>,
}

impl RateLimitedLog {
    /// Logs a request that was answered with an error of the proxy's own.
    pub fn request_refused(&self, client: SocketAddr, status: u16, why: &str) {
        if self.has_room() {
            tracing::info!(%client, status, why, "request refused");
        }
    }

    /// Logs an HTTP/2 connection that was ended.
    pub fn http2_ended(&self, client: SocketAddr, why: &str) {
        if self.has_room() {
            tracing::info!(%client, why, "HTTP/2 connection ended");
        }
    }

    /// Logs a connection that was closed before its first request.
    pub fn connection_closed(&self, client: SocketAddr, why: &str) {
        if self.has_room() {
            tracing::info!(%client, why, "connection closed");
        }
    }

    /// Starts the next second, and logs how many lines the last one left out.
    pub fn begin_second(&self) {
        self.written.set(0);
        let unsaid = self.left_out.take();
        if unsaid > 0 {
            tracing::info!(unsaid, "more refused");
        }
    }

    fn has_room(&self) -> bool {
        let has_room = self.written.get() < LINES_PER_SECOND;
        let count = if has_room { &self.written } else { &self.left_out };
        count.set(count.get() + 1);
        has_room
    }
}
