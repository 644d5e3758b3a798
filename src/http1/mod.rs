//! HTTP/1.1 without a socket: heads, bodies and buffers, read and written.

pub mod body;
pub mod boundary;
pub mod buffer;
pub mod grpc_status;
pub mod header;
pub mod request;
pub mod response;
pub mod target;
