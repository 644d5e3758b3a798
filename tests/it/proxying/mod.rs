//! What a user of the application sees through the proxy.

mod connections;
mod crowds;
mod faults;
mod fields;
mod framing;
mod large;
mod routing;
mod tunnels;

/// A GET with nothing special about it.
const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// An answer with nothing special about it.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
