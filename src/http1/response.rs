//! An upstream's answer head: checked, and rebuilt for the client (RFC 9112 4, 6.3).
//!
//! Pure: bytes in, bytes out. An answer whose end two parsers could see in different places is not passed on.

use crate::domain::Color;
use crate::http1::body::{BodyDecoder, ChunkState};
use crate::http1::buffer::Buffer;
use crate::http1::grpc_status::GrpcStatus;
use crate::http1::header::Field;
use crate::http1::request::{FIELDS_MAX, Fields, HeaderStorage, list, put_field, put_length, text};
use crate::http2::{is_grpc, length};
use crate::proxy::connection::preview::{self, Note};
use crate::proxy::fault::Fault;

/// RFC 6797 6.1.
pub const HSTS: &str = "Strict-Transport-Security";

/// What must be known of the request to read its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// `HEAD`: the answer has no body, whatever it says.
    pub head: bool,
    /// An upgrade was passed on.
    pub upgrade: bool,
    /// The client speaks HTTP/1.0: no interim answers, no chunks.
    pub is_1_0: bool,
    /// What came of the preview's pass that it showed.
    pub preview: Option<Note>,
}

/// Why another color answers than the one that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// That one failed: `X-Cutover-Replayed`.
    Replayed(Color),
    /// That one does not have the file: `X-Cutover-Skew`.
    Skew(Color),
}

/// How the body goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As its bytes; a length was announced, or the close of the connection ends it.
    Plain,
    /// In chunks.
    Chunked,
}

/// What the proxy adds to a final answer.
pub struct Additions<'a> {
    /// Whether the client's connection is kept.
    pub keep_alive: bool,
    /// For an answer that has no `Date` (RFC 9110 6.6.1).
    pub date: &'a [u8],
    /// The color that answered in place of the one that serves.
    pub served_by: Option<ServedBy>,
    /// `Strict-Transport-Security`, unless the application has its own.
    pub hsts: Option<&'a str>,
    /// `Via` (RFC 9110 7.6.3), where that is wanted.
    pub via: Option<&'static str>,
}

/// An answer head that passed every check.
pub struct ResponseHead<'h> {
    /// 100 to 599.
    pub status: u16,
    reason: &'h str,
    fields: Fields<'h>,
    /// How the body is framed on the upstream's side.
    pub body: BodyDecoder,
    /// How it goes to the client.
    pub encoding: Encoding,
    /// The upstream keeps its connection open.
    pub keep_alive: bool,
    /// The upstream speaks HTTP/1.0.
    pub is_1_0: bool,
    length: Option<u64>,
    named_hops: Vec<&'h str>,
}

/// Takes a minor version higher than any known for the highest that is (RFC 9110 2.5).
pub fn lower_version(head: &mut [u8]) {
    if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9', b' ', ..] = head {
        *minor = b'1';
    }
}

impl<'h> ResponseHead<'h> {
    /// Parses and checks a complete head.
    ///
    /// # Errors
    /// [`Fault::AnswerUnreadable`]
    pub fn parse(head: &'h [u8], space: &'h mut HeaderStorage<'h>, asked: RequestInfo) -> Result<Self, Fault> {
        let mut parsed = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        // RFC 9112 5.1: removed by whoever passes it on.
        config.allow_spaces_after_header_name_in_responses(true);
        match config.parse_response_with_uninit_headers(&mut parsed, head, &mut space.headers) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(Fault::AnswerUnreadable("the head is malformed")),
        }
        let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
            return Err(Fault::AnswerUnreadable("the head is malformed"));
        };
        let fields = Fields::new(parsed.headers, &mut space.meanings);
        let mut answer = ResponseHead {
            status,
            reason: parsed.reason.unwrap_or(""),
            fields,
            body: BodyDecoder::UntilClose,
            encoding: Encoding::Plain,
            keep_alive: version == 1,
            is_1_0: version == 0,
            length: None,
            named_hops: Vec::new(),
        };
        answer.read_connection()?;
        answer.frame(asked)?;
        Ok(answer)
    }

    fn read_connection(&mut self) -> Result<(), Fault> {
        const MALFORMED: Fault = Fault::AnswerUnreadable("Connection is malformed");
        for value in self.fields.values(Field::Connection) {
            for name in list(text(value).ok_or(MALFORMED)?) {
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

    /// RFC 9112 6.3.
    fn frame(&mut self, asked: RequestInfo) -> Result<(), Fault> {
        const BAD_LENGTH: Fault =
            Fault::AnswerUnreadable("Content-Length is invalid or given twice with different values");
        if !(100..600).contains(&self.status) || (self.status == 101 && !asked.upgrade) {
            return Err(Fault::AnswerUnreadable("the status is not one that was requested"));
        }
        // A list of one length is that length.
        let lengths = self.fields.values(Field::ContentLength).flat_map(|value| value.split(|&byte| byte == b','));
        for value in lengths {
            let value = length(value.trim_ascii()).ok_or(BAD_LENGTH)?;
            if self.length.replace(value).is_some_and(|before| before != value) {
                return Err(BAD_LENGTH);
            }
        }
        let mut codings = self.fields.values(Field::TransferEncoding);
        let chunked = match (codings.next(), codings.next()) {
            (None, _) => false,
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && !self.is_1_0 => true,
            (Some(_), _) => return Err(Fault::AnswerUnreadable("a Transfer-Encoding other than chunked")),
        };
        if chunked && self.length.is_some() {
            return Err(Fault::AnswerUnreadable("Content-Length beside Transfer-Encoding"));
        }
        if self.status < 200 || self.status == 204 {
            self.length = None; // RFC 9110 8.6: must not be there
        }
        let bodiless = asked.head || self.status < 200 || self.status == 204 || self.status == 304;
        let to_client = if asked.is_1_0 { Encoding::Plain } else { Encoding::Chunked };
        (self.body, self.encoding) = match (bodiless, chunked, self.length) {
            (true, _, _) => (BodyDecoder::Length(0), Encoding::Plain),
            (false, true, _) => (BodyDecoder::Chunked(ChunkState::Size), to_client),
            (false, false, Some(length)) => (BodyDecoder::Length(length), Encoding::Plain),
            (false, false, None) => (BodyDecoder::UntilClose, to_client),
        };
        Ok(())
    }

    /// Whether only the close of the client's connection can end the body.
    pub fn ends_with_close(&self) -> bool {
        self.encoding == Encoding::Plain && !matches!(self.body, BodyDecoder::Length(_))
    }

    /// Whether it answers a call of gRPC, and how that ended if it is known already.
    pub fn call(&self) -> GrpcStatus {
        if !self.fields.values(Field::ContentType).any(is_grpc) {
            return GrpcStatus::NotACall;
        }
        let code = self.fields.iter().find(|(header, _)| header.name.eq_ignore_ascii_case("grpc-status"));
        GrpcStatus::answered(code.map(|(header, _)| header.value))
    }

    /// Whether it is an event stream, which a client that closed its side does not read any more.
    pub fn is_event_stream(&self) -> bool {
        let is = |value: &[u8]| value.len() >= 17 && value[..17].eq_ignore_ascii_case(b"text/event-stream");
        self.fields.values(Field::ContentType).any(is)
    }

    /// Whether its bytes are those of a compression, in which no line ends are to be seen.
    pub fn is_encoded(&self) -> bool {
        let mut codings = self.fields.iter().filter(|(header, _)| header.name.eq_ignore_ascii_case("content-encoding"));
        codings.any(|(header, _)| !header.value.eq_ignore_ascii_case(b"identity"))
    }

    /// The names in `Connection` of fields that end here, trailers among them.
    pub fn named_hops(&self) -> &[&'h str] {
        &self.named_hops
    }

    /// Whether a `101` changes to what `request` asks for, a head as it was written (RFC 9110 7.8).
    pub fn is_upgrade_of(&self, request: &[u8]) -> bool {
        const UPGRADE: &[u8] = b"\r\nUpgrade: ";
        let asked = memchr::memmem::find(request, UPGRADE).map_or(&b""[..], |at| &request[at + UPGRADE.len()..]);
        let asked = asked.split(|&byte| byte == b'\r').next().and_then(text).unwrap_or("");
        let is_asked = |protocol: &str| list(asked).any(|asked| asked.eq_ignore_ascii_case(protocol));
        let mut protocols = self.fields.values(Field::Upgrade).flat_map(|value| list(text(value).unwrap_or("?")));
        protocols.next().is_some_and(is_asked) && protocols.all(is_asked)
    }

    /// Whether a `101` changes to WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.fields.values(Field::Upgrade).any(|value| value.eq_ignore_ascii_case(b"websocket"))
    }

    /// Writes an interim answer (1xx), `101` included.
    pub fn write_interim(&self, out: &mut Buffer) {
        self.write_start(out, None);
        if self.status == 101 {
            self.write_upgrade(out);
        }
        out.put(b"\r\n");
    }

    fn write_upgrade(&self, out: &mut Buffer) {
        out.put(b"Connection: Upgrade\r\n");
        for protocol in self.fields.values(Field::Upgrade) {
            put_field(out, "Upgrade", protocol);
        }
    }

    /// Whether `Connection` names that field.
    fn ends_here(&self, name: &str) -> bool {
        self.named_hops.iter().any(|named| named.eq_ignore_ascii_case(name))
    }

    /// Writes the final answer's head.
    pub fn write_final(&self, out: &mut Buffer, asked: RequestInfo, extra: &Additions<'_>) {
        self.write_start(out, asked.preview);
        if !self.fields.iter().any(|(header, field)| field == Field::Date && !self.ends_here(header.name)) {
            put_field(out, "Date", extra.date);
        }
        if let Some(via) = extra.via {
            put_field(out, "Via", via.as_bytes());
        }
        match extra.served_by {
            Some(ServedBy::Replayed(color)) => put_field(out, "X-Cutover-Replayed", color.as_str().as_bytes()),
            Some(ServedBy::Skew(color)) => put_field(out, "X-Cutover-Skew", color.as_str().as_bytes()),
            None => {}
        }
        if let Some(note) = asked.preview {
            let vary = self.fields.iter().filter(|(header, _)| header.name.eq_ignore_ascii_case("vary"));
            note.write(out, vary.map(|(header, _)| header.value));
        }
        if let Some(hsts) = extra.hsts
            && !self.fields.iter().any(|(header, _)| header.name.eq_ignore_ascii_case(HSTS))
        {
            put_field(out, HSTS, hsts.as_bytes());
        }
        match (self.encoding, self.length) {
            (Encoding::Chunked, _) => out.put(b"Transfer-Encoding: chunked\r\n"),
            (Encoding::Plain, Some(length)) => put_length(out, length),
            (Encoding::Plain, None) => {}
        }
        // RFC 9110 15.5.22: an upgrade is what it asks for, and we pass those on.
        if self.status == 426 && self.fields.values(Field::Upgrade).next().is_some() {
            self.write_upgrade(out);
        }
        match (extra.keep_alive, asked.is_1_0) {
            (false, _) => out.put(b"Connection: close\r\n"),
            (true, true) => out.put(b"Connection: keep-alive\r\n"),
            (true, false) => {}
        }
        out.put(b"\r\n");
    }

    fn write_start(&self, out: &mut Buffer, preview: Option<Note>) {
        let mut digits = itoa::Buffer::new();
        for part in ["HTTP/1.1 ", digits.format(self.status), " ", self.reason, "\r\n"] {
            out.put(part.as_bytes());
        }
        for (header, field) in self.fields.iter() {
            let pass = match field {
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
                | Field::Dangerous => preview.is_none() || !preview::is_for_caches(header.name),
            };
            if pass && !self.ends_here(header.name) {
                put_field(out, header.name, header.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::response::*;

    const GET: RequestInfo = RequestInfo { head: false, upgrade: false, is_1_0: false, preview: None };

    fn framing(head: &str, asked: RequestInfo) -> Result<(BodyDecoder, Encoding), Fault> {
        let mut space = HeaderStorage::new();
        ResponseHead::parse(head.as_bytes(), &mut space, asked).map(|answer| (answer.body, answer.encoding))
    }

    #[test]
    fn the_end_of_an_answer_is_where_the_rfc_says() {
        let chunked = BodyDecoder::Chunked(ChunkState::Size);
        let old = RequestInfo { is_1_0: true, ..GET };
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
                RequestInfo { head: true, ..GET },
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
    fn an_unclear_answer_is_not_passed_on() {
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
            let fault = framing(&format!("{head}\r\n"), GET);
            assert!(matches!(fault, Err(Fault::AnswerUnreadable(_))), "{case}: {fault:?}");
        }
    }

    #[test]
    fn the_head_is_rebuilt_without_what_is_about_the_connection() {
        let head = "HTTP/1.1 200 Fine\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nContent-Length: 5\r\nA: b\r\n\r\n";
        let mut space = HeaderStorage::new();
        let answer = ResponseHead::parse(head.as_bytes(), &mut space, GET).expect("a sound answer");
        let mut out = Buffer::default();
        let extra = Additions { keep_alive: false, date: b"now", served_by: None, hsts: None, via: None };
        answer.write_final(&mut out, GET, &extra);
        let want = "HTTP/1.1 200 Fine\r\nA: b\r\nDate: now\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(out.filled()), want);
    }

    #[test]
    fn the_head_has_what_every_answer_has() {
        let final_head = |head: &str| {
            let mut space = HeaderStorage::new();
            let answer = ResponseHead::parse(head.as_bytes(), &mut space, GET).expect("a sound answer");
            let extra =
                Additions { keep_alive: true, date: b"now", served_by: None, hsts: None, via: Some("1.0 cutover") };
            let mut out = Buffer::default();
            answer.write_final(&mut out, GET, &extra);
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
