//! Connections to upstreams: kept ones, new ones, and the addresses behind a name.

pub mod dns;
pub mod http2;
pub mod pool;
