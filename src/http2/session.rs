//! One connection: what its frames mean (RFC 9113 5 and 6). Its other half, what streams do, is `streams`.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

use super::budget::TokenBucket;
use super::ends::SessionEnd;
use super::fields::{FieldError, FieldScratch, RequestFields, ResponseFields, TrailerFields};
use super::frame::{
    ACK, END_HEADERS, END_STREAM, ErrorCode, FRAME_HEADER_LEN, FrameHeader, FrameType, PADDED, PAYLOAD_MAX, PREFACE,
    PRIORITY, Setting, number, put_frame_header, put_settings, settings,
};
use super::hpack::HpackDecoder;
use super::streams::{CONNECTION_WINDOW, STREAM_WINDOW, StreamSlot};

/// A window before a setting says otherwise (RFC 9113 6.9.2).
const WINDOW: u32 = 65_535;

/// The largest window (RFC 9113 6.9.1).
pub const WINDOW_MAX: i64 = 0x7fff_ffff;

/// Frames that bring nothing: so many at once, and so many a second. Requests and payload earn more.
const USELESS_MAX: u32 = 1000;
const USELESS_PER_SECOND: u32 = 100;

/// What a head that is too large costs beside its answer.
const LARGE_HEAD_COST: u32 = 20;

/// Streams we have reset of which frames may still be on their way.
const FORGOTTEN_MAX: usize = 128;

/// The payload of our PING to a peer that left a stream without an answer.
const ANYBODY: &[u8; 8] = b"anybody?";

/// The payload of our PING while the connection is closed in two steps.
const LAST_CALL: &[u8; 8] = b"cutover.";

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Streams are opened by the peer.
    Server,
    /// Streams are opened by us.
    Client,
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Streams at once.
    pub streams: u32,
    /// Bytes of a head as HTTP/1 has it.
    pub head_bytes: usize,
    /// Streams that may be reset in a burst, by the peer or for a mistake of its own; a tenth of that per second after
    /// it.
    pub resets: u32,
}

/// The session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// For the peer.
    pub reason: ErrorCode,
    /// For us.
    pub end: SessionEnd,
}

const fn over(reason: ErrorCode) -> ConnectionError {
    ConnectionError { reason, end: SessionEnd::Protocol }
}

const PROTOCOL: ConnectionError = over(ErrorCode::Protocol);
const FRAME_SIZE: ConnectionError = over(ErrorCode::FrameSize);
const FLOW_CONTROL: ConnectionError = over(ErrorCode::FlowControl);

/// What has to come next at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PrefaceState {
    Preface,
    Settings,
    Done,
}

/// How far the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// Not at all.
    Open,
    /// The peer was told to open no more streams; those on their way are still served (RFC 9113 6.8).
    Closing,
    /// No stream is opened any more.
    Closed,
}

/// A header block that is not complete.
struct FieldBlock {
    stream: u32,
    ends: bool,
    depends_on_itself: bool,
    bytes: Vec<u8>,
}

/// One HTTP/2 connection.
pub struct Session {
    pub(super) role: Role,
    pub(super) limits: SessionLimits,
    /// Frames to be written, of which the first `sent` bytes are.
    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    /// The frame at the end of `out`: its stream, and where its flags are.
    pub(super) tail: Option<(u32, usize)>,
    pub(super) slots: Vec<StreamSlot>,
    /// The streams of the slots, 0 for none; apart, so that they are looked through quickly.
    pub(super) ids: Vec<u32>,
    /// Slots that somebody works on.
    pub(super) busy: usize,
    /// Streams opened by the peer that nobody works on yet.
    pub(super) fresh: Vec<usize>,
    pub(super) wakers: Wakers,
    pub(super) door: ConnectionState,
    pub(super) next_own: u32,
    /// How much the peer takes: of the connection, of a new stream, of streams, of a frame.
    pub(super) window: i64,
    pub(super) stream_window: i64,
    pub(super) streams_max: u32,
    pub(super) frame_max: usize,
    /// What the peer may still send.
    pub(super) receive_window: i64,
    /// What of it may still come on streams that we have given up, since the peer cannot know yet.
    pub(super) belated: i64,
    pub(super) credit: u32,
    pub(super) useless: TokenBucket,
    pub(super) has_said_no_table: bool,
    pub(super) served: u64,
    came_whole: u64,
    /// A stream was given up because the peer took nothing of it, and none has ended well since.
    pub(super) has_stalled: bool,
    is_doubted: bool,
    last_peer: u32,
    /// The last stream of the peer's that is served, as the peer was told.
    last_said: u32,
    /// Of the peer's last 128 streams, from `last_peer` down, those that it has opened; it may have skipped some.
    opened: u128,
    forgotten: VecDeque<u32>,
    greeting: PrefaceState,
    block: Option<FieldBlock>,
    pub(super) decoder: HpackDecoder,
    pub(super) scratch: FieldScratch,
    resets: TokenBucket,
}

/// Who is woken by what one side of the session does for the other.
#[derive(Default)]
pub(super) struct Wakers {
    /// Whoever moves bytes between the session and the socket.
    pub(super) driver: Option<Waker>,
    /// Which blocked stream is woken first, so that each has its turn.
    pub(super) turn: usize,
}

impl Session {
    /// Begins: what is said first waits to be written.
    pub fn new(role: Role, limits: SessionLimits, now: Instant) -> Self {
        let mut out = Vec::new();
        let [streams, head_bytes] = [limits.streams, u32::try_from(limits.head_bytes).unwrap_or(u32::MAX)];
        let common = [(Setting::InitialWindowSize, STREAM_WINDOW), (Setting::MaxHeaderListSize, head_bytes)];
        match role {
            Role::Server => put_settings(
                &mut out,
                &[common[0], common[1], (Setting::MaxConcurrentStreams, streams), (Setting::EnableConnectProtocol, 1)],
            ),
            Role::Client => {
                out.extend_from_slice(PREFACE);
                put_settings(&mut out, &[common[0], common[1], (Setting::EnablePush, 0)]);
            }
        }
        let connection_window = match role {
            Role::Server => CONNECTION_WINDOW,
            // Whoever is slow to read an answer must not hold up the others on the same connection.
            Role::Client => STREAM_WINDOW * streams,
        };
        put_frame_header(&mut out, 4, FrameType::WindowUpdate, 0, 0);
        out.extend_from_slice(&connection_window.saturating_sub(WINDOW).to_be_bytes());
        Session {
            role,
            limits,
            out,
            sent: 0,
            tail: None,
            slots: Vec::new(),
            ids: Vec::new(),
            busy: 0,
            fresh: Vec::new(),
            wakers: Wakers::default(),
            door: ConnectionState::Open,
            next_own: 1,
            window: i64::from(WINDOW),
            stream_window: i64::from(WINDOW),
            streams_max: limits.streams,
            frame_max: PAYLOAD_MAX,
            receive_window: i64::from(connection_window),
            belated: 0,
            credit: 0,
            useless: TokenBucket::new(USELESS_MAX, USELESS_PER_SECOND, now),
            has_said_no_table: false,
            served: 0,
            came_whole: 0,
            has_stalled: false,
            is_doubted: false,
            last_peer: 0,
            last_said: u32::MAX >> 1,
            opened: 0,
            forgotten: VecDeque::new(),
            greeting: if role == Role::Server { PrefaceState::Preface } else { PrefaceState::Settings },
            block: None,
            decoder: HpackDecoder::default(),
            scratch: FieldScratch::default(),
            resets: TokenBucket::new(limits.resets, (limits.resets / 10).max(1), now),
        }
    }

    /// Takes what the peer has sent and gives how many bytes of it are used; the rest has to come again with more
    /// behind it.
    ///
    /// # Errors
    /// [`ConnectionError`]: say so with [`Session::end`].
    pub fn receive(&mut self, input: &[u8], now: Instant) -> Result<usize, ConnectionError> {
        let mut at = 0;
        if self.greeting == PrefaceState::Preface {
            let len = input.len().min(PREFACE.len());
            if input[..len] != PREFACE[..len] {
                return Err(PROTOCOL);
            }
            if len < PREFACE.len() {
                return Ok(0);
            }
            self.greeting = PrefaceState::Settings;
            at = len;
        }
        while let Some(head) = FrameHeader::read(&input[at..]) {
            self.check_order(&head)?;
            let Some(payload) = input.get(at + FRAME_HEADER_LEN..at + FRAME_HEADER_LEN + head.length) else { break };
            self.on_frame(&head, payload, now)?;
            self.came_whole += u64::from(self.block.is_none());
            at += FRAME_HEADER_LEN + head.length;
        }
        Ok(at)
    }

    /// Whether something that has to come at once has begun and is not complete: the greeting, a header block, a frame
    /// other than DATA. `unused` is what [`Session::receive`] left.
    pub fn waits_for_more(&self, unused: &[u8]) -> bool {
        let is_cut = !unused.is_empty() && FrameHeader::read(unused).is_none_or(|head| head.kind != FrameType::Data);
        is_cut || self.block.is_some() || self.greeting != PrefaceState::Done
    }

    /// Frames and header blocks that came whole so far.
    pub fn came_whole(&self) -> u64 {
        self.came_whole
    }

    /// Whether the peer has sent its settings.
    pub fn is_greeted(&self) -> bool {
        self.greeting == PrefaceState::Done
    }

    /// Whether the peer was asked for a sign of life, and has not given one since.
    pub fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// Asks the peer for a sign of life.
    pub(super) fn doubt(&mut self) {
        if !std::mem::replace(&mut self.is_doubted, true) {
            self.put_frame(FrameType::Ping, 0, 0, ANYBODY);
        }
    }

    fn check_order(&mut self, head: &FrameHeader) -> Result<(), ConnectionError> {
        if self.greeting == PrefaceState::Settings && (head.kind != FrameType::Settings || head.has(ACK)) {
            return Err(PROTOCOL); // RFC 9113 3.4
        }
        let expected = self.block.as_ref().map(|block| block.stream);
        match (expected, head.kind) {
            (Some(stream), FrameType::Continuation) if stream == head.stream => {}
            (Some(_), _) | (None, FrameType::Continuation) => return Err(PROTOCOL), // RFC 9113 4.3, 6.10
            (None, _) => {}
        }
        if head.length > PAYLOAD_MAX { Err(FRAME_SIZE) } else { Ok(()) }
    }

    fn on_frame(&mut self, head: &FrameHeader, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        (self.greeting, self.is_doubted) = (PrefaceState::Done, false);
        match head.kind {
            FrameType::Data => return self.on_data(head, payload, now),
            FrameType::Headers => return self.on_headers(head, payload, now),
            FrameType::Priority | FrameType::Unknown | FrameType::Continuation => self.charge(1, now)?,
            FrameType::RstStream
            | FrameType::Settings
            | FrameType::Ping
            | FrameType::GoAway
            | FrameType::WindowUpdate => self.charge(1, now)?,
            FrameType::PushPromise => return Err(PROTOCOL),
        }
        match (head.kind, head.stream) {
            (FrameType::Settings | FrameType::Ping | FrameType::GoAway, 1..) => Err(PROTOCOL),
            (FrameType::Priority | FrameType::RstStream, 0) => Err(PROTOCOL),
            (FrameType::Settings, _) => self.on_settings(head, payload),
            (FrameType::Ping, _) => self.on_ping(head, payload),
            (FrameType::GoAway, _) => self.on_go_away(payload),
            (FrameType::Priority, stream) => {
                let reason = match number(payload) {
                    Some(on) if payload.len() == 5 && on != stream => return Ok(()),
                    Some(_) if payload.len() == 5 => ErrorCode::Protocol,
                    Some(_) | None => ErrorCode::FrameSize,
                };
                // A stream that was never opened cannot be reset.
                if self.is_idle(stream) { Err(over(reason)) } else { self.refuse(stream, reason, now) }
            }
            (FrameType::RstStream, stream) => self.on_rst_stream(stream, payload, now),
            (FrameType::WindowUpdate, stream) => self.on_window_update(stream, payload, now),
            (FrameType::Continuation, _) => self.on_continuation(head, payload, now),
            (FrameType::Data | FrameType::Headers | FrameType::PushPromise | FrameType::Unknown, _) => Ok(()),
        }
    }

    /// Takes points for a frame that makes work.
    fn charge(&mut self, cost: u32, now: Instant) -> Result<(), ConnectionError> {
        if self.useless.spend(cost, now) {
            Ok(())
        } else {
            Err(ConnectionError { reason: ErrorCode::EnhanceYourCalm, end: SessionEnd::Frames })
        }
    }

    /// Takes a point for a stream that was reset. What an upstream resets is its own affair.
    fn charge_reset(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.role == Role::Client || self.resets.spend(1, now) {
            Ok(())
        } else {
            Err(ConnectionError { reason: ErrorCode::EnhanceYourCalm, end: SessionEnd::Resets })
        }
    }

    /// Whether the stream was never opened.
    fn is_idle(&self, stream: u32) -> bool {
        match (self.role, stream % 2) {
            (Role::Server, 1) => stream > self.last_peer,
            (Role::Client, 1) => stream >= self.next_own,
            _ => true, // nothing is ever pushed
        }
    }

    /// Whether we have reset the stream and the peer may not know it yet: what comes of it means nothing (RFC 9113
    /// 5.1). `ends`: this is the last that the peer may send on it.
    fn ignores(&mut self, stream: u32, ends: bool) -> bool {
        let found = self.forgotten.iter().position(|&forgotten| forgotten == stream);
        if let (Some(at), true) = (found, ends) {
            self.forgotten.remove(at);
        }
        found.is_some()
    }

    /// Resets a stream for a mistake of the peer's.
    fn refuse(&mut self, stream: u32, reason: ErrorCode, now: Instant) -> Result<(), ConnectionError> {
        match self.find(stream) {
            Some(at) => self.reset(at, reason),
            None => {
                self.belated += i64::from(STREAM_WINDOW);
                self.put_reset(stream, reason);
            }
        }
        self.charge_reset(now)
    }

    pub(super) fn put_reset(&mut self, stream: u32, reason: ErrorCode) {
        self.put_frame(FrameType::RstStream, 0, stream, &(reason as u32).to_be_bytes());
        if self.forgotten.len() == FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(stream);
    }

    /// Writes a frame that is neither DATA nor HEADERS.
    pub(super) fn put_frame(&mut self, kind: FrameType, flags: u8, stream: u32, payload: &[u8]) {
        put_frame_header(&mut self.out, payload.len(), kind, flags, stream);
        self.out.extend_from_slice(payload);
        self.tail = None;
        self.wake_driver();
    }

    fn on_data(&mut self, head: &FrameHeader, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        if self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        self.receive_window -= head.length as i64;
        if self.receive_window < 0 {
            return Err(FLOW_CONTROL);
        }
        let data = unpadded(head, payload)?;
        let ends = head.has(END_STREAM);
        let Some(at) = self.find(head.stream) else {
            self.give_credit(None, head.length);
            if self.role == Role::Server || data.is_empty() {
                self.charge(1, now)?;
            }
            if self.role == Role::Client || self.ignores(head.stream, ends) {
                self.belated -= head.length as i64;
                return if self.belated < 0 { Err(FLOW_CONTROL) } else { Ok(()) };
            }
            return self.refuse(head.stream, ErrorCode::StreamClosed, now);
        };
        if data.is_empty() && !ends {
            self.charge(1, now)?;
        } else {
            self.useless.earn(1);
        }
        if self.role == Role::Client && !self.slots[at].is_answered {
            self.give_credit(None, head.length);
            return self.refuse(head.stream, ErrorCode::Protocol, now); // RFC 9113 8.1: a head comes first
        }
        match self.slots[at].take_data(data, head.length, ends) {
            Ok(()) => {
                self.give_credit(Some(at), head.length - data.len());
                self.slots[at].wake();
                if ends {
                    self.finish_if_done(at);
                }
                Ok(())
            }
            Err(reason) => {
                self.give_credit(None, head.length);
                self.refuse(head.stream, reason, now)
            }
        }
    }

    fn on_headers(&mut self, head: &FrameHeader, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        if head.stream == 0 || (self.role == Role::Server && head.stream.is_multiple_of(2)) {
            return Err(PROTOCOL);
        }
        let mut block = unpadded(head, payload)?;
        let mut depends_on_itself = false;
        if head.has(PRIORITY) {
            let (priority, rest) = block.split_at_checked(5).ok_or(FRAME_SIZE)?;
            depends_on_itself = number(priority) == Some(head.stream);
            block = rest;
        }
        let ends = head.has(END_STREAM);
        if head.has(END_HEADERS) {
            return self.on_block(head.stream, ends, depends_on_itself, block, now);
        }
        self.charge(1, now)?;
        self.block = Some(FieldBlock { stream: head.stream, ends, depends_on_itself, bytes: block.to_vec() });
        Ok(())
    }

    fn on_continuation(&mut self, head: &FrameHeader, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let Some(mut block) = self.block.take() else { return Err(PROTOCOL) };
        // Compressed it is hardly ever larger than as text.
        if block.bytes.len() + payload.len() > self.limits.head_bytes + PAYLOAD_MAX {
            return Err(ConnectionError { reason: ErrorCode::EnhanceYourCalm, end: SessionEnd::Headers });
        }
        block.bytes.extend_from_slice(payload);
        if head.has(END_HEADERS) {
            return self.on_block(block.stream, block.ends, block.depends_on_itself, &block.bytes, now);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole header block. It is read in any case: the next one may need what it leaves in the table.
    fn on_block(
        &mut self,
        stream: u32,
        ends: bool,
        itself: bool,
        block: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if let Some(at) = self.find(stream) {
            return self.on_known(at, ends, block, now);
        }
        if self.role == Role::Client {
            if self.is_idle(stream) {
                return Err(PROTOCOL);
            }
            self.charge(1, now)?;
            return self.skip(block); // one we have given up
        }
        if stream <= self.last_peer {
            if self.ignores(stream, ends) {
                return self.skip(block);
            }
            let back = (self.last_peer - stream) / 2;
            let was_opened = back < 128 && self.opened >> back & 1 == 1;
            return Err(over(if was_opened { ErrorCode::StreamClosed } else { ErrorCode::Protocol }));
        }
        let skipped = (stream - self.last_peer).div_ceil(2);
        self.opened = self.opened.checked_shl(skipped).unwrap_or(0) | 1;
        self.last_peer = stream;
        if self.door == ConnectionState::Closed {
            return self.skip(block);
        }
        if self.is_full() {
            self.skip(block)?;
            return self.refuse(stream, ErrorCode::RefusedStream, now);
        }
        let at = self.free_slot();
        let slot = &mut self.slots[at];
        let mut head = RequestFields::new(&mut slot.input, &mut self.scratch, self.limits.head_bytes);
        let read = self.decoder.decode(block, |name, value| head.field(name, value));
        read.map_err(|_| over(ErrorCode::Compression))?;
        match head.finish(ends) {
            Ok(kind) if !itself => {
                slot.begin(kind.framing, self.stream_window);
                (slot.is_head, slot.is_grpc, slot.remote_ended) = (kind.is_head, kind.is_grpc, ends);
                let is_large = slot.input.len() >= self.limits.head_bytes;
                self.ids[at] = stream;
                self.take_up(at);
                if is_large { self.charge(LARGE_HEAD_COST, now) } else { Ok(()) }
            }
            Ok(_) | Err(FieldError::Malformed) => {
                slot.input.clear();
                self.refuse(stream, ErrorCode::Protocol, now)
            }
            Err(FieldError::Bomb) => {
                Err(ConnectionError { reason: ErrorCode::EnhanceYourCalm, end: SessionEnd::Headers })
            }
        }
    }

    /// Whether the peer may not open one more stream (RFC 9113 5.1.2). One that it has reset is none of them, though
    /// whoever works on it may not know yet; of such there may be as many again.
    fn is_full(&self) -> bool {
        let streams = self.limits.streams as usize;
        let open = || self.ids.iter().filter(|&&id| id != 0).count();
        self.busy >= streams && (self.busy >= 2 * streams || open() >= streams)
    }

    /// An answer's head, or trailers.
    fn on_known(&mut self, at: usize, ends: bool, block: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let stream = self.ids[at];
        let slot = &mut self.slots[at];
        if slot.remote_ended {
            self.skip(block)?;
            return self.refuse(stream, ErrorCode::StreamClosed, now);
        }
        let compression = |_| over(ErrorCode::Compression);
        let read = if self.role == Role::Client && !slot.is_answered {
            let mut head = ResponseFields::new(&mut slot.input, self.limits.head_bytes);
            self.decoder.decode(block, |name, value| head.field(name, value)).map_err(compression)?;
            let kind = head.finish(ends, slot.is_head, slot.trailers_welcome);
            kind.map(|kind| {
                slot.is_answered = !kind.is_interim;
                slot.frame(kind.framing);
            })
        } else {
            let mut unread = Vec::new();
            let out = if slot.framing == super::Framing::Chunked { &mut slot.input } else { &mut unread };
            out.extend_from_slice(b"0\r\n");
            let mut trailers = TrailerFields::new(out);
            self.decoder.decode(block, |name, value| trailers.field(name, value)).map_err(compression)?;
            // RFC 9113 8.1: they end the stream, and come after all that was announced.
            if ends && slot.left.unwrap_or(0) == 0 { trailers.finish() } else { Err(FieldError::Malformed) }
        };
        match read {
            Ok(()) => {
                slot.remote_ended = ends;
                slot.wake();
                if ends {
                    self.finish_if_done(at);
                }
                Ok(())
            }
            Err(FieldError::Malformed) => self.refuse(stream, ErrorCode::Protocol, now),
            Err(FieldError::Bomb) => {
                Err(ConnectionError { reason: ErrorCode::EnhanceYourCalm, end: SessionEnd::Headers })
            }
        }
    }

    fn skip(&mut self, block: &[u8]) -> Result<(), ConnectionError> {
        self.decoder.decode(block, |_, _| {}).map_err(|_| over(ErrorCode::Compression))
    }

    fn on_rst_stream(&mut self, stream: u32, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let &[a, b, c, d] = payload else { return Err(FRAME_SIZE) };
        if self.is_idle(stream) {
            return Err(PROTOCOL);
        }
        let Some(at) = self.find(stream) else {
            self.ignores(stream, true);
            return Ok(());
        };
        self.was_reset(at, u32::from_be_bytes([a, b, c, d]));
        self.charge_reset(now)
    }

    fn on_settings(&mut self, head: &FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if head.has(ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(FRAME_SIZE) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(FRAME_SIZE);
        }
        let mut window = self.stream_window;
        for (setting, value) in settings(payload) {
            match setting {
                2 if value > 1 || (value == 1 && self.role == Role::Client) => return Err(PROTOCOL),
                3 => self.streams_max = value,
                4 if i64::from(value) > WINDOW_MAX => return Err(FLOW_CONTROL),
                4 => window = i64::from(value),
                5 if !(16_384..=16_777_215).contains(&value) => return Err(PROTOCOL),
                5 => self.frame_max = PAYLOAD_MAX, // larger frames would only make others wait
                8 if value > 1 => return Err(PROTOCOL),
                _ => {}
            }
        }
        // RFC 9113 6.9.2: it changes the windows of open streams too, and may make them negative.
        let change = window - self.stream_window;
        self.stream_window = window;
        for at in 0..self.slots.len() {
            if self.ids[at] == 0 && !self.is_unnumbered(at) {
                continue; // its window is that of a stream that is over
            }
            self.slots[at].window += change;
            if self.slots[at].window > WINDOW_MAX {
                return Err(FLOW_CONTROL);
            }
        }
        self.put_frame(FrameType::Settings, ACK, 0, &[]);
        self.wake_blocked();
        Ok(())
    }

    fn on_ping(&mut self, head: &FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if payload.len() != 8 {
            return Err(FRAME_SIZE);
        }
        if !head.has(ACK) {
            self.put_frame(FrameType::Ping, ACK, 0, payload);
        } else if payload == LAST_CALL {
            self.close();
        }
        Ok(())
    }

    fn on_go_away(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let (Some(last), 8..) = (number(payload), payload.len()) else { return Err(FRAME_SIZE) };
        if self.role == Role::Client {
            self.door = ConnectionState::Closed;
            for at in 0..self.slots.len() {
                if self.ids[at] > last || self.is_unnumbered(at) {
                    self.was_reset(at, ErrorCode::RefusedStream as u32);
                }
            }
            self.wake_driver();
        }
        Ok(())
    }

    fn on_window_update(&mut self, stream: u32, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let (Some(more), 4) = (number(payload), payload.len()) else { return Err(FRAME_SIZE) };
        if stream == 0 {
            self.window += i64::from(more);
            if more == 0 {
                return Err(PROTOCOL);
            }
            if self.window > WINDOW_MAX {
                return Err(FLOW_CONTROL);
            }
            self.wake_blocked();
            return Ok(());
        }
        if self.is_idle(stream) {
            return Err(PROTOCOL);
        }
        if more == 0 && !self.ignores(stream, false) {
            return self.refuse(stream, ErrorCode::Protocol, now);
        }
        let Some(at) = self.find(stream) else { return Ok(()) };
        let slot = &mut self.slots[at];
        slot.window += i64::from(more);
        if slot.window > WINDOW_MAX {
            return self.refuse(stream, ErrorCode::FlowControl, now);
        }
        if slot.is_blocked {
            slot.wake();
        }
        Ok(())
    }

    /// Tells the peer to open no more streams, and goes on serving those that are on their way. The answer to a PING
    /// shows that they have arrived; then, or when the caller has waited long enough, [`Session::close`].
    pub fn close_softly(&mut self) {
        if self.door == ConnectionState::Open {
            self.door = ConnectionState::Closing;
            self.put_go_away(u32::MAX >> 1, ErrorCode::NoError);
            self.put_frame(FrameType::Ping, 0, 0, LAST_CALL);
        }
    }

    /// Serves no more streams than have been opened.
    pub fn close(&mut self) {
        if self.door != ConnectionState::Closed {
            self.door = ConnectionState::Closed;
            self.put_go_away(self.last_peer, ErrorCode::NoError);
        }
    }

    /// Ends it: every stream is over. What waits to be written ends with the reason for the peer.
    pub fn end(&mut self, reason: ErrorCode) {
        self.put_go_away(self.last_peer, reason);
        self.break_off();
    }

    /// The connection is gone, and every stream with it.
    pub fn break_off(&mut self) {
        self.door = ConnectionState::Closed;
        for at in 0..self.slots.len() {
            if self.ids[at] != 0 || self.slots[at].is_busy() {
                self.was_reset(at, ErrorCode::Cancel as u32);
            }
            self.slots[at].wake();
        }
        // Nobody takes these up any more, who would release them.
        while let Some(at) = self.fresh.pop() {
            self.release(at);
        }
    }

    fn put_go_away(&mut self, last: u32, reason: ErrorCode) {
        // RFC 9113 6.8: never more than was said before.
        self.last_said = self.last_said.min(last);
        let last = self.last_said;
        let [a, b, c, d] = last.to_be_bytes();
        let [e, f, g, h] = (reason as u32).to_be_bytes();
        self.put_frame(FrameType::GoAway, 0, 0, &[a, b, c, d, e, f, g, h]);
    }
}

/// The payload without its padding (RFC 9113 6.1).
fn unpadded<'p>(head: &FrameHeader, payload: &'p [u8]) -> Result<&'p [u8], ConnectionError> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(FRAME_SIZE)?;
    // A HEADERS frame has its priority in front of the block.
    let len = rest.len().checked_sub(usize::from(padding)).ok_or(PROTOCOL)?;
    Ok(&rest[..len])
}
