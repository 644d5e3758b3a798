//! Message bodies: where one ends, and what in it is payload (RFC 9112 6 and 7).
//!
//! What is forwarded is rebuilt from the decoder's steps and never copied from the wire, so that a chunk line that two
//! parsers could read differently never reaches the other side.

/// The longest chunk-size line in bytes, its extensions included. Extensions are dropped (RFC 9112 7.1.1).
const CHUNK_LINE_MAX: usize = 4096;

/// The longest trailer section in bytes. It must fit into one buffer.
pub const TRAILERS_MAX: usize = 8 * 1024;

/// The most fields that a trailer section may have.
const TRAILER_FIELDS_MAX: usize = 64;

/// The framing of a body is wrong. The text says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFraming(pub &'static str);

/// Finds the payload in one body. A clone of it can look ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyDecoder {
    /// `Content-Length`, with the number of bytes that are still to come. No body is a length of 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked(ChunkState),
    /// The sender closes at the end, which only an upstream may do.
    UntilClose,
}

/// Where in a chunked body the decoder stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkState {
    /// A chunk-size line comes next.
    Size,
    /// So many bytes of a chunk's data come next.
    Data(u64),
    /// The line end after a chunk's data comes next.
    DataEnd,
    /// The last chunk is over: the trailers come next, or an empty line.
    Trailers,
    /// The body is over.
    Done,
}

/// What the first bytes of the input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeStep {
    /// So many bytes are payload. The caller uses as many of them as it likes and says so with [`BodyDecoder::used`].
    Payload(usize),
    /// So many bytes are framing, to be dropped.
    Framing(usize),
    /// So many bytes end the body: trailer lines with the empty line after them.
    Trailers(usize),
    /// The body has ended before these bytes.
    Done,
    /// The input ends within something that has to be seen whole.
    More,
}

impl BodyDecoder {
    /// Whether the body is known to have ended.
    pub fn is_done(&self) -> bool {
        matches!(self, BodyDecoder::Length(0) | BodyDecoder::Chunked(ChunkState::Done))
    }

    /// Tells what the first bytes of `input` are. Framing and trailers count as used with this call, payload does not.
    ///
    /// # Errors
    /// [`BadFraming`]: nothing after this point can be trusted, the connection must be closed.
    pub fn step(&mut self, input: &[u8]) -> Result<DecodeStep, BadFraming> {
        match self {
            BodyDecoder::Length(0) | BodyDecoder::Chunked(ChunkState::Done) => Ok(DecodeStep::Done),
            _ if input.is_empty() => Ok(DecodeStep::More),
            BodyDecoder::Length(left) | BodyDecoder::Chunked(ChunkState::Data(left)) => {
                Ok(DecodeStep::Payload(usize::try_from(*left).unwrap_or(usize::MAX).min(input.len())))
            }
            BodyDecoder::UntilClose => Ok(DecodeStep::Payload(input.len())),
            BodyDecoder::Chunked(state) => state.step(input),
        }
    }

    /// Takes note that `n` bytes of payload were used.
    pub fn used(&mut self, n: usize) {
        match self {
            BodyDecoder::Length(left) => *left -= n as u64,
            BodyDecoder::Chunked(state) => {
                if let ChunkState::Data(left) = state {
                    *left -= n as u64;
                    if *left == 0 {
                        *state = ChunkState::DataEnd;
                    }
                }
            }
            BodyDecoder::UntilClose => {}
        }
    }

    /// Checks all of `input` that belongs to this body, without using it.
    ///
    /// # Errors
    /// [`BadFraming`], as for [`BodyDecoder::step`].
    pub fn check(&self, mut input: &[u8]) -> Result<(), BadFraming> {
        let mut ahead = self.clone();
        loop {
            match ahead.step(input)? {
                DecodeStep::Payload(len) => {
                    ahead.used(len);
                    input = &input[len..];
                }
                DecodeStep::Framing(len) => input = &input[len..],
                DecodeStep::Trailers(_) | DecodeStep::Done | DecodeStep::More => return Ok(()),
            }
        }
    }
}

impl ChunkState {
    fn step(&mut self, input: &[u8]) -> Result<DecodeStep, BadFraming> {
        match self {
            ChunkState::Size => {
                let Some(end) = line_end(input, CHUNK_LINE_MAX, "a chunk-size line is too long")? else {
                    return Ok(DecodeStep::More);
                };
                *self = match chunk_size(&input[..end])? {
                    0 => ChunkState::Trailers,
                    size => ChunkState::Data(size),
                };
                Ok(DecodeStep::Framing(end + 2))
            }
            ChunkState::DataEnd => {
                if input[0] != b'\r' || input.get(1).is_some_and(|&b| b != b'\n') {
                    return Err(BadFraming("a chunk is longer than its size"));
                }
                if input.len() < 2 {
                    return Ok(DecodeStep::More);
                }
                *self = ChunkState::Size;
                Ok(DecodeStep::Framing(2))
            }
            ChunkState::Trailers => {
                let mut at = 0;
                while let Some(end) = line_end(&input[at..], TRAILERS_MAX, "a trailer line is too long")? {
                    at += end + 2;
                    if end == 0 {
                        trailers(&input[..at])?;
                        *self = ChunkState::Done;
                        return Ok(DecodeStep::Trailers(at));
                    }
                    if at > TRAILERS_MAX {
                        return Err(BadFraming("the trailers are too large"));
                    }
                }
                Ok(DecodeStep::More)
            }
            ChunkState::Data(_) | ChunkState::Done => Ok(DecodeStep::Done), // handled by BodyDecoder::step
        }
    }
}

/// Reads a trailer section, which ends with an empty line.
///
/// # Errors
/// [`BadFraming`] where a line is not `name: value`.
pub fn trailers(section: &[u8]) -> Result<Vec<(&str, &[u8])>, BadFraming> {
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(fields.iter().map(|f| (f.name, f.value)).collect()),
        Ok(httparse::Status::Partial) | Err(_) => Err(BadFraming("a trailer line is malformed")),
    }
}

/// Finds where the CRLF of the first line begins. A bare LF or CR is an error (RFC 9112 2.2).
fn line_end(input: &[u8], limit: usize, too_long: &'static str) -> Result<Option<usize>, BadFraming> {
    match memchr::memchr2(b'\r', b'\n', &input[..input.len().min(limit)]) {
        Some(at) if input[at] == b'\n' => Err(BadFraming("a line in a chunked body ends with a bare LF")),
        Some(at) => match input.get(at + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(at)),
            Some(_) => Err(BadFraming("a chunked body has a bare CR")),
        },
        None if input.len() >= limit => Err(BadFraming(too_long)),
        None => Ok(None),
    }
}

/// Reads `chunk-size [ chunk-ext ]` (RFC 9112 7.1). Behind zeros there may be 15 hexadecimal digits, so that no sum of
/// sizes overflows.
fn chunk_size(line: &[u8]) -> Result<u64, BadFraming> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let zeros = line.iter().take_while(|&&b| b == b'0').count();
    if digits == 0 || digits - zeros > 15 {
        return Err(BadFraming("a chunk size is not a hexadecimal number of 1 to 15 digits"));
    }
    let rest = &line[digits..];
    let after_space = rest.trim_ascii_start();
    if !rest.is_empty() && after_space.first() != Some(&b';') {
        return Err(BadFraming("a chunk size is followed by something other than an extension"));
    }
    if rest.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(BadFraming("a chunk extension has a control character"));
    }
    Ok(line[..digits].iter().fold(0, |size, &digit| size << 4 | u64::from(hex_value(digit))))
}

/// The digits in front of a chunk of `size` bytes (RFC 9112 7.1).
pub fn chunk_digits(size: usize) -> impl Iterator<Item = u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let shift = size.checked_ilog2().unwrap_or(0) / 4 * 4;
    (0..=shift).rev().step_by(4).map(move |shift| DIGITS[size >> shift & 15])
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::body::*;

    /// Decodes `wire` given in pieces of `piece` bytes: payload and trailer lines.
    fn decode(wire: &[u8], piece: usize) -> Result<(Vec<u8>, usize), BadFraming> {
        let mut decoder = BodyDecoder::Chunked(ChunkState::Size);
        let (mut payload, mut at, mut seen) = (Vec::new(), 0, 0);
        loop {
            match decoder.step(&wire[at..seen])? {
                DecodeStep::Payload(len) => {
                    payload.extend_from_slice(&wire[at..at + len]);
                    decoder.used(len);
                    at += len;
                }
                DecodeStep::Framing(len) => at += len,
                DecodeStep::Trailers(len) => return Ok((payload, at + len)),
                DecodeStep::Done => unreachable!(),
                DecodeStep::More if seen == wire.len() => return Ok((payload, 0)),
                DecodeStep::More => seen = (seen + piece).min(wire.len()),
            }
        }
    }

    #[test]
    fn chunks_are_decoded_however_they_arrive() {
        let wire = b"5;name=value\r\nhello\r\n00006\r\n world\r\n0\r\nA: b\r\n\r\nnext";
        for piece in 1..wire.len() {
            assert_eq!(decode(wire, piece), Ok((b"hello world".to_vec(), wire.len() - 4)), "in pieces of {piece}");
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for (case, wire) in [
            ("hexadecimal prefix", &b"0x5\r\nhello\r\n"[..]),
            ("sign", b"+5\r\nhello\r\n"),
            ("negative", b"-1\r\nhello\r\n"),
            ("no size", b"\r\nhello\r\n"),
            ("space before", b" 5\r\nhello\r\n"),
            ("space after", b"5 \r\nhello\r\n"),
            ("too many digits", b"1000000000000005\r\nhello\r\n"),
            ("bare LF after the size", b"5\nhello\r\n"),
            ("bare CR in the extension", b"5;a\rb\r\nhello\r\n"),
            ("NUL in the extension", b"5;a\0\r\nhello\r\n"),
            ("longer than its size", b"5\r\nhelloworld\r\n"),
            ("bare LF after the data", b"5\r\nhello\n0\r\n\r\n"),
            ("trailer without a name", b"0\r\n: b\r\n\r\n"),
            ("trailer with a space before the colon", b"0\r\nA : b\r\n\r\n"),
            ("trailer with a bare LF", b"0\r\nA: b\n\r\n"),
        ] {
            for piece in [1, wire.len()] {
                assert!(decode(wire, piece).is_err(), "{case}, in pieces of {piece}");
            }
        }
    }

    #[test]
    fn endless_lines_end() {
        for wire in [[b"5;".as_slice(), &[b'a'; 9000]].concat(), [b"0\r\nA: ".as_slice(), &[b'a'; 9000]].concat()] {
            assert!(decode(&wire, 1000).is_err());
        }
    }

    #[test]
    fn a_length_takes_no_byte_more() {
        let mut decoder = BodyDecoder::Length(3);
        assert_eq!(decoder.step(b"abcdef"), Ok(DecodeStep::Payload(3)));
        decoder.used(3);
        assert_eq!(decoder.step(b"def"), Ok(DecodeStep::Done));
    }
}
