//! The fields of a response, and trailers, checked and written as HTTP/1 (RFC 9113 8.1, 8.3.2).

use super::head_writer::{FieldError, Framing, HeadWriter};
use crate::http1::syntax::length;

/// The most bytes that trailers may take as text.
const TRAILERS_MAX: usize = 8 * 1024;

/// Reads the fields of a response, one after the other.
pub struct ResponseFields<'a> {
    head: HeadWriter<'a>,
    status: Option<u16>,
    /// The status line is written, so that no pseudo-header field may follow.
    is_begun: bool,
}

/// A response, as far as its body depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSummary {
    pub framing: Framing,
    /// Another head follows.
    pub is_interim: bool,
}

/// What of its request decides how the body of a response comes.
#[derive(Clone, Copy, Debug)]
pub struct ResponseTo {
    /// The request is a HEAD, to which no body is sent.
    pub is_head: bool,
    /// The body has to come in chunks, so that trailers can follow it.
    pub trailers_welcome: bool,
}

impl<'a> ResponseFields<'a> {
    /// Appends to `out`. Of more than `text_max` bytes only so much is written that the reader finds it too long.
    pub fn new(out: &'a mut Vec<u8>, text_max: usize) -> Self {
        ResponseFields { head: HeadWriter::new(out, text_max), status: None, is_begun: false }
    }

    /// Takes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.head.check(name, value) {
            return;
        }
        if name.starts_with(b":") {
            return self.pseudo_field(name, value);
        }
        self.head.is_malformed |= !self.is_begun;
        match name {
            b"content-length" => self.head.read_length(value),
            b"te" => self.head.is_malformed = true, // RFC 9113 8.2.2: only a request has it
            _ => self.head.put_line(name, value),
        }
    }

    fn pseudo_field(&mut self, name: &[u8], value: &[u8]) {
        let is_status = name == b":status" && value.len() == 3 && matches!(value[0], b'1'..=b'9');
        match length(value) {
            Some(status) if is_status && !self.is_begun => {
                self.is_begun = true;
                self.status = u16::try_from(status).ok();
                for part in [b"HTTP/1.1 ", value, b" \r\n"] {
                    self.head.out.extend_from_slice(part);
                }
            }
            Some(_) | None => self.head.is_malformed = true,
        }
    }

    /// Writes what comes last. With `ends`, there is no body.
    ///
    /// # Errors
    /// [`FieldError`]; what was written must be dropped.
    pub fn finish(mut self, ends: bool, to: ResponseTo) -> Result<ResponseSummary, FieldError> {
        let status = self.status.unwrap_or(0);
        let is_interim = (100..200).contains(&status);
        // RFC 9113 8.6: there is no upgrade in HTTP/2. 8.1: an interim response ends nothing.
        self.head.is_malformed |= status == 0 || status == 101 || (is_interim && ends);
        let has_no_body = to.is_head || is_interim || matches!(status, 204 | 304);
        let announced = self.head.length.map(Framing::Length);
        let framing = match (has_no_body, ends, announced) {
            (true, _, _) => Framing::None,
            (false, true, None | Some(Framing::Length(0))) => Framing::Length(0),
            (false, true, Some(_)) => {
                self.head.is_malformed = true;
                Framing::None
            }
            (false, false, Some(announced)) if !to.trailers_welcome => announced,
            (false, false, _) => Framing::Chunked,
        };
        match (to.is_head || status == 304, announced) {
            (true, Some(announced)) => self.head.put_framing(announced),
            _ => self.head.put_framing(framing),
        }
        self.head.finish()?;
        Ok(ResponseSummary { framing, is_interim })
    }
}

/// Reads trailers, one after the other: they become the end of a chunked body, or are only checked.
pub struct TrailerFields<'a> {
    section: HeadWriter<'a>,
}

impl<'a> TrailerFields<'a> {
    /// Appends to `out`, which has to end with the line of the last chunk.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        TrailerFields { section: HeadWriter::new(out, TRAILERS_MAX) }
    }

    /// Takes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        // RFC 9113 8.1: there are no pseudo-header fields in trailers.
        self.section.is_malformed |= name.starts_with(b":");
        if self.section.check(name, value) {
            self.section.put_line(name, value);
        }
    }

    /// Writes the empty line.
    ///
    /// # Errors
    /// [`FieldError`], also where there are too many trailers.
    pub fn finish(mut self) -> Result<(), FieldError> {
        self.section.is_malformed |= self.section.is_too_long();
        self.section.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(&str, &str)], ends: bool, is_head: bool) -> Result<(String, ResponseSummary), FieldError> {
        let mut out = Vec::new();
        let mut head = ResponseFields::new(&mut out, 1000);
        fields.iter().for_each(|(name, value)| head.field(name.as_bytes(), value.as_bytes()));
        let kind = head.finish(ends, ResponseTo { is_head, trailers_welcome: false })?;
        Ok((String::from_utf8(out).unwrap(), kind))
    }

    #[test]
    fn a_response_becomes_text() {
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
            let (written, kind) = response(fields, ends, is_head).expect(case);
            assert_eq!((&*written, kind.framing, kind.is_interim), (text, framing, case == "interim"), "{case}");
        }
        for (case, fields, ends) in [
            ("no status", &[("a", "b")][..], true),
            ("a status of four digits", &[(":status", "2000")], true),
            ("an upgrade", &[(":status", "101")], false),
            ("an interim response that ends all", &[(":status", "103")], true),
            ("a length and nothing behind it", &[(":status", "200"), ("content-length", "1")], true),
            ("a request's pseudo-header field", &[(":status", "200"), (":path", "/")], true),
        ] {
            assert_eq!(response(fields, ends, false), Err(FieldError::Malformed), "{case}");
        }
    }
}
