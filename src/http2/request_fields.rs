//! The fields of a request, checked, and written as the head of an HTTP/1 request (RFC 9113 8.3.1).

use std::ops::Range;

use super::head_writer::{FieldError, Framing, HeadWriter};
use crate::http1::grpc_status::is_grpc;
use crate::http1::syntax::is_token;

/// Text that is put together while fields come. It is kept between messages for its memory.
#[derive(Default)]
pub struct FieldScratch {
    /// The values of the pseudo-header fields, one behind the other.
    pseudo: Vec<u8>,
    cookies: Vec<u8>,
}

/// Where the value of each pseudo-header field is in [`FieldScratch::pseudo`].
#[derive(Default)]
struct PseudoFields {
    method: Option<Range<usize>>,
    scheme: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    path: Option<Range<usize>>,
    /// RFC 8441 4.
    protocol: Option<Range<usize>>,
}

/// Reads the fields of a request, one after the other.
pub struct RequestFields<'a> {
    head: HeadWriter<'a>,
    scratch: &'a mut FieldScratch,
    pseudo: PseudoFields,
    /// The request line is written, so that no pseudo-header field may follow.
    is_begun: bool,
    is_grpc: bool,
}

/// A request, as far as its response and its body depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSummary {
    pub framing: Framing,
    pub is_head: bool,
    /// The request is a gRPC call, which fails in its own way.
    pub is_grpc: bool,
}

impl<'a> RequestFields<'a> {
    /// Appends to `out`. Of more than `text_max` bytes only so much is written that the reader finds it too long.
    pub fn new(out: &'a mut Vec<u8>, scratch: &'a mut FieldScratch, text_max: usize) -> Self {
        scratch.pseudo.clear();
        scratch.cookies.clear();
        let head = HeadWriter::new(out, text_max);
        RequestFields { head, scratch, pseudo: PseudoFields::default(), is_begun: false, is_grpc: false }
    }

    /// Takes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.head.check(name, value) {
            return;
        }
        if name.starts_with(b":") {
            return self.pseudo_field(name, value);
        }
        self.begin();
        match name {
            b"te" => {
                self.head.is_malformed |= !value.eq_ignore_ascii_case(b"trailers");
                self.head.put_line(name, value);
            }
            b"content-length" => self.head.read_length(value),
            b"content-type" => {
                self.is_grpc = is_grpc(value);
                self.head.put_line(name, value);
            }
            // RFC 9113 8.3.1: of two names for the same only one can be meant.
            b"host" => match self.part(&self.pseudo.authority).map(|authority| authority.eq_ignore_ascii_case(value)) {
                Some(is_same) => self.head.is_malformed |= !is_same,
                None => self.head.put_line(name, value),
            },
            b"cookie" => self.add_cookie(value),
            // The upgrade of HTTP/1 has a key, which is made at the end (RFC 8441 5).
            b"sec-websocket-key" if self.pseudo.protocol.is_some() => {}
            _ => self.head.put_line(name, value),
        }
    }

    /// A client may send its cookies in several fields, which become one (RFC 9113 8.2.3).
    fn add_cookie(&mut self, value: &[u8]) {
        let cookies = &mut self.scratch.cookies;
        if !cookies.is_empty() {
            cookies.extend_from_slice(b"; ");
        }
        if cookies.len() <= self.head.text_max {
            cookies.extend_from_slice(value);
        }
    }

    fn pseudo_field(&mut self, name: &[u8], value: &[u8]) {
        let place = match name {
            b":method" => &mut self.pseudo.method,
            b":scheme" => &mut self.pseudo.scheme,
            b":authority" => &mut self.pseudo.authority,
            b":path" => &mut self.pseudo.path,
            b":protocol" => &mut self.pseudo.protocol,
            _ => return self.head.is_malformed = true,
        };
        // RFC 9113 8.3: they stand in front of the other fields, each once. A blank in them would make two words in the
        // request line of HTTP/1.
        let is_word = value.iter().all(|&byte| byte > b' ' && byte != 0x7f);
        if place.is_some() || self.is_begun || !is_word {
            return self.head.is_malformed = true;
        }
        let start = self.scratch.pseudo.len();
        // Past the limit the text is refused in any case, so the value is not kept.
        let is_kept = start <= self.head.text_max;
        *place = Some(start..start + if is_kept { value.len() } else { 0 });
        if is_kept {
            self.scratch.pseudo.extend_from_slice(value);
        }
    }

    fn part(&self, place: &Option<Range<usize>>) -> Option<&[u8]> {
        place.clone().map(|range| &self.scratch.pseudo[range])
    }

    /// Writes the request line and `Host`, once all pseudo-header fields are there.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        let PseudoFields { method, scheme, authority, path, protocol } = &self.pseudo;
        let [method, scheme, authority, path, protocol] = [method, scheme, authority, path, protocol]
            .map(|place| place.clone().map(|range| &self.scratch.pseudo[range]));
        let (method, target) = match (method, scheme, path, protocol) {
            // RFC 9113 8.5: it names only whom to connect to.
            (Some(b"CONNECT"), None, None, None) => (&b"CONNECT"[..], authority.unwrap_or_default()),
            // RFC 8441 4
            (Some(b"CONNECT"), Some(_), Some(path), Some(to)) if is_token(to) && authority.is_some() => {
                (&b"GET"[..], path)
            }
            (Some(method), Some(_), Some(path), None) if method != b"CONNECT" => (method, path),
            _ => return self.head.is_malformed = true,
        };
        let is_path = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") || method == b"CONNECT";
        if !is_path || !is_token(method) || target.is_empty() || !scheme.is_none_or(is_scheme) {
            return self.head.is_malformed = true;
        }
        for part in [method, b" ", target, b" HTTP/1.1\r\n"] {
            self.head.out.extend_from_slice(part);
        }
        if let Some(authority) = authority {
            self.head.put_line(b"Host", authority);
        }
    }

    /// Writes what comes last. With `ends`, there is no body.
    ///
    /// # Errors
    /// [`FieldError`]; what was written must be dropped.
    pub fn finish(mut self, ends: bool) -> Result<RequestSummary, FieldError> {
        if !self.head.is_malformed {
            self.begin();
        }
        let is_head = matches!(self.part(&self.pseudo.method), Some(b"HEAD"));
        let framing = self.framing(ends);
        self.head.is_malformed |= framing.is_none();
        let framing = framing.unwrap_or_default();
        if !self.scratch.cookies.is_empty() {
            self.head.put_line(b"cookie", &self.scratch.cookies);
        }
        self.head.put_framing(framing);
        if let (Framing::Tunnel, Some(range)) = (framing, self.pseudo.protocol) {
            let protocol = &self.scratch.pseudo[range];
            self.head.put_line(b"Connection", b"Upgrade");
            self.head.put_line(b"Upgrade", protocol);
            if protocol == b"websocket" {
                self.head.put_line(b"Sec-WebSocket-Key", &websocket_key());
            }
        }
        let is_grpc = self.is_grpc;
        self.head.finish()?;
        Ok(RequestSummary { framing, is_head, is_grpc })
    }

    /// How the body comes; `None` where the fields contradict the end of the stream (RFC 9113 8.1.1).
    fn framing(&self, ends: bool) -> Option<Framing> {
        // HTTP/1 servers expect a length of these methods even where there is nothing (RFC 9110 8.6).
        let means_a_body = matches!(self.part(&self.pseudo.method), Some(b"POST" | b"PUT" | b"PATCH"));
        match (self.pseudo.protocol.is_some(), ends, self.head.length) {
            (true, false, None) => Some(Framing::Tunnel),
            (true, _, _) => None,
            (false, true, None) if !means_a_body => Some(Framing::None),
            (false, true, None | Some(0)) => Some(Framing::Length(0)),
            (false, true, Some(_)) => None,
            (false, false, Some(length)) => Some(Framing::Length(length)),
            (false, false, None) => Some(Framing::Chunked),
        }
    }
}

fn is_scheme(scheme: &[u8]) -> bool {
    scheme == b"https" || scheme == b"http"
}

/// 16 random bytes in base64 (RFC 6455 4.1).
fn websocket_key() -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = fastrand::u128(..);
    let mut key = [b'='; 24];
    for (at, digit) in key[..22].iter_mut().enumerate() {
        // 21 digits hold six bits each. The last one holds the two that are left, at its upper end.
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
            ("a response's pseudo-header field", with((":status", "200"))),
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
    fn websocket_keys_are_sixteen_bytes_in_base64() {
        let key = websocket_key();
        assert!(
            key[..22].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')) && key.ends_with(b"==")
        );
        assert!(matches!(key[21], b'A' | b'Q' | b'g' | b'w'), "no bit beyond the sixteenth byte");
    }
}
