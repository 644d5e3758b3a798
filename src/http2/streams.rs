//! Streams: what whoever works on one reads and writes, and how much of it may wait (RFC 9113 5).

use std::task::Waker;

use super::fields::{FieldScratch, Framing};
use super::frame::{END_HEADERS, END_STREAM, ErrorCode, FRAME_HEADER_LEN, FrameType, put_frame_header};
use super::hpack;
use super::session::{ConnectionState, Role, Session};

/// What a peer may send on one stream before it is read, in bytes.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// What a client may send on all streams together before it is read: what it can make a connection hold. An upstream
/// may send on each of its streams what that stream's window takes.
pub const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// Payload is written into frames while less than this waits to be sent.
pub const OUT_MAX: usize = 64 * 1024;

/// One stream's part of that at a time, so that others have theirs.
const TURN_MAX: usize = 16 * 1024;

/// What a slot's buffer may keep for its next stream.
const KEPT_INPUT: usize = 8 * 1024;

/// Less than this, sent because the peer lets us send no more, is its mistake and not our work.
const CRUMB: usize = 64;

/// Who works on a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotOwner {
    None,
    /// Somebody who waits for the next stream.
    Waiting,
    Busy,
}

/// A place for one stream after the other.
pub(super) struct StreamSlot {
    worker: SlotOwner,
    /// What the peer has sent, as text, of which `at` bytes are read.
    pub(super) input: Vec<u8>,
    at: usize,
    /// Payload in it for which the peer has no credit yet.
    held: usize,
    credit: u32,
    receive_window: i64,
    pub(super) window: i64,
    /// How the peer's body comes, and what of an announced length is still to come.
    pub(super) framing: Framing,
    pub(super) left: Option<u64>,
    pub(super) is_head: bool,
    pub(super) is_grpc: bool,
    /// The final answer's head has come, or gone.
    pub(super) is_answered: bool,
    pub(super) trailers_welcome: bool,
    pub(super) remote_ended: bool,
    local_ended: bool,
    is_reset: bool,
    is_refused: bool,
    is_dismissed: bool,
    pub(super) is_blocked: bool,
    waker: Option<Waker>,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRead {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Wait,
    /// There will be nothing more.
    End,
    /// The stream broke off.
    Broken,
}

/// The stream broke off.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamError;

impl StreamSlot {
    fn new() -> Self {
        StreamSlot {
            worker: SlotOwner::None,
            input: Vec::new(),
            at: 0,
            held: 0,
            credit: 0,
            receive_window: 0,
            window: 0,
            framing: Framing::None,
            left: None,
            is_head: false,
            is_grpc: false,
            is_answered: false,
            trailers_welcome: false,
            remote_ended: false,
            local_ended: false,
            is_reset: false,
            is_refused: false,
            is_dismissed: false,
            is_blocked: false,
            waker: None,
        }
    }

    /// Starts with a stream; `input` may already hold its head.
    pub(super) fn begin(&mut self, framing: Framing, window: i64) {
        (self.at, self.held, self.credit) = (0, 0, 0);
        self.receive_window = i64::from(STREAM_WINDOW);
        self.window = window;
        self.frame(framing);
        (self.is_answered, self.is_reset, self.is_refused, self.is_blocked) = (false, false, false, false);
        (self.remote_ended, self.local_ended) = (false, false);
    }

    /// Says how the body comes.
    pub(super) fn frame(&mut self, framing: Framing) {
        self.framing = framing;
        self.left = match framing {
            Framing::Length(length) => Some(length),
            Framing::None => Some(0),
            Framing::Chunked | Framing::Tunnel => None,
        };
    }

    pub(super) fn is_busy(&self) -> bool {
        self.worker == SlotOwner::Busy
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Appends a DATA frame's payload; `length` is what it takes of the window.
    pub(super) fn take_data(&mut self, data: &[u8], length: usize, ends: bool) -> Result<(), ErrorCode> {
        self.receive_window -= length as i64;
        if self.receive_window < 0 {
            return Err(ErrorCode::FlowControl);
        }
        if self.remote_ended {
            return Err(ErrorCode::StreamClosed);
        }
        if let Some(left) = &mut self.left {
            // RFC 9113 8.1.1: neither more nor less than was announced.
            *left = left.checked_sub(data.len() as u64).ok_or(ErrorCode::Protocol)?;
            if ends && *left > 0 {
                return Err(ErrorCode::Protocol);
            }
        }
        self.compact();
        match self.framing {
            Framing::Chunked => {
                if !data.is_empty() {
                    self.input.extend(chunk_digits(data.len()));
                    self.input.extend_from_slice(b"\r\n");
                    self.input.extend_from_slice(data);
                    self.input.extend_from_slice(b"\r\n");
                }
                if ends {
                    self.input.extend_from_slice(b"0\r\n\r\n");
                }
            }
            Framing::Length(_) | Framing::Tunnel | Framing::None => self.input.extend_from_slice(data),
        }
        self.held += data.len();
        self.remote_ended = ends;
        Ok(())
    }

    /// Drops what is read, before more comes.
    fn compact(&mut self) {
        if self.at == self.input.len() {
            self.input.clear();
            self.at = 0;
        } else if self.at > self.input.len() / 2 {
            self.input.drain(..self.at);
            self.at = 0;
        }
    }

    /// What may be read. Of a body with a length the last byte waits for the end of the stream: only that says that all
    /// is well.
    fn readable(&self, role: Role) -> &[u8] {
        let is_held_back = role == Role::Client
            && matches!(self.framing, Framing::Length(1..))
            && !self.remote_ended
            && self.left == Some(0);
        &self.input[self.at..self.input.len() - usize::from(is_held_back && self.at < self.input.len())]
    }

    fn forget_input(&mut self) {
        self.input.clear();
        self.input.shrink_to(KEPT_INPUT);
        (self.at, self.held) = (0, 0);
    }
}

impl Session {
    /// What waits to be written.
    pub fn unsent(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// `n` bytes of it were written.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent == self.out.len() {
            self.out.clear();
            self.out.shrink_to(2 * OUT_MAX);
            (self.sent, self.tail) = (0, None);
            self.wake_blocked();
        }
    }

    /// Gives the memory of an idle connection back.
    pub fn shrink(&mut self) {
        self.out.shrink_to(0);
        self.scratch = FieldScratch::default();
        self.decoder.shrink();
        for slot in &mut self.slots {
            if slot.worker == SlotOwner::Waiting {
                slot.is_dismissed = true;
                slot.wake();
            }
            if slot.worker != SlotOwner::Busy {
                slot.input = Vec::new();
            }
        }
    }

    /// Gives whoever works on a slot no other stream after this one.
    pub fn dismiss(&mut self, at: usize) {
        self.slots[at].is_dismissed = true;
    }

    /// Remembers who moves bytes between the session and the socket, to be woken when there are some.
    pub fn watch(&mut self, waker: &Waker) {
        if self.wakers.driver.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.wakers.driver = Some(waker.clone());
        }
    }

    pub(super) fn wake_driver(&self) {
        if let Some(waker) = &self.wakers.driver {
            waker.wake_by_ref();
        }
    }

    /// Wakes streams that could not write, another one first each time.
    pub(super) fn wake_blocked(&mut self) {
        let len = self.slots.len();
        if len == 0 {
            return;
        }
        self.wakers.turn = (self.wakers.turn + 1) % len;
        for step in 0..len {
            let slot = &mut self.slots[(self.wakers.turn + step) % len];
            if slot.is_blocked {
                slot.wake();
            }
        }
    }

    /// A stream opened by the peer that nobody works on, or `None`. Whoever takes it calls [`Session::release`] when it
    /// stops working on it; until then it reads one request after the other from it.
    pub fn next_fresh(&mut self) -> Option<usize> {
        self.fresh.pop()
    }

    /// Streams and slots that somebody works on.
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Whoever works or waits for work here.
    pub fn workers(&self) -> usize {
        self.slots.iter().filter(|slot| slot.worker != SlotOwner::None).count()
    }

    /// Whether no stream is opened any more.
    pub fn is_closed(&self) -> bool {
        self.door == ConnectionState::Closed
    }

    /// Whether the peer was told, or has told us, to open no more streams.
    pub fn is_closing(&self) -> bool {
        self.door != ConnectionState::Open
    }

    /// Streams that have ended well.
    pub fn served(&self) -> u64 {
        self.served
    }

    pub(super) fn find(&self, stream: u32) -> Option<usize> {
        if stream == 0 { None } else { self.ids.iter().position(|&id| id == stream) }
    }

    /// A slot for a new stream: best one with somebody who waits.
    pub(super) fn free_slot(&mut self) -> usize {
        let is = |worker| move |slot: &StreamSlot| slot.worker == worker && !slot.is_dismissed;
        let found = self
            .slots
            .iter()
            .position(is(SlotOwner::Waiting))
            .or_else(|| self.slots.iter().position(is(SlotOwner::None)));
        found.unwrap_or_else(|| {
            self.slots.push(StreamSlot::new());
            self.ids.push(0);
            self.slots.len() - 1
        })
    }

    /// Has somebody work on a slot.
    pub(super) fn take_up(&mut self, at: usize) {
        match std::mem::replace(&mut self.slots[at].worker, SlotOwner::Busy) {
            SlotOwner::None => self.fresh.push(at),
            SlotOwner::Waiting => self.slots[at].wake(),
            SlotOwner::Busy => unreachable!("a slot in use is not free"),
        }
        self.busy += 1;
    }

    /// Opens a stream of our own; `None` where the peer or a limit allows no more, or while the peer owes a sign of
    /// life. Its number is given by its first bytes. Call [`Session::release`] in the end.
    pub fn open(&mut self) -> Option<usize> {
        let limit = self.streams_max.min(self.limits.streams) as usize;
        if self.door != ConnectionState::Open
            || self.is_doubted()
            || self.busy >= limit
            || self.next_own > u32::MAX >> 1
        {
            return None;
        }
        let at = self.free_slot();
        let window = self.stream_window;
        let slot = &mut self.slots[at];
        slot.begin(Framing::None, window);
        slot.worker = SlotOwner::Busy;
        self.busy += 1;
        Some(at)
    }

    /// Whether a stream of our own was opened of which the peer has not heard yet.
    pub(super) fn is_unnumbered(&self, at: usize) -> bool {
        let slot = &self.slots[at];
        self.role == Role::Client && self.ids[at] == 0 && slot.is_busy() && !slot.local_ended && !slot.is_reset
    }

    /// Reads text into `room`.
    pub fn read(&mut self, at: usize, room: &mut [u8], waker: &Waker) -> StreamRead {
        let (role, id) = (self.role, self.ids[at]);
        let slot = &mut self.slots[at];
        if slot.is_reset {
            return StreamRead::Broken;
        }
        if role == Role::Server && slot.local_ended && slot.framing != Framing::Tunnel && id != 0 {
            // The rest of the request is of no use any more. What is on its way may come, and be its end; who goes on
            // sending is to be stopped (RFC 9113 8.1).
            let goes_on = slot.receive_window < i64::from(STREAM_WINDOW / 2);
            let held = slot.held;
            slot.forget_input();
            slot.remember(waker);
            self.give_credit(None, held);
            return if goes_on { StreamRead::End } else { StreamRead::Wait };
        }
        let text = slot.readable(role);
        let n = text.len().min(room.len());
        if n > 0 {
            room[..n].copy_from_slice(&text[..n]);
            slot.at += n;
            let read = n.min(slot.held);
            slot.held -= read;
            if slot.at == slot.input.len() {
                slot.input.clear();
                slot.at = 0;
            }
            self.give_credit(Some(at), read);
            return StreamRead::Bytes(n);
        }
        let is_over = match role {
            Role::Server if id == 0 => {
                if slot.worker == SlotOwner::Busy {
                    slot.worker = SlotOwner::Waiting;
                    slot.forget_input();
                    self.busy -= 1;
                    self.wake_driver(); // it may be the last one waited for
                }
                self.slots[at].is_dismissed || self.door == ConnectionState::Closed
            }
            Role::Server => slot.framing == Framing::Tunnel && slot.remote_ended,
            Role::Client => slot.remote_ended,
        };
        if is_over {
            return StreamRead::End;
        }
        self.slots[at].remember(waker);
        StreamRead::Wait
    }

    /// Whether the peer says that it did not look at the stream: it may be sent again, whatever it is.
    pub fn is_refused(&self, at: usize) -> bool {
        self.slots[at].is_refused
    }

    /// Gives the peer leave to send `n` more bytes, once that is worth a frame.
    pub(super) fn give_credit(&mut self, at: Option<usize>, n: usize) {
        let n = n as u32;
        self.credit += n;
        if self.credit >= STREAM_WINDOW / 2 {
            self.receive_window += i64::from(self.credit);
            let credit = std::mem::take(&mut self.credit);
            self.put_frame(FrameType::WindowUpdate, 0, 0, &credit.to_be_bytes());
        }
        let Some(at) = at else { return };
        let slot = &mut self.slots[at];
        slot.credit += n;
        if slot.credit >= STREAM_WINDOW / 2 && !slot.remote_ended && !slot.is_reset && self.ids[at] != 0 {
            slot.receive_window += i64::from(slot.credit);
            let credit = std::mem::take(&mut slot.credit);
            self.put_frame(FrameType::WindowUpdate, 0, self.ids[at], &credit.to_be_bytes());
        }
    }

    /// Whether more may be written on a stream now; if not, `waker` is woken when it may.
    pub fn may_write(&mut self, at: usize, waker: &Waker) -> bool {
        let is_full = self.out.len() - self.sent >= OUT_MAX;
        let slot = &mut self.slots[at];
        slot.is_blocked = is_full && !slot.is_reset;
        if slot.is_blocked {
            slot.remember(waker);
        }
        !slot.is_blocked
    }

    /// Writes HEADERS. `block` makes the header block; `ends`: nothing follows.
    ///
    /// # Errors
    /// [`StreamError`]
    pub(super) fn put_headers(
        &mut self,
        at: usize,
        ends: bool,
        block: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StreamError> {
        let slot = &self.slots[at];
        if slot.is_reset || slot.local_ended {
            return Err(StreamError);
        }
        if self.ids[at] == 0 {
            self.ids[at] = self.next_own;
            self.next_own += 2;
        }
        let id = self.ids[at];
        let start = self.out.len();
        put_frame_header(&mut self.out, 0, FrameType::Headers, END_HEADERS, id);
        if !std::mem::replace(&mut self.has_said_no_table, true) {
            hpack::put_no_table(&mut self.out);
        }
        block(&mut self.out);
        let length = self.out.len() - start - FRAME_HEADER_LEN;
        if length <= self.frame_max {
            self.out[start..start + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            self.tail = Some((id, start + 4));
        } else {
            let block = self.out.split_off(start + FRAME_HEADER_LEN);
            self.out.truncate(start);
            let last = block.chunks(self.frame_max).count() - 1;
            for (nth, part) in block.chunks(self.frame_max).enumerate() {
                let kind = if nth == 0 { FrameType::Headers } else { FrameType::Continuation };
                let flags = if nth == last { END_HEADERS } else { 0 };
                let flags = if nth == 0 && ends { flags | END_STREAM } else { flags };
                put_frame_header(&mut self.out, part.len(), kind, flags, id);
                self.out.extend_from_slice(part);
            }
            self.tail = None;
            if ends {
                self.ended(at);
                self.wake_driver();
                return Ok(());
            }
        }
        if ends {
            self.finish_writing(at);
        }
        self.wake_driver();
        Ok(())
    }

    /// Writes payload and gives how much of it was taken: 0 while the peer or the connection takes no more, and
    /// `waker` is woken when it does.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn write(&mut self, at: usize, data: &[u8], waker: &Waker) -> Result<usize, StreamError> {
        let id = self.ids[at];
        let room = OUT_MAX.saturating_sub(self.out.len() - self.sent);
        let slot = &mut self.slots[at];
        if slot.is_reset || slot.local_ended {
            return Err(StreamError);
        }
        let window = usize::try_from(slot.window.min(self.window)).unwrap_or(0);
        let n = data.len().min(window).min(room).min(TURN_MAX).min(self.frame_max);
        slot.is_blocked = n == 0;
        if n == 0 {
            slot.remember(waker);
            return Ok(0);
        }
        slot.window -= n as i64;
        self.window -= n as i64;
        if n >= CRUMB || n < window {
            self.useless.earn(1);
        }
        let start = self.out.len();
        put_frame_header(&mut self.out, n, FrameType::Data, 0, id);
        self.out.extend_from_slice(&data[..n]);
        self.tail = Some((id, start + 4));
        self.wake_driver();
        Ok(n)
    }

    /// Ends our side of a stream.
    pub fn finish_writing(&mut self, at: usize) {
        let id = self.ids[at];
        if self.slots[at].local_ended || self.slots[at].is_reset || id == 0 {
            return;
        }
        match self.tail {
            // Its last frame is still here: it is that one's flag.
            Some((stream, flags)) if stream == id && flags >= self.sent => self.out[flags] |= END_STREAM,
            Some(_) | None => {
                put_frame_header(&mut self.out, 0, FrameType::Data, END_STREAM, id);
                self.tail = None;
            }
        }
        self.wake_driver();
        self.ended(at);
    }

    fn ended(&mut self, at: usize) {
        self.slots[at].local_ended = true;
        self.finish_if_done(at);
    }

    /// Ends a stream that both sides have ended.
    pub(super) fn finish_if_done(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.local_ended && slot.remote_ended && self.ids[at] != 0 {
            self.ids[at] = 0;
            self.served += 1;
            self.has_stalled = false;
            self.useless.earn(4);
        }
    }

    /// Resets a stream of which somebody may still think it is open.
    pub(super) fn reset(&mut self, at: usize, reason: ErrorCode) {
        if !self.slots[at].remote_ended {
            self.belated += self.slots[at].receive_window;
        }
        self.put_reset(self.ids[at], reason);
        self.drop_stream(at);
    }

    /// The peer has reset it.
    pub(super) fn was_reset(&mut self, at: usize, reason: u32) {
        let is_unnumbered = self.is_unnumbered(at);
        let slot = &mut self.slots[at];
        if slot.is_reset {
            return slot.wake(); // what it was reset for first is what counts
        }
        if self.role == Role::Client && slot.remote_ended {
            // RFC 9113 8.1: the answer is complete, the rest of the request is not wanted.
            slot.local_ended = true;
            self.ids[at] = 0;
            return slot.wake();
        }
        let was_refused = self.role == Role::Client && reason == ErrorCode::RefusedStream as u32 && !slot.is_answered;
        slot.is_refused = was_refused || is_unnumbered;
        self.drop_stream(at);
    }

    pub(super) fn drop_stream(&mut self, at: usize) {
        self.ids[at] = 0;
        let held = self.slots[at].held;
        self.slots[at].is_reset = true;
        self.slots[at].forget_input();
        self.give_credit(None, held);
        self.slots[at].wake();
    }

    /// Gives a stream up of which the peer takes nothing.
    pub fn stall(&mut self, at: usize) {
        if self.ids[at] != 0 {
            self.reset(at, ErrorCode::EnhanceYourCalm);
            self.has_stalled = true;
        }
    }

    /// Whether the last stream was one of which the peer took nothing.
    pub fn is_stalled(&self) -> bool {
        self.has_stalled && self.busy == 0
    }

    /// Whoever worked on a slot does not any more. A stream that is not complete is reset.
    pub fn release(&mut self, at: usize) {
        let slot = &self.slots[at];
        let is_complete = self.role == Role::Client && slot.local_ended && slot.left == Some(0) && slot.is_answered;
        if self.ids[at] != 0 && !is_complete {
            let reason = match (self.role, slot.local_ended) {
                // RFC 9113 8.1: the answer is complete without the rest of the request.
                (Role::Server, true) => ErrorCode::NoError,
                (Role::Server, false) if slot.framing != Framing::Tunnel => ErrorCode::Internal,
                (Role::Server, false) | (Role::Client, _) => ErrorCode::Cancel,
            };
            let is_unanswered = self.role == Role::Client && !slot.is_answered;
            self.reset(at, reason);
            if is_unanswered {
                self.doubt();
            }
        }
        if self.ids[at] != 0 && !self.slots[at].remote_ended {
            self.belated += self.slots[at].receive_window;
        }
        self.ids[at] = 0; // of a complete one only the empty end may be missing, or what nobody asked for
        let slot = &mut self.slots[at];
        let held = slot.held;
        slot.forget_input();
        if std::mem::replace(&mut slot.worker, SlotOwner::None) == SlotOwner::Busy {
            self.busy -= 1;
        }
        slot.waker = None;
        (slot.is_dismissed, slot.is_blocked) = (false, false);
        self.give_credit(None, held);
        self.wake_driver();
    }
}

impl StreamSlot {
    fn remember(&mut self, waker: &Waker) {
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// The digits in front of a chunk of `size` bytes (RFC 9112 7.1).
pub fn chunk_digits(size: usize) -> impl Iterator<Item = u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let shift = size.checked_ilog2().unwrap_or(0) / 4 * 4;
    (0..=shift).rev().step_by(4).map(move |shift| DIGITS[size >> shift & 15])
}
