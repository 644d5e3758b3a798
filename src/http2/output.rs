//! The frames that wait to be written to the socket.

use std::task::Waker;

use super::frame::{END_HEADERS, END_STREAM, ErrorCode, FRAME_HEADER_LEN, FrameType, Setting, put_frame_header};
use super::{frame, hpack};

/// Payload is put into frames while less than this waits to be written.
pub const OUTPUT_MAX: usize = 64 * 1024;

/// The last DATA or HEADERS frame that was put here, as long as nothing stands behind it.
struct LastFrame {
    stream: u32,
    /// The position of its flags.
    flags_at: usize,
}

/// Frames in the order in which they are written, and the task that writes them.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// How many of the bytes are written.
    written: usize,
    last_frame: Option<LastFrame>,
    /// The first field block tells the peer that the dynamic table of HPACK stays empty.
    table_is_declined: bool,
    driver: Option<Waker>,
}

impl Output {
    /// What waits to be written.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// How many bytes of payload may be put here now.
    pub fn room(&self) -> usize {
        OUTPUT_MAX.saturating_sub(self.unsent().len())
    }

    /// Drops `n` bytes that were written. Returns whether they were the last ones.
    pub fn sent(&mut self, n: usize) -> bool {
        self.written += n;
        let is_empty = self.written == self.bytes.len();
        if is_empty {
            self.bytes.clear();
            self.bytes.shrink_to(2 * OUTPUT_MAX);
            (self.written, self.last_frame) = (0, None);
        }
        is_empty
    }

    /// Gives the memory back that is not in use.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to(0);
    }

    /// The memory that is held.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Remembers the task that moves bytes between the session and the socket.
    pub fn register_driver(&mut self, waker: &Waker) {
        if self.driver.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.driver = Some(waker.clone());
        }
    }

    /// Wakes the task that moves bytes between the session and the socket.
    pub fn wake_driver(&self) {
        if let Some(waker) = &self.driver {
            waker.wake_by_ref();
        }
    }

    /// Puts the connection preface of a client.
    pub fn put_preface(&mut self) {
        self.bytes.extend_from_slice(frame::PREFACE);
    }

    /// Puts a SETTINGS frame.
    pub fn put_settings(&mut self, pairs: &[(Setting, u32)]) {
        frame::put_settings(&mut self.bytes, pairs);
    }

    /// Puts a frame that is neither DATA nor HEADERS.
    pub fn put_frame(&mut self, frame_type: FrameType, flags: u8, stream: u32, payload: &[u8]) {
        put_frame_header(&mut self.bytes, payload.len(), frame_type, flags, stream);
        self.bytes.extend_from_slice(payload);
        self.last_frame = None;
        self.wake_driver();
    }

    /// Puts a WINDOW_UPDATE; stream 0 is the connection.
    pub fn put_window_update(&mut self, stream: u32, increment: u32) {
        self.put_frame(FrameType::WindowUpdate, 0, stream, &increment.to_be_bytes());
    }

    /// Puts a GOAWAY. `last` is the last stream of the peer that is served.
    pub fn put_go_away(&mut self, last: u32, code: ErrorCode) {
        let payload = [last, code as u32].map(u32::to_be_bytes);
        self.put_frame(FrameType::GoAway, 0, 0, payload.as_flattened());
    }

    /// Puts a DATA frame.
    pub fn put_data(&mut self, stream: u32, data: &[u8]) {
        let start = self.bytes.len();
        put_frame_header(&mut self.bytes, data.len(), FrameType::Data, 0, stream);
        self.bytes.extend_from_slice(data);
        self.last_frame = Some(LastFrame { stream, flags_at: start + FLAGS_AT });
        self.wake_driver();
    }

    /// Puts a field block, which `write` appends, into a HEADERS frame and as many CONTINUATION frames as it takes.
    /// With `ends`, nothing follows on the stream.
    pub fn put_field_block(&mut self, stream: u32, ends: bool, frame_max: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        let end_stream = if ends { END_STREAM } else { 0 };
        put_frame_header(&mut self.bytes, 0, FrameType::Headers, END_HEADERS | end_stream, stream);
        if !std::mem::replace(&mut self.table_is_declined, true) {
            hpack::put_no_table(&mut self.bytes);
        }
        write(&mut self.bytes);
        let length = self.bytes.len() - start - FRAME_HEADER_LEN;
        if length <= frame_max {
            self.bytes[start..start + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            self.last_frame = Some(LastFrame { stream, flags_at: start + FLAGS_AT });
        } else {
            let block = self.bytes.split_off(start + FRAME_HEADER_LEN);
            self.bytes.truncate(start);
            let last = block.chunks(frame_max).count() - 1;
            for (nth, part) in block.chunks(frame_max).enumerate() {
                let (frame_type, end_stream) =
                    if nth == 0 { (FrameType::Headers, end_stream) } else { (FrameType::Continuation, 0) };
                let flags = end_stream | if nth == last { END_HEADERS } else { 0 };
                put_frame_header(&mut self.bytes, part.len(), frame_type, flags, stream);
                self.bytes.extend_from_slice(part);
            }
            self.last_frame = None;
        }
        self.wake_driver();
    }

    /// Ends our side of a stream: its last frame gets the flag if it still stands at the end, and an empty DATA frame
    /// follows otherwise.
    pub fn put_end_of_stream(&mut self, stream: u32) {
        match self.last_frame {
            Some(LastFrame { stream: last, flags_at }) if last == stream && flags_at >= self.written => {
                self.bytes[flags_at] |= END_STREAM;
            }
            Some(_) | None => {
                put_frame_header(&mut self.bytes, 0, FrameType::Data, END_STREAM, stream);
                self.last_frame = None;
            }
        }
        self.wake_driver();
    }
}

/// The position of the flags in a frame header (RFC 9113 4.1).
const FLAGS_AT: usize = 4;
