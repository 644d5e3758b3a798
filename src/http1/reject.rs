//! What the parsers refuse.

use crate::http1::body::BadFraming;

/// Why a request is refused, before any of it goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The request is malformed, or two parsers could read it differently. The text says how.
    Malformed(&'static str),
    /// The request is sound, but asks for more than is understood here. The text says what (RFC 9112 3, 6.1).
    NotImplemented(&'static str),
    /// The request has an HTTP version other than 1.0 and 1.1.
    VersionNotSupported,
    /// The method is `CONNECT`, which is for forward proxies (RFC 9110 9.3.6), or a `TRACE` that may go no further.
    MethodNotAllowed,
    /// The first line has no end within `max_header_bytes`.
    TargetTooLong,
    /// The head has more than `max_header_bytes`, or more than [`FIELDS_MAX`](crate::http1::fields::FIELDS_MAX) fields.
    HeadTooLarge,
}

impl Rejection {
    /// The status that it is answered with.
    pub fn status(self) -> u16 {
        match self {
            Rejection::Malformed(_) => 400,
            Rejection::MethodNotAllowed => 405,
            Rejection::TargetTooLong => 414,
            Rejection::HeadTooLarge => 431,
            Rejection::NotImplemented(_) => 501,
            Rejection::VersionNotSupported => 505,
        }
    }

    /// What the client is told beside the status.
    pub fn sentence(self) -> &'static str {
        match self {
            Rejection::Malformed(why) | Rejection::NotImplemented(why) => why,
            Rejection::VersionNotSupported => "this version of HTTP is not supported",
            Rejection::MethodNotAllowed => "this method is not available here",
            Rejection::TargetTooLong => "the request target is too long",
            Rejection::HeadTooLarge => "the request header is too large",
        }
    }
}

impl From<BadFraming> for Rejection {
    fn from(BadFraming(why): BadFraming) -> Self {
        Rejection::Malformed(why)
    }
}

/// A response is not passed on, because it is malformed or two parsers could read it differently. The text says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedResponse(pub &'static str);

impl From<BadFraming> for MalformedResponse {
    fn from(BadFraming(why): BadFraming) -> Self {
        MalformedResponse(why)
    }
}
