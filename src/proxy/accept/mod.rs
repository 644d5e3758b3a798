//! From a listening socket to a connection that a worker serves.
//!
//! `acceptor` takes connections from a `listener` and hands each of them to a worker through its `worker_handle`. On
//! the `worker_thread` a connection passes its PROXY header, the limit of its client, and the TLS handshake, and is
//! then served by [`connection`](crate::proxy::connection).

pub mod acceptor;
pub mod connection_limit;
pub mod listener;
pub mod plain;
pub mod proxy_header;
pub mod tls_handshake;
pub mod worker_handle;
pub mod worker_thread;
