//! Connections to upstreams.
//!
//! `connect` finds one for a request. The `pool` keeps those that speak HTTP/1 between requests, `http2` shares those
//! that speak HTTP/2, `dns` resolves names, and `io` is what an exchange reads and writes.

pub mod connect;
mod dns;
mod http2;
pub mod io;
pub mod pool;
