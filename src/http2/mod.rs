//! HTTP/2 (RFC 9113) without a socket: bytes in, bytes out, and between them streams that read and write like HTTP/1
//! connections.
//!
//! The rest of the proxy speaks HTTP/1 and keeps its rules once. So a [`Session`] gives each stream's message as the
//! text of an HTTP/1 message, and takes text for the other direction. One session is one connection, in either role.
//! Nothing here waits, reads a clock or knows what a request is for.
//!
//! What a peer may cost is bounded: [`SessionLimits`] for what it may have open and how large a head may be,
//! [`CONNECTION_WINDOW`] for what it may send unread, [`OUT_MAX`] for what waits to be written, and budgets for frames
//! that make work and bring nothing. A peer past one of them is told so by GOAWAY, and the session is over.

mod budget;
mod ends;
mod fields;
mod frame;
mod hpack;
mod huffman;
mod messages;
mod session;
mod streams;
#[cfg(test)]
mod tests;

pub use ends::{SessionEnd, SessionEndCounts};
pub use fields::{Framing, is_grpc, is_token, length};
pub use frame::{ErrorCode, FRAME_MAX, PREFACE};
pub use messages::AfterHead;
pub use session::{ConnectionError, Role, Session, SessionLimits};
pub use streams::{CONNECTION_WINDOW, OUT_MAX, STREAM_WINDOW, StreamError, StreamRead, chunk_digits};
