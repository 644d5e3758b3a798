//! How a gRPC call ended. Its HTTP status is 200 even where it failed, and `grpc-status` comes with the head of the
//! response or in the trailers.

use crate::http1::body::trailers;

/// Whether a `Content-Type` is that of a gRPC call. gRPC-Web is another protocol, with its status in the body.
pub fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A status that tells of a fault in the application: one of those that `google.rpc.Code` maps to an HTTP status of
/// 500 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcFailure {
    /// 2, which an exception becomes that nobody has caught. A response without a status counts as the same, as it does
    /// for clients.
    Unknown,
    /// 4
    DeadlineExceeded,
    /// 12
    Unimplemented,
    /// 13
    Internal,
    /// 14
    Unavailable,
    /// 15
    DataLoss,
}

impl GrpcFailure {
    fn of(code: &[u8]) -> Option<Self> {
        match code {
            b"2" => Some(GrpcFailure::Unknown),
            b"4" => Some(GrpcFailure::DeadlineExceeded),
            b"12" => Some(GrpcFailure::Unimplemented),
            b"13" => Some(GrpcFailure::Internal),
            b"14" => Some(GrpcFailure::Unavailable),
            b"15" => Some(GrpcFailure::DataLoss),
            _ => None,
        }
    }

    /// The word in the access log and the evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            GrpcFailure::Unknown => "grpc_unknown",
            GrpcFailure::DeadlineExceeded => "grpc_deadline_exceeded",
            GrpcFailure::Unimplemented => "grpc_unimplemented",
            GrpcFailure::Internal => "grpc_internal",
            GrpcFailure::Unavailable => "grpc_unavailable",
            GrpcFailure::DataLoss => "grpc_data_loss",
        }
    }
}

/// What is known of how a gRPC call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrpcStatus {
    /// It is no gRPC call.
    #[default]
    NotACall,
    /// The status comes behind the body.
    Pending,
    /// It ended well, or with a status that is no fault of the application.
    Succeeded,
    Failed(GrpcFailure),
}

impl GrpcStatus {
    /// What the head of a response says, with its `grpc-status` if it has one.
    pub fn of_head(code: Option<&[u8]>) -> Self {
        code.map_or(GrpcStatus::Pending, GrpcStatus::of_code)
    }

    fn of_code(code: &[u8]) -> Self {
        GrpcFailure::of(code).map_or(GrpcStatus::Succeeded, GrpcStatus::Failed)
    }

    /// Takes the end of the body. `section` is the lines of its trailers, which were checked.
    pub fn end_of_body(&mut self, section: &[u8]) {
        if *self != GrpcStatus::Pending {
            return;
        }
        let fields = trailers(section).unwrap_or_default();
        let code = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("grpc-status"));
        *self = code.map_or(GrpcStatus::Failed(GrpcFailure::Unknown), |(_, code)| GrpcStatus::of_code(code));
    }

    /// How the call failed, if it is known to have failed.
    pub fn failure(self) -> Option<GrpcFailure> {
        match self {
            GrpcStatus::Failed(failure) => Some(failure),
            GrpcStatus::NotACall | GrpcStatus::Pending | GrpcStatus::Succeeded => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::grpc_status::*;

    fn ended(section: &[u8]) -> Option<GrpcFailure> {
        let mut status = GrpcStatus::of_head(None);
        assert_eq!(status.failure(), None, "not before its end");
        status.end_of_body(section);
        status.failure()
    }

    #[test]
    fn a_call_fails_with_what_is_5xx_elsewhere() {
        for (code, want) in [
            ("0", None),
            ("1", None),
            ("2", Some(GrpcFailure::Unknown)),
            ("3", None),
            ("5", None),
            ("12", Some(GrpcFailure::Unimplemented)),
            ("13", Some(GrpcFailure::Internal)),
            ("14", Some(GrpcFailure::Unavailable)),
            ("16", None),
        ] {
            assert_eq!(
                ended(format!("x: y\r\nGrpc-Status: {code}\r\n\r\n").as_bytes()),
                want,
                "{code} behind the body"
            );
            assert_eq!(GrpcStatus::of_head(Some(code.as_bytes())).failure(), want, "{code} in the head");
        }
        assert_eq!(ended(b"\r\n"), Some(GrpcFailure::Unknown), "no code");
        assert_eq!(ended(b""), Some(GrpcFailure::Unknown), "no trailers");
    }

    #[test]
    fn a_code_in_the_head_is_the_last_word() {
        let mut status = GrpcStatus::of_head(Some(b"0"));
        status.end_of_body(b"");
        assert_eq!(status.failure(), None);
    }

    #[test]
    fn a_call_is_told_by_its_type() {
        for (kind, want) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(kind.as_bytes()), want, "{kind}");
        }
    }
}
