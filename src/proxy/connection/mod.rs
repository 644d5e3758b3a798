//! One client connection, from its first byte to its last.
//!
//! `serve` runs the loop: a `head` is read, its request takes a `lease`, and `forward` sends it upstream; a request
//! that gets no lease meets a `refusal` or waits for the end of a `freeze`. What they work on is below them:
//! `client_io` is what a connection reads and writes, `client` says whose it is, `attempt` what came of sending a
//! request to one color. `preview`, `rehearsal` and `static_fallback` are what single features look for in a request.
//! `http2` serves a connection that carries many streams, each of them by the same loop.

mod attempt;
pub mod client;
mod client_io;
mod forward;
mod freeze;
mod head;
pub mod http2;
mod lease;
pub mod preview;
mod refusal;
mod rehearsal;
mod request_id;
pub mod serve;
pub mod static_fallback;
