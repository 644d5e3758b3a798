//! One end of an HTTP/2 connection that sends exactly the frames it is told to, for either side, over TLS or without.
//! Fields are sent as literals, and of what comes only that much of HPACK is read which the proxy writes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use tokio_rustls::rustls::{ClientConfig, ClientConnection, Stream};

use crate::harness::{PATIENCE, secured};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// `END_STREAM`, and `ACK` of SETTINGS and PING.
pub const END: u8 = 1;
/// `END_HEADERS`
pub const WHOLE: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The fields of a GET for `path`.
pub fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "app")]
}

/// A header block of literals.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| [vec![0], string(name.as_bytes()), string(value.as_bytes())].concat())
        .collect()
}

/// A string literal without Huffman code.
pub fn string(text: &[u8]) -> Vec<u8> {
    let mut rest = text.len();
    let mut out = vec![rest.min(127) as u8];
    if rest >= 127 {
        rest -= 127;
        while rest >= 128 {
            out.push(rest as u8 | 128);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    [&out, text].concat()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// Names and values, in order.
pub type Fields = Vec<(String, String)>;

/// One message: its heads (interim ones too) and trailers, each as its fields; how it ended.
#[derive(Debug, Default)]
pub struct Message {
    pub heads: Vec<Fields>,
    pub body: Vec<u8>,
    /// The code of RST_STREAM.
    pub reset: Option<u32>,
    /// It ended with END_STREAM.
    pub is_whole: bool,
}

impl Message {
    /// `:status` of the last head that has one.
    pub fn status(&self) -> u16 {
        let status = self.heads.iter().rev().find_map(|head| value(head, ":status"));
        status.unwrap_or_else(|| panic!("no status in {self:?}")).parse().unwrap()
    }

    /// A field of the last head, or of the trailers.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.heads.iter().rev().find_map(|head| value(head, name))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub fn value<'h>(head: &'h [(String, String)], name: &str) -> Option<&'h str> {
    head.iter().find(|(found, _)| found == name).map(|(_, value)| &**value)
}

/// One end of a connection.
pub struct Wire {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    buffer: Vec<u8>,
    messages: BTreeMap<u32, Message>,
    again: Option<Frame>,
    /// A header block that is not complete.
    block: Vec<u8>,
    /// The other side's settings.
    pub settings: Vec<(u16, u32)>,
}

impl Wire {
    /// An open connection on which nothing was said.
    pub fn of(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire {
            stream,
            tls: None,
            buffer: Vec::new(),
            messages: BTreeMap::new(),
            again: None,
            block: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// A client that has said nothing.
    pub fn connect(port: u16) -> Wire {
        Wire::of(TcpStream::connect(("127.0.0.1", port)).expect("a listening proxy"))
    }

    /// The same over TLS, with HTTP/2 agreed on.
    pub fn connect_over_tls(port: u16, config: &Arc<ClientConfig>) -> Wire {
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let secured = secured(port, "app.example", &Arc::new(config)).expect("a listening proxy").into_stream();
        assert_eq!(secured.conn.alpn_protocol(), Some(&b"h2"[..]));
        Wire { tls: Some(secured.conn), ..Wire::of(secured.sock) }
    }

    /// A client after the greetings of both sides.
    pub fn greeted(port: u16) -> Wire {
        Wire::with_settings(port, &[])
    }

    /// The same with settings of its own.
    pub fn with_settings(port: u16, settings: &[(u16, u32)]) -> Wire {
        Wire::connect(port).greet(settings)
    }

    /// Exchanges greetings.
    pub fn greet(mut self, settings: &[(u16, u32)]) -> Wire {
        self.raw(PREFACE).settings(settings);
        self.await_settings();
        self
    }

    /// Reads the other side's settings, acknowledges them and reads its acknowledgement.
    pub fn await_settings(&mut self) {
        let frame = self.frame(|frame| frame.kind == SETTINGS && frame.flags & END == 0).expect("settings");
        let pair = |pair: &[u8]| (u16::from_be_bytes([pair[0], pair[1]]), number(&pair[2..6]));
        self.settings = frame.payload.chunks(6).map(pair).collect();
        self.send(SETTINGS, END, 0, &[]);
        self.frame(|frame| frame.kind == SETTINGS && frame.flags & END != 0).expect("an acknowledgement");
    }

    pub fn setting(&self, id: u16) -> Option<u32> {
        self.settings.iter().find(|(found, _)| *found == id).map(|(_, value)| *value)
    }

    /// Sends bytes; an end of the connection shows when it is read.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.try_raw(bytes);
        self
    }

    /// Sends bytes, or not.
    pub fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => Stream::new(tls, &mut self.stream).write_all(bytes),
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read(piece),
            Some(tls) => Stream::new(tls, &mut self.stream).read(piece),
        }
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        self.raw(&frame(kind, flags, stream, payload))
    }

    pub fn settings(&mut self, settings: &[(u16, u32)]) -> &mut Self {
        let pair = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        self.send(SETTINGS, 0, 0, &settings.iter().flat_map(pair).collect::<Vec<u8>>())
    }

    /// Sends a whole header block.
    pub fn headers(&mut self, stream: u32, end: u8, fields: &[(&str, &str)]) -> &mut Self {
        self.send(HEADERS, WHOLE | end, stream, &block(fields))
    }

    pub fn window_update(&mut self, stream: u32, more: u32) -> &mut Self {
        self.send(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
    }

    pub fn reset(&mut self, stream: u32, code: u32) -> &mut Self {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    /// The next frame of any kind; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.again.take() {
            return Some(frame);
        }
        let head = self.exactly(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = self.exactly(length)?;
        let frame = Frame { kind: head[3], flags: head[4], stream: number(&head[5..9]), payload };
        self.note(&frame);
        Some(frame)
    }

    /// So many bytes; `None` at the end of the connection.
    pub fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < n {
            let mut piece = [0; 64 * 1024];
            match self.read(&mut piece) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}; so far {:?}", self.messages),
            }
        }
        Some(self.buffer.drain(..n).collect())
    }

    /// All bytes to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        while let Some(byte) = self.exactly(1) {
            rest.extend(byte);
        }
        rest
    }

    /// Keeps what belongs to messages.
    fn note(&mut self, frame: &Frame) {
        let message = self.messages.entry(frame.stream).or_default();
        match frame.kind {
            HEADERS | CONTINUATION => {
                self.block.extend_from_slice(&frame.payload);
                if frame.flags & WHOLE != 0 {
                    message.heads.push(fields(&std::mem::take(&mut self.block)));
                }
            }
            DATA => message.body.extend_from_slice(&frame.payload),
            RST_STREAM => message.reset = Some(frame.code()),
            _ => {}
        }
        message.is_whole |= matches!(frame.kind, HEADERS | DATA) && frame.flags & END != 0;
    }

    /// Reads up to a frame that is wanted.
    pub fn frame(&mut self, is_wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if is_wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// The same, and leaves it to be read.
    pub fn peek(&mut self, is_wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        self.again = self.frame(is_wanted);
        self.again.clone()
    }

    /// Reads until the stream is over.
    pub fn answer(&mut self, stream: u32) -> Message {
        loop {
            let is_over = |message: &Message| message.is_whole || message.reset.is_some();
            if self.messages.get(&stream).is_some_and(is_over) {
                return self.messages.remove(&stream).unwrap();
            }
            self.next().unwrap_or_else(|| panic!("the connection ended within {:?}", self.messages));
        }
    }

    /// What there is of a message so far.
    pub fn so_far(&self, stream: u32) -> Option<&Message> {
        self.messages.get(&stream)
    }

    /// Whether a PING is answered, which shows that all sent before was looked at.
    pub fn is_alive(&mut self) -> bool {
        self.send(PING, 0, 0, b"12345678");
        self.frame(|frame| frame.kind == PING && frame.flags & END != 0 && frame.payload == b"12345678").is_some()
    }

    /// Reads to the end of the connection: the code of the last GOAWAY.
    pub fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap()) & 0x7fff_ffff
}

/// Reads a block; names are followed by nothing but literals there, and no table is used.
pub fn fields(mut block: &[u8]) -> Fields {
    let mut fields = Vec::new();
    while let Some(&first) = block.first() {
        match first {
            0x80.. => {
                let (name, value) = known(integer(&mut block, 7));
                fields.push((name.to_owned(), value.to_owned()));
            }
            0x20..0x40 => assert_eq!(integer(&mut block, 5), 0, "no table"),
            0x40..0x80 => panic!("a table is used"),
            _ => {
                let name = match integer(&mut block, 4) {
                    0 => text(&mut block),
                    index => known(index).0.to_owned(),
                };
                fields.push((name, text(&mut block)));
            }
        }
    }
    fields
}

fn integer(block: &mut &[u8], prefix: u32) -> usize {
    let mask = (1 << prefix) - 1;
    let mut value = usize::from(block[0]) & mask;
    *block = &block[1..];
    if value == mask {
        for shift in (0..).step_by(7) {
            let byte = block[0];
            *block = &block[1..];
            value += usize::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
    }
    value
}

fn text(block: &mut &[u8]) -> String {
    assert!(block[0] < 128, "no Huffman code");
    let length = integer(block, 7);
    let (text, rest) = block.split_at(length);
    *block = rest;
    String::from_utf8_lossy(text).into_owned()
}

/// Of the static table (RFC 7541 appendix A) what these tests meet.
fn known(index: usize) -> (&'static str, &'static str) {
    match index {
        1 => (":authority", ""),
        2 => (":method", "GET"),
        4 => (":path", "/"),
        6 => (":scheme", "http"),
        8 => (":status", "200"),
        9 => (":status", "204"),
        10 => (":status", "206"),
        11 => (":status", "304"),
        12 => (":status", "400"),
        13 => (":status", "404"),
        14 => (":status", "500"),
        19 => ("accept", ""),
        22 => ("allow", ""),
        28 => ("content-length", ""),
        31 => ("content-type", ""),
        32 => ("cookie", ""),
        33 => ("date", ""),
        34 => ("etag", ""),
        45 => ("link", ""),
        46 => ("location", ""),
        53 => ("retry-after", ""),
        54 => ("server", ""),
        55 => ("set-cookie", ""),
        58 => ("user-agent", ""),
        59 => ("vary", ""),
        60 => ("via", ""),
        other => panic!("not in this part of the static table: {other}"),
    }
}
