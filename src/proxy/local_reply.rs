//! What the proxy answers by itself although nothing failed: it is the final recipient of the request, or a rule of the
//! operator ends it here. Such a request takes no lease, so no color is judged by it.

use crate::proxy::fault::GrpcCode;

/// A reply that no application has to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalReply {
    /// The service is to be had over TLS only (`proxy.redirect_to_tls`).
    RedirectToTls { location: String },
    /// An ACME server asks for its proof (RFC 8555 8.3).
    AcmeChallenge { proof: String },
    /// An `OPTIONS` may go no further (RFC 9110 7.6.2).
    OptionsEndsHere,
    /// There is no service for the host and path.
    NoService,
    /// A preview pass becomes a cookie, or the cookie is taken back.
    PreviewPassTaken { location: String, cookie: String },
    /// A preview pass is expired, or not for the service.
    PreviewPassRefused,
    /// The entry path of a preview takes no other methods than GET and HEAD.
    PreviewMethodNotAllowed,
    /// The service is frozen, and `freeze.hold` passed.
    FreezeTimedOut,
    /// The service is frozen, and `freeze.max_requests` or `freeze.max_bytes` is reached.
    FreezeQueueFull,
}

impl LocalReply {
    /// The status of the reply.
    pub fn status(&self) -> u16 {
        match self {
            LocalReply::AcmeChallenge { .. } | LocalReply::OptionsEndsHere => 200,
            LocalReply::PreviewPassTaken { .. } => 303,
            LocalReply::RedirectToTls { .. } => 308,
            LocalReply::PreviewPassRefused => 403,
            LocalReply::NoService => 404,
            LocalReply::PreviewMethodNotAllowed => 405,
            LocalReply::FreezeTimedOut | LocalReply::FreezeQueueFull => 503,
        }
    }

    /// The status that a gRPC call fails with.
    pub fn grpc_code(&self) -> GrpcCode {
        match self {
            LocalReply::RedirectToTls { .. }
            | LocalReply::AcmeChallenge { .. }
            | LocalReply::OptionsEndsHere
            | LocalReply::NoService
            | LocalReply::PreviewPassTaken { .. }
            | LocalReply::PreviewMethodNotAllowed => GrpcCode::Unimplemented,
            LocalReply::PreviewPassRefused => GrpcCode::PermissionDenied,
            LocalReply::FreezeTimedOut | LocalReply::FreezeQueueFull => GrpcCode::Unavailable,
        }
    }

    /// The word in the access log.
    pub fn label(&self) -> &'static str {
        match self {
            LocalReply::RedirectToTls { .. } => "redirected",
            LocalReply::AcmeChallenge { .. } => "acme",
            LocalReply::OptionsEndsHere => "ends_here",
            LocalReply::NoService => "no_service",
            LocalReply::PreviewPassTaken { .. } => "pass_taken",
            LocalReply::PreviewPassRefused => "pass_refused",
            LocalReply::PreviewMethodNotAllowed => "bad_request",
            LocalReply::FreezeTimedOut | LocalReply::FreezeQueueFull => "held",
        }
    }

    /// What the client is told beside the status.
    pub fn sentence(&self) -> &'static str {
        match self {
            LocalReply::RedirectToTls { .. } => "this is served over https",
            LocalReply::AcmeChallenge { .. } => "",
            LocalReply::OptionsEndsHere => "Max-Forwards ends here",
            LocalReply::NoService => "no service here for this host and path",
            LocalReply::PreviewPassTaken { .. } => "go on to the application",
            LocalReply::PreviewPassRefused => {
                "this pass is expired or not for this service; `cutover preview` makes a new one"
            }
            LocalReply::PreviewMethodNotAllowed => "this method is not available here",
            LocalReply::FreezeTimedOut => {
                "the application is being changed, and that takes longer than a request may wait; try again"
            }
            LocalReply::FreezeQueueFull => {
                "the application is being changed, and too many requests wait already; try again"
            }
        }
    }
}
