//! The names of header fields that the proxy treats in a way of their own.

/// A field, by what the proxy does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// It is passed on as it is.
    Other,
    /// It is about this connection only (RFC 9110 7.6.1, RFC 7540 3.2.1), and never passed on.
    Hop,
    /// It is read, and the fields that it names are not passed on either.
    Connection,
    /// It is read, and written anew.
    ContentLength,
    /// It is read, and written anew.
    TransferEncoding,
    /// It is passed on only where a tunnel may follow.
    Upgrade,
    /// Only `trailers` is passed on.
    Te,
    /// It is read, checked and written anew.
    Host,
    Expect,
    Date,
    ContentType,
    Via,
    /// `X-Request-Id`.
    RequestId,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `X-Forwarded-Port`.
    ForwardedPort,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Any other `X-Forwarded-*`, `X-Real-IP`, and the mark on copies of requests for a rehearsal. A trusted proxy is
    /// believed, and anybody else's is dropped.
    Claim,
    /// `Max-Forwards`, which is counted in requests whose method counts it.
    MaxForwards,
    /// It is passed on without preview passes.
    Cookie,
    /// `X-Cutover-Preview` is between the proxy and its clients, and never passed on.
    Preview,
    /// It is never passed on: `Proxy` (httpoxy), and names that an application reads like one of the others because CGI
    /// makes `_` of `-`.
    Dangerous,
}

/// Fields that are passed on in a head and not in a trailer, where they would mean nothing good.
const NEVER_TRAILERS: [&str; 22] = [
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "retry-after",
    "set-cookie",
    "trailer",
    "vary",
    "warning",
    "www-authenticate",
];

impl Field {
    /// The kind of the field of that name, in any case.
    pub fn of(name: &str) -> Field {
        let name = name.as_bytes();
        // Length and first letter tell most fields apart, so that few names are compared.
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match (name.len(), name.first().map_or(0, u8::to_ascii_lowercase)) {
            (2, b't') if is("te") => Field::Te,
            (3, b'v') if is("via") => Field::Via,
            (4, b'h') if is("host") => Field::Host,
            (4, b'd') if is("date") => Field::Date,
            (5, b'p') if is("proxy") => Field::Dangerous,
            (6, b'c') if is("cookie") => Field::Cookie,
            (6, b'e') if is("expect") => Field::Expect,
            (7, b'u') if is("upgrade") => Field::Upgrade,
            (9, b'f') if is("forwarded") => Field::Forwarded,
            (9, b'x') if is("x-real-ip") => Field::Claim,
            (10, b'c') if is("connection") => Field::Connection,
            (10, b'k') if is("keep-alive") => Field::Hop,
            (12, b'c') if is("content-type") => Field::ContentType,
            (12, b'm') if is("max-forwards") => Field::MaxForwards,
            (12, b'x') if is("x-request-id") => Field::RequestId,
            (14, b'c') if is("content-length") => Field::ContentLength,
            (14, b'h') if is("http2-settings") => Field::Hop,
            (15, b'x') if is("x-forwarded-for") => Field::ForwardedFor,
            (16, b'p') if is("proxy-connection") => Field::Hop,
            (16, b'x') if is("x-forwarded-host") => Field::ForwardedHost,
            (16, b'x') if is("x-forwarded-port") => Field::ForwardedPort,
            (17, b't') if is("transfer-encoding") => Field::TransferEncoding,
            (17, b'x') if is("x-cutover-preview") => Field::Preview,
            (17, b'x') if is("x-forwarded-proto") => Field::ForwardedProto,
            (19, b'x') if is("x-cutover-rehearsal") => Field::Claim,
            (12.., b'x') if name[..12].eq_ignore_ascii_case(b"x-forwarded-") => Field::Claim,
            _ if memchr::memchr(b'_', name).is_some() => Field::of_underscored(name),
            _ => Field::Other,
        }
    }

    /// The kind of a name with underscores: an application behind CGI or WSGI sees `X_Forwarded_For` as
    /// `X-Forwarded-For`.
    fn of_underscored(name: &[u8]) -> Field {
        // Only the beginning of a longer name can be one of the known ones.
        let (mut dashed, name) = ([0; 32], &name[..name.len().min(32)]);
        let dashed = &mut dashed[..name.len()];
        for (to, &from) in dashed.iter_mut().zip(name) {
            *to = if from == b'_' { b'-' } else { from };
        }
        match std::str::from_utf8(dashed).map(Field::of) {
            Ok(Field::Other) | Err(_) => Field::Other,
            Ok(_) => Field::Dangerous,
        }
    }

    /// Whether a trailer of this name may be passed on. It must not route, frame, vouch, or say how the content is to
    /// be read (RFC 9110 6.5.1).
    pub fn may_trail(name: &str) -> bool {
        Field::of(name) == Field::Other && !NEVER_TRAILERS.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::header::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Field::of("TRANSFER-encoding"), Field::TransferEncoding);
        assert_eq!(Field::of("X-Forwarded-Server"), Field::Claim);
        assert_eq!(Field::of("X-Forwarded-"), Field::Claim);
        assert_eq!(Field::of("X-Cutover-Rehearsal"), Field::Claim);
        assert_eq!(Field::of("traceparent"), Field::Other);
    }

    #[test]
    fn an_underscore_does_not_smuggle_a_known_name() {
        for name in ["X_Forwarded_For", "content_length", "Transfer_Encoding", "x-forwarded_proto"] {
            assert_eq!(Field::of(name), Field::Dangerous, "{name}");
        }
        assert_eq!(Field::of("my_own_header"), Field::Other);
    }
}
