//! HEADERS and CONTINUATION frames: requests, responses and trailers (RFC 9113 4.3, 6.2, 6.10, 8.1).

use std::time::Instant;

use crate::http2::Framing;
use crate::http2::connection_state::ConnectionState;
use crate::http2::field_block::FieldBlock;
use crate::http2::frame::{END_HEADERS, END_STREAM, ErrorCode, FrameHeader, PAYLOAD_MAX, PRIORITY, number};
use crate::http2::head_writer::FieldError;
use crate::http2::request_fields::RequestFields;
use crate::http2::response_fields::{ResponseFields, ResponseTo, TrailerFields};
use crate::http2::role::Role;
use crate::http2::session::data::unpadded;
use crate::http2::session::{ConnectionError, FRAME_SIZE, PROTOCOL, Session};
use crate::http2::session_end::SessionEnd;

/// What a head that is too large costs beside its response.
const LARGE_HEAD_COST: u32 = 20;

const COMPRESSION: ConnectionError = ConnectionError::protocol(ErrorCode::Compression);

impl Session {
    pub(super) fn on_headers(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if header.stream == 0 || (self.role == Role::Server && header.stream.is_multiple_of(2)) {
            return Err(PROTOCOL);
        }
        // The priority stands between the padding's length and the block.
        let mut bytes = unpadded(header, payload)?;
        let mut depends_on_itself = false;
        if header.has(PRIORITY) {
            let (priority, rest) = bytes.split_at_checked(5).ok_or(FRAME_SIZE)?;
            depends_on_itself = number(priority) == Some(header.stream);
            bytes = rest;
        }
        let (stream, ends) = (header.stream, header.has(END_STREAM));
        if header.has(END_HEADERS) {
            return self.on_field_block(&FieldBlock { stream, ends, depends_on_itself, bytes }, now);
        }
        self.charge(1, now)?;
        self.field_block = Some(FieldBlock { stream, ends, depends_on_itself, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(super) fn on_continuation(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let Some(mut block) = self.field_block.take() else { return Err(PROTOCOL) };
        // A block is hardly ever larger than the text that it becomes.
        if block.bytes.len() + payload.len() > self.limits.head_bytes + PAYLOAD_MAX {
            return Err(ConnectionError::flood(SessionEnd::Headers));
        }
        block.bytes.extend_from_slice(payload);
        if header.has(END_HEADERS) {
            let FieldBlock { stream, ends, depends_on_itself, ref bytes } = block;
            return self.on_field_block(&FieldBlock { stream, ends, depends_on_itself, bytes: &bytes[..] }, now);
        }
        self.field_block = Some(block);
        Ok(())
    }

    /// Reads a field block, and does so in any case: the next one may need what it leaves in the table.
    fn on_field_block(&mut self, block: &FieldBlock<&[u8]>, now: Instant) -> Result<(), ConnectionError> {
        let stream = block.stream;
        if let Some(at) = self.streams.find(stream) {
            return self.on_open_stream(at, block, now);
        }
        if self.role == Role::Client {
            if self.is_idle(stream) {
                return Err(PROTOCOL);
            }
            self.charge(1, now)?;
            return self.skip(block); // of a stream that we have given up
        }
        if stream <= self.history.last_opened() {
            if self.history.was_reset(stream, block.ends) {
                return self.skip(block);
            }
            let was_opened = self.history.was_opened(stream);
            let code = if was_opened { ErrorCode::StreamClosed } else { ErrorCode::Protocol };
            return Err(ConnectionError::protocol(code));
        }
        self.history.add_opened(stream);
        if self.state == ConnectionState::Closed {
            return self.skip(block);
        }
        if self.streams.is_full(self.limits.streams) {
            self.skip(block)?;
            return self.stream_error(stream, ErrorCode::RefusedStream, now);
        }
        self.on_request(block, now)
    }

    /// Opens a stream with the head of its request.
    fn on_request(&mut self, block: &FieldBlock<&[u8]>, now: Instant) -> Result<(), ConnectionError> {
        let at = self.streams.free_slot();
        let slot = &mut self.streams.slots[at];
        let mut fields = RequestFields::new(&mut slot.input, &mut self.scratch, self.limits.head_bytes);
        let read = self.decoder.decode(block.bytes, |name, value| fields.field(name, value));
        read.map_err(|_| COMPRESSION)?;
        match fields.finish(block.ends) {
            Ok(request) if !block.depends_on_itself => {
                slot.begin(request.framing, self.peer.stream_window);
                (slot.is_head, slot.is_grpc, slot.remote_ended) = (request.is_head, request.is_grpc, block.ends);
                let is_large = slot.input.len() >= self.limits.head_bytes;
                self.streams.set_id(at, block.stream);
                self.streams.serve(at);
                if is_large { self.charge(LARGE_HEAD_COST, now) } else { Ok(()) }
            }
            Ok(_) | Err(FieldError::Malformed) => {
                slot.input.clear();
                self.stream_error(block.stream, ErrorCode::Protocol, now)
            }
            Err(FieldError::Bomb) => Err(ConnectionError::flood(SessionEnd::Headers)),
        }
    }

    /// Reads the head of a response, or trailers.
    fn on_open_stream(&mut self, at: usize, block: &FieldBlock<&[u8]>, now: Instant) -> Result<(), ConnectionError> {
        if self.streams.slots[at].remote_ended {
            self.skip(block)?;
            return self.stream_error(block.stream, ErrorCode::StreamClosed, now);
        }
        let read = if self.role == Role::Client && !self.streams.slots[at].is_answered {
            self.read_response(at, block)?
        } else {
            self.read_trailers(at, block)?
        };
        match read {
            Ok(()) => {
                let slot = &mut self.streams.slots[at];
                slot.remote_ended = block.ends;
                slot.wake();
                if block.ends {
                    self.finish_if_done(at);
                }
                Ok(())
            }
            Err(FieldError::Malformed) => self.stream_error(block.stream, ErrorCode::Protocol, now),
            Err(FieldError::Bomb) => Err(ConnectionError::flood(SessionEnd::Headers)),
        }
    }

    fn read_response(
        &mut self,
        at: usize,
        block: &FieldBlock<&[u8]>,
    ) -> Result<Result<(), FieldError>, ConnectionError> {
        let slot = &mut self.streams.slots[at];
        let mut fields = ResponseFields::new(&mut slot.input, self.limits.head_bytes);
        let read = self.decoder.decode(block.bytes, |name, value| fields.field(name, value));
        read.map_err(|_| COMPRESSION)?;
        let request = ResponseTo { is_head: slot.is_head, trailers_welcome: slot.trailers_welcome };
        Ok(fields.finish(block.ends, request).map(|response| {
            slot.is_answered = !response.is_interim;
            slot.set_framing(response.framing);
        }))
    }

    fn read_trailers(
        &mut self,
        at: usize,
        block: &FieldBlock<&[u8]>,
    ) -> Result<Result<(), FieldError>, ConnectionError> {
        let slot = &mut self.streams.slots[at];
        let mut unread = Vec::new();
        // Only a body in chunks can be followed by trailers in HTTP/1.
        let out = if slot.framing == Framing::Chunked { &mut slot.input } else { &mut unread };
        out.extend_from_slice(b"0\r\n");
        let mut fields = TrailerFields::new(out);
        let read = self.decoder.decode(block.bytes, |name, value| fields.field(name, value));
        read.map_err(|_| COMPRESSION)?;
        // RFC 9113 8.1: they end the stream, and come after all that was announced.
        let is_complete = block.ends && slot.left.unwrap_or(0) == 0;
        Ok(if is_complete { fields.finish() } else { Err(FieldError::Malformed) })
    }

    fn skip(&mut self, block: &FieldBlock<&[u8]>) -> Result<(), ConnectionError> {
        self.decoder.decode(block.bytes, |_, _| {}).map_err(|_| COMPRESSION)
    }
}
