//! Everything that can fail on the way of a request, and what the client, the watch, the metrics and the access log see
//! of it. Every question has its own exhaustive match, so that a new fault has to answer all of them.

use crate::http1::reject::{MalformedResponse, Rejection};
use crate::routing::{Outcome, Refusal};

/// Why a request has no complete response of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request was refused by the parser.
    Rejected(Rejection),
    /// The body has more than `max_body_bytes`.
    BodyTooLarge,
    /// The head was not complete within `header_timeout`.
    HeadTimedOut,
    /// The body paused for longer than `body_timeout`.
    BodyTimedOut,
    /// The body came slower than `min_body_rate`.
    BodyTooSlow,
    /// There are more than `max_connections`.
    TooManyConnections,
    /// A preview pass is good, and no upstream of the idle color is up.
    NothingToPreview,
    /// This machine has no descriptor, memory or port left for a connection to an upstream.
    Exhausted,
    /// HTTP without TLS came to a port for TLS.
    PlainToTls,
    /// No upstream of the color took a connection.
    ConnectFailed,
    /// The upstream closed or reset the connection before its response.
    ResponseMissing,
    /// The head or the framing of the response is not HTTP. The text says how.
    ResponseMalformed(&'static str),
    /// The upstream paused for longer than `response_timeout`, before or within its response.
    ResponseTimedOut,
    /// The upstream broke off within its response.
    ResponseCut,
    /// The client left.
    ClientGone,
    /// The client did not read for `idle_timeout`.
    ClientStalled,
    /// The client read slower than `min_read_rate`.
    ReadTooSlow,
    /// The drain deadline of the old color passed.
    Drained,
    /// The shutdown deadline of the proxy passed.
    Stopped,
}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Self {
        Fault::Rejected(rejection)
    }
}

impl From<MalformedResponse> for Fault {
    fn from(MalformedResponse(why): MalformedResponse) -> Self {
        Fault::ResponseMalformed(why)
    }
}

impl Fault {
    /// The status that the client gets as long as nothing of a response has been sent; `None` where the connection just
    /// ends.
    pub fn status(self) -> Option<u16> {
        match self {
            Fault::Rejected(rejection) => Some(rejection.status()),
            Fault::PlainToTls => Some(400),
            Fault::HeadTimedOut | Fault::BodyTimedOut | Fault::BodyTooSlow => Some(408),
            Fault::BodyTooLarge => Some(413),
            Fault::ConnectFailed | Fault::ResponseMissing | Fault::ResponseMalformed(_) | Fault::ResponseCut => {
                Some(502)
            }
            Fault::TooManyConnections
            | Fault::Drained
            | Fault::Stopped
            | Fault::NothingToPreview
            | Fault::Exhausted => Some(503),
            Fault::ResponseTimedOut => Some(504),
            Fault::ClientGone | Fault::ClientStalled | Fault::ReadTooSlow => None,
        }
    }

    /// The status that a gRPC call fails with. gRPC has statuses of its own, by what a client may do about them.
    pub fn grpc_code(self) -> GrpcCode {
        match self {
            Fault::ClientGone
            | Fault::ClientStalled
            | Fault::ReadTooSlow
            | Fault::HeadTimedOut
            | Fault::BodyTimedOut
            | Fault::BodyTooSlow => GrpcCode::Cancelled,
            Fault::ResponseTimedOut => GrpcCode::DeadlineExceeded,
            Fault::BodyTooLarge => GrpcCode::ResourceExhausted,
            Fault::Rejected(rejection) => match rejection {
                Rejection::TargetTooLong | Rejection::HeadTooLarge => GrpcCode::ResourceExhausted,
                Rejection::NotImplemented(_) | Rejection::MethodNotAllowed => GrpcCode::Unimplemented,
                Rejection::Malformed(_) | Rejection::VersionNotSupported => GrpcCode::Internal,
            },
            Fault::PlainToTls => GrpcCode::Internal,
            Fault::ConnectFailed
            | Fault::ResponseMissing
            | Fault::ResponseCut
            | Fault::ResponseMalformed(_)
            | Fault::TooManyConnections
            | Fault::NothingToPreview
            | Fault::Exhausted
            | Fault::Drained
            | Fault::Stopped => GrpcCode::Unavailable,
        }
    }

    /// Whether the fault speaks against the color that served the request.
    pub fn outcome(self) -> Outcome {
        match self {
            Fault::ConnectFailed => Outcome::Refused,
            Fault::ResponseMissing | Fault::ResponseMalformed(_) | Fault::ResponseTimedOut | Fault::ResponseCut => {
                Outcome::Bad
            }
            Fault::Rejected(_)
            | Fault::BodyTooLarge
            | Fault::HeadTimedOut
            | Fault::BodyTimedOut
            | Fault::BodyTooSlow
            | Fault::TooManyConnections
            | Fault::NothingToPreview
            | Fault::Exhausted
            | Fault::PlainToTls
            | Fault::ClientGone
            | Fault::ClientStalled
            | Fault::ReadTooSlow
            | Fault::Drained
            | Fault::Stopped => Outcome::Void,
        }
    }

    /// Which limit the client met, or which mistake it made, as metrics count it.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Fault::Rejected(rejection) => match rejection {
                Rejection::Malformed(_) | Rejection::NotImplemented(_) | Rejection::VersionNotSupported => {
                    Some(Refusal::Malformed)
                }
                Rejection::TargetTooLong | Rejection::HeadTooLarge => Some(Refusal::HeaderSize),
                Rejection::MethodNotAllowed => None,
            },
            Fault::PlainToTls => Some(Refusal::Malformed),
            Fault::BodyTooLarge => Some(Refusal::BodySize),
            Fault::HeadTimedOut => Some(Refusal::HeaderTimeout),
            Fault::BodyTimedOut => Some(Refusal::BodyTimeout),
            Fault::BodyTooSlow => Some(Refusal::BodyRate),
            Fault::TooManyConnections => Some(Refusal::Connections),
            Fault::ClientStalled => Some(Refusal::ReadTimeout),
            Fault::ReadTooSlow => Some(Refusal::ReadRate),
            Fault::NothingToPreview
            | Fault::Exhausted
            | Fault::ConnectFailed
            | Fault::ResponseMissing
            | Fault::ResponseMalformed(_)
            | Fault::ResponseTimedOut
            | Fault::ResponseCut
            | Fault::ClientGone
            | Fault::Drained
            | Fault::Stopped => None,
        }
    }

    /// The word in the access log.
    pub fn label(self) -> &'static str {
        match self {
            Fault::Rejected(rejection) => match rejection {
                Rejection::Malformed(_)
                | Rejection::NotImplemented(_)
                | Rejection::VersionNotSupported
                | Rejection::MethodNotAllowed => "bad_request",
                Rejection::TargetTooLong | Rejection::HeadTooLarge => "too_large",
            },
            Fault::PlainToTls => "bad_request",
            Fault::NothingToPreview => "preview_down",
            Fault::Exhausted => "exhausted",
            Fault::BodyTooLarge => "too_large",
            Fault::HeadTimedOut | Fault::BodyTimedOut => "client_timeout",
            Fault::BodyTooSlow | Fault::ReadTooSlow => "client_slow",
            Fault::TooManyConnections => "shed",
            Fault::ConnectFailed => "upstream_connect",
            Fault::ResponseMissing | Fault::ResponseCut => "upstream_reset",
            Fault::ResponseMalformed(_) => "upstream_garbage",
            Fault::ResponseTimedOut => "upstream_timeout",
            Fault::ClientGone => "client",
            Fault::ClientStalled => "client_stalled",
            Fault::Drained => "drained",
            Fault::Stopped => "stopped",
        }
    }

    /// What the client is told beside the status, which is nothing about the inside.
    pub fn sentence(self) -> &'static str {
        match self {
            Fault::Rejected(rejection) => rejection.sentence(),
            Fault::BodyTooLarge => "the request body is too large",
            Fault::HeadTimedOut => "the request header took too long",
            Fault::BodyTimedOut => "the request body stopped arriving",
            Fault::BodyTooSlow => "the request body arrived too slowly",
            Fault::TooManyConnections => "too many connections; try again",
            Fault::NothingToPreview => "the idle color is not up, so there is nothing to preview",
            Fault::Exhausted => "the server has no room for more connections; try again",
            Fault::PlainToTls => "this port speaks TLS; use https://",
            Fault::ConnectFailed | Fault::ResponseMissing | Fault::ResponseCut => {
                "the application could not be reached"
            }
            Fault::ResponseMalformed(_) => "the application's response was not readable",
            Fault::ResponseTimedOut => "the application did not respond in time",
            Fault::Drained | Fault::Stopped => "the server is going away; try again",
            Fault::ClientGone | Fault::ClientStalled | Fault::ReadTooSlow => "",
        }
    }
}

/// The statuses of gRPC that the proxy fails calls with, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcCode {
    Cancelled = 1,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}
