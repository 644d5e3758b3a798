//! An upstream's response head: checked, and rebuilt for the client (RFC 9112 4, 6.3).
//!
//! A response whose end two parsers could see in different places is not passed on.

use crate::http1::body::{BodyDecoder, ChunkState};
use crate::http1::buffer::Buffer;
use crate::http1::caching;
use crate::http1::fields::{FIELDS_MAX, FieldLine, Fields, HeaderStorage, put_field, put_length};
use crate::http1::grpc_status::{GrpcStatus, is_grpc};
use crate::http1::header::Field;
use crate::http1::reject::MalformedResponse;
use crate::http1::syntax::{ascii, length, list};
use crate::http1::version::HttpVersion;

/// The field that has a browser come back over TLS only (RFC 6797 6.1).
pub const HSTS: &str = "Strict-Transport-Security";

/// What has to be known of a request to read its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The method is HEAD, so the response has no body, whatever it says.
    pub is_head: bool,
    /// An upgrade was passed on.
    pub is_upgrade: bool,
    /// The version in which the client has sent the request.
    pub version: HttpVersion,
}

/// How a body goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As its bytes. A length was announced, or the close of the connection ends it.
    Plain,
    /// In chunks.
    Chunked,
}

/// What the proxy adds to a final response.
pub struct Additions<'a> {
    /// Whether the client's connection is kept.
    pub keep_alive: bool,
    /// The `Date` of a response that has none (RFC 9110 6.6.1).
    pub date: &'a [u8],
    /// Says that another color than the active one has answered, and why.
    pub served_by: Option<FieldLine<'a>>,
    /// Says what came of a preview pass. Such a response is kept out of caches.
    pub preview: Option<FieldLine<'a>>,
    /// The value of [`HSTS`], unless the application has its own.
    pub hsts: Option<&'a str>,
    /// The value of `Via` (RFC 9110 7.6.3), where that is wanted.
    pub via: Option<&'static str>,
}

/// A response head that passed every check.
pub struct ResponseHead<'h> {
    /// 100 to 599.
    pub status: u16,
    reason: &'h str,
    fields: Fields<'h>,
    /// How the body is framed on the upstream's side.
    pub body: BodyDecoder,
    /// How the body goes to the client.
    pub encoding: Encoding,
    /// The upstream keeps its connection open.
    pub keep_alive: bool,
    /// HTTP/1.0 or HTTP/1.1, as the status line says.
    pub version: HttpVersion,
    length: Option<u64>,
    named_hops: Vec<&'h str>,
}

/// Takes a minor version higher than any known for the highest that is known (RFC 9110 2.5).
pub fn lower_version(head: &mut [u8]) {
    if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9', b' ', ..] = head {
        *minor = b'1';
    }
}

impl<'h> ResponseHead<'h> {
    /// Parses and checks a complete head.
    ///
    /// # Errors
    /// [`MalformedResponse`]
    pub fn parse(
        head: &'h [u8],
        storage: &'h mut HeaderStorage<'h>,
        request: RequestInfo,
    ) -> Result<Self, MalformedResponse> {
        const BAD_HEAD: MalformedResponse = MalformedResponse("the head is malformed");
        let mut parsed = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        // RFC 9112 5.1: a proxy removes the space.
        config.allow_spaces_after_header_name_in_responses(true);
        match config.parse_response_with_uninit_headers(&mut parsed, head, &mut storage.headers) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(BAD_HEAD),
        }
        let (Some(status), Some(version)) = (parsed.code, parsed.version) else { return Err(BAD_HEAD) };
        let fields = Fields::new(parsed.headers, &mut storage.kinds);
        let mut response = ResponseHead {
            status,
            reason: parsed.reason.unwrap_or(""),
            fields,
            body: BodyDecoder::UntilClose,
            encoding: Encoding::Plain,
            keep_alive: version == 1,
            version: if version == 0 { HttpVersion::Http10 } else { HttpVersion::Http11 },
            length: None,
            named_hops: Vec::new(),
        };
        response.read_connection()?;
        response.frame(request)?;
        Ok(response)
    }

    fn read_connection(&mut self) -> Result<(), MalformedResponse> {
        const MALFORMED: MalformedResponse = MalformedResponse("Connection is malformed");
        for value in self.fields.values(Field::Connection) {
            for name in list(ascii(value).ok_or(MALFORMED)?) {
                if name.eq_ignore_ascii_case("close") {
                    self.keep_alive = false;
                } else if self.named_hops.len() == FIELDS_MAX {
                    return Err(MALFORMED);
                } else if !name.eq_ignore_ascii_case("keep-alive") {
                    self.named_hops.push(name);
                }
            }
        }
        Ok(())
    }

    /// Finds out how the body is framed (RFC 9112 6.3).
    fn frame(&mut self, request: RequestInfo) -> Result<(), MalformedResponse> {
        if !(100..600).contains(&self.status) || (self.status == 101 && !request.is_upgrade) {
            return Err(MalformedResponse("the status is not one that was requested"));
        }
        self.read_length()?;
        let is_chunked = self.is_chunked()?;
        if is_chunked && self.length.is_some() {
            return Err(MalformedResponse("Content-Length beside Transfer-Encoding"));
        }
        if self.status < 200 || self.status == 204 {
            self.length = None; // RFC 9110 8.6: it must not be there
        }
        let has_no_body = request.is_head || self.status < 200 || self.status == 204 || self.status == 304;
        let to_client = if request.version == HttpVersion::Http10 { Encoding::Plain } else { Encoding::Chunked };
        (self.body, self.encoding) = match (has_no_body, is_chunked, self.length) {
            (true, _, _) => (BodyDecoder::Length(0), Encoding::Plain),
            (false, true, _) => (BodyDecoder::Chunked(ChunkState::Size), to_client),
            (false, false, Some(length)) => (BodyDecoder::Length(length), Encoding::Plain),
            (false, false, None) => (BodyDecoder::UntilClose, to_client),
        };
        Ok(())
    }

    fn read_length(&mut self) -> Result<(), MalformedResponse> {
        const BAD_LENGTH: MalformedResponse =
            MalformedResponse("Content-Length is invalid or given twice with different values");
        // A list of one length is that length.
        let lengths = self.fields.values(Field::ContentLength).flat_map(|value| value.split(|&byte| byte == b','));
        for value in lengths {
            let value = length(value.trim_ascii()).ok_or(BAD_LENGTH)?;
            if self.length.replace(value).is_some_and(|before| before != value) {
                return Err(BAD_LENGTH);
            }
        }
        Ok(())
    }

    fn is_chunked(&self) -> Result<bool, MalformedResponse> {
        let mut codings = self.fields.values(Field::TransferEncoding);
        let has_chunks = self.version != HttpVersion::Http10;
        match (codings.next(), codings.next()) {
            (None, _) => Ok(false),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && has_chunks => Ok(true),
            (Some(_), _) => Err(MalformedResponse("a Transfer-Encoding other than chunked")),
        }
    }

    /// Whether only the close of the client's connection can end the body.
    pub fn ends_with_close(&self) -> bool {
        self.encoding == Encoding::Plain && !matches!(self.body, BodyDecoder::Length(_))
    }

    /// What the head says of how a gRPC call ended.
    pub fn grpc_status(&self) -> GrpcStatus {
        if !self.fields.values(Field::ContentType).any(is_grpc) {
            return GrpcStatus::NotACall;
        }
        GrpcStatus::of_head(self.fields.named("grpc-status").next())
    }

    /// Whether it is an event stream. A client that closed its side does not read it any more.
    pub fn is_event_stream(&self) -> bool {
        let is = |value: &[u8]| value.len() >= 17 && value[..17].eq_ignore_ascii_case(b"text/event-stream");
        self.fields.values(Field::ContentType).any(is)
    }

    /// Whether the body is compressed or coded otherwise, so that no line ends can be seen in it.
    pub fn is_encoded(&self) -> bool {
        self.fields.named("content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    }

    /// The fields that `Connection` names. They end here, trailers among them.
    pub fn named_hops(&self) -> &[&'h str] {
        &self.named_hops
    }

    /// Whether a `101` changes to what `request` asks for, a head as it was written (RFC 9110 7.8).
    pub fn is_upgrade_of(&self, request: &[u8]) -> bool {
        const UPGRADE: &[u8] = b"\r\nUpgrade: ";
        let asked = memchr::memmem::find(request, UPGRADE).map_or(&b""[..], |at| &request[at + UPGRADE.len()..]);
        let asked = asked.split(|&byte| byte == b'\r').next().and_then(ascii).unwrap_or("");
        let is_asked = |protocol: &str| list(asked).any(|asked| asked.eq_ignore_ascii_case(protocol));
        let mut protocols = self.fields.values(Field::Upgrade).flat_map(|value| list(ascii(value).unwrap_or("?")));
        protocols.next().is_some_and(is_asked) && protocols.all(is_asked)
    }

    /// Whether a `101` changes to WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.fields.values(Field::Upgrade).any(|value| value.eq_ignore_ascii_case(b"websocket"))
    }

    /// Writes an interim response (1xx), `101` included.
    pub fn write_interim(&self, out: &mut Buffer) {
        self.put_start(out, None);
        if self.status == 101 {
            self.put_upgrade(out);
        }
        out.put(b"\r\n");
    }

    /// Writes the head of a final response.
    pub fn write_final(&self, out: &mut Buffer, request: RequestInfo, additions: &Additions<'_>) {
        self.put_start(out, additions.preview);
        self.put_additions(out, additions);
        match (self.encoding, self.length) {
            (Encoding::Chunked, _) => out.put(b"Transfer-Encoding: chunked\r\n"),
            (Encoding::Plain, Some(length)) => put_length(out, length),
            (Encoding::Plain, None) => {}
        }
        // RFC 9110 15.5.22: the field is what a 426 asks for, and upgrades are passed on.
        if self.status == 426 && self.fields.values(Field::Upgrade).next().is_some() {
            self.put_upgrade(out);
        }
        match (additions.keep_alive, request.version) {
            (false, _) => out.put(b"Connection: close\r\n"),
            (true, HttpVersion::Http10) => out.put(b"Connection: keep-alive\r\n"),
            (true, HttpVersion::Http11 | HttpVersion::Http2) => {}
        }
        out.put(b"\r\n");
    }

    fn put_additions(&self, out: &mut Buffer, additions: &Additions<'_>) {
        if !self.fields.iter().any(|(header, field)| field == Field::Date && !self.ends_here(header.name)) {
            put_field(out, "Date", additions.date);
        }
        if let Some(via) = additions.via {
            put_field(out, "Via", via.as_bytes());
        }
        if let Some(FieldLine { name, value }) = additions.served_by {
            put_field(out, name, value.as_bytes());
        }
        if let Some(mark) = additions.preview {
            caching::put_private(out, mark, self.fields.named("vary"));
        }
        if let Some(hsts) = additions.hsts
            && self.fields.named(HSTS).next().is_none()
        {
            put_field(out, HSTS, hsts.as_bytes());
        }
    }

    fn put_upgrade(&self, out: &mut Buffer) {
        out.put(b"Connection: Upgrade\r\n");
        for protocol in self.fields.values(Field::Upgrade) {
            put_field(out, "Upgrade", protocol);
        }
    }

    /// Whether `Connection` names that field.
    fn ends_here(&self, name: &str) -> bool {
        self.named_hops.iter().any(|named| named.eq_ignore_ascii_case(name))
    }

    /// Writes the status line and the fields that are passed on.
    fn put_start(&self, out: &mut Buffer, preview: Option<FieldLine<'_>>) {
        let mut digits = itoa::Buffer::new();
        for part in ["HTTP/1.1 ", digits.format(self.status), " ", self.reason, "\r\n"] {
            out.put(part.as_bytes());
        }
        for (header, field) in self.fields.iter() {
            let is_passed_on = match field {
                Field::Hop
                | Field::Connection
                | Field::ContentLength
                | Field::TransferEncoding
                | Field::Upgrade
                | Field::Preview
                | Field::Te => false,
                Field::Other
                | Field::Host
                | Field::Expect
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
                | Field::MaxForwards
                | Field::Cookie
                | Field::Dangerous => preview.is_none() || !caching::is_for_caches(header.name),
            };
            if is_passed_on && !self.ends_here(header.name) {
                put_field(out, header.name, header.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::response::*;

    const GET: RequestInfo = RequestInfo { is_head: false, is_upgrade: false, version: HttpVersion::Http11 };

    fn framing(head: &str, request: RequestInfo) -> Result<(BodyDecoder, Encoding), MalformedResponse> {
        let mut storage = HeaderStorage::new();
        ResponseHead::parse(head.as_bytes(), &mut storage, request).map(|response| (response.body, response.encoding))
    }

    #[test]
    fn the_end_of_a_response_is_where_the_rfc_says() {
        let chunked = BodyDecoder::Chunked(ChunkState::Size);
        let old = RequestInfo { version: HttpVersion::Http10, ..GET };
        for (case, head, asked, want) in [
            ("a length", "200 OK\r\nContent-Length: 5\r\n", GET, (BodyDecoder::Length(5), Encoding::Plain)),
            ("chunks", "200 OK\r\nTransfer-Encoding: chunked\r\n", GET, (chunked.clone(), Encoding::Chunked)),
            ("chunks for HTTP/1.0", "200 OK\r\nTransfer-Encoding: chunked\r\n", old, (chunked, Encoding::Plain)),
            ("nothing said", "200 OK\r\n", GET, (BodyDecoder::UntilClose, Encoding::Chunked)),
            ("204 with a length", "204 No\r\nContent-Length: 5\r\n", GET, (BodyDecoder::Length(0), Encoding::Plain)),
            ("304 with a length", "304 No\r\nContent-Length: 5\r\n", GET, (BodyDecoder::Length(0), Encoding::Plain)),
            (
                "HEAD",
                "200 OK\r\nContent-Length: 5\r\n",
                RequestInfo { is_head: true, ..GET },
                (BodyDecoder::Length(0), Encoding::Plain),
            ),
            (
                "equal lengths",
                "200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
                GET,
                (BodyDecoder::Length(5), Encoding::Plain),
            ),
            (
                "a list of one length",
                "200 OK\r\nContent-Length: 5, 5\r\n",
                GET,
                (BodyDecoder::Length(5), Encoding::Plain),
            ),
            (
                "a space before the colon",
                "200 OK\r\nContent-Length : 5\r\n",
                GET,
                (BodyDecoder::Length(5), Encoding::Plain),
            ),
        ] {
            assert_eq!(framing(&format!("HTTP/1.1 {head}\r\n"), asked), Ok(want), "{case}");
        }
    }

    #[test]
    fn an_unclear_response_is_not_passed_on() {
        for (case, head) in [
            ("different lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n"),
            ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n"),
            ("a list of different lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n"),
            ("a Connection that is no text", "HTTP/1.1 200 OK\r\nConnection: \u{e4}, close\r\n"),
            ("both framings", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n"),
            ("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n"),
            ("a 101 nobody asked for", "HTTP/1.1 101 OK\r\n"),
            ("a status out of range", "HTTP/1.1 999 OK\r\n"),
            ("another protocol", "FTP/1.1 200 OK\r\n"),
            ("a folded line", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n"),
        ] {
            let refused = framing(&format!("{head}\r\n"), GET);
            assert!(matches!(refused, Err(MalformedResponse(_))), "{case}: {refused:?}");
        }
    }

    #[test]
    fn the_head_is_rebuilt_without_what_is_about_the_connection() {
        let head = "HTTP/1.1 200 Fine\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nContent-Length: 5\r\nA: b\r\n\r\n";
        let mut storage = HeaderStorage::new();
        let response = ResponseHead::parse(head.as_bytes(), &mut storage, GET).expect("a sound response");
        let mut out = Buffer::default();
        let additions =
            Additions { keep_alive: false, date: b"now", served_by: None, preview: None, hsts: None, via: None };
        response.write_final(&mut out, GET, &additions);
        let want = "HTTP/1.1 200 Fine\r\nA: b\r\nDate: now\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(out.filled()), want);
    }

    #[test]
    fn the_head_has_what_every_response_has() {
        let final_head = |head: &str| {
            let mut storage = HeaderStorage::new();
            let response = ResponseHead::parse(head.as_bytes(), &mut storage, GET).expect("a sound response");
            let via = Some("1.0 cutover");
            let additions =
                Additions { keep_alive: true, date: b"now", served_by: None, preview: None, hsts: None, via };
            let mut out = Buffer::default();
            response.write_final(&mut out, GET, &additions);
            String::from_utf8(out.filled().to_vec()).expect("text")
        };
        let dateless = final_head(
            "HTTP/1.0 200 OK\r\nConnection: Date\r\nDate: then\r\nVia: 1.1 far\r\nContent-Length: 0\r\n\r\n",
        );
        let want = "HTTP/1.1 200 OK\r\nVia: 1.1 far\r\nDate: now\r\nVia: 1.0 cutover\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(dateless, want);
        let asks = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        let upgrade = format!("HTTP/1.1 426 Upgrade Required\r\n{asks}Content-Length: 0\r\n\r\n");
        assert!(final_head(&upgrade).contains(asks));
        assert!(!final_head(&upgrade.replace("426", "200")).contains("Upgrade:"));
    }
}
