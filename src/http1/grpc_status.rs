//! How a call of gRPC failed: its HTTP status is 200 all the same, and `grpc-status` comes with the head or behind the
//! body.

use crate::http1::body::trailers;

/// A code that tells of a fault in the application: those that `google.rpc.Code` sets beside 5xx of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcFailure {
    /// 2, what an exception that nobody has caught becomes; or no code at all, which clients take for the same.
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

    /// For the access log and the evidence.
    pub fn word(self) -> &'static str {
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

/// The answer to a call, until its code is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrpcStatus {
    /// It is no call, or nothing is known yet.
    #[default]
    NotACall,
    /// Its code comes behind the body.
    Pending,
    /// It failed.
    Failed(GrpcFailure),
}

impl GrpcStatus {
    /// An answer's head, with its `grpc-status` if it has one.
    pub fn answered(code: Option<&[u8]>) -> Self {
        code.map_or(GrpcStatus::Pending, |code| GrpcFailure::of(code).map_or(GrpcStatus::NotACall, GrpcStatus::Failed))
    }

    /// The body is over; `section` is its trailers' lines, which were checked.
    pub fn end(&mut self, section: &[u8]) {
        if *self != GrpcStatus::Pending {
            return;
        }
        let fields = trailers(section).unwrap_or_default();
        let code = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("grpc-status"));
        *self = match code.map_or(Some(GrpcFailure::Unknown), |(_, code)| GrpcFailure::of(code)) {
            Some(failure) => GrpcStatus::Failed(failure),
            None => GrpcStatus::NotACall,
        };
    }

    /// How it failed.
    pub fn failure(self) -> Option<GrpcFailure> {
        match self {
            GrpcStatus::Failed(failure) => Some(failure),
            GrpcStatus::NotACall | GrpcStatus::Pending => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::grpc_status::*;
    use crate::http2::is_grpc;

    fn ended(section: &[u8]) -> Option<GrpcFailure> {
        let mut call = GrpcStatus::answered(None);
        assert_eq!(call.failure(), None, "not before its end");
        call.end(section);
        call.failure()
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
            assert_eq!(GrpcStatus::answered(Some(code.as_bytes())).failure(), want, "{code} in the head");
        }
        assert_eq!(ended(b"\r\n"), Some(GrpcFailure::Unknown), "no code");
        assert_eq!(ended(b""), Some(GrpcFailure::Unknown), "no trailers");
    }

    #[test]
    fn a_code_in_the_head_is_the_last_word() {
        let mut call = GrpcStatus::answered(Some(b"0"));
        call.end(b"");
        assert_eq!(call.failure(), None);
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
