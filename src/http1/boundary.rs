//! Finds where a stream that has no end of its own may be ended: after an event of an event stream, or after a
//! WebSocket message.
//!
//! It is shown the bytes as they pass, in pieces of any size, and changes none.

/// The Close frame of a server that goes away, with status 1001 (RFC 6455 5.5.1, 7.4.1).
pub const WEBSOCKET_CLOSE: &[u8] = b"\x88\x0a\x03\xe9draining";

/// Looks for places where a stream may be ended.
#[derive(Debug)]
pub enum Boundary {
    /// At the blank line after an event.
    Event(EventLines),
    /// At the end of a message.
    Message(MessageFrames),
}

impl Boundary {
    /// The boundaries of an event stream.
    pub fn of_events() -> Box<Self> {
        Box::new(Boundary::Event(EventLines { ends: 2, after_cr: false }))
    }

    /// The boundaries of one direction of a WebSocket.
    pub fn of_messages() -> Box<Self> {
        Box::new(Boundary::Message(MessageFrames::default()))
    }

    /// Whether the stream may end here.
    pub fn is_here(&self) -> bool {
        match self {
            Boundary::Event(lines) => lines.ends >= 2,
            Boundary::Message(frames) => frames.is_between_messages(),
        }
    }

    /// Whether the stream ends by its own means already.
    pub fn is_closing(&self) -> bool {
        matches!(self, Boundary::Message(MessageFrames { closing: true, .. }))
    }

    /// Follows `bytes`, with `stop` only up to the first boundary in them. Returns how many bytes it has followed.
    pub fn follow(&mut self, bytes: &[u8], stop: bool) -> usize {
        match self {
            Boundary::Event(lines) => lines.follow(bytes, stop),
            Boundary::Message(frames) => frames.follow(bytes, stop),
        }
    }
}

/// Counts line ends of an event stream, which are LF, CR or both (WHATWG HTML 9.2.5).
#[derive(Debug)]
pub struct EventLines {
    /// How many line ends in a row have passed.
    ends: u8,
    after_cr: bool,
}

impl EventLines {
    fn follow(&mut self, bytes: &[u8], stop: bool) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.ends = self.ends.saturating_add(1);
                    self.after_cr = *byte == b'\r';
                }
                _ => (self.ends, self.after_cr) = (0, false),
            }
            if stop && self.ends >= 2 {
                return at + 1;
            }
        }
        bytes.len()
    }
}

/// Follows the frames of one direction (RFC 6455 5.2).
#[derive(Debug, Default)]
pub struct MessageFrames {
    /// The header of the present frame, as far as it has come.
    head: [u8; 14],
    have: usize,
    /// How much payload of the present frame has not come yet.
    left: u64,
    /// The present message goes on in another frame.
    is_fragmented: bool,
    /// A Close frame has begun, so no message follows.
    closing: bool,
    /// The bytes are no frames, so there is no boundary in them.
    is_unknown: bool,
}

impl MessageFrames {
    fn is_between_messages(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.is_fragmented && !self.is_unknown
    }

    fn follow(&mut self, bytes: &[u8], stop: bool) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.is_unknown {
            if self.left > 0 {
                let part = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.left -= part as u64;
                at += part;
            } else {
                self.head[self.have] = bytes[at];
                self.have += 1;
                at += 1;
                if self.have == self.head_size() {
                    self.begin_payload();
                }
            }
            if stop && self.is_between_messages() {
                return at;
            }
        }
        bytes.len()
    }

    fn head_size(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_payload(&mut self) {
        let big_endian = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        self.left = match self.head[1] & 0x7f {
            126 => big_endian(&self.head[2..4]),
            127 => big_endian(&self.head[2..10]),
            length => u64::from(length),
        };
        self.have = 0;
        match self.head[0] & 0x0f {
            0..=2 => self.is_fragmented = self.head[0] & 0x80 == 0,
            8 => self.closing = true,
            9 | 10 => {}
            _ => self.is_unknown = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::boundary::*;

    /// Where each boundary in `bytes` is, whatever the pieces they come in.
    fn boundaries(make: fn() -> Box<Boundary>, bytes: &[u8]) -> Vec<usize> {
        let found = |size: usize| {
            let (mut boundary, mut at, mut found) = (make(), 0, Vec::new());
            for piece in bytes.chunks(size) {
                let end = at + piece.len();
                while at < end {
                    at += boundary.follow(&bytes[at..end], true);
                    found.extend(boundary.is_here().then_some(at));
                }
            }
            found
        };
        let whole = found(bytes.len());
        for size in 1..bytes.len() {
            assert_eq!(found(size), whole, "in pieces of {size}");
        }
        let mut followed = make();
        assert_eq!(followed.follow(bytes, false), bytes.len());
        assert_eq!(followed.is_here(), whole.last() == Some(&bytes.len()));
        whole
    }

    #[test]
    fn an_event_ends_at_a_blank_line_of_any_kind() {
        assert!(Boundary::of_events().is_here(), "before the first event");
        assert_eq!(boundaries(Boundary::of_events, b"data: a\ndata: b\n\ndata: c"), [17]);
        assert_eq!(boundaries(Boundary::of_events, b"a\r\rb\r\nc\n"), [3], "one line end is none");
        let crlf = boundaries(Boundary::of_events, b"a\r\nb\r\n\r\nc");
        assert_eq!(crlf, [7, 8], "the CR is a line end of its own, and the LF belongs to it");
    }

    #[test]
    fn a_message_ends_with_its_last_frame() {
        let long = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let masked = b"\x81\x83\x01\x02\x03\x04abc";
        let (first, ping, last) = (b"\x01\x02ab", b"\x89\x01p", b"\x80\x01c");
        let stream = [&long[..], masked, first, ping, last].concat();
        assert_eq!(boundaries(Boundary::of_messages, &stream), [260, 269, 269 + 4 + 3 + 3]);
        let huge = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65536]].concat();
        let mut boundary = Boundary::of_messages();
        assert_eq!(boundary.follow(&huge, true), huge.len());
        assert!(boundary.is_here() && !boundary.is_closing());
    }

    #[test]
    fn a_close_frame_is_seen_and_what_is_no_frame_has_no_boundary() {
        let mut closing = Boundary::of_messages();
        closing.follow(WEBSOCKET_CLOSE, false);
        assert!(closing.is_closing() && closing.is_here());
        assert_eq!(boundaries(Boundary::of_messages, b"hello, world"), [0; 0]);
    }
}
