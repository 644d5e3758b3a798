//! What a client's connection can do beside reading and writing, whatever carries it: TCP, TLS, or an HTTP/2 stream.

use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::proxy::fault::GrpcCode;

/// A client's connection.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Turns the close into a reset. A response whose end only the close would tell, and which is not complete, must
    /// not look as if it were.
    fn reset_on_close(&self);

    /// Ends a gRPC call with a gRPC status, before or within its response. Returns `false` where the request is none.
    fn fail_call(&mut self, _code: GrpcCode, _text: &str) -> bool {
        false
    }

    /// Drops what is being written, because the client has not taken it for too long.
    fn give_up(&mut self) {}

    /// Ready when something to read may have arrived.
    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Tells the client that nothing follows, where the protocol has a message for it; without that message the close
    /// looks like a cut.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        // If it fails the connection is gone already.
        let _ = self.set_zero_linger();
    }

    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error shows when it is read.
        self.poll_read_ready(cx).map(drop)
    }

    /// TCP has no such message: the close itself tells it.
    fn poll_goodbye(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
