//! Versions of HTTP.

/// The version of HTTP that a message was sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0 has neither interim responses nor chunks.
    Http10,
    Http11,
    Http2,
}

impl HttpVersion {
    /// The protocol as the access log has it.
    pub fn as_str(self) -> &'static str {
        match self {
            HttpVersion::Http10 => "HTTP/1.0",
            HttpVersion::Http11 => "HTTP/1.1",
            HttpVersion::Http2 => "HTTP/2.0",
        }
    }

    /// The value of `Via` for a message that we received in this version (RFC 9110 7.6.3).
    pub fn via(self) -> &'static str {
        match self {
            HttpVersion::Http10 => "1.0 cutover",
            HttpVersion::Http11 => "1.1 cutover",
            HttpVersion::Http2 => "2.0 cutover",
        }
    }
}

/// The protocol of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientProtocol {
    /// HTTP/1.0 or HTTP/1.1; each request says which.
    Http1,
    /// HTTP/2, of which a connection is one stream here.
    Http2,
}
