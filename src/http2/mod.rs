//! HTTP/2 (RFC 9113) without a socket: bytes in, bytes out, and between them streams that read and write like HTTP/1
//! connections.
//!
//! The rest of the proxy speaks HTTP/1 and keeps its rules once. So a [`Session`] gives the message of each stream as
//! the text of an HTTP/1 message, and takes text for the other direction. One session is one connection, in either
//! role. Nothing here waits, reads a clock or knows what a request is for.
//!
//! What a peer may cost is bounded: [`SessionLimits`] bound how many streams it may have open and how large a head may
//! be, [`CONNECTION_WINDOW`] bounds what it may send unread, [`OUTPUT_MAX`] bounds what waits to be written, and token
//! buckets bound the frames that make work and carry nothing. A peer that goes past one of them gets a GOAWAY, and the
//! session is over.

mod connection_state;
mod field_block;
mod flow_control;
mod frame;
mod head_writer;
mod hpack;
mod huffman;
mod output;
mod request_fields;
mod response_fields;
mod role;
mod session;
mod session_end;
mod stream_history;
mod stream_slot;
mod stream_table;
#[cfg(test)]
mod tests;
mod token_bucket;

pub use flow_control::{CONNECTION_WINDOW, STREAM_WINDOW};
pub use frame::{ErrorCode, FRAME_MAX, PREFACE};
pub use head_writer::Framing;
pub use output::OUTPUT_MAX;
pub use role::Role;
pub use session::messages::AfterHead;
pub use session::stream_io::{StreamError, StreamRead};
pub use session::{ConnectionError, Session, SessionLimits};
pub use session_end::{SessionEnd, SessionEndCounts};
