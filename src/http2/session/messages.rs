//! Messages on their way out: HTTP/1 text, as the proxy has rebuilt it, becomes HEADERS frames.

use std::mem::MaybeUninit;

use crate::http2::Framing;
use crate::http2::hpack;
use crate::http2::session::Session;
use crate::http2::session::stream_io::StreamError;

/// Fields of a head that is written. The proxy passes on at most 100 and adds a few.
const FIELDS_MAX: usize = 128;

/// What follows a head that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterHead {
    /// Another head follows: this one was interim.
    Head,
    /// A body follows, framed as in the text. With [`Framing::None`] the message is complete.
    Body(Framing),
}

impl Session {
    /// Writes the head of a response.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn put_response(&mut self, at: usize, head: &[u8]) -> Result<AfterHead, StreamError> {
        let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, head, &mut storage) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(StreamError),
        }
        let status = parsed.code.ok_or(StreamError)?;
        let slot = &mut self.streams.slots[at];
        let is_tunnel = status == 101 && slot.framing == Framing::Tunnel;
        let is_interim = status < 200 && !is_tunnel;
        let framing = match framing_of(parsed.headers) {
            _ if is_tunnel => Framing::Tunnel,
            _ if is_interim || slot.is_head || matches!(status, 204 | 304) => Framing::None,
            Framing::Length(0) => Framing::None,
            framing => framing,
        };
        if slot.framing == Framing::Tunnel && !is_tunnel && !is_interim {
            (slot.framing, slot.left) = (Framing::None, None); // the tunnel was refused
        }
        let ends = framing == Framing::None && !is_interim;
        slot.is_answered = !is_interim;
        self.put_headers(at, ends, |out| {
            hpack::put_status(out, if is_tunnel { 200 } else { status });
            for header in parsed.headers.iter().filter(|header| is_passed_on(header.name)) {
                // RFC 8441 5: of the upgrade's own fields none is left.
                if !(is_tunnel && header.name.eq_ignore_ascii_case("sec-websocket-accept")) {
                    hpack::put_field(out, header.name.as_bytes(), header.value);
                }
            }
        })?;
        Ok(if is_interim { AfterHead::Head } else { AfterHead::Body(framing) })
    }

    /// Ends a gRPC call that failed with a status of gRPC, and a text that is ASCII without `%`. Returns `false` where
    /// the request is no gRPC call, or its response is complete.
    pub fn fail_grpc_call(&mut self, at: usize, code: u8, text: &str) -> bool {
        let slot = &mut self.streams.slots[at];
        if !slot.is_grpc {
            return false;
        }
        let is_answered = std::mem::replace(&mut slot.is_answered, true);
        let put = self.put_headers(at, true, |out| {
            if !is_answered {
                hpack::put_status(out, 200);
                hpack::put_field(out, b"content-type", b"application/grpc");
            }
            hpack::put_field(out, b"grpc-status", itoa::Buffer::new().format(code).as_bytes());
            hpack::put_field(out, b"grpc-message", text.as_bytes());
        });
        put.is_ok()
    }

    /// Writes the head of a request.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn put_request(&mut self, at: usize, head: &[u8]) -> Result<AfterHead, StreamError> {
        let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_request_with_uninit_headers(&mut parsed, head, &mut storage) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(StreamError),
        }
        let (Some(method), Some(path)) = (parsed.method, parsed.path) else { return Err(StreamError) };
        let framing = match framing_of(parsed.headers) {
            Framing::Length(0) => Framing::None,
            framing => framing,
        };
        let is = |header: &httparse::Header<'_>, name: &str| header.name.eq_ignore_ascii_case(name);
        let trailers_welcome = parsed.headers.iter().any(|header| is(header, "te"));
        let slot = &mut self.streams.slots[at];
        (slot.is_head, slot.trailers_welcome) = (method == "HEAD", trailers_welcome);
        self.put_headers(at, framing == Framing::None, |out| {
            hpack::put_field(out, b":method", method.as_bytes());
            hpack::put_field(out, b":scheme", b"http");
            if let Some(host) = parsed.headers.iter().find(|header| is(header, "host")) {
                hpack::put_field(out, b":authority", host.value);
            }
            hpack::put_field(out, b":path", path.as_bytes());
            if trailers_welcome {
                hpack::put_field(out, b"te", b"trailers");
            }
            let others = parsed.headers.iter().filter(|header| is_passed_on(header.name) && !is(header, "host"));
            others.for_each(|header| hpack::put_field(out, header.name.as_bytes(), header.value));
        })?;
        Ok(AfterHead::Body(framing))
    }

    /// Ends a message with trailers. `section` is their lines, with the empty line behind them.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn put_trailers(&mut self, at: usize, section: &[u8]) -> Result<(), StreamError> {
        let mut storage = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut storage) else {
            return Err(StreamError);
        };
        self.put_headers(at, true, |out| {
            fields.iter().for_each(|field| hpack::put_field(out, field.name.as_bytes(), field.value));
        })
    }

    /// Writes a field block, which `write` appends. With `ends`, nothing follows on the stream. A stream of our own
    /// gets its number here: numbers must grow in the order in which streams are opened (RFC 9113 5.1.1).
    fn put_headers(&mut self, at: usize, ends: bool, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), StreamError> {
        let slot = &self.streams.slots[at];
        if slot.is_reset || slot.local_ended {
            return Err(StreamError);
        }
        if self.streams.id(at) == 0 {
            self.streams.set_id(at, self.next_stream);
            self.next_stream += 2;
        }
        self.output.put_field_block(self.streams.id(at), ends, self.peer.frame_max, write);
        if ends {
            self.local_ended(at);
        }
        Ok(())
    }
}

/// Whether a field of HTTP/1 has a place in HTTP/2: what is about the connection has none (RFC 9113 8.2.2).
fn is_passed_on(name: &str) -> bool {
    let of_connection = ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "te"];
    !of_connection.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// How the body of a message comes. The text is our own, so a length and chunks never meet in it.
fn framing_of(fields: &[httparse::Header<'_>]) -> Framing {
    for field in fields {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Framing::Chunked;
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(field.value).ok().and_then(|digits| digits.parse().ok());
            return Framing::Length(length.unwrap_or(0));
        }
    }
    Framing::None
}
