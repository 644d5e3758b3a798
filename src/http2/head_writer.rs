//! What the heads of requests and responses have in common on their way from HTTP/2 fields to HTTP/1 text (RFC 9113 8).
//!
//! What is malformed by RFC 9113 8.1.1 is found here, before a byte of it becomes text. What is well-formed HTTP/2 and
//! yet refused by the proxy (a Host that is none, a method that it does not serve, a head that is too large) becomes
//! text as it is, and the reader of that text refuses it as it would on an HTTP/1 connection.

use super::hpack::ENTRY_OVERHEAD;
use crate::http1::syntax::{is_token, length};

/// How many times as large as allowed a field section may be before it is taken for an attack: a small block can name
/// the same large entry thousands of times.
const BOMB_FACTOR: usize = 4;

/// How the body of a message is framed in its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// The body has that many bytes.
    Length(u64),
    /// The body comes in chunks.
    Chunked,
    /// Bytes of another protocol follow, both ways, until each side ends.
    Tunnel,
}

/// Why fields could not be used. Only the peer can have done it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// The message is malformed (RFC 9113 8.1.1).
    Malformed,
    /// The fields are so much larger than allowed that they can only be an attack.
    Bomb,
}

/// Writes field lines of HTTP/1 while it checks and counts the fields of HTTP/2.
pub struct HeadWriter<'a> {
    pub out: &'a mut Vec<u8>,
    start: usize,
    /// The size in bytes from which on the reader finds the text too long.
    pub text_max: usize,
    size: usize,
    pub is_malformed: bool,
    /// The value of `Content-Length`.
    pub length: Option<u64>,
}

impl<'a> HeadWriter<'a> {
    /// Appends to `out`. Of more than `text_max` bytes only so much is written that the reader finds it too long.
    pub fn new(out: &'a mut Vec<u8>, text_max: usize) -> Self {
        HeadWriter { start: out.len(), out, text_max, size: 0, is_malformed: false, length: None }
    }

    /// Whether the text is longer than its reader takes. It stays without an end then, which is how the reader finds
    /// it.
    pub fn is_too_long(&self) -> bool {
        self.out.len() - self.start >= self.text_max
    }

    /// Writes a field line.
    pub fn put_line(&mut self, name: &[u8], value: &[u8]) {
        if !self.is_too_long() {
            for part in [name, b": ", value, b"\r\n"] {
                self.out.extend_from_slice(part);
            }
        }
    }

    /// Counts a field and checks it (RFC 9113 8.2.1, 8.2.2). Returns whether all fields so far are well-formed.
    pub fn check(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.size += name.len() + value.len() + ENTRY_OVERHEAD;
        self.is_malformed |= !is_value(value) || (!name.starts_with(b":") && !is_name(name)) || is_of_connection(name);
        !self.is_malformed
    }

    /// Reads a `Content-Length`, of which there may be one.
    pub fn read_length(&mut self, value: &[u8]) {
        match length(value) {
            Some(length) if self.length.is_none() => self.length = Some(length),
            Some(_) | None => self.is_malformed = true,
        }
    }

    /// Writes the field that says how the body is framed.
    pub fn put_framing(&mut self, framing: Framing) {
        match framing {
            Framing::Chunked => self.put_line(b"Transfer-Encoding", b"chunked"),
            Framing::Length(length) => self.put_line(b"Content-Length", itoa::Buffer::new().format(length).as_bytes()),
            Framing::None | Framing::Tunnel => {}
        }
    }

    /// Writes the empty line.
    ///
    /// # Errors
    /// [`FieldError`]; what was written must be dropped.
    pub fn finish(self) -> Result<(), FieldError> {
        if self.size > self.text_max.saturating_mul(BOMB_FACTOR) {
            return Err(FieldError::Bomb);
        }
        if self.is_malformed {
            return Err(FieldError::Malformed);
        }
        if !self.is_too_long() {
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }
}

/// Whether it is a field name in lower case (RFC 9113 8.2.1, RFC 9110 5.6.2).
fn is_name(name: &[u8]) -> bool {
    is_token(name) && !name.iter().any(u8::is_ascii_uppercase)
}

/// Whether it is a field value (RFC 9113 8.2.1), with no other control character than a tab (RFC 9110 5.5).
fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    !is_blank(value.first()) && !is_blank(value.last()) && !value.iter().any(is_control)
}

/// Whether the field is about the connection and must not be in HTTP/2 (RFC 9113 8.2.2).
fn is_of_connection(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade")
}
