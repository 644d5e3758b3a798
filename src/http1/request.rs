//! A client's request head: found, checked, and rebuilt for the upstream.
//!
//! Pure: bytes in, bytes out. Whatever two parsers could read differently is refused here, before a byte goes
//! upstream (RFC 9112 2.2, 3, 6; RFC 9110 7.2).

use std::mem::MaybeUninit;

use crate::http1::body::{BodyDecoder, ChunkState};
use crate::http1::buffer::Buffer;
use crate::http1::header::Field;
use crate::http1::target::{check_authority, split_port, split_target};
use crate::http2::{is_token, length};
use crate::proxy::connection::Version;
use crate::proxy::connection::preview;
use crate::proxy::fault::Fault;
use crate::routing::METHODS;

/// Header fields at most; one more is 431.
pub const FIELDS_MAX: usize = 100;

/// Empty lines before a request line that are forgiven (RFC 9112 2.2).
const EMPTY_LINES_MAX: usize = 2;

/// Room for the fields of one head, on the stack of whoever parses it.
pub struct HeaderStorage<'h> {
    pub(crate) headers: [MaybeUninit<httparse::Header<'h>>; FIELDS_MAX],
    pub(crate) meanings: [Field; FIELDS_MAX],
}

impl HeaderStorage<'_> {
    /// Empty; costs nothing to make.
    pub fn new() -> Self {
        HeaderStorage { headers: [const { MaybeUninit::uninit() }; FIELDS_MAX], meanings: [Field::Other; FIELDS_MAX] }
    }
}

/// The fields of a parsed head, each with what the proxy does with it.
#[derive(Clone, Copy)]
pub struct Fields<'h> {
    headers: &'h [httparse::Header<'h>],
    meanings: &'h [Field],
}

impl<'h> Fields<'h> {
    /// Works out the meanings of `headers`.
    pub fn new(headers: &'h [httparse::Header<'h>], meanings: &'h mut [Field; FIELDS_MAX]) -> Self {
        for (meaning, header) in meanings.iter_mut().zip(headers) {
            *meaning = Field::of(header.name);
        }
        Fields { headers, meanings }
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'h httparse::Header<'h>, Field)> {
        self.headers.iter().zip(self.meanings.iter().copied())
    }

    /// Values of the fields of that kind, in order.
    pub fn values(self, of: Field) -> impl Iterator<Item = &'h [u8]> {
        self.iter().filter(move |(_, field)| *field == of).map(|(header, _)| header.value)
    }
}

/// A line of a head ended with a bare LF.
#[derive(Debug)]
pub struct BareLineFeed;

/// Finds the end of a head while it arrives, without reading a byte twice.
#[derive(Default)]
pub struct HeadScanner {
    at: usize,
    line: usize,
    first_line: Option<usize>,
}

impl HeadScanner {
    /// The length of the head with its empty line, or `None` while it is incomplete. `input` is all that has arrived.
    ///
    /// # Errors
    /// [`BareLineFeed`]: RFC 9112 2.2 allows a recipient to take it for a line end, and some do not.
    pub fn end(&mut self, input: &[u8]) -> Result<Option<usize>, BareLineFeed> {
        while let Some(found) = memchr::memchr(b'\n', &input[self.at..]) {
            let end = self.at + found;
            if end == 0 || input[end - 1] != b'\r' {
                return Err(BareLineFeed);
            }
            let is_empty = self.line + 1 == end;
            self.first_line.get_or_insert(end - 1);
            (self.at, self.line) = (end + 1, end + 1);
            if is_empty {
                return Ok(Some(end + 1));
            }
        }
        self.at = input.len();
        Ok(None)
    }

    /// Where the first line ended.
    pub fn first_line(&self) -> Option<usize> {
        self.first_line
    }
}

/// How many bytes of empty lines `input` begins with, after `before` bytes of them.
///
/// # Errors
/// More empty lines than are forgiven.
pub fn empty_lines(input: &[u8], before: usize) -> Result<usize, Fault> {
    let mut at = 0;
    while input[at..].starts_with(b"\r\n") {
        at += 2;
        if before + at > EMPTY_LINES_MAX * 2 {
            return Err(Fault::BadRequest("too many empty lines before a request"));
        }
    }
    Ok(at)
}

/// The first line must end with a version; without one it would be HTTP/0.9.
///
/// # Errors
/// [`Fault::VersionUnknown`], [`Fault::BadRequest`]
pub fn check_version(line: &[u8]) -> Result<(), Fault> {
    match line {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1'] => Ok(()),
        [.., b' ', b'H', b'T', b'T', b'P', b'/', a, b'.', b] if a.is_ascii_digit() && b.is_ascii_digit() => {
            Err(Fault::VersionUnknown)
        }
        _ => Err(Fault::BadRequest("the request line is malformed")),
    }
}

/// A request head that passed every check.
pub struct Request<'h> {
    /// As sent.
    pub method: &'h str,
    /// Index into [`METHODS`].
    pub method_index: usize,
    /// What follows the authority: path and query, or `*`.
    pub path: &'h str,
    /// Host and port as the client named them; `None` only for HTTP/1.0.
    pub authority: Option<&'h str>,
    /// The fields as they came.
    pub fields: Fields<'h>,
    /// How the body is framed.
    pub body: BodyDecoder,
    /// Whether a body, even an empty one, was announced.
    announced: bool,
    /// The client speaks HTTP/1.0.
    pub is_1_0: bool,
    /// The client wants to keep the connection.
    pub keep_alive: bool,
    /// The protocol to upgrade to, where a tunnel may follow.
    pub upgrade: Option<&'h str>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether a preview's pass is kept from the application; set by whoever knows the service.
    pub hides_pass: bool,
    /// What is left of `Max-Forwards`, where that is counted.
    max_forwards: Option<u64>,
    trailers_welcome: bool,
    /// Names in `Connection` other than the usual ones.
    named_hops: Vec<&'h str>,
}

impl<'h> Request<'h> {
    /// Parses and checks a complete head.
    ///
    /// # Errors
    /// The [`Fault`] that answers it.
    pub fn parse(head: &'h [u8], space: &'h mut HeaderStorage<'h>) -> Result<Self, Fault> {
        let mut parsed = httparse::Request::new(&mut []);
        match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, &mut space.headers)
        {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Fault::BadRequest("the request head is malformed")),
            Err(httparse::Error::TooManyHeaders) => return Err(Fault::HeadTooLarge),
            Err(httparse::Error::HeaderName) => return Err(Fault::BadRequest("a header name is malformed")),
            Err(httparse::Error::HeaderValue) => return Err(Fault::BadRequest("a header value is malformed")),
            Err(_) => return Err(Fault::BadRequest("the request line is malformed")),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Fault::BadRequest("the request line is malformed"));
        };
        let fields = Fields::new(parsed.headers, &mut space.meanings);
        Checks::default().run(method, target, version == 0, fields)
    }

    /// The authority's host, without port and brackets.
    pub fn host(&self) -> &'h str {
        self.authority.map_or("", |authority| split_port(authority).0)
    }

    /// What it is routed by: the path, with its query.
    pub fn route(&self) -> &'h str {
        if self.path.starts_with('?') { "/" } else { self.path }
    }

    /// Whether `TE: trailers` goes on: it was said for this hop and not only passed along (RFC 9110 10.1.4). HTTP/2 has
    /// no `Connection` to say so with.
    fn passes_te(&self, version: Version) -> bool {
        let is_named = || self.named_hops.iter().any(|name| name.eq_ignore_ascii_case("te"));
        self.trailers_welcome && (version == Version::Http2 || is_named())
    }

    /// The names in `Connection` of fields that end here, trailers among them.
    pub fn named_hops(&self) -> &[&'h str] {
        &self.named_hops
    }

    /// The same over TLS, at `port`; `None` for a client that named no host.
    pub fn secure_url(&self, port: u16) -> Option<String> {
        let authority = self.authority?;
        let bare = match split_port(authority).1 {
            Some(port) => &authority[..authority.len() - port.len() - 1],
            None => authority,
        };
        let path = if self.path == "*" { "/" } else { self.path };
        Some(if port == 443 { format!("https://{bare}{path}") } else { format!("https://{bare}:{port}{path}") })
    }

    /// The value of a field that the proxy has no opinion about.
    pub fn value(&self, name: &str) -> Option<&'h [u8]> {
        self.fields.iter().map(|(header, _)| header).find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    /// Whether the method is one that changes nothing (RFC 9110 9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }

    /// Whether the method is one whose effect does not grow by repeating it (RFC 9110 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }
}

/// What is gathered while the fields are read once.
#[derive(Default)]
struct Checks<'h> {
    hosts: usize,
    host: Option<&'h str>,
    length: Option<u64>,
    lengths: usize,
    codings: usize,
    chunked: bool,
    /// In chunks of something that we cannot decode.
    coded: bool,
    close: bool,
    keep_alive: bool,
    upgrade_named: bool,
    upgrade: Option<&'h str>,
    expect: Option<&'h [u8]>,
    trailers_welcome: bool,
    named_hops: Vec<&'h str>,
    max_forwards: Vec<&'h [u8]>,
}

impl<'h> Checks<'h> {
    fn run(mut self, method: &'h str, target: &'h str, is_1_0: bool, fields: Fields<'h>) -> Result<Request<'h>, Fault> {
        for (header, field) in fields.iter() {
            self.read(field, header.value)?;
        }
        let body = self.framing(is_1_0)?;
        let (authority, path) = split_target(method, target)?;
        if self.hosts > 1 {
            return Err(Fault::BadRequest("more than one Host"));
        }
        if self.host.is_none() && !is_1_0 {
            return Err(Fault::BadRequest("no Host"));
        }
        // RFC 9112 3.2.2: an absolute target wins over Host. Both must be sound.
        for authority in [self.host, authority].into_iter().flatten() {
            check_authority(authority)?;
        }
        let max_forwards = self.hops_left(method)?;
        let announced = self.codings > 0 || self.lengths > 0;
        let has_body = announced && !body.is_done();
        Ok(Request {
            method,
            method_index: METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1),
            path,
            authority: authority.or(self.host),
            fields,
            body,
            announced,
            is_1_0,
            keep_alive: if is_1_0 { self.keep_alive && !self.close } else { !self.close },
            // With a body, the bytes behind it could be read as either protocol.
            upgrade: self
                .upgrade
                .filter(|to| self.upgrade_named && !is_1_0 && !has_body && list(to).all(is_upgradable)),
            expects_continue: !is_1_0 && self.expect.is_some_and(|e| e.eq_ignore_ascii_case(b"100-continue")),
            hides_pass: false,
            max_forwards,
            trailers_welcome: self.trailers_welcome,
            named_hops: self.named_hops,
        })
    }

    fn read(&mut self, field: Field, value: &'h [u8]) -> Result<(), Fault> {
        match field {
            Field::Host => {
                self.hosts += 1;
                self.host = Some(text(value).ok_or(Fault::BadRequest("Host is malformed"))?);
            }
            Field::ContentLength => {
                self.lengths += 1;
                self.length = Some(length(value).ok_or(Fault::BadRequest("Content-Length is not a number"))?);
            }
            Field::TransferEncoding => {
                self.codings += 1;
                self.chunked = value.eq_ignore_ascii_case(b"chunked");
                self.coded = is_coded(value);
            }
            Field::Connection => self.read_connection(value)?,
            Field::Upgrade => self.upgrade = text(value),
            Field::Expect => self.expect = Some(value),
            Field::Te => {
                self.trailers_welcome |=
                    text(value).is_some_and(|v| list(v).any(|c| c.eq_ignore_ascii_case("trailers")));
            }
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
            Field::MaxForwards => self.max_forwards.push(value),
        }
        Ok(())
    }

    /// How many may forward it after us (RFC 9110 7.6.2); `None` where nobody counts.
    fn hops_left(&self, method: &str) -> Result<Option<u64>, Fault> {
        if !matches!(method, "OPTIONS" | "TRACE") {
            return Ok(None);
        }
        match self.max_forwards[..] {
            [] => Ok(None),
            [value] => match number(value).ok_or(Fault::BadRequest("Max-Forwards is not a number"))? {
                0 if method == "TRACE" => Err(Fault::MethodRefused),
                0 => Err(Fault::EndsHere),
                left => Ok(Some(left - 1)),
            },
            [_, _, ..] => Err(Fault::BadRequest("more than one Max-Forwards")),
        }
    }

    fn read_connection(&mut self, value: &'h [u8]) -> Result<(), Fault> {
        let value = text(value).ok_or(Fault::BadRequest("Connection is malformed"))?;
        for name in list(value) {
            if name.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            } else if name.eq_ignore_ascii_case("close") {
                self.close = true;
            } else if name.eq_ignore_ascii_case("upgrade") {
                self.upgrade_named = true;
            } else if self.named_hops.len() < FIELDS_MAX {
                self.named_hops.push(name);
            } else {
                return Err(Fault::BadRequest("Connection names more fields than a request may have"));
            }
        }
        Ok(())
    }

    /// RFC 9112 6.1 and 6.3, without the leniency that smuggling lives on.
    fn framing(&self, is_1_0: bool) -> Result<BodyDecoder, Fault> {
        match (self.lengths, self.codings) {
            (0, 0) => Ok(BodyDecoder::Length(0)),
            (1, 0) => Ok(BodyDecoder::Length(self.length.unwrap_or(0))),
            (0, 1) if is_1_0 => Err(Fault::BadRequest("Transfer-Encoding in HTTP/1.0")),
            (0, 1) if self.chunked => Ok(BodyDecoder::Chunked(ChunkState::Size)),
            (0, 1) if self.coded => Err(Fault::NotImplemented("a Transfer-Encoding other than chunked")),
            (0, _) => Err(Fault::BadRequest("a Transfer-Encoding other than chunked")),
            (_, 0) => Err(Fault::BadRequest("more than one Content-Length")),
            (_, _) => Err(Fault::BadRequest("Content-Length beside Transfer-Encoding")),
        }
    }
}

/// What the proxy adds about the client; the same for every request of a connection.
pub struct Origin {
    /// The client's address as text.
    pub ip: String,
    /// Whether it is a trusted proxy.
    pub trusted: bool,
    /// The port the client connected to.
    pub port: u16,
    /// `http` or `https`
    pub scheme: &'static str,
    /// `Host` for an HTTP/1.0 client that named none.
    pub local: String,
    /// What the client speaks.
    pub version: Version,
}

/// The path, without a query, that a head asks for which [`write_head`] has written.
pub fn path_of(head: &[u8]) -> Option<&str> {
    let target = head.split(|&byte| byte == b' ').nth(1)?;
    let path = target.split(|&byte| byte == b'?').next()?;
    std::str::from_utf8(path).ok()
}

/// Writes the head that goes upstream.
pub fn write_head(out: &mut Buffer, request: &Request<'_>, origin: &Origin, request_id: &[u8], via: bool) {
    let authority = request.authority.unwrap_or(&origin.local);
    // RFC 9112 3.2.1: a path that was left out of an absolute target.
    let root = if request.path.starts_with('?') { "/" } else { "" };
    for part in [request.method, " ", root, request.path, " HTTP/1.1\r\nHost: ", authority, "\r\n"] {
        out.put(part.as_bytes());
    }
    for (header, field) in request.fields.iter() {
        let pass = match field {
            Field::Other | Field::Date | Field::ContentType | Field::Via | Field::Cookie => true,
            Field::MaxForwards => request.max_forwards.is_none(),
            Field::Expect => !request.is_1_0,
            Field::Claim => origin.trusted,
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
        if pass && !request.named_hops.iter().any(|name| name.eq_ignore_ascii_case(header.name)) {
            if field == Field::Cookie && request.hides_pass {
                preview::put_cookies(out, header.name, header.value);
            } else {
                put_field(out, header.name, header.value);
            }
        }
    }
    match (&request.body, request.announced) {
        (BodyDecoder::Chunked(_), _) => out.put(b"Transfer-Encoding: chunked\r\n"),
        (BodyDecoder::Length(length), true) => put_length(out, *length),
        (BodyDecoder::Length(_) | BodyDecoder::UntilClose, _) => {}
    }
    match (request.upgrade, request.passes_te(origin.version)) {
        (Some(protocol), _) => {
            out.put(b"Connection: Upgrade\r\n");
            put_field(out, "Upgrade", protocol.as_bytes());
        }
        (None, true) => out.put(b"Connection: te\r\nTE: trailers\r\n"),
        (None, false) => {}
    }
    if let Some(left) = request.max_forwards {
        put_field(out, "Max-Forwards", itoa::Buffer::new().format(left).as_bytes());
    }
    write_forwarding(out, request, origin, authority);
    put_field(out, "X-Request-Id", request_id);
    if via {
        out.put(match origin.version {
            Version::Http2 => b"Via: 2.0 cutover\r\n",
            Version::Http1 if request.is_1_0 => b"Via: 1.0 cutover\r\n",
            Version::Http1 => b"Via: 1.1 cutover\r\n",
        });
    }
    out.put(b"\r\n");
}

/// `X-Forwarded-*` and `Forwarded` (RFC 7239): what a trusted proxy said is continued, anybody else's is replaced.
fn write_forwarding(out: &mut Buffer, request: &Request<'_>, origin: &Origin, authority: &str) {
    out.put(b"X-Forwarded-For: ");
    put_claims(out, request, origin, Field::ForwardedFor);
    out.put(origin.ip.as_bytes());
    let mut digits = itoa::Buffer::new();
    for (name, field, own) in [
        ("\r\nX-Forwarded-Proto: ", Field::ForwardedProto, origin.scheme),
        ("\r\nX-Forwarded-Host: ", Field::ForwardedHost, authority),
        ("\r\nX-Forwarded-Port: ", Field::ForwardedPort, digits.format(origin.port)),
    ] {
        out.put(name.as_bytes());
        let claimed = if origin.trusted { request.fields.values(field).next() } else { None };
        out.put(claimed.unwrap_or(own.as_bytes()));
    }
    out.put(b"\r\nForwarded: ");
    put_claims(out, request, origin, Field::Forwarded);
    out.put(b"for=");
    if origin.ip.contains(':') {
        for part in ["\"[", &origin.ip, "]\""] {
            out.put(part.as_bytes());
        }
    } else {
        out.put(origin.ip.as_bytes());
    }
    for part in [";host=\"", authority, "\";proto=", origin.scheme, "\r\n"] {
        out.put(part.as_bytes());
    }
}

fn put_claims(out: &mut Buffer, request: &Request<'_>, origin: &Origin, field: Field) {
    if origin.trusted {
        for value in request.fields.values(field).filter(|value| !value.is_empty()) {
            out.put(value);
            out.put(b", ");
        }
    }
}

/// Writes one field line.
pub fn put_field(out: &mut Buffer, name: &str, value: &[u8]) {
    out.put(name.as_bytes());
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
}

/// Writes a `Content-Length`.
pub fn put_length(out: &mut Buffer, length: u64) {
    put_field(out, "Content-Length", itoa::Buffer::new().format(length).as_bytes());
}

/// Digits of any number, the largest of which count as `u64::MAX`.
fn number(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| value.iter().fold(0_u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// Whether a `Transfer-Encoding` is sound but for other codings before the last, which is `chunked` (RFC 9112 6.1).
fn is_coded(value: &[u8]) -> bool {
    let Some((others, last)) = text(value).and_then(|value| value.rsplit_once(',')) else { return false };
    let is_other = |coding: &str| is_token(coding.as_bytes()) && !coding.eq_ignore_ascii_case("chunked");
    let mut others = others.split(',').map(|coding| coding.trim_matches([' ', '\t']));
    last.trim_start_matches([' ', '\t']).eq_ignore_ascii_case("chunked") && others.all(is_other)
}

/// The members of a comma-separated list, without white space and empty ones (RFC 9110 5.6.1).
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
}

/// A value as text; `None` for anything but ASCII.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| text.is_ascii())
}

/// `name [ "/" version ]` (RFC 9110 7.8). HTTP under another name, or within TLS (RFC 2817), would lead past every
/// check.
fn is_upgradable(protocol: &str) -> bool {
    let (name, version) = protocol.split_once('/').unwrap_or((protocol, "1"));
    let is_http = ["h2c", "h2", "http", "tls"].iter().any(|http| name.eq_ignore_ascii_case(http));
    is_token(name.as_bytes()) && is_token(version.as_bytes()) && !is_http
}

#[cfg(test)]
mod tests {
    use crate::http1::request::*;

    fn parse<T>(head: &str, then: impl FnOnce(Result<&Request<'_>, Fault>) -> T) -> T {
        let mut space = HeaderStorage::new();
        then(Request::parse(head.as_bytes(), &mut space).as_ref().map_err(|fault| *fault))
    }

    fn rebuilt(head: &str, trusted: bool) -> String {
        let origin = Origin {
            ip: "192.0.2.7".into(),
            trusted,
            port: 8080,
            scheme: "http",
            local: "127.0.0.1:8080".into(),
            version: Version::Http1,
        };
        let mut out = Buffer::default();
        parse(head, |request| write_head(&mut out, request.expect("a sound request"), &origin, b"id", true));
        String::from_utf8(out.filled().to_vec()).expect("text")
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
            let fault = parse(&format!("GET / HTTP/1.1\r\n{fields}\r\n"), |request| request.err());
            assert!(matches!(fault, Some(Fault::BadRequest(_))), "{case}: {fault:?}");
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
            let fault = parse(&head, |request| request.err()).expect("not sound");
            assert_eq!(matches!(fault, Fault::NotImplemented(_)), want, "{value}: {fault:?}");
        }
    }

    #[test]
    fn targets_take_the_form_they_may() {
        let bad = Err(Fault::BadRequest("the request target is malformed"));
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
            ("a fragment", "GET", "/a#b", Err(Fault::BadRequest("the request target has a fragment"))),
            ("CONNECT", "CONNECT", "b:80", Err(Fault::MethodRefused)),
        ] {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            parse(&head, |request| assert_eq!(request.map(|r| (r.authority, r.path)), want, "{case}"));
        }
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

    #[test]
    fn a_head_is_found_however_it_arrives() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let mut scan = HeadScanner::default();
        let ends: Vec<_> = (1..=wire.len()).map(|seen| scan.end(&wire[..seen]).expect("no bare LF")).collect();
        let first = ends.iter().position(Option::is_some);
        assert_eq!(first, Some(wire.len() - 5), "found with its last byte");
        assert!(HeadScanner::default().end(b"GET / HTTP/1.1\nHost: a\n\n").is_err());
    }

    #[test]
    fn empty_lines_are_counted_however_they_arrive() {
        assert_eq!(empty_lines(b"\r\n\r\nGET", 0), Ok(4));
        assert_eq!(empty_lines(b"\r\nGET", 2), Ok(2));
        assert!(empty_lines(b"\r\n", 4).is_err());
    }

    #[test]
    fn a_request_line_needs_a_version() {
        assert_eq!(check_version(b"GET / HTTP/1.1"), Ok(()));
        assert_eq!(check_version(b"PRI * HTTP/2.0"), Err(Fault::VersionUnknown));
        assert!(matches!(check_version(b"GET /"), Err(Fault::BadRequest(_))));
        assert!(matches!(check_version(b"GET / HTTP/1.1 "), Err(Fault::BadRequest(_))));
    }
}
