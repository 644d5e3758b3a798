//! HTTP/1.1 without a socket: heads, bodies and buffers, read and written.
//!
//! It is pure, bytes in and bytes out, and knows nothing of the proxy around it. Whatever two parsers could read
//! differently ends here: a request is refused with a [`Rejection`](reject::Rejection), a response with a
//! [`MalformedResponse`](reject::MalformedResponse).

pub mod body;
pub mod boundary;
pub mod buffer;
pub mod caching;
pub mod cookies;
pub mod fields;
pub mod grpc_status;
pub mod head_scanner;
pub mod header;
pub mod method;
pub mod reject;
pub mod request;
pub mod response;
pub mod status;
pub mod syntax;
pub mod target;
pub mod upstream_head;
pub mod version;
