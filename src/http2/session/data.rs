//! DATA frames, and what flow control makes of them (RFC 9113 6.1, 6.9).

use std::time::Instant;

use crate::http2::frame::{END_STREAM, ErrorCode, FrameHeader, PADDED};
use crate::http2::role::Role;
use crate::http2::session::{ConnectionError, FLOW_CONTROL, FRAME_SIZE, PROTOCOL, Session};

impl Session {
    pub(super) fn on_data(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if self.is_idle(header.stream) {
            return Err(PROTOCOL);
        }
        self.receive_window.receive(header.length).map_err(|_| FLOW_CONTROL)?;
        let data = unpadded(header, payload)?;
        let ends = header.has(END_STREAM);
        let Some(at) = self.streams.find(header.stream) else {
            return self.on_late_data(header, data, now);
        };
        if data.is_empty() && !ends {
            self.charge(1, now)?;
        } else {
            self.unproductive.earn(1);
        }
        if self.role == Role::Client && !self.streams.slots[at].is_answered {
            self.give_credit(None, header.length);
            return self.stream_error(header.stream, ErrorCode::Protocol, now); // RFC 9113 8.1: a head comes first
        }
        match self.streams.slots[at].add_data(data, header.length, ends) {
            Ok(()) => {
                self.give_credit(Some(at), header.length - data.len());
                self.streams.slots[at].wake();
                if ends {
                    self.finish_if_done(at);
                }
                Ok(())
            }
            Err(code) => {
                self.give_credit(None, header.length);
                self.stream_error(header.stream, code, now)
            }
        }
    }

    /// Data of a stream that is over. As much of it as the stream's window took may have been on its way.
    fn on_late_data(&mut self, header: &FrameHeader, data: &[u8], now: Instant) -> Result<(), ConnectionError> {
        self.give_credit(None, header.length);
        if self.role == Role::Server || data.is_empty() {
            self.charge(1, now)?;
        }
        let stream = header.stream;
        if self.role == Role::Server && !self.history.was_reset(stream, header.has(END_STREAM)) {
            return self.stream_error(stream, ErrorCode::StreamClosed, now);
        }
        self.late_data_max -= header.length as i64;
        if self.late_data_max < 0 { Err(FLOW_CONTROL) } else { Ok(()) }
    }
}

/// The payload without its padding (RFC 9113 6.1).
pub(super) fn unpadded<'p>(header: &FrameHeader, payload: &'p [u8]) -> Result<&'p [u8], ConnectionError> {
    if !header.has(PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(FRAME_SIZE)?;
    let len = rest.len().checked_sub(usize::from(padding)).ok_or(PROTOCOL)?;
    Ok(&rest[..len])
}
