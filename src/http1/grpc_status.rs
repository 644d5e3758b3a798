//! How a call of gRPC failed: its HTTP status is 200 all the same, and `grpc-status` comes with the head or behind the
//! body.

use crate::http1::body::trailers;

/// A code that tells of a fault in the application: those that `google.rpc.Code` sets beside 5xx of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
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

impl Failure {
    fn of(code: &[u8]) -> Option<Self> {
        match code {
            b"2" => Some(Failure::Unknown),
            b"4" => Some(Failure::DeadlineExceeded),
            b"12" => Some(Failure::Unimplemented),
            b"13" => Some(Failure::Internal),
            b"14" => Some(Failure::Unavailable),
            b"15" => Some(Failure::DataLoss),
            _ => None,
        }
    }

    /// For the access log and the evidence.
    pub fn word(self) -> &'static str {
        match self {
            Failure::Unknown => "grpc_unknown",
            Failure::DeadlineExceeded => "grpc_deadline_exceeded",
            Failure::Unimplemented => "grpc_unimplemented",
            Failure::Internal => "grpc_internal",
            Failure::Unavailable => "grpc_unavailable",
            Failure::DataLoss => "grpc_data_loss",
        }
    }
}

/// The answer to a call, until its code is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Call {
    /// It is no call, or nothing is known yet.
    #[default]
    None,
    /// Its code comes behind the body.
    UnderWay,
    /// It failed.
    Failed(Failure),
}

impl Call {
    /// An answer's head, with its `grpc-status` if it has one.
    pub fn answered(code: Option<&[u8]>) -> Self {
        code.map_or(Call::UnderWay, |code| Failure::of(code).map_or(Call::None, Call::Failed))
    }

    /// The body is over; `section` is its trailers' lines, which were checked.
    pub fn end(&mut self, section: &[u8]) {
        if *self != Call::UnderWay {
            return;
        }
        let fields = trailers(section).unwrap_or_default();
        let code = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("grpc-status"));
        *self = match code.map_or(Some(Failure::Unknown), |(_, code)| Failure::of(code)) {
            Some(failure) => Call::Failed(failure),
            None => Call::None,
        };
    }

    /// How it failed.
    pub fn failure(self) -> Option<Failure> {
        match self {
            Call::Failed(failure) => Some(failure),
            Call::None | Call::UnderWay => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::grpc_status::*;
    use crate::http2::is_grpc;

    fn ended(section: &[u8]) -> Option<Failure> {
        let mut call = Call::answered(None);
        assert_eq!(call.failure(), None, "not before its end");
        call.end(section);
        call.failure()
    }

    #[test]
    fn a_call_fails_with_what_is_5xx_elsewhere() {
        for (code, want) in [
            ("0", None),
            ("1", None),
            ("2", Some(Failure::Unknown)),
            ("3", None),
            ("5", None),
            ("12", Some(Failure::Unimplemented)),
            ("13", Some(Failure::Internal)),
            ("14", Some(Failure::Unavailable)),
            ("16", None),
        ] {
            assert_eq!(
                ended(format!("x: y\r\nGrpc-Status: {code}\r\n\r\n").as_bytes()),
                want,
                "{code} behind the body"
            );
            assert_eq!(Call::answered(Some(code.as_bytes())).failure(), want, "{code} in the head");
        }
        assert_eq!(ended(b"\r\n"), Some(Failure::Unknown), "no code");
        assert_eq!(ended(b""), Some(Failure::Unknown), "no trailers");
    }

    #[test]
    fn a_code_in_the_head_is_the_last_word() {
        let mut call = Call::answered(Some(b"0"));
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
