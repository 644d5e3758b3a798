//! A client's request head, checked.
//!
//! Whatever two parsers could read differently is refused here, before a byte goes upstream (RFC 9112 2.2, 3, 6;
//! RFC 9110 7.2). Most of request smuggling lives on a recipient that is lenient where another one is not.

use crate::http1::body::{BodyDecoder, ChunkState};
use crate::http1::fields::{FIELDS_MAX, Fields, HeaderStorage};
use crate::http1::header::Field;
use crate::http1::method::Method;
use crate::http1::reject::Rejection;
use crate::http1::syntax::{ascii, is_token, length, list, number};
use crate::http1::target::{check_authority, split_port, split_target};
use crate::http1::version::HttpVersion;

/// How far a request may be forwarded (RFC 9110 7.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopLimit {
    /// The method is not one that counts its hops, or the request sets no limit.
    Unlimited,
    /// An `OPTIONS` that may go no further: the proxy is its final recipient.
    EndsHere,
    /// So many hops are left after this one.
    Left(u64),
}

/// A request head that passed every check.
pub struct Request<'h> {
    /// The method by its name, as sent.
    pub method_name: &'h str,
    pub method: Method,
    /// The path and the query behind the authority, or `*`.
    pub path: &'h str,
    /// The host and port as the client named them; `None` only for HTTP/1.0.
    pub authority: Option<&'h str>,
    /// The fields as they came.
    pub fields: Fields<'h>,
    /// How the body is framed.
    pub body: BodyDecoder,
    /// Whether a body was announced, be it an empty one.
    pub announces_body: bool,
    /// HTTP/1.0 or HTTP/1.1, as the request line says.
    pub version: HttpVersion,
    /// The client wants to keep the connection.
    pub keep_alive: bool,
    /// The protocol to upgrade to, where a tunnel may follow.
    pub upgrade: Option<&'h str>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    pub hop_limit: HopLimit,
    /// `TE` says `trailers`.
    pub accepts_trailers: bool,
    /// The fields that `Connection` names, other than the usual ones. They end here, trailers among them.
    pub named_hops: Vec<&'h str>,
}

impl<'h> Request<'h> {
    /// Parses and checks a complete head.
    ///
    /// # Errors
    /// [`Rejection`]
    pub fn parse(head: &'h [u8], storage: &'h mut HeaderStorage<'h>) -> Result<Self, Rejection> {
        const BAD_LINE: Rejection = Rejection::Malformed("the request line is malformed");
        let mut parsed = httparse::Request::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_request_with_uninit_headers(&mut parsed, head, &mut storage.headers) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Rejection::Malformed("the request head is malformed")),
            Err(httparse::Error::TooManyHeaders) => return Err(Rejection::HeadTooLarge),
            Err(httparse::Error::HeaderName) => return Err(Rejection::Malformed("a header name is malformed")),
            Err(httparse::Error::HeaderValue) => return Err(Rejection::Malformed("a header value is malformed")),
            Err(_) => return Err(BAD_LINE),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(BAD_LINE);
        };
        let version = if version == 0 { HttpVersion::Http10 } else { HttpVersion::Http11 };
        let fields = Fields::new(parsed.headers, &mut storage.kinds);
        let mut facts = FieldFacts::default();
        for (header, field) in fields.iter() {
            facts.read(field, header.value)?;
        }
        facts.into_request(RequestLine { method, target, version }, fields)
    }

    /// The authority's host, without port and brackets.
    pub fn host(&self) -> &'h str {
        self.authority.map_or("", |authority| split_port(authority).0)
    }

    /// The path, with its query, by which the request is routed.
    pub fn route(&self) -> &'h str {
        if self.path.starts_with('?') { "/" } else { self.path }
    }

    /// The URL of the same over TLS, at `port`; `None` for a client that named no host.
    pub fn secure_url(&self, port: u16) -> Option<String> {
        let authority = self.authority?;
        let bare = match split_port(authority).1 {
            Some(port) => &authority[..authority.len() - port.len() - 1],
            None => authority,
        };
        let path = if self.path == "*" { "/" } else { self.path };
        Some(if port == 443 { format!("https://{bare}{path}") } else { format!("https://{bare}:{port}{path}") })
    }

    /// The value of a field that has no kind of its own.
    pub fn value(&self, name: &str) -> Option<&'h [u8]> {
        self.fields.named(name).next()
    }
}

/// The parts of a request line.
struct RequestLine<'h> {
    method: &'h str,
    target: &'h str,
    version: HttpVersion,
}

/// What the fields say, gathered while they are read once.
#[derive(Default)]
struct FieldFacts<'h> {
    hosts: usize,
    host: Option<&'h str>,
    lengths: usize,
    length: Option<u64>,
    codings: usize,
    is_chunked: bool,
    /// The body comes in chunks of something that cannot be decoded here.
    is_coded: bool,
    close: bool,
    keep_alive: bool,
    /// `Connection` names `Upgrade`.
    names_upgrade: bool,
    upgrade: Option<&'h str>,
    expect: Option<&'h [u8]>,
    accepts_trailers: bool,
    named_hops: Vec<&'h str>,
    max_forwards: Vec<&'h [u8]>,
}

impl<'h> FieldFacts<'h> {
    fn read(&mut self, field: Field, value: &'h [u8]) -> Result<(), Rejection> {
        match field {
            Field::Host => {
                self.hosts += 1;
                self.host = Some(ascii(value).ok_or(Rejection::Malformed("Host is malformed"))?);
            }
            Field::ContentLength => {
                self.lengths += 1;
                self.length = Some(length(value).ok_or(Rejection::Malformed("Content-Length is not a number"))?);
            }
            Field::TransferEncoding => {
                self.codings += 1;
                self.is_chunked = value.eq_ignore_ascii_case(b"chunked");
                self.is_coded = is_coded(value);
            }
            Field::Connection => self.read_connection(value)?,
            Field::Upgrade => self.upgrade = ascii(value),
            Field::Expect => self.expect = Some(value),
            Field::Te => {
                self.accepts_trailers |=
                    ascii(value).is_some_and(|v| list(v).any(|c| c.eq_ignore_ascii_case("trailers")));
            }
            Field::MaxForwards => self.max_forwards.push(value),
            Field::Other
            | Field::Hop
            | Field::Date
            | Field::ContentType
            | Field::Via
            | Field::RequestId
            | Field::ForwardedFor
            | Field::ForwardedProto
            | Field::ForwardedHost
            | Field::ForwardedPort
            | Field::Forwarded
            | Field::Claim
            | Field::Cookie
            | Field::Preview
            | Field::Dangerous => {}
        }
        Ok(())
    }

    fn read_connection(&mut self, value: &'h [u8]) -> Result<(), Rejection> {
        let value = ascii(value).ok_or(Rejection::Malformed("Connection is malformed"))?;
        for name in list(value) {
            if name.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            } else if name.eq_ignore_ascii_case("close") {
                self.close = true;
            } else if name.eq_ignore_ascii_case("upgrade") {
                self.names_upgrade = true;
            } else if self.named_hops.len() < FIELDS_MAX {
                self.named_hops.push(name);
            } else {
                return Err(Rejection::Malformed("Connection names more fields than a request may have"));
            }
        }
        Ok(())
    }

    fn into_request(self, line: RequestLine<'h>, fields: Fields<'h>) -> Result<Request<'h>, Rejection> {
        let RequestLine { method, target, version } = line;
        let is_1_0 = version == HttpVersion::Http10;
        let body = self.framing(version)?;
        let (authority, path) = split_target(method, target)?;
        if self.hosts > 1 {
            return Err(Rejection::Malformed("more than one Host"));
        }
        if self.host.is_none() && !is_1_0 {
            return Err(Rejection::Malformed("no Host"));
        }
        // RFC 9112 3.2.2: an absolute target wins over Host. Both must be sound.
        for authority in [self.host, authority].into_iter().flatten() {
            check_authority(authority)?;
        }
        let method_name = method;
        let method = Method::of(method_name);
        let hop_limit = self.hop_limit(method)?;
        let announces_body = self.codings > 0 || self.lengths > 0;
        let has_body = announces_body && !body.is_done();
        Ok(Request {
            method_name,
            method,
            path,
            authority: authority.or(self.host),
            fields,
            body,
            announces_body,
            version,
            keep_alive: if is_1_0 { self.keep_alive && !self.close } else { !self.close },
            // With a body, the bytes behind it could be read as either protocol.
            upgrade: self
                .upgrade
                .filter(|to| self.names_upgrade && !is_1_0 && !has_body && list(to).all(is_upgradable)),
            expects_continue: !is_1_0 && self.expect.is_some_and(|e| e.eq_ignore_ascii_case(b"100-continue")),
            hop_limit,
            accepts_trailers: self.accepts_trailers,
            named_hops: self.named_hops,
        })
    }

    fn hop_limit(&self, method: Method) -> Result<HopLimit, Rejection> {
        if !matches!(method, Method::Options | Method::Trace) {
            return Ok(HopLimit::Unlimited);
        }
        match self.max_forwards[..] {
            [] => Ok(HopLimit::Unlimited),
            [value] => match number(value).ok_or(Rejection::Malformed("Max-Forwards is not a number"))? {
                0 if method == Method::Trace => Err(Rejection::MethodNotAllowed),
                0 => Ok(HopLimit::EndsHere),
                left => Ok(HopLimit::Left(left - 1)),
            },
            [_, _, ..] => Err(Rejection::Malformed("more than one Max-Forwards")),
        }
    }

    /// How the body is framed (RFC 9112 6.1 and 6.3), without the leniency that smuggling lives on.
    fn framing(&self, version: HttpVersion) -> Result<BodyDecoder, Rejection> {
        match (self.lengths, self.codings) {
            (0, 0) => Ok(BodyDecoder::Length(0)),
            (1, 0) => Ok(BodyDecoder::Length(self.length.unwrap_or(0))),
            (0, 1) if version == HttpVersion::Http10 => Err(Rejection::Malformed("Transfer-Encoding in HTTP/1.0")),
            (0, 1) if self.is_chunked => Ok(BodyDecoder::Chunked(ChunkState::Size)),
            (0, 1) if self.is_coded => Err(Rejection::NotImplemented("a Transfer-Encoding other than chunked")),
            (0, _) => Err(Rejection::Malformed("a Transfer-Encoding other than chunked")),
            (_, 0) => Err(Rejection::Malformed("more than one Content-Length")),
            (_, _) => Err(Rejection::Malformed("Content-Length beside Transfer-Encoding")),
        }
    }
}

/// Whether a `Transfer-Encoding` is sound and names other codings before the last, which is `chunked` (RFC 9112 6.1).
fn is_coded(value: &[u8]) -> bool {
    let Some((others, last)) = ascii(value).and_then(|value| value.rsplit_once(',')) else { return false };
    let is_other = |coding: &str| is_token(coding.as_bytes()) && !coding.eq_ignore_ascii_case("chunked");
    let mut others = others.split(',').map(|coding| coding.trim_matches([' ', '\t']));
    last.trim_start_matches([' ', '\t']).eq_ignore_ascii_case("chunked") && others.all(is_other)
}

/// Whether it is `name [ "/" version ]` (RFC 9110 7.8). HTTP under another name, or within TLS (RFC 2817), would lead
/// past every check.
fn is_upgradable(protocol: &str) -> bool {
    let (name, version) = protocol.split_once('/').unwrap_or((protocol, "1"));
    let is_http = ["h2c", "h2", "http", "tls"].iter().any(|http| name.eq_ignore_ascii_case(http));
    is_token(name.as_bytes()) && is_token(version.as_bytes()) && !is_http
}

#[cfg(test)]
mod tests {
    use crate::http1::request::*;

    fn parse<T>(head: &str, then: impl FnOnce(Result<&Request<'_>, Rejection>) -> T) -> T {
        let mut storage = HeaderStorage::new();
        then(Request::parse(head.as_bytes(), &mut storage).as_ref().map_err(|rejection| *rejection))
    }

    #[test]
    fn a_redirect_keeps_host_and_path_and_takes_the_port() {
        for (target, host, port, want) in [
            ("/a?b=c", "app.example", 443, "https://app.example/a?b=c"),
            ("/", "app.example:8080", 443, "https://app.example/"),
            ("/", "app.example:8080", 8443, "https://app.example:8443/"),
            ("/", "app.example:", 443, "https://app.example/"),
            ("/", "[::1]:8080", 8443, "https://[::1]:8443/"),
            ("http://other.example:8080/x", "app.example", 443, "https://other.example/x"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let url = parse(&head, |request| request.expect("a sound request").secure_url(port));
            assert_eq!(url.as_deref(), Some(want));
        }
        let nameless = "GET / HTTP/1.0\r\n\r\n";
        assert_eq!(parse(nameless, |request| request.expect("a sound request").secure_url(443)), None);
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for (case, fields) in [
            ("two lengths", "Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n"),
            ("two equal lengths", "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n"),
            ("a list of lengths", "Host: a\r\nContent-Length: 1, 1\r\n"),
            ("a signed length", "Host: a\r\nContent-Length: +1\r\n"),
            ("a length and chunks", "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            ("chunks and a length", "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n"),
            ("chunked twice", "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            ("another coding", "Host: a\r\nTransfer-Encoding: gzip\r\n"),
            ("chunked in quotes", "Host: a\r\nTransfer-Encoding: \"chunked\"\r\n"),
            ("no host", "Accept: a\r\n"),
            ("two hosts", "Host: a\r\nHost: a\r\n"),
            ("an empty host", "Host:\r\n"),
            ("a host with a path", "Host: a/b\r\n"),
            ("a host with a user", "Host: b@a\r\n"),
            ("a port out of range", "Host: a:65536\r\n"),
            ("half an IPv6 address", "Host: [::1\r\n"),
            ("a space before the colon", "Host : a\r\n"),
            ("a folded line", "Host: a\r\nB: c\r\n d\r\n"),
            ("a bare CR", "Host: a\rB: c\r\n"),
            ("a NUL", "Host: a\r\nB: \0\r\n"),
        ] {
            let rejection = parse(&format!("GET / HTTP/1.1\r\n{fields}\r\n"), |request| request.err());
            assert!(matches!(rejection, Some(Rejection::Malformed(_))), "{case}: {rejection:?}");
        }
    }

    #[test]
    fn a_coding_below_the_chunks_is_told_from_a_malformed_one() {
        for (value, want) in [
            ("gzip, chunked", true),
            ("gzip ,\tdeflate,Chunked", true),
            ("gzip", false),
            ("chunked, gzip", false),
            ("chunked, chunked", false),
            (", chunked", false),
            ("g zip, chunked", false),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n");
            let rejection = parse(&head, |request| request.err()).expect("not sound");
            assert_eq!(matches!(rejection, Rejection::NotImplemented(_)), want, "{value}: {rejection:?}");
        }
    }

    #[test]
    fn targets_take_the_form_they_may() {
        let bad = Err(Rejection::Malformed("the request target is malformed"));
        for (case, method, target, want) in [
            ("origin form", "GET", "/a?b", Ok((Some("h"), "/a?b"))),
            ("absolute form", "GET", "http://b:8/a", Ok((Some("b:8"), "/a"))),
            ("absolute form without a path", "GET", "http://b", Ok((Some("b"), "/"))),
            ("absolute form of OPTIONS *", "OPTIONS", "http://b", Ok((Some("b"), "*"))),
            ("asterisk", "OPTIONS", "*", Ok((Some("h"), "*"))),
            ("asterisk of GET", "GET", "*", bad),
            ("neither", "GET", "a/b", bad),
            ("another scheme", "GET", "ftp://b/", bad),
            ("a query without a path", "GET", "http://b?c", Ok((Some("b"), "?c"))),
            ("a fragment", "GET", "/a#b", Err(Rejection::Malformed("the request target has a fragment"))),
            ("CONNECT", "CONNECT", "b:80", Err(Rejection::MethodNotAllowed)),
        ] {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            parse(&head, |request| assert_eq!(request.map(|r| (r.authority, r.path)), want, "{case}"));
        }
    }

    #[test]
    fn an_upgrade_needs_its_connection_option_and_no_body() {
        let upgrade = |head: &str| parse(head, |request| request.expect("a sound request").upgrade.is_some());
        assert!(upgrade("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
        assert!(!upgrade("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"));
        assert!(!upgrade("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"));
        assert!(!upgrade(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n"
        ));
    }
}
