//! HTTP/2 on both sides of the proxy.
//!
//! A driver moves the bytes between a session and its socket, and each stream of the session looks to the rest of the
//! data plane like a connection that speaks HTTP/1. So there is one exchange, with one set of rules, for every client
//! and every upstream. The protocol itself is in the layer `http2`; here are sockets and tasks.

pub mod driver;
pub mod stream;

pub use stream::{Http2Stream, SharedSession};
