//! Frames as they are on the wire (RFC 9113 4 and 6).

/// The connection preface, which a client sends first (RFC 9113 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The size of a frame header, which stands in front of every payload.
pub const FRAME_HEADER_LEN: usize = 9;

/// The largest payload that we take: the smallest size that may be announced, and the default.
pub const PAYLOAD_MAX: usize = 16_384;

/// The largest frame that we take.
pub const FRAME_MAX: usize = FRAME_HEADER_LEN + PAYLOAD_MAX;

/// The flag of DATA and HEADERS that ends the sender's side of a stream.
pub const END_STREAM: u8 = 0x1;
/// The flag of SETTINGS and PING that acknowledges one of the other side.
pub const ACK: u8 = 0x1;
/// The flag of HEADERS and CONTINUATION that ends a field block.
pub const END_HEADERS: u8 = 0x4;
/// The flag of DATA and HEADERS that announces padding.
pub const PADDED: u8 = 0x8;
/// The flag of HEADERS that announces a priority.
pub const PRIORITY: u8 = 0x20;

/// The type of a frame (RFC 9113 6). The first ten are numbered as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    Data,
    Headers,
    /// It is deprecated, so it is checked and ignored.
    Priority,
    RstStream,
    Settings,
    /// It is an error, because nobody is asked to push.
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Any other type, which is ignored (RFC 9113 4.1).
    Unknown,
}

impl FrameType {
    const ALL: [FrameType; 10] = [
        FrameType::Data,
        FrameType::Headers,
        FrameType::Priority,
        FrameType::RstStream,
        FrameType::Settings,
        FrameType::PushPromise,
        FrameType::Ping,
        FrameType::GoAway,
        FrameType::WindowUpdate,
        FrameType::Continuation,
    ];
}

/// The header of a frame (RFC 9113 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The size of the payload in bytes.
    pub length: usize,
    pub frame_type: FrameType,
    pub flags: u8,
    /// The stream, or 0 for the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a header, or returns `None` while it is incomplete.
    pub fn read(input: &[u8]) -> Option<FrameHeader> {
        let &[a, b, c, kind, flags, s, t, u, v, ..] = input else { return None };
        Some(FrameHeader {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            frame_type: FrameType::ALL.get(usize::from(kind)).copied().unwrap_or(FrameType::Unknown),
            flags,
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
        })
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes the header of a frame. The payload has to follow.
pub fn put_frame_header(out: &mut Vec<u8>, length: usize, frame_type: FrameType, flags: u8, stream: u32) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, frame_type as u8, flags, s, t, u, v]);
}

/// Why a stream or a connection ends, as the peer is told (RFC 9113 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Nothing failed.
    NoError = 0,
    /// The protocol was violated in a way that no other code is for.
    Protocol = 1,
    /// The application behind us failed.
    Internal = 2,
    /// More was sent than a window allowed.
    FlowControl = 3,
    /// A frame came on a stream that has ended.
    StreamClosed = 5,
    /// A frame has a size that its type does not allow.
    FrameSize = 6,
    /// The stream was not looked at, so it may be sent again.
    RefusedStream = 7,
    /// The stream is not wanted any more.
    Cancel = 8,
    /// The state of HPACK is lost.
    Compression = 9,
    /// The peer makes work and brings nothing.
    EnhanceYourCalm = 11,
}

/// A setting that we send (RFC 9113 6.5.2, RFC 8441 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    EnablePush = 2,
    MaxConcurrentStreams = 3,
    InitialWindowSize = 4,
    MaxHeaderListSize = 6,
    EnableConnectProtocol = 8,
}

/// Reads the settings of a SETTINGS payload, each with its value.
pub fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .chunks_exact(6)
        .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]])))
}

/// Writes a SETTINGS frame.
pub fn put_settings(out: &mut Vec<u8>, pairs: &[(Setting, u32)]) {
    put_frame_header(out, pairs.len() * 6, FrameType::Settings, 0, 0);
    for (setting, value) in pairs {
        out.extend_from_slice(&(*setting as u16).to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Reads the first four bytes as a number of 31 bits.
pub fn number(payload: &[u8]) -> Option<u32> {
    let &[a, b, c, d, ..] = payload else { return None };
    Some(u32::from_be_bytes([a & 0x7f, b, c, d]))
}
