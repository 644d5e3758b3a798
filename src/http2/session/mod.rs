//! One connection: its state, and what the order and the kinds of frames mean (RFC 9113 3.4, 4 and 5).
//!
//! What single frames do is in [`data`], [`field_blocks`] and [`control_frames`], how it ends in [`shutdown`]. What the
//! tasks of streams do is in [`stream_io`] and [`messages`].

mod control_frames;
mod data;
mod field_blocks;
pub mod messages;
mod shutdown;
pub mod stream_io;

use std::time::Instant;

use super::connection_state::{ConnectionState, LAST_STREAM_MAX};
use super::field_block::FieldBlock;
use super::flow_control::{CONNECTION_WINDOW, DEFAULT_WINDOW, ReceiveWindow, STREAM_WINDOW};
use super::frame::{ACK, ErrorCode, FRAME_HEADER_LEN, FrameHeader, FrameType, PAYLOAD_MAX, PREFACE, Setting};
use super::hpack::HpackDecoder;
use super::output::Output;
use super::request_fields::FieldScratch;
use super::role::Role;
use super::session_end::SessionEnd;
use super::stream_history::StreamHistory;
use super::stream_table::StreamTable;
use super::token_bucket::TokenBucket;

/// Frames that make work and carry nothing: so many at once, and so many per second. Requests and payload earn more.
const UNPRODUCTIVE_MAX: u32 = 1000;
const UNPRODUCTIVE_PER_SECOND: u32 = 100;

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Streams that may be open at once.
    pub streams: u32,
    /// The size of a head in bytes, as HTTP/1 text.
    pub head_bytes: usize,
    /// Streams that may be reset in a burst, by the peer or for a mistake of its own. A tenth of that per second may
    /// follow.
    pub resets: u32,
}

/// The session cannot go on (RFC 9113 5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// What the peer is told.
    pub code: ErrorCode,
    /// What is counted and logged.
    pub end: SessionEnd,
}

impl ConnectionError {
    /// The peer has violated the protocol.
    const fn protocol(code: ErrorCode) -> Self {
        ConnectionError { code, end: SessionEnd::Protocol }
    }

    /// The peer makes work for the work's sake.
    const fn flood(end: SessionEnd) -> Self {
        ConnectionError { code: ErrorCode::EnhanceYourCalm, end }
    }
}

const PROTOCOL: ConnectionError = ConnectionError::protocol(ErrorCode::Protocol);
const FRAME_SIZE: ConnectionError = ConnectionError::protocol(ErrorCode::FrameSize);
const FLOW_CONTROL: ConnectionError = ConnectionError::protocol(ErrorCode::FlowControl);

/// What the peer has to send next at the beginning of a connection (RFC 9113 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PrefaceState {
    Preface,
    Settings,
    Done,
}

/// What the peer takes, as its settings say.
struct PeerSettings {
    /// The window of a new stream.
    stream_window: i64,
    /// How many streams we may open.
    streams_max: u32,
    /// The largest payload of a frame.
    frame_max: usize,
}

/// One HTTP/2 connection.
pub struct Session {
    role: Role,
    limits: SessionLimits,
    preface: PrefaceState,
    state: ConnectionState,
    /// The last stream of the peer that is served, as the peer was told.
    last_served: u32,
    output: Output,
    pub(super) streams: StreamTable,
    history: StreamHistory,
    /// The number of the next stream that we open.
    next_stream: u32,
    peer: PeerSettings,
    /// What the peer takes now on all streams together.
    send_window: i64,
    /// What the peer may still send on all streams together.
    receive_window: ReceiveWindow,
    /// What of it may still come on streams that we have given up, since the peer cannot know yet.
    late_data_max: i64,
    /// A field block that is not complete.
    field_block: Option<FieldBlock<Vec<u8>>>,
    pub(super) decoder: HpackDecoder,
    scratch: FieldScratch,
    unproductive: TokenBucket,
    resets: TokenBucket,
    received: u64,
    completed: u64,
    /// A stream was given up because the peer took nothing of it, and none has ended well since.
    has_stalled: bool,
    awaits_pong: bool,
}

impl Session {
    /// A session whose preface and settings wait to be written.
    pub fn new(role: Role, limits: SessionLimits, now: Instant) -> Self {
        let connection_window = match role {
            Role::Server => CONNECTION_WINDOW,
            // Whoever is slow to read a response must not hold up the others on the same connection.
            Role::Client => STREAM_WINDOW * limits.streams,
        };
        Session {
            role,
            limits,
            preface: if role == Role::Server { PrefaceState::Preface } else { PrefaceState::Settings },
            state: ConnectionState::Open,
            last_served: LAST_STREAM_MAX,
            output: preface(role, limits, connection_window),
            streams: StreamTable::default(),
            history: StreamHistory::default(),
            next_stream: 1,
            peer: PeerSettings {
                stream_window: i64::from(DEFAULT_WINDOW),
                streams_max: limits.streams,
                frame_max: PAYLOAD_MAX,
            },
            send_window: i64::from(DEFAULT_WINDOW),
            receive_window: ReceiveWindow::new(connection_window),
            late_data_max: 0,
            field_block: None,
            decoder: HpackDecoder::default(),
            scratch: FieldScratch::default(),
            unproductive: TokenBucket::new(UNPRODUCTIVE_MAX, UNPRODUCTIVE_PER_SECOND, now),
            resets: TokenBucket::new(limits.resets, (limits.resets / 10).max(1), now),
            received: 0,
            completed: 0,
            has_stalled: false,
            awaits_pong: false,
        }
    }

    /// Takes what the peer has sent and returns how many bytes of it are used. The rest has to come again with more
    /// behind it.
    ///
    /// # Errors
    /// [`ConnectionError`]; tell the peer with [`Session::terminate`].
    pub fn receive(&mut self, input: &[u8], now: Instant) -> Result<usize, ConnectionError> {
        let mut at = 0;
        if self.preface == PrefaceState::Preface {
            let len = input.len().min(PREFACE.len());
            if input[..len] != PREFACE[..len] {
                return Err(PROTOCOL);
            }
            if len < PREFACE.len() {
                return Ok(0);
            }
            self.preface = PrefaceState::Settings;
            at = len;
        }
        while let Some(header) = FrameHeader::read(&input[at..]) {
            self.check_order(&header)?;
            let start = at + FRAME_HEADER_LEN;
            let Some(payload) = input.get(start..start + header.length) else { break };
            self.on_frame(&header, payload, now)?;
            self.received += u64::from(self.field_block.is_none());
            at = start + header.length;
        }
        Ok(at)
    }

    /// Whether something that has to come at once has begun and is not complete: the preface, a field block, a frame
    /// other than DATA. `unused` is what [`Session::receive`] left.
    pub fn expects_more(&self, unused: &[u8]) -> bool {
        let is_cut =
            !unused.is_empty() && FrameHeader::read(unused).is_none_or(|header| header.frame_type != FrameType::Data);
        is_cut || self.field_block.is_some() || self.preface != PrefaceState::Done
    }

    /// How many frames and field blocks have come whole so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the peer has sent its settings.
    pub fn has_peer_settings(&self) -> bool {
        self.preface == PrefaceState::Done
    }

    fn check_order(&mut self, header: &FrameHeader) -> Result<(), ConnectionError> {
        if self.preface == PrefaceState::Settings && (header.frame_type != FrameType::Settings || header.has(ACK)) {
            return Err(PROTOCOL); // RFC 9113 3.4
        }
        let expected = self.field_block.as_ref().map(|block| block.stream);
        match (expected, header.frame_type) {
            (Some(stream), FrameType::Continuation) if stream == header.stream => {}
            (Some(_), _) | (None, FrameType::Continuation) => return Err(PROTOCOL), // RFC 9113 4.3, 6.10
            (None, _) => {}
        }
        if header.length > PAYLOAD_MAX { Err(FRAME_SIZE) } else { Ok(()) }
    }

    fn on_frame(&mut self, header: &FrameHeader, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        (self.preface, self.awaits_pong) = (PrefaceState::Done, false);
        match header.frame_type {
            FrameType::Data => return self.on_data(header, payload, now),
            FrameType::Headers => return self.on_headers(header, payload, now),
            FrameType::PushPromise => return Err(PROTOCOL),
            FrameType::Priority
            | FrameType::Unknown
            | FrameType::Continuation
            | FrameType::RstStream
            | FrameType::Settings
            | FrameType::Ping
            | FrameType::GoAway
            | FrameType::WindowUpdate => self.charge(1, now)?,
        }
        match (header.frame_type, header.stream) {
            (FrameType::Settings | FrameType::Ping | FrameType::GoAway, 1..) => Err(PROTOCOL),
            (FrameType::Priority | FrameType::RstStream, 0) => Err(PROTOCOL),
            (FrameType::Settings, _) => self.on_settings(header, payload),
            (FrameType::Ping, _) => self.on_ping(header, payload),
            (FrameType::GoAway, _) => self.on_go_away(payload),
            (FrameType::Priority, stream) => self.on_priority(stream, payload, now),
            (FrameType::RstStream, stream) => self.on_rst_stream(stream, payload, now),
            (FrameType::WindowUpdate, stream) => self.on_window_update(stream, payload, now),
            (FrameType::Continuation, _) => self.on_continuation(header, payload, now),
            (FrameType::Data | FrameType::Headers | FrameType::PushPromise | FrameType::Unknown, _) => Ok(()),
        }
    }

    /// Takes tokens for a frame that makes work.
    fn charge(&mut self, cost: u32, now: Instant) -> Result<(), ConnectionError> {
        if self.unproductive.spend(cost, now) { Ok(()) } else { Err(ConnectionError::flood(SessionEnd::Frames)) }
    }

    /// Takes a token for a stream that was reset. What an upstream resets is its own affair.
    fn charge_reset(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.role == Role::Client || self.resets.spend(1, now) {
            Ok(())
        } else {
            Err(ConnectionError::flood(SessionEnd::Resets))
        }
    }

    /// Whether the stream was never opened.
    fn is_idle(&self, stream: u32) -> bool {
        match (self.role, stream % 2) {
            (Role::Server, 1) => stream > self.history.last_opened(),
            (Role::Client, 1) => stream >= self.next_stream,
            _ => true, // nothing is ever pushed
        }
    }

    /// Resets a stream for a mistake of the peer's (RFC 9113 5.4.2).
    fn stream_error(&mut self, stream: u32, code: ErrorCode, now: Instant) -> Result<(), ConnectionError> {
        match self.streams.find(stream) {
            Some(at) => self.reset(at, code),
            None => {
                self.late_data_max += i64::from(STREAM_WINDOW);
                self.put_reset(stream, code);
            }
        }
        self.charge_reset(now)
    }

    fn put_reset(&mut self, stream: u32, code: ErrorCode) {
        self.output.put_frame(FrameType::RstStream, 0, stream, &(code as u32).to_be_bytes());
        self.history.add_reset(stream);
    }

    /// Gives the peer credit for `n` bytes that were read, on the connection and, if its slot is given, on the stream.
    fn give_credit(&mut self, at: Option<usize>, n: usize) {
        self.receive_window.add_credit(n);
        if let Some(increment) = self.receive_window.grant() {
            self.output.put_window_update(0, increment);
        }
        let Some(at) = at else { return };
        let stream = self.streams.id(at);
        let slot = &mut self.streams.slots[at];
        slot.receive_window.add_credit(n);
        let may_come = !slot.remote_ended && !slot.is_reset && stream != 0;
        if may_come && let Some(increment) = slot.receive_window.grant() {
            self.output.put_window_update(stream, increment);
        }
    }
}

/// What each side sends first.
fn preface(role: Role, limits: SessionLimits, connection_window: u32) -> Output {
    let mut output = Output::default();
    let streams = (Setting::MaxConcurrentStreams, limits.streams);
    let head_bytes = u32::try_from(limits.head_bytes).unwrap_or(u32::MAX);
    let common = [(Setting::InitialWindowSize, STREAM_WINDOW), (Setting::MaxHeaderListSize, head_bytes)];
    match role {
        Role::Server => {
            output.put_settings(&[common[0], common[1], streams, (Setting::EnableConnectProtocol, 1)]);
        }
        Role::Client => {
            output.put_preface();
            output.put_settings(&[common[0], common[1], (Setting::EnablePush, 0)]);
        }
    }
    output.put_window_update(0, connection_window.saturating_sub(DEFAULT_WINDOW));
    output
}
