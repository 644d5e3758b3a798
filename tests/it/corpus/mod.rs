//! The corpus under `tests/corpus`, run against the real binary.

mod answers;
mod mutations;
mod notation;
mod over_http2;
mod requests;
mod script;
mod strict;
mod upstreams;
