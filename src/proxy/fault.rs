//! Everything that can end an exchange other than a complete answer, and what the client, the watch and the access
//! log see of it.

use crate::routing::{Outcome, Refusal};

/// Why an exchange ended without a complete answer of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request was malformed or ambiguous; the text says how.
    BadRequest(&'static str),
    /// Sound, but more than is understood here; the text says what (RFC 9112 3, 6.1).
    NotImplemented(&'static str),
    /// An HTTP version other than 1.0 and 1.1.
    VersionUnknown,
    /// `CONNECT`: this is a gateway, not a forward proxy (RFC 9110 9.3.6).
    MethodRefused,
    /// No line end within `max_header_bytes`.
    TargetTooLong,
    /// More than `max_header_bytes`, or more than 100 fields.
    HeadTooLarge,
    /// More than `max_body_bytes`.
    BodyTooLarge,
    /// `header_timeout`
    HeadTimedOut,
    /// `body_timeout`
    BodyTimedOut,
    /// `min_body_rate`
    BodyTooSlow,
    /// No service for this host and path.
    NoService,
    /// More than `max_connections`.
    TooManyConnections,
    /// The service is frozen, and `freeze.hold` passed.
    HoldTimedOut,
    /// The service is frozen, and `freeze.max_requests` or `freeze.max_bytes` is reached.
    HoldFull,
    /// `proxy.redirect_to_tls`: the same is to be had over TLS only.
    Redirected,
    /// No fault: an `OPTIONS` that may go no further (RFC 9110 7.6.2).
    EndsHere,
    /// No fault: an ACME server asks for its proof (RFC 8555 8.3).
    Proof,
    /// A pass was taken at the preview's door, or given back: there is nothing more to say than where to go on.
    PassTaken,
    /// A pass that is no good, at the preview's door.
    PassRefused,
    /// A good pass, and no upstream of the idle color that is up.
    NothingToPreview,
    /// This machine has no descriptor, memory or port left for a connection to an upstream.
    Exhausted,
    /// HTTP without TLS on a port for TLS.
    PlainToTls,
    /// No upstream of the color could be connected to.
    ConnectFailed,
    /// The upstream closed or reset the connection before an answer.
    AnswerMissing,
    /// The answer's head or framing is not HTTP; the text says how.
    AnswerUnreadable(&'static str),
    /// `response_timeout` before or within the answer.
    AnswerTimedOut,
    /// The upstream broke off within its answer.
    AnswerCut,
    /// The client left.
    ClientGone,
    /// The client did not read for `idle_timeout`.
    ClientStalled,
    /// The client read slower than `min_read_rate`.
    ReadTooSlow,
    /// The drain deadline of the old color passed.
    Drained,
    /// The shutdown deadline passed.
    Stopped,
}

impl Fault {
    /// What the client is answered while nothing of an answer has been sent; `None`: the connection just ends.
    pub fn answer(self) -> Option<(u16, &'static str)> {
        match self {
            Fault::PassTaken => Some((303, "See Other")),
            Fault::PassRefused => Some((403, "Forbidden")),
            Fault::Redirected => Some((308, "Permanent Redirect")),
            Fault::Proof | Fault::EndsHere => Some((200, "OK")),
            Fault::BadRequest(_) | Fault::PlainToTls => Some((400, "Bad Request")),
            Fault::NotImplemented(_) => Some((501, "Not Implemented")),
            Fault::VersionUnknown => Some((505, "HTTP Version Not Supported")),
            Fault::MethodRefused => Some((405, "Method Not Allowed")),
            Fault::TargetTooLong => Some((414, "URI Too Long")),
            Fault::HeadTooLarge => Some((431, "Request Header Fields Too Large")),
            Fault::BodyTooLarge => Some((413, "Content Too Large")),
            Fault::HeadTimedOut | Fault::BodyTimedOut | Fault::BodyTooSlow => Some((408, "Request Timeout")),
            Fault::NoService => Some((404, "Not Found")),
            Fault::ConnectFailed | Fault::AnswerMissing | Fault::AnswerUnreadable(_) | Fault::AnswerCut => {
                Some((502, "Bad Gateway"))
            }
            Fault::AnswerTimedOut => Some((504, "Gateway Timeout")),
            Fault::TooManyConnections
            | Fault::HoldTimedOut
            | Fault::HoldFull
            | Fault::Drained
            | Fault::Stopped
            | Fault::NothingToPreview
            | Fault::Exhausted => Some((503, "Service Unavailable")),
            Fault::ClientGone | Fault::ClientStalled | Fault::ReadTooSlow => None,
        }
    }

    /// What a call of gRPC fails with: its own statuses, by what a client may do about them.
    pub fn grpc_code(self) -> u8 {
        const CANCELLED: u8 = 1;
        const DEADLINE_EXCEEDED: u8 = 4;
        const PERMISSION_DENIED: u8 = 7;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        match self {
            Fault::ClientGone
            | Fault::ClientStalled
            | Fault::ReadTooSlow
            | Fault::HeadTimedOut
            | Fault::BodyTimedOut
            | Fault::BodyTooSlow => CANCELLED,
            Fault::AnswerTimedOut => DEADLINE_EXCEEDED,
            Fault::TargetTooLong | Fault::HeadTooLarge | Fault::BodyTooLarge => RESOURCE_EXHAUSTED,
            Fault::NoService
            | Fault::NotImplemented(_)
            | Fault::MethodRefused
            | Fault::Redirected
            | Fault::EndsHere
            | Fault::Proof
            | Fault::PassTaken => UNIMPLEMENTED,
            Fault::PassRefused => PERMISSION_DENIED,
            Fault::BadRequest(_) | Fault::VersionUnknown | Fault::PlainToTls => INTERNAL,
            Fault::ConnectFailed
            | Fault::AnswerMissing
            | Fault::AnswerCut
            | Fault::AnswerUnreadable(_)
            | Fault::TooManyConnections
            | Fault::NothingToPreview
            | Fault::Exhausted
            | Fault::HoldTimedOut
            | Fault::HoldFull
            | Fault::Drained
            | Fault::Stopped => UNAVAILABLE,
        }
    }

    /// Whether it speaks against the color that served.
    pub fn outcome(self) -> Outcome {
        match self {
            Fault::ConnectFailed => Outcome::Refused,
            Fault::AnswerMissing | Fault::AnswerUnreadable(_) | Fault::AnswerTimedOut | Fault::AnswerCut => {
                Outcome::Bad
            }
            Fault::BadRequest(_)
            | Fault::NotImplemented(_)
            | Fault::VersionUnknown
            | Fault::MethodRefused
            | Fault::TargetTooLong
            | Fault::HeadTooLarge
            | Fault::BodyTooLarge
            | Fault::HeadTimedOut
            | Fault::BodyTimedOut
            | Fault::BodyTooSlow
            | Fault::NoService
            | Fault::TooManyConnections
            | Fault::HoldTimedOut
            | Fault::HoldFull
            | Fault::Redirected
            | Fault::Proof
            | Fault::EndsHere
            | Fault::PassTaken
            | Fault::PassRefused
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

    /// Which limit the client met, or which mistake it made.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Fault::BadRequest(_) | Fault::NotImplemented(_) | Fault::VersionUnknown | Fault::PlainToTls => {
                Some(Refusal::Malformed)
            }
            Fault::TargetTooLong | Fault::HeadTooLarge => Some(Refusal::HeaderSize),
            Fault::BodyTooLarge => Some(Refusal::BodySize),
            Fault::HeadTimedOut => Some(Refusal::HeaderTimeout),
            Fault::BodyTimedOut => Some(Refusal::BodyTimeout),
            Fault::BodyTooSlow => Some(Refusal::BodyRate),
            Fault::TooManyConnections => Some(Refusal::Connections),
            Fault::ClientStalled => Some(Refusal::ReadTimeout),
            Fault::ReadTooSlow => Some(Refusal::ReadRate),
            Fault::MethodRefused
            | Fault::NoService
            | Fault::HoldTimedOut
            | Fault::HoldFull
            | Fault::Redirected
            | Fault::EndsHere
            | Fault::Proof
            | Fault::PassTaken
            | Fault::PassRefused
            | Fault::NothingToPreview
            | Fault::Exhausted
            | Fault::ConnectFailed
            | Fault::AnswerMissing
            | Fault::AnswerUnreadable(_)
            | Fault::AnswerTimedOut
            | Fault::AnswerCut
            | Fault::ClientGone
            | Fault::Drained
            | Fault::Stopped => None,
        }
    }

    /// One word for the access log.
    pub fn word(self) -> &'static str {
        match self {
            Fault::BadRequest(_)
            | Fault::NotImplemented(_)
            | Fault::VersionUnknown
            | Fault::MethodRefused
            | Fault::PlainToTls => "bad_request",
            Fault::Redirected => "redirected",
            Fault::Proof => "acme",
            Fault::EndsHere => "ends_here",
            Fault::PassTaken => "pass_taken",
            Fault::PassRefused => "pass_refused",
            Fault::NothingToPreview => "preview_down",
            Fault::Exhausted => "exhausted",
            Fault::TargetTooLong | Fault::HeadTooLarge | Fault::BodyTooLarge => "too_large",
            Fault::HeadTimedOut | Fault::BodyTimedOut => "client_timeout",
            Fault::BodyTooSlow | Fault::ReadTooSlow => "client_slow",
            Fault::NoService => "no_service",
            Fault::TooManyConnections => "shed",
            Fault::HoldTimedOut | Fault::HoldFull => "held",
            Fault::ConnectFailed => "upstream_connect",
            Fault::AnswerMissing | Fault::AnswerCut => "upstream_reset",
            Fault::AnswerUnreadable(_) => "upstream_garbage",
            Fault::AnswerTimedOut => "upstream_timeout",
            Fault::ClientGone => "client",
            Fault::ClientStalled => "client_stalled",
            Fault::Drained => "drained",
            Fault::Stopped => "stopped",
        }
    }

    /// What the client is told, beside the status: nothing about the inside.
    pub fn hint(self) -> &'static str {
        match self {
            Fault::BadRequest(why) | Fault::NotImplemented(why) => why,
            Fault::VersionUnknown => "this version of HTTP is not supported",
            Fault::MethodRefused => "this method is not available here",
            Fault::TargetTooLong => "the request target is too long",
            Fault::HeadTooLarge => "the request header is too large",
            Fault::BodyTooLarge => "the request body is too large",
            Fault::HeadTimedOut => "the request header took too long",
            Fault::BodyTimedOut => "the request body stopped arriving",
            Fault::BodyTooSlow => "the request body arrived too slowly",
            Fault::NoService => "no service here for this host and path",
            Fault::TooManyConnections => "too many connections; try again",
            Fault::HoldTimedOut => {
                "the application is being changed, and that takes longer than a request may wait; try again"
            }
            Fault::HoldFull => "the application is being changed, and too many requests wait already; try again",
            Fault::Redirected => "this is served over https",
            Fault::PassTaken => "go on to the application",
            Fault::PassRefused => "this pass is expired or not for this service; `cutover preview` makes a new one",
            Fault::NothingToPreview => "the idle color is not up, so there is nothing to preview",
            Fault::Exhausted => "the server has no room for more connections; try again",
            Fault::PlainToTls => "this port speaks TLS; use https://",
            Fault::ConnectFailed | Fault::AnswerMissing | Fault::AnswerCut => "the application could not be reached",
            Fault::AnswerUnreadable(_) => "the application's response was not readable",
            Fault::AnswerTimedOut => "the application did not respond in time",
            Fault::Drained | Fault::Stopped => "the server is going away; try again",
            Fault::EndsHere => "Max-Forwards ends here",
            Fault::Proof | Fault::ClientGone | Fault::ClientStalled | Fault::ReadTooSlow => "",
        }
    }
}
