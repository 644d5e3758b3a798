//! The head of a request as it goes upstream.

use crate::http1::body::BodyDecoder;
use crate::http1::buffer::Buffer;
use crate::http1::cookies;
use crate::http1::fields::{put_field, put_length};
use crate::http1::header::Field;
use crate::http1::request::{HopLimit, Request};
use crate::http1::version::{ClientProtocol, HttpVersion};

/// What applications are told about the client of a connection.
pub struct ClientIdentity {
    /// The client's address as text.
    pub ip: String,
    /// The client is a trusted proxy, whose own words about its client are believed.
    pub is_trusted: bool,
    /// The port that the client connected to.
    pub port: u16,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The `Host` of a request of HTTP/1.0 that names none.
    pub local_authority: String,
    pub protocol: ClientProtocol,
}

impl ClientIdentity {
    /// The version of HTTP in which the client has sent `request`. The text of a request of HTTP/2 says HTTP/1.1.
    pub fn version_of(&self, request: &Request<'_>) -> HttpVersion {
        match self.protocol {
            ClientProtocol::Http1 => request.version,
            ClientProtocol::Http2 => HttpVersion::Http2,
        }
    }
}

/// What the proxy decides about the head of one request.
pub struct UpstreamHead<'a> {
    pub request_id: &'a [u8],
    /// `Via` is added (RFC 9110 7.6.3).
    pub adds_via: bool,
    /// The cookies of this name are kept from the application.
    pub hidden_cookie: Option<&'static str>,
}

/// The path, without a query, that a head asks for which [`UpstreamHead::write`] has written.
pub fn path_of(head: &[u8]) -> Option<&str> {
    let target = head.split(|&byte| byte == b' ').nth(1)?;
    let path = target.split(|&byte| byte == b'?').next()?;
    std::str::from_utf8(path).ok()
}

impl UpstreamHead<'_> {
    /// Writes the whole head.
    pub fn write(&self, out: &mut Buffer, request: &Request<'_>, client: &ClientIdentity) {
        let authority = request.authority.unwrap_or(&client.local_authority);
        // RFC 9112 3.2.1: an absolute target may leave out the path.
        let root = if request.path.starts_with('?') { "/" } else { "" };
        for part in [request.method_name, " ", root, request.path, " HTTP/1.1\r\nHost: ", authority, "\r\n"] {
            out.put(part.as_bytes());
        }
        self.put_fields(out, request, client);
        match (&request.body, request.announces_body) {
            (BodyDecoder::Chunked(_), _) => out.put(b"Transfer-Encoding: chunked\r\n"),
            (BodyDecoder::Length(length), true) => put_length(out, *length),
            (BodyDecoder::Length(_) | BodyDecoder::UntilClose, _) => {}
        }
        match (request.upgrade, passes_te(request, client.protocol)) {
            (Some(protocol), _) => {
                out.put(b"Connection: Upgrade\r\n");
                put_field(out, "Upgrade", protocol.as_bytes());
            }
            (None, true) => out.put(b"Connection: te\r\nTE: trailers\r\n"),
            (None, false) => {}
        }
        if let HopLimit::Left(left) = request.hop_limit {
            put_field(out, "Max-Forwards", itoa::Buffer::new().format(left).as_bytes());
        }
        put_forwarding(out, request, client, authority);
        put_field(out, "X-Request-Id", self.request_id);
        if self.adds_via {
            put_field(out, "Via", client.version_of(request).via().as_bytes());
        }
        out.put(b"\r\n");
    }

    /// Writes the fields that are passed on.
    fn put_fields(&self, out: &mut Buffer, request: &Request<'_>, client: &ClientIdentity) {
        for (header, field) in request.fields.iter() {
            let is_passed_on = match field {
                Field::Other | Field::Date | Field::ContentType | Field::Via | Field::Cookie => true,
                Field::MaxForwards => request.hop_limit == HopLimit::Unlimited,
                Field::Expect => request.version != HttpVersion::Http10,
                Field::Claim => client.is_trusted,
                Field::Hop
                | Field::Connection
                | Field::ContentLength
                | Field::TransferEncoding
                | Field::Upgrade
                | Field::Te
                | Field::Host
                | Field::RequestId
                | Field::ForwardedFor
                | Field::ForwardedProto
                | Field::ForwardedHost
                | Field::ForwardedPort
                | Field::Forwarded
                | Field::Preview
                | Field::Dangerous => false,
            };
            if is_passed_on && !request.named_hops.iter().any(|name| name.eq_ignore_ascii_case(header.name)) {
                match self.hidden_cookie {
                    Some(cookie) if field == Field::Cookie => {
                        cookies::put_without(out, header.name, header.value, cookie);
                    }
                    Some(_) | None => put_field(out, header.name, header.value),
                }
            }
        }
    }
}

/// Whether `TE: trailers` goes on, because it was said for this hop and not only passed along (RFC 9110 10.1.4). HTTP/2
/// has no `Connection` to say so with.
fn passes_te(request: &Request<'_>, protocol: ClientProtocol) -> bool {
    let is_named = || request.named_hops.iter().any(|name| name.eq_ignore_ascii_case("te"));
    request.accepts_trailers && (protocol == ClientProtocol::Http2 || is_named())
}

/// Writes `X-Forwarded-*` and `Forwarded` (RFC 7239). What a trusted proxy said is continued, anybody else's is
/// replaced.
fn put_forwarding(out: &mut Buffer, request: &Request<'_>, client: &ClientIdentity, authority: &str) {
    out.put(b"X-Forwarded-For: ");
    put_claims(out, request, client, Field::ForwardedFor);
    out.put(client.ip.as_bytes());
    let mut digits = itoa::Buffer::new();
    for (name, field, own) in [
        ("\r\nX-Forwarded-Proto: ", Field::ForwardedProto, client.scheme),
        ("\r\nX-Forwarded-Host: ", Field::ForwardedHost, authority),
        ("\r\nX-Forwarded-Port: ", Field::ForwardedPort, digits.format(client.port)),
    ] {
        out.put(name.as_bytes());
        let claimed = if client.is_trusted { request.fields.values(field).next() } else { None };
        out.put(claimed.unwrap_or(own.as_bytes()));
    }
    out.put(b"\r\nForwarded: ");
    put_claims(out, request, client, Field::Forwarded);
    out.put(b"for=");
    if client.ip.contains(':') {
        for part in ["\"[", &client.ip, "]\""] {
            out.put(part.as_bytes());
        }
    } else {
        out.put(client.ip.as_bytes());
    }
    for part in [";host=\"", authority, "\";proto=", client.scheme, "\r\n"] {
        out.put(part.as_bytes());
    }
}

/// Writes what a trusted proxy has said in that field, each value with a comma behind it.
fn put_claims(out: &mut Buffer, request: &Request<'_>, client: &ClientIdentity, field: Field) {
    if client.is_trusted {
        for value in request.fields.values(field).filter(|value| !value.is_empty()) {
            out.put(value);
            out.put(b", ");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::fields::HeaderStorage;
    use crate::http1::upstream_head::*;

    fn rebuilt(head: &str, is_trusted: bool) -> String {
        let client = ClientIdentity {
            ip: "192.0.2.7".into(),
            is_trusted,
            port: 8080,
            scheme: "http",
            local_authority: "127.0.0.1:8080".into(),
            protocol: ClientProtocol::Http1,
        };
        let mut storage = HeaderStorage::new();
        let request = Request::parse(head.as_bytes(), &mut storage).expect("a sound request");
        let mut out = Buffer::default();
        UpstreamHead { request_id: b"id", adds_via: true, hidden_cookie: None }.write(&mut out, &request, &client);
        String::from_utf8(out.filled().to_vec()).expect("text")
    }

    #[test]
    fn hop_by_hop_fields_stay_here() {
        let out = rebuilt(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Mine, close\r\nConnection: x-other\r\nX-Mine: 1\r\nX-Other: 1\r\n\
             Keep-Alive: 1\r\nProxy-Connection: 1\r\nTE: gzip\r\nUpgrade: h2c\r\nProxy: 1\r\nX-Kept: 1\r\n\r\n",
            false,
        );
        for gone in ["X-Mine", "X-Other", "Keep-Alive", "Proxy-Connection", "TE:", "Upgrade", "Connection", "Proxy:"] {
            assert!(!out.contains(gone), "{gone} in {out}");
        }
        assert!(out.contains("\r\nX-Kept: 1\r\n"), "{out}");
    }

    #[test]
    fn claims_about_the_client_are_believed_from_trusted_proxies_only() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Prefix: /p\r\nForwarded: for=1.1.1.1\r\nX_Forwarded_For: 2.2.2.2\r\n\r\n";
        let untrusted = rebuilt(head, false);
        assert!(
            !untrusted.contains("1.1.1.1") && !untrusted.contains("2.2.2.2") && !untrusted.contains("/p"),
            "{untrusted}"
        );
        for line in [
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: a",
            "X-Forwarded-Port: 8080",
            "Forwarded: for=192.0.2.7;host=\"a\";proto=http",
        ] {
            assert!(untrusted.contains(&format!("\r\n{line}\r\n")), "{line} in {untrusted}");
        }
        let trusted = rebuilt(head, true);
        for line in [
            "X-Forwarded-For: 1.1.1.1, 192.0.2.7",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Prefix: /p",
            "Forwarded: for=1.1.1.1, for=192.0.2.7;host=\"a\";proto=http",
        ] {
            assert!(trusted.contains(&format!("\r\n{line}\r\n")), "{line} in {trusted}");
        }
        assert!(!trusted.contains("2.2.2.2"), "{trusted}");
    }
}
