//! What the tasks of streams do: take a stream, read its text, write payload, and let it go.

use std::task::Waker;

use crate::http2::Framing;
use crate::http2::connection_state::{ConnectionState, LAST_STREAM_MAX};
use crate::http2::flow_control::STREAM_WINDOW;
use crate::http2::frame::ErrorCode;
use crate::http2::request_fields::FieldScratch;
use crate::http2::role::Role;
use crate::http2::session::Session;
use crate::http2::stream_slot::SlotOwner;

/// What one stream may write at a time, so that the others have their turn.
const WRITE_MAX: usize = 16 * 1024;

/// A frame with less payload than this, sent because the peer's window takes no more, is the peer's mistake and counts
/// as no useful work.
const USEFUL_MIN: usize = 64;

/// What a stream that ended well earns its peer.
const COMPLETION_EARNS: u32 = 4;

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRead {
    /// So many bytes were copied.
    Bytes(usize),
    /// Nothing has come yet.
    Wait,
    /// Nothing more will come.
    End,
    /// The stream broke off.
    Broken,
}

/// The stream broke off, or what was to be written is not the text that was expected.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamError;

impl Session {
    /// What waits to be written.
    pub fn unsent(&self) -> &[u8] {
        self.output.unsent()
    }

    /// Takes note that `n` bytes of it were written.
    pub fn sent(&mut self, n: usize) {
        if self.output.sent(n) {
            self.streams.wake_blocked();
        }
    }

    /// Gives the memory of an idle connection back.
    pub fn shrink(&mut self) {
        self.output.shrink();
        self.scratch = FieldScratch::default();
        self.decoder.shrink();
        self.streams.shrink();
    }

    /// The memory that waiting frames hold.
    #[cfg(test)]
    pub fn output_capacity(&self) -> usize {
        self.output.capacity()
    }

    /// Remembers the task that moves bytes between the session and the socket, which is woken when there are some.
    pub fn register_driver(&mut self, waker: &Waker) {
        self.output.register_driver(waker);
    }

    /// The slot of a stream that the peer has opened and that no task serves. The task that takes it calls
    /// [`Session::release`] when it stops; until then it reads one request after the other from the slot.
    pub fn accept(&mut self) -> Option<usize> {
        self.streams.next_unserved()
    }

    /// How many streams are open, or served.
    pub fn active_streams(&self) -> usize {
        self.streams.active()
    }

    /// How many tasks serve a stream, or wait for one.
    pub fn tasks(&self) -> usize {
        self.streams.owned()
    }

    /// How many streams have ended well.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Opens a stream of our own and returns its slot; `None` where the peer or a limit allows no more, or while the
    /// peer owes a sign of life. The stream gets its number with its first bytes. Call [`Session::release`] in the end.
    pub fn open(&mut self) -> Option<usize> {
        let streams_max = self.peer.streams_max.min(self.limits.streams) as usize;
        let is_full = self.streams.active() >= streams_max || self.next_stream > LAST_STREAM_MAX;
        if self.state != ConnectionState::Open || self.awaits_pong || is_full {
            return None;
        }
        let at = self.streams.free_slot();
        self.streams.slots[at].begin(Framing::None, self.peer.stream_window);
        self.streams.serve_by_caller(at);
        Some(at)
    }

    /// Whether a stream of our own was opened of which the peer has not heard yet.
    pub(super) fn is_unnumbered(&self, at: usize) -> bool {
        let slot = &self.streams.slots[at];
        let is_open = self.streams.is_serving(at) && !slot.local_ended && !slot.is_reset;
        self.role == Role::Client && self.streams.id(at) == 0 && is_open
    }

    /// Lets the task of a slot have no other stream after this one.
    pub fn dismiss(&mut self, at: usize) {
        self.streams.slots[at].is_dismissed = true;
    }

    /// Whether the peer says that it did not look at the stream: it may be sent again, whatever it is.
    pub fn is_refused(&self, at: usize) -> bool {
        self.streams.slots[at].is_refused
    }

    /// Reads text into `room`.
    pub fn read(&mut self, at: usize, room: &mut [u8], waker: &Waker) -> StreamRead {
        let (role, stream) = (self.role, self.streams.id(at));
        let slot = &mut self.streams.slots[at];
        if slot.is_reset {
            return StreamRead::Broken;
        }
        if role == Role::Server && slot.local_ended && slot.framing != Framing::Tunnel && stream != 0 {
            return self.drop_rest_of_request(at, waker);
        }
        let (n, payload) = slot.read_input(role, room);
        if n > 0 {
            self.give_credit(Some(at), payload);
            return StreamRead::Bytes(n);
        }
        let is_over = match role {
            Role::Server if stream == 0 => self.await_next_stream(at),
            Role::Server => slot.framing == Framing::Tunnel && slot.remote_ended,
            Role::Client => slot.remote_ended,
        };
        if is_over {
            return StreamRead::End;
        }
        self.streams.slots[at].register(waker);
        StreamRead::Wait
    }

    /// After a response, the rest of the request is of no use. What is on its way may still come, and be its end; a
    /// client that goes on sending is to be stopped (RFC 9113 8.1).
    fn drop_rest_of_request(&mut self, at: usize, waker: &Waker) -> StreamRead {
        let slot = &mut self.streams.slots[at];
        let goes_on = slot.receive_window.left() < i64::from(STREAM_WINDOW / 2);
        let unread = slot.clear_input();
        slot.register(waker);
        self.give_credit(None, unread);
        if goes_on { StreamRead::End } else { StreamRead::Wait }
    }

    /// The task of a slot waits for its next stream. Returns whether it gets none.
    fn await_next_stream(&mut self, at: usize) -> bool {
        if self.streams.is_serving(at) {
            self.streams.end_serving(at, SlotOwner::Waiting);
            self.streams.slots[at].clear_input();
            self.output.wake_driver(); // it may be the last stream that the driver waits for
        }
        self.streams.slots[at].is_dismissed || self.state == ConnectionState::Closed
    }

    /// Whether more may be written on a stream now. If not, `waker` is woken when it may.
    pub fn may_write(&mut self, at: usize, waker: &Waker) -> bool {
        let is_full = self.output.room() == 0;
        let slot = &mut self.streams.slots[at];
        slot.is_blocked = is_full && !slot.is_reset;
        if slot.is_blocked {
            slot.register(waker);
        }
        !slot.is_blocked
    }

    /// Writes payload and returns how much of it was taken: 0 while the peer or the connection takes no more, and
    /// `waker` is woken when it does.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn write(&mut self, at: usize, data: &[u8], waker: &Waker) -> Result<usize, StreamError> {
        let slot = &mut self.streams.slots[at];
        if slot.is_reset || slot.local_ended {
            return Err(StreamError);
        }
        let window = usize::try_from(slot.send_window.min(self.send_window)).unwrap_or(0);
        let n = data.len().min(window).min(self.output.room()).min(WRITE_MAX).min(self.peer.frame_max);
        slot.is_blocked = n == 0;
        if n == 0 {
            slot.register(waker);
            return Ok(0);
        }
        slot.send_window -= n as i64;
        self.send_window -= n as i64;
        if n >= USEFUL_MIN || n < window {
            self.unproductive.earn(1);
        }
        self.output.put_data(self.streams.id(at), &data[..n]);
        Ok(n)
    }

    /// Ends our side of a stream.
    pub fn finish_writing(&mut self, at: usize) {
        let (slot, stream) = (&self.streams.slots[at], self.streams.id(at));
        if slot.local_ended || slot.is_reset || stream == 0 {
            return;
        }
        self.output.put_end_of_stream(stream);
        self.local_ended(at);
    }

    pub(super) fn local_ended(&mut self, at: usize) {
        self.streams.slots[at].local_ended = true;
        self.finish_if_done(at);
    }

    /// Ends a stream that both sides have ended.
    pub(super) fn finish_if_done(&mut self, at: usize) {
        let slot = &self.streams.slots[at];
        if slot.local_ended && slot.remote_ended && self.streams.id(at) != 0 {
            self.streams.set_id(at, 0);
            self.completed += 1;
            self.has_stalled = false;
            self.unproductive.earn(COMPLETION_EARNS);
        }
    }

    /// Resets a stream of which the peer may still think that it is open.
    pub(super) fn reset(&mut self, at: usize, code: ErrorCode) {
        let slot = &self.streams.slots[at];
        if !slot.remote_ended {
            self.late_data_max += slot.receive_window.left();
        }
        self.put_reset(self.streams.id(at), code);
        self.drop_stream(at);
    }

    /// The peer has reset the stream.
    pub(super) fn was_reset(&mut self, at: usize, code: u32) {
        let is_unnumbered = self.is_unnumbered(at);
        let slot = &mut self.streams.slots[at];
        if slot.is_reset {
            return slot.wake(); // what it was reset for first is what counts
        }
        if self.role == Role::Client && slot.remote_ended {
            // RFC 9113 8.1: the response is complete, and the rest of the request is not wanted.
            slot.local_ended = true;
            slot.wake();
            return self.streams.set_id(at, 0);
        }
        let was_refused = self.role == Role::Client && code == ErrorCode::RefusedStream as u32 && !slot.is_answered;
        slot.is_refused = was_refused || is_unnumbered;
        self.drop_stream(at);
    }

    fn drop_stream(&mut self, at: usize) {
        self.streams.set_id(at, 0);
        let slot = &mut self.streams.slots[at];
        slot.is_reset = true;
        let unread = slot.clear_input();
        slot.wake();
        self.give_credit(None, unread);
    }

    /// Gives a stream up of which the peer takes nothing.
    pub fn give_up(&mut self, at: usize) {
        if self.streams.id(at) != 0 {
            self.reset(at, ErrorCode::EnhanceYourCalm);
            self.has_stalled = true;
        }
    }

    /// Whether the last stream was one of which the peer took nothing.
    pub fn is_stalled(&self) -> bool {
        self.has_stalled && self.streams.active() == 0
    }

    /// The task of a slot is gone. A stream that is not complete is reset.
    pub fn release(&mut self, at: usize) {
        let slot = &self.streams.slots[at];
        let is_complete = self.role == Role::Client && slot.local_ended && slot.left == Some(0) && slot.is_answered;
        if self.streams.id(at) != 0 && !is_complete {
            let code = match (self.role, slot.local_ended) {
                // RFC 9113 8.1: the response is complete without the rest of the request.
                (Role::Server, true) => ErrorCode::NoError,
                (Role::Server, false) if slot.framing != Framing::Tunnel => ErrorCode::Internal,
                (Role::Server, false) | (Role::Client, _) => ErrorCode::Cancel,
            };
            let is_unanswered = self.role == Role::Client && !slot.is_answered;
            self.reset(at, code);
            if is_unanswered {
                self.ping();
            }
        }
        let slot = &self.streams.slots[at];
        if self.streams.id(at) != 0 && !slot.remote_ended {
            self.late_data_max += slot.receive_window.left();
        }
        // Of a complete stream only the empty end may be missing, or what nobody asked for.
        self.streams.set_id(at, 0);
        let slot = &mut self.streams.slots[at];
        let unread = slot.clear_input();
        slot.clear_task();
        self.streams.end_serving(at, SlotOwner::Nobody);
        self.give_credit(None, unread);
        self.output.wake_driver();
    }
}
