//! Frames as they are on the wire (RFC 9113 4 and 6).

/// What a client says first (RFC 9113 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes in front of every payload.
pub const FRAME_HEADER_LEN: usize = 9;

/// The largest payload that is taken, which is the least that may be announced.
pub const PAYLOAD_MAX: usize = 16_384;

/// The largest frame that is taken.
pub const FRAME_MAX: usize = FRAME_HEADER_LEN + PAYLOAD_MAX;

/// `END_STREAM` of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// `ACK` of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// `END_HEADERS` of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// `PADDED` of DATA and HEADERS.
pub const PADDED: u8 = 0x8;
/// `PRIORITY` of HEADERS.
pub const PRIORITY: u8 = 0x20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// Payload.
    Data,
    /// A header block, or its beginning.
    Headers,
    /// Deprecated; checked and ignored.
    Priority,
    /// The end of a stream.
    RstStream,
    /// Settings, or their acknowledgement.
    Settings,
    /// Never welcome: it is not asked for.
    PushPromise,
    /// To be answered.
    Ping,
    /// No more streams.
    GoAway,
    /// More may be sent.
    WindowUpdate,
    /// More of a header block.
    Continuation,
    /// Anything else, which is ignored (RFC 9113 4.1).
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

/// The first nine bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload.
    pub length: usize,
    /// What it is.
    pub kind: FrameType,
    /// As they came.
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads one; `None` while it is incomplete.
    pub fn read(input: &[u8]) -> Option<FrameHeader> {
        let &[a, b, c, kind, flags, s, t, u, v, ..] = input else { return None };
        Some(FrameHeader {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind: FrameType::ALL.get(usize::from(kind)).copied().unwrap_or(FrameType::Unknown),
            flags,
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
        })
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes the head of a frame. Its payload has to follow.
pub fn put_frame_header(out: &mut Vec<u8>, length: usize, kind: FrameType, flags: u8, stream: u32) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind as u8, flags, s, t, u, v]);
}

/// Why a stream or a connection ends (RFC 9113 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// All is well.
    NoError = 0,
    /// The protocol was violated in a way no other reason is for.
    Protocol = 1,
    /// Something broke behind us.
    Internal = 2,
    /// More was sent than allowed.
    FlowControl = 3,
    /// A frame on a stream that has ended.
    StreamClosed = 5,
    /// A frame whose size cannot be.
    FrameSize = 6,
    /// The stream was not looked at, and may be sent again.
    RefusedStream = 7,
    /// The stream is not wanted any more.
    Cancel = 8,
    /// The header compression is out of step.
    Compression = 9,
    /// The peer makes work for the work's sake.
    EnhanceYourCalm = 11,
}

/// A setting we know (RFC 9113 6.5.2, RFC 8441 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `SETTINGS_ENABLE_PUSH`
    EnablePush = 2,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`
    MaxConcurrentStreams = 3,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`
    InitialWindowSize = 4,
    /// `SETTINGS_MAX_HEADER_LIST_SIZE`
    MaxHeaderListSize = 6,
    /// `SETTINGS_ENABLE_CONNECT_PROTOCOL`
    EnableConnectProtocol = 8,
}

/// Reads the pairs of a SETTINGS payload.
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

/// The first four bytes as a number of 31 bits.
pub fn number(payload: &[u8]) -> Option<u32> {
    let &[a, b, c, d, ..] = payload else { return None };
    Some(u32::from_be_bytes([a & 0x7f, b, c, d]))
}
