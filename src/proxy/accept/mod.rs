//! From a listening socket to a connection that a worker serves.

pub mod connection_limit;
pub mod listener;
pub mod proxy_header;
pub mod tls_handshake;
pub mod worker;
