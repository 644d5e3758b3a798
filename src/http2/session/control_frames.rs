//! Frames that carry no message: SETTINGS, PING, GOAWAY, RST_STREAM, WINDOW_UPDATE, PRIORITY (RFC 9113 6.3 to 6.9).

use std::time::Instant;

use crate::http2::connection_state::ConnectionState;
use crate::http2::flow_control::WINDOW_MAX;
use crate::http2::frame::{ACK, ErrorCode, FrameHeader, FrameType, PAYLOAD_MAX, number, settings};
use crate::http2::role::Role;
use crate::http2::session::shutdown::SHUTDOWN_PING;
use crate::http2::session::{ConnectionError, FLOW_CONTROL, FRAME_SIZE, PROTOCOL, Session};

/// The payload of our PING to a peer that left a stream without a response.
const LIVENESS_PING: &[u8; 8] = b"anybody?";

impl Session {
    /// Whether the peer was asked for a sign of life, and has not given one since.
    pub fn awaits_pong(&self) -> bool {
        self.awaits_pong
    }

    /// Asks the peer for a sign of life. Any frame is one.
    pub(super) fn ping(&mut self) {
        if !std::mem::replace(&mut self.awaits_pong, true) {
            self.output.put_frame(FrameType::Ping, 0, 0, LIVENESS_PING);
        }
    }

    pub(super) fn on_settings(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if header.has(ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(FRAME_SIZE) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(FRAME_SIZE);
        }
        let mut window = self.peer.stream_window;
        for (setting, value) in settings(payload) {
            match setting {
                2 if value > 1 || (value == 1 && self.role == Role::Client) => return Err(PROTOCOL),
                3 => self.peer.streams_max = value,
                4 if i64::from(value) > WINDOW_MAX => return Err(FLOW_CONTROL),
                4 => window = i64::from(value),
                5 if !(16_384..=16_777_215).contains(&value) => return Err(PROTOCOL),
                5 => self.peer.frame_max = PAYLOAD_MAX, // larger frames would only make other streams wait
                8 if value > 1 => return Err(PROTOCOL),
                _ => {}
            }
        }
        self.set_stream_window(window)?;
        self.output.put_frame(FrameType::Settings, ACK, 0, &[]);
        self.streams.wake_blocked();
        Ok(())
    }

    /// A new initial window changes those of open streams too, and may make them negative (RFC 9113 6.9.2).
    fn set_stream_window(&mut self, window: i64) -> Result<(), ConnectionError> {
        let change = window - self.peer.stream_window;
        self.peer.stream_window = window;
        for at in 0..self.streams.slots.len() {
            if self.streams.id(at) == 0 && !self.is_unnumbered(at) {
                continue; // the slot has the window of a stream that is over
            }
            let slot = &mut self.streams.slots[at];
            slot.send_window += change;
            if slot.send_window > WINDOW_MAX {
                return Err(FLOW_CONTROL);
            }
        }
        Ok(())
    }

    pub(super) fn on_ping(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if payload.len() != 8 {
            return Err(FRAME_SIZE);
        }
        if !header.has(ACK) {
            self.output.put_frame(FrameType::Ping, ACK, 0, payload);
        } else if payload == SHUTDOWN_PING {
            self.close();
        }
        Ok(())
    }

    pub(super) fn on_go_away(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let (Some(last), 8..) = (number(payload), payload.len()) else { return Err(FRAME_SIZE) };
        if self.role == Role::Client {
            self.state = ConnectionState::Closed;
            for at in 0..self.streams.slots.len() {
                if self.streams.id(at) > last || self.is_unnumbered(at) {
                    self.was_reset(at, ErrorCode::RefusedStream as u32);
                }
            }
            self.output.wake_driver();
        }
        Ok(())
    }

    pub(super) fn on_rst_stream(&mut self, stream: u32, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let &[a, b, c, d] = payload else { return Err(FRAME_SIZE) };
        if self.is_idle(stream) {
            return Err(PROTOCOL);
        }
        let Some(at) = self.streams.find(stream) else {
            self.history.was_reset(stream, true);
            return Ok(());
        };
        self.was_reset(at, u32::from_be_bytes([a, b, c, d]));
        self.charge_reset(now)
    }

    pub(super) fn on_window_update(
        &mut self,
        stream: u32,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let (Some(more), 4) = (number(payload), payload.len()) else { return Err(FRAME_SIZE) };
        if stream == 0 {
            self.send_window += i64::from(more);
            if more == 0 {
                return Err(PROTOCOL);
            }
            if self.send_window > WINDOW_MAX {
                return Err(FLOW_CONTROL);
            }
            self.streams.wake_blocked();
            return Ok(());
        }
        if self.is_idle(stream) {
            return Err(PROTOCOL);
        }
        if more == 0 && !self.history.was_reset(stream, false) {
            return self.stream_error(stream, ErrorCode::Protocol, now);
        }
        let Some(at) = self.streams.find(stream) else { return Ok(()) };
        let slot = &mut self.streams.slots[at];
        slot.send_window += i64::from(more);
        if slot.send_window > WINDOW_MAX {
            return self.stream_error(stream, ErrorCode::FlowControl, now);
        }
        if slot.is_blocked {
            slot.wake();
        }
        Ok(())
    }

    /// Priorities are deprecated (RFC 9113 5.3.2): they are checked and ignored.
    pub(super) fn on_priority(&mut self, stream: u32, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let code = match number(payload) {
            Some(parent) if payload.len() == 5 && parent != stream => return Ok(()),
            Some(_) if payload.len() == 5 => ErrorCode::Protocol,
            Some(_) | None => ErrorCode::FrameSize,
        };
        // A stream that was never opened cannot be reset.
        if self.is_idle(stream) { Err(ConnectionError::protocol(code)) } else { self.stream_error(stream, code, now) }
    }
}
