//! One stream: what its peer has sent and nobody has read, and how far each side has come (RFC 9113 5.1).

use std::task::Waker;

use super::flow_control::{ReceiveWindow, STREAM_WINDOW};
use super::frame::ErrorCode;
use super::head_writer::Framing;
use super::role::Role;
use crate::http1::body::chunk_digits;

/// What the buffer of a slot may keep for its next stream.
const KEPT_INPUT: usize = 8 * 1024;

/// Who uses a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotOwner {
    /// No task.
    #[default]
    Nobody,
    /// A task that waits for the next stream.
    Waiting,
    /// A task that serves a stream, or will.
    Serving,
}

/// A place for one stream after the other.
#[derive(Default)]
pub struct StreamSlot {
    pub owner: SlotOwner,
    /// What the peer has sent, as text, of which the first `read` bytes are read.
    pub input: Vec<u8>,
    read: usize,
    /// How many bytes of the input are payload, for which the peer gets credit when they are read.
    unread_payload: usize,
    pub receive_window: ReceiveWindow,
    /// What the peer takes now. A setting of the peer can make it negative (RFC 9113 6.9.2).
    pub send_window: i64,
    /// How the peer's body comes.
    pub framing: Framing,
    /// What is still to come of a body whose length is known.
    pub left: Option<u64>,
    /// The request is a HEAD.
    pub is_head: bool,
    pub is_grpc: bool,
    /// The head of the final response has come, or gone.
    pub is_answered: bool,
    /// The request said `TE: trailers`.
    pub trailers_welcome: bool,
    pub remote_ended: bool,
    pub local_ended: bool,
    pub is_reset: bool,
    /// The peer says that it did not look at the stream.
    pub is_refused: bool,
    /// The task gets no other stream after this one.
    pub is_dismissed: bool,
    /// The task waits until it can write.
    pub is_blocked: bool,
    waker: Option<Waker>,
}

impl StreamSlot {
    /// Starts with a stream. The input may already hold its head.
    pub fn begin(&mut self, framing: Framing, send_window: i64) {
        (self.read, self.unread_payload) = (0, 0);
        self.receive_window = ReceiveWindow::new(STREAM_WINDOW);
        self.send_window = send_window;
        self.set_framing(framing);
        (self.is_answered, self.is_reset, self.is_refused, self.is_blocked) = (false, false, false, false);
        (self.remote_ended, self.local_ended) = (false, false);
    }

    /// Says how the peer's body comes.
    pub fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
        self.left = match framing {
            Framing::Length(length) => Some(length),
            Framing::None => Some(0),
            Framing::Chunked | Framing::Tunnel => None,
        };
    }

    /// Remembers the task to wake when something has happened on the stream.
    pub fn register(&mut self, waker: &Waker) {
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Wakes the task of the stream.
    pub fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Forgets the task, which is gone.
    pub fn clear_task(&mut self) {
        self.waker = None;
        (self.is_dismissed, self.is_blocked) = (false, false);
    }

    /// Appends the payload of a DATA frame. `length` is what the frame takes of the window.
    pub fn add_data(&mut self, data: &[u8], length: usize, ends: bool) -> Result<(), ErrorCode> {
        self.receive_window.receive(length).map_err(|_| ErrorCode::FlowControl)?;
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
        self.drop_read_input();
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
        self.unread_payload += data.len();
        self.remote_ended = ends;
        Ok(())
    }

    /// Drops what is read, before more comes.
    fn drop_read_input(&mut self) {
        if self.read == self.input.len() {
            self.input.clear();
            self.read = 0;
        } else if self.read > self.input.len() / 2 {
            self.input.drain(..self.read);
            self.read = 0;
        }
    }

    /// Copies text into `room`. Returns how many bytes that were, and how many of them were payload.
    pub fn read_input(&mut self, role: Role, room: &mut [u8]) -> (usize, usize) {
        let text = self.readable(role);
        let n = text.len().min(room.len());
        room[..n].copy_from_slice(&text[..n]);
        self.read += n;
        let payload = n.min(self.unread_payload);
        self.unread_payload -= payload;
        if self.read == self.input.len() {
            self.input.clear();
            self.read = 0;
        }
        (n, payload)
    }

    /// What may be read. The last byte of a response with a length waits for the end of the stream: only that says that
    /// all is well, and an upstream that resets the stream instead must not look as if it had finished.
    fn readable(&self, role: Role) -> &[u8] {
        let is_held_back = role == Role::Client
            && matches!(self.framing, Framing::Length(1..))
            && !self.remote_ended
            && self.left == Some(0);
        &self.input[self.read..self.input.len() - usize::from(is_held_back && self.read < self.input.len())]
    }

    /// Drops the input. Returns how much unread payload it held.
    pub fn clear_input(&mut self) -> usize {
        self.input.clear();
        self.input.shrink_to(KEPT_INPUT);
        self.read = 0;
        std::mem::take(&mut self.unread_payload)
    }
}
