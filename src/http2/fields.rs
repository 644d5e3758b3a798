//! Fields of HTTP/2 messages, checked, and written as the head of an HTTP/1 message (RFC 9113 8).
//!
//! What is malformed by RFC 9113 8.1.1 is found here, before a byte of it is text. What is well-formed HTTP/2 and yet
//! refused by the proxy (a Host that is none, a method it does not serve, a head that is too large) becomes text as it
//! is: whoever reads that text answers it as it answers everybody.

use super::hpack::ENTRY_OVERHEAD;

/// How many times as large as allowed a header list may be before it is taken for an attack: a small block can name
/// the same large entry thousands of times.
pub const BOMB: usize = 4;

/// Bytes of trailers at most.
const TRAILERS_MAX: usize = 8 * 1024;

/// Whether a `Content-Type` is that of a call of gRPC. gRPC-Web is another protocol, with its code in the body.
pub fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// What the message body looks like in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Bytes of another protocol, both ways, until each side ends.
    Tunnel,
}

/// Why fields could not be used; only the peer can have done it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// Malformed (RFC 9113 8.1.1).
    Malformed,
    /// So much larger than allowed that it can only be an attack.
    Bomb,
}

/// Text that is put together, kept between messages for its memory.
#[derive(Default)]
pub struct FieldScratch {
    pseudo: Vec<u8>,
    cookies: Vec<u8>,
}

/// What is common to the heads of requests and answers.
struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    text_max: usize,
    size: usize,
    malformed: bool,
    length: Option<u64>,
}

impl<'a> HeadWriter<'a> {
    fn new(out: &'a mut Vec<u8>, text_max: usize) -> Self {
        HeadWriter { start: out.len(), out, text_max, size: 0, malformed: false, length: None }
    }

    /// Whether it is longer than its reader takes. It stays without an end then, and that is how the reader finds it.
    fn is_too_long(&self) -> bool {
        self.out.len() - self.start >= self.text_max
    }

    fn put_line(&mut self, name: &[u8], value: &[u8]) {
        if !self.is_too_long() {
            for part in [name, b": ", value, b"\r\n"] {
                self.out.extend_from_slice(part);
            }
        }
    }

    /// Counts a field and checks it (RFC 9113 8.2.1, 8.2.2). Whether it may go on.
    fn takes(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.size += name.len() + value.len() + ENTRY_OVERHEAD;
        self.malformed |= !is_value(value) || (!name.starts_with(b":") && !is_name(name)) || is_of_connection(name);
        !self.malformed
    }

    fn read_length(&mut self, value: &[u8]) {
        match length(value) {
            Some(length) if self.length.is_none() => self.length = Some(length),
            Some(_) | None => self.malformed = true,
        }
    }

    fn put_framing(&mut self, framing: Framing) {
        match framing {
            Framing::Chunked => self.put_line(b"Transfer-Encoding", b"chunked"),
            Framing::Length(length) => self.put_line(b"Content-Length", itoa::Buffer::new().format(length).as_bytes()),
            Framing::None | Framing::Tunnel => {}
        }
    }

    fn end(self) -> Result<(), FieldError> {
        if self.size > self.text_max.saturating_mul(BOMB) {
            return Err(FieldError::Bomb);
        }
        if self.malformed {
            return Err(FieldError::Malformed);
        }
        if !self.is_too_long() {
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }
}

/// Where the pseudo-header fields of a request are in [`FieldScratch::pseudo`].
#[derive(Default)]
struct PseudoFields {
    method: Option<(usize, usize)>,
    scheme: Option<(usize, usize)>,
    authority: Option<(usize, usize)>,
    path: Option<(usize, usize)>,
    protocol: Option<(usize, usize)>,
}

/// A request's head while its fields come.
pub struct RequestFields<'a> {
    text: HeadWriter<'a>,
    scratch: &'a mut FieldScratch,
    pseudo: PseudoFields,
    is_begun: bool,
    is_grpc: bool,
}

/// What a request is, as far as its answer and its body depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSummary {
    /// How its body comes.
    pub framing: Framing,
    /// `HEAD`
    pub is_head: bool,
    /// A call of gRPC, which has its own way to fail.
    pub is_grpc: bool,
}

impl<'a> RequestFields<'a> {
    /// Appends to `out`; of more than `text_max` bytes only so much is written that the reader finds it too long.
    pub fn new(out: &'a mut Vec<u8>, scratch: &'a mut FieldScratch, text_max: usize) -> Self {
        scratch.pseudo.clear();
        scratch.cookies.clear();
        let text = HeadWriter::new(out, text_max);
        RequestFields { text, scratch, pseudo: PseudoFields::default(), is_begun: false, is_grpc: false }
    }

    /// Takes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.text.takes(name, value) {
            return;
        }
        if name.starts_with(b":") {
            return self.pseudo(name, value);
        }
        self.begin();
        match name {
            b"te" => {
                self.text.malformed |= !value.eq_ignore_ascii_case(b"trailers");
                self.text.put_line(name, value);
            }
            b"content-length" => self.text.read_length(value),
            b"content-type" => {
                self.is_grpc = is_grpc(value);
                self.text.put_line(name, value);
            }
            // RFC 9113 8.3.1: of two names for the same only one can be meant.
            b"host" => match self.part(self.pseudo.authority).map(|authority| authority.eq_ignore_ascii_case(value)) {
                Some(is_same) => self.text.malformed |= !is_same,
                None => self.text.put_line(name, value),
            },
            // RFC 9113 8.2.3
            b"cookie" => {
                if !self.scratch.cookies.is_empty() {
                    self.scratch.cookies.extend_from_slice(b"; ");
                }
                if self.scratch.cookies.len() <= self.text.text_max {
                    self.scratch.cookies.extend_from_slice(value);
                }
            }
            // The key is the upgrade's in HTTP/1, which is ours (RFC 8441 5).
            b"sec-websocket-key" if self.pseudo.protocol.is_some() => {}
            _ => self.text.put_line(name, value),
        }
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) {
        let place = match name {
            b":method" => &mut self.pseudo.method,
            b":scheme" => &mut self.pseudo.scheme,
            b":authority" => &mut self.pseudo.authority,
            b":path" => &mut self.pseudo.path,
            b":protocol" => &mut self.pseudo.protocol,
            _ => return self.text.malformed = true,
        };
        // RFC 9113 8.3: in front of the others, each once, and nothing in them that would be two words in HTTP/1.
        let is_word = value.iter().all(|&byte| byte > b' ' && byte != 0x7f);
        if place.is_some() || self.is_begun || !is_word {
            return self.text.malformed = true;
        }
        let start = self.scratch.pseudo.len();
        *place = Some((start, start + value.len()));
        if start <= self.text.text_max {
            self.scratch.pseudo.extend_from_slice(value);
        } else {
            *place = Some((start, start));
        }
    }

    fn part(&self, place: Option<(usize, usize)>) -> Option<&[u8]> {
        place.map(|(start, end)| &self.scratch.pseudo[start..end])
    }

    /// Writes the request line and `Host`, once all pseudo-header fields are there.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        let [method, scheme, authority, path, protocol] =
            [self.pseudo.method, self.pseudo.scheme, self.pseudo.authority, self.pseudo.path, self.pseudo.protocol]
                .map(|place| place.map(|(start, end)| &self.scratch.pseudo[start..end]));
        let (method, target) = match (method, scheme, path, protocol) {
            // RFC 9113 8.5: only whom to connect to.
            (Some(b"CONNECT"), None, None, None) => (&b"CONNECT"[..], authority.unwrap_or_default()),
            // RFC 8441 4
            (Some(b"CONNECT"), Some(_), Some(path), Some(to)) if is_token(to) && authority.is_some() => {
                (&b"GET"[..], path)
            }
            (Some(method), Some(_), Some(path), None) if method != b"CONNECT" => (method, path),
            _ => return self.text.malformed = true,
        };
        let is_path = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") || method == b"CONNECT";
        if !is_path || !is_token(method) || target.is_empty() || !scheme.is_none_or(is_scheme) {
            return self.text.malformed = true;
        }
        for part in [method, b" ", target, b" HTTP/1.1\r\n"] {
            self.text.out.extend_from_slice(part);
        }
        if let Some(authority) = authority {
            self.text.put_line(b"Host", authority);
        }
    }

    /// Writes what comes last. `ends`: there is no body.
    ///
    /// # Errors
    /// [`FieldError`]; what was written must be dropped.
    pub fn finish(mut self, ends: bool) -> Result<RequestSummary, FieldError> {
        if !self.text.malformed {
            self.begin();
        }
        let method = self.part(self.pseudo.method).unwrap_or_default();
        let is_head = method == b"HEAD";
        // HTTP/1 servers expect a length of those even where there is nothing (RFC 9110 8.6).
        let means_a_body = matches!(method, b"POST" | b"PUT" | b"PATCH");
        let framing = match (self.pseudo.protocol, ends, self.text.length) {
            (Some(_), false, None) => Framing::Tunnel,
            (Some(_), _, _) => {
                self.text.malformed = true;
                Framing::None
            }
            (None, true, None) if !means_a_body => Framing::None,
            (None, true, None | Some(0)) => Framing::Length(0),
            (None, true, Some(_)) => {
                self.text.malformed = true; // RFC 9113 8.1.1
                Framing::None
            }
            (None, false, Some(length)) => Framing::Length(length),
            (None, false, None) => Framing::Chunked,
        };
        if !self.scratch.cookies.is_empty() {
            self.text.put_line(b"cookie", &self.scratch.cookies);
        }
        self.text.put_framing(framing);
        if let (Framing::Tunnel, Some((start, end))) = (framing, self.pseudo.protocol) {
            let protocol = &self.scratch.pseudo[start..end];
            self.text.put_line(b"Connection", b"Upgrade");
            self.text.put_line(b"Upgrade", protocol);
            if protocol == b"websocket" {
                self.text.put_line(b"Sec-WebSocket-Key", &websocket_key());
            }
        }
        let is_grpc = self.is_grpc;
        self.text.end()?;
        Ok(RequestSummary { framing, is_head, is_grpc })
    }
}

/// An answer's head while its fields come.
pub struct ResponseFields<'a> {
    text: HeadWriter<'a>,
    status: Option<u16>,
    is_begun: bool,
}

/// What an answer is, as far as its body depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSummary {
    /// How its body comes.
    pub framing: Framing,
    /// Another head follows.
    pub is_interim: bool,
}

impl<'a> ResponseFields<'a> {
    /// As [`RequestFields::new`].
    pub fn new(out: &'a mut Vec<u8>, text_max: usize) -> Self {
        ResponseFields { text: HeadWriter::new(out, text_max), status: None, is_begun: false }
    }

    /// Takes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.text.takes(name, value) {
            return;
        }
        if name.starts_with(b":") {
            let is_status = name == b":status" && value.len() == 3 && matches!(value[0], b'1'..=b'9');
            match length(value) {
                Some(status) if is_status && !self.is_begun => {
                    self.is_begun = true;
                    self.status = u16::try_from(status).ok();
                    for part in [b"HTTP/1.1 ", value, b" \r\n"] {
                        self.text.out.extend_from_slice(part);
                    }
                }
                Some(_) | None => self.text.malformed = true,
            }
            return;
        }
        self.text.malformed |= !self.is_begun;
        match name {
            b"content-length" => self.text.read_length(value),
            b"te" => self.text.malformed = true, // RFC 9113 8.2.2: of requests only
            _ => self.text.put_line(name, value),
        }
    }

    /// As [`RequestFields::finish`]. `keep_trailers`: the body has to come in chunks, so that trailers can follow it.
    ///
    /// # Errors
    /// [`FieldError`]
    pub fn finish(mut self, ends: bool, is_head: bool, keep_trailers: bool) -> Result<ResponseSummary, FieldError> {
        let status = self.status.unwrap_or(0);
        let is_interim = (100..200).contains(&status);
        // RFC 9113 8.6: an upgrade is none of HTTP/2. 8.1: an interim answer ends nothing.
        self.text.malformed |= status == 0 || status == 101 || (is_interim && ends);
        let bodiless = is_head || is_interim || matches!(status, 204 | 304);
        let announced = self.text.length.map(Framing::Length);
        let framing = match (bodiless, ends, announced) {
            (true, _, _) => Framing::None,
            (false, true, None | Some(Framing::Length(0))) => Framing::Length(0),
            (false, true, Some(_)) => {
                self.text.malformed = true;
                Framing::None
            }
            (false, false, Some(announced)) if !keep_trailers => announced,
            (false, false, _) => Framing::Chunked,
        };
        match (is_head || status == 304, announced) {
            (true, Some(announced)) => self.text.put_framing(announced),
            _ => self.text.put_framing(framing),
        }
        self.text.end()?;
        Ok(ResponseSummary { framing, is_interim })
    }
}

/// Trailers while they come: written as the end of a chunked body, or only checked.
pub struct TrailerFields<'a> {
    text: HeadWriter<'a>,
}

impl<'a> TrailerFields<'a> {
    /// Appends to `out`, which has to end with the line of the last chunk.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        TrailerFields { text: HeadWriter::new(out, TRAILERS_MAX) }
    }

    /// Takes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        // RFC 9113 8.1: no pseudo-header fields.
        self.text.malformed |= name.starts_with(b":");
        if self.text.takes(name, value) {
            self.text.put_line(name, value);
        }
    }

    /// Ends them.
    ///
    /// # Errors
    /// [`FieldError`]; too many of them as well.
    pub fn finish(mut self) -> Result<(), FieldError> {
        self.text.malformed |= self.text.is_too_long();
        self.text.end()
    }
}

/// A field name in lower case (RFC 9113 8.2.1, RFC 9110 5.6.2).
fn is_name(name: &[u8]) -> bool {
    is_token(name) && !name.iter().any(u8::is_ascii_uppercase)
}

/// RFC 9110 5.6.2
pub fn is_token(text: &[u8]) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = (byte as u8).is_ascii_alphanumeric()
                || matches!(
                    byte as u8,
                    b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
                );
            byte += 1;
        }
        table
    };
    !text.is_empty() && text.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// RFC 9113 8.2.1, and no other control character than a tab (RFC 9110 5.5).
fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    !is_blank(value.first()) && !is_blank(value.last()) && !value.iter().any(is_control)
}

/// RFC 9113 8.2.2
fn is_of_connection(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade")
}

fn is_scheme(scheme: &[u8]) -> bool {
    scheme == b"https" || scheme == b"http"
}

/// A length as RFC 9110 8.6 has it: digits only, and few enough not to overflow anybody's integer.
pub fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// 16 random bytes in base64 (RFC 6455 4.1).
fn websocket_key() -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = fastrand::u128(..);
    let mut key = [b'='; 24];
    for (at, digit) in key[..22].iter_mut().enumerate() {
        // 21 digits of six bits; two bits are left for the last, at its upper end.
        let six = if at < 21 { bits >> (122 - at * 6) } else { bits << 4 };
        *digit = DIGITS[(six & 63) as usize];
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":path", "/a"), (":authority", "h")];

    fn request(fields: &[(&str, &str)], ends: bool) -> Result<(String, RequestSummary), FieldError> {
        let (mut out, mut scratch) = (Vec::new(), FieldScratch::default());
        let mut head = RequestFields::new(&mut out, &mut scratch, 1000);
        fields.iter().for_each(|(name, value)| head.field(name.as_bytes(), value.as_bytes()));
        let kind = head.finish(ends)?;
        Ok((String::from_utf8(out).unwrap(), kind))
    }

    fn answer(fields: &[(&str, &str)], ends: bool, is_head: bool) -> Result<(String, ResponseSummary), FieldError> {
        let mut out = Vec::new();
        let mut head = ResponseFields::new(&mut out, 1000);
        fields.iter().for_each(|(name, value)| head.field(name.as_bytes(), value.as_bytes()));
        let kind = head.finish(ends, is_head, false)?;
        Ok((String::from_utf8(out).unwrap(), kind))
    }

    #[test]
    fn a_request_becomes_text() {
        let post = [(":method", "POST"), (":path", "/a"), (":scheme", "https"), (":authority", "h:1")];
        let socket = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/s")];
        for (case, fields, ends, text, framing) in [
            ("nothing beside", GET.to_vec(), true, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", Framing::None),
            (
                "cookies in crumbs",
                [&GET[..], &[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]].concat(),
                true,
                "GET /a HTTP/1.1\r\nHost: h\r\nx: y\r\ncookie: a=b; c=d\r\n\r\n",
                Framing::None,
            ),
            (
                "the same host twice",
                [&GET[..], &[("host", "H")]].concat(),
                true,
                "GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
                Framing::None,
            ),
            (
                "host instead of an authority",
                [&GET[..3], &[("host", "g")]].concat(),
                true,
                "GET /a HTTP/1.1\r\nhost: g\r\n\r\n",
                Framing::None,
            ),
            (
                "a length",
                [&post[..], &[("content-length", "3")]].concat(),
                false,
                "POST /a HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\n\r\n",
                Framing::Length(3),
            ),
            (
                "no length",
                post.to_vec(),
                false,
                "POST /a HTTP/1.1\r\nHost: h:1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Framing::Chunked,
            ),
            (
                "no body where one is usual",
                post.to_vec(),
                true,
                "POST /a HTTP/1.1\r\nHost: h:1\r\nContent-Length: 0\r\n\r\n",
                Framing::Length(0),
            ),
            (
                "CONNECT",
                vec![(":method", "CONNECT"), (":authority", "h:1")],
                false,
                "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Framing::Chunked,
            ),
        ] {
            let (written, kind) = request(&fields, ends).expect(case);
            assert_eq!((&*written, kind.framing), (text, framing), "{case}");
        }
        let (written, kind) = request(&[&socket[..], &[(":authority", "h")]].concat(), false).unwrap();
        assert!(written.starts_with("GET /s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"));
        assert!(written.contains("\r\nSec-WebSocket-Key: ") && written.ends_with("==\r\n\r\n"), "{written}");
        assert_eq!(kind.framing, Framing::Tunnel);
    }

    #[test]
    fn a_malformed_request_is_never_text() {
        let with = |field: (&'static str, &'static str)| [&GET[..], &[field]].concat();
        for (case, fields) in [
            ("upper case", with(("X-Mine", "a"))),
            ("an empty name", with(("", "a"))),
            ("a name with a space", with(("x y", "a"))),
            ("a name with a colon", with(("x:y", "a"))),
            ("a value with a line end", with(("x", "a\r\nb: c"))),
            ("a value with a LF", with(("x", "a\nb"))),
            ("a value with a NUL", with(("x", "a\0b"))),
            ("a value that begins with a space", with(("x", " a"))),
            ("a value that ends with a tab", with(("x", "a\t"))),
            ("connection", with(("connection", "close"))),
            ("keep-alive", with(("keep-alive", "1"))),
            ("proxy-connection", with(("proxy-connection", "close"))),
            ("transfer-encoding", with(("transfer-encoding", "chunked"))),
            ("upgrade", with(("upgrade", "h2c"))),
            ("te other than trailers", with(("te", "gzip"))),
            ("another host", with(("host", "other"))),
            ("an unknown pseudo-header field", with((":mine", "a"))),
            ("an answer's pseudo-header field", with((":status", "200"))),
            ("a pseudo-header field twice", with((":path", "/b"))),
            ("a pseudo-header field behind another", [&GET[..3], &[("x", "y"), GET[3]]].concat()),
            ("a length and no body", with(("content-length", "3"))),
            ("two lengths", [&with(("content-length", "0"))[..], &[("content-length", "0")]].concat()),
            ("a length that is none", with(("content-length", "+0"))),
            ("no method", GET[1..].to_vec()),
            ("no scheme", [&GET[..1], &GET[2..]].concat()),
            ("no path", [&GET[..2], &GET[3..]].concat()),
            ("an empty path", [&GET[..2], &[(":path", ""), GET[3]]].concat()),
            ("a path that does not begin with a slash", [&GET[..2], &[(":path", "a")]].concat()),
            ("an absolute path", [&GET[..2], &[(":path", "http://h/")]].concat()),
            ("an asterisk for GET", [&GET[..2], &[(":path", "*")]].concat()),
            ("a path with a space", [&GET[..2], &[(":path", "/a b")]].concat()),
            ("a path with a line end", [&GET[..2], &[(":path", "/ HTTP/1.1\r\nx: y")]].concat()),
            ("a method with a space", [&[(":method", "GET /x")], &GET[1..]].concat()),
            ("an authority with a space", [&GET[..3], &[(":authority", "a b")]].concat()),
            ("another scheme", [&GET[..1], &[(":scheme", "ftp")], &GET[2..]].concat()),
            ("a protocol without CONNECT", with((":protocol", "websocket"))),
            ("CONNECT with a path", [&[(":method", "CONNECT")], &GET[1..]].concat()),
            ("CONNECT without an authority", vec![(":method", "CONNECT")]),
        ] {
            assert_eq!(request(&fields, true), Err(FieldError::Malformed), "{case}");
        }
    }

    #[test]
    fn a_head_that_is_too_long_is_cut_so_that_it_is_seen() {
        let large = "x".repeat(600);
        let (text, _) = request(&[&GET[..], &[("a", &large), ("b", &large), ("c", &large)]].concat(), true).unwrap();
        assert!((1000..2000).contains(&text.len()) && !text.contains("\r\n\r\n"), "{}", text.len());
        let many: Vec<_> = GET.into_iter().chain(std::iter::repeat_n(("a", &*large), 10)).collect();
        assert_eq!(request(&many, true), Err(FieldError::Bomb));
    }

    #[test]
    fn an_answer_becomes_text() {
        let chunked = "HTTP/1.1 200 \r\na: b\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (case, fields, ends, is_head, text, framing) in [
            ("no length", &[(":status", "200"), ("a", "b")][..], false, false, chunked, Framing::Chunked),
            (
                "nothing behind it, as with gRPC that failed at once",
                &[(":status", "200"), ("grpc-status", "5")],
                true,
                false,
                "HTTP/1.1 200 \r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n",
                Framing::Length(0),
            ),
            (
                "HEAD",
                &[(":status", "200"), ("content-length", "5")],
                true,
                true,
                "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n",
                Framing::None,
            ),
            (
                "interim",
                &[(":status", "103"), ("a", "b")],
                false,
                false,
                "HTTP/1.1 103 \r\na: b\r\n\r\n",
                Framing::None,
            ),
        ] {
            let (written, kind) = answer(fields, ends, is_head).expect(case);
            assert_eq!((&*written, kind.framing, kind.is_interim), (text, framing, case == "interim"), "{case}");
        }
        for (case, fields, ends) in [
            ("no status", &[("a", "b")][..], true),
            ("a status of four digits", &[(":status", "2000")], true),
            ("an upgrade", &[(":status", "101")], false),
            ("an interim answer that ends all", &[(":status", "103")], true),
            ("a length and nothing behind it", &[(":status", "200"), ("content-length", "1")], true),
            ("a request's pseudo-header field", &[(":status", "200"), (":path", "/")], true),
        ] {
            assert_eq!(answer(fields, ends, false), Err(FieldError::Malformed), "{case}");
        }
    }

    #[test]
    fn websocket_keys_are_sixteen_bytes_in_base64() {
        let key = websocket_key();
        assert!(
            key[..22].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')) && key.ends_with(b"==")
        );
        assert!(matches!(key[21], b'A' | b'Q' | b'g' | b'w'), "no bit beyond the sixteenth byte");
    }
}
