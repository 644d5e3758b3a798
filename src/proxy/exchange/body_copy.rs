//! Copies one body from one side to the other with back-pressure: it reads only when everything that it read before is
//! written, so a slow reader holds one buffer and no more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::http1::body::{BadFraming, BodyDecoder, DecodeStep, chunk_digits, trailers};
use crate::http1::boundary::{Boundary, WEBSOCKET_CLOSE};
use crate::http1::buffer::{Buffer, Buffers, SMALL};
use crate::http1::fields::put_field;
use crate::http1::grpc_status::GrpcStatus;
use crate::http1::header::Field;
use crate::http1::response::Encoding;
use crate::proxy::buffered_io::BufferedIo;

/// Payload up to this size is copied behind what waits to be written already, so that one system call writes many
/// chunks. More payload than that goes to the sink from where it was read.
const COPY_MAX: usize = 4 * 1024;

/// Once this much waits to be written, it is written before more is gathered.
const PENDING_MAX: usize = SMALL - COPY_MAX;

/// Why a body could not be copied to its end.
#[derive(Debug)]
pub enum CopyError {
    /// The source ended within the body, or failed.
    Source,
    /// The framing of the source is wrong.
    Framing(BadFraming),
    /// The sink took no more.
    Sink,
    /// There is more payload than is allowed.
    TooLarge,
}

/// Copies one body, and the heads in front of it.
pub struct BodyCopier {
    decoder: BodyDecoder,
    encoding: Encoding,
    /// What is written before more payload is: a head, chunk lines, small payload.
    pub pending: Buffer,
    /// How much of `pending` is written.
    sent: usize,
    /// How much payload at the front of the source's buffer goes to the sink without a copy.
    direct: usize,
    /// The end of the body is in `pending`, or written.
    ended: bool,
    /// The sink has taken bytes that it may not have passed on yet, as TLS does while the socket is full.
    unflushed: bool,
    /// Everything that was ever to be written is still in `pending`, so it can be sent again.
    pub intact: bool,
    /// Payload bytes that were taken from the source.
    pub payload: u64,
    /// Bytes that were written to the sink since the last rewind.
    pub written: u64,
    payload_max: u64,
    /// Trailers that end here, because `Connection` named them.
    pub dropped_trailers: Vec<String>,
    /// Finds where the body may be ended early.
    pub boundary: Option<Box<Boundary>>,
    /// The body is ended at the next boundary.
    ends_early: bool,
    /// What is known of a gRPC call whose response this is.
    pub grpc_status: GrpcStatus,
}

impl BodyCopier {
    /// A copier of a body that follows what `pending` holds, which is a head. A `payload_max` of 0 is no limit.
    pub fn new(decoder: BodyDecoder, encoding: Encoding, pending: Buffer, payload_max: u64) -> Self {
        BodyCopier {
            decoder,
            encoding,
            pending,
            sent: 0,
            direct: 0,
            ended: false,
            unflushed: false,
            intact: true,
            payload: 0,
            written: 0,
            payload_max: if payload_max == 0 { u64::MAX } else { payload_max },
            dropped_trailers: Vec::new(),
            boundary: None,
            ends_early: false,
            grpc_status: GrpcStatus::NotACall,
        }
    }

    /// A copier for responses. Interim heads and the final one are put into its buffer, which it gets with the first of
    /// them: until then, which is most of the time, a request in flight holds one buffer and not two.
    pub fn for_responses() -> Self {
        BodyCopier::new(BodyDecoder::Length(0), Encoding::Plain, Buffer::default(), 0)
    }

    /// Ends the body at its next boundary, as if it were over, where that is possible.
    pub fn end_at_boundary(&mut self) {
        let can_end = self.boundary.as_ref().is_some_and(|boundary| !boundary.is_closing()) && !self.has_all();
        self.ends_early |= can_end;
    }

    /// Whether the body is ended early, or was.
    pub fn is_ending_early(&self) -> bool {
        self.ends_early
    }

    /// Whether the body was ended early.
    pub fn has_ended_early(&self) -> bool {
        self.ends_early && self.ended
    }

    /// Says how the body that follows is framed. Nothing of it has been read yet.
    pub fn begin_body(&mut self, decoder: BodyDecoder, encoding: Encoding) {
        (self.decoder, self.encoding, self.ended) = (decoder, encoding, false);
    }

    /// Whether the whole body was taken out of the source, so that its buffer holds the next message.
    pub fn has_all(&self) -> bool {
        self.direct == 0 && (self.ended || self.decoder.is_done())
    }

    /// Whether something waits to be written.
    pub fn is_blocked(&self) -> bool {
        self.sent < self.pending.filled().len() || self.direct > 0 || self.unflushed
    }

    /// Whether nothing was written, and nothing is to be.
    pub fn is_unused(&self) -> bool {
        self.written == 0 && self.pending.is_empty()
    }

    /// Starts again from the first byte, which is possible as long as it is [`intact`](BodyCopier::intact).
    pub fn rewind(&mut self) {
        (self.sent, self.written) = (0, 0);
    }

    /// Takes everything as written, after a rewind that was in vain.
    pub fn skip_to_end(&mut self) {
        self.sent = self.pending.filled().len();
        self.written = self.sent as u64;
    }

    /// Copies what can be copied, and sets `moved` if that was anything. Ready when the body and its end are written.
    ///
    /// # Errors
    /// [`CopyError`]
    pub fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut BufferedIo<R>,
        sink: &mut W,
        buffers: &Buffers,
        moved: &mut bool,
    ) -> Poll<Result<(), CopyError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            self.gather(source)?;
            if self.sent < self.pending.filled().len() || self.direct > 0 {
                ready!(self.poll_write(cx, source, sink)).map_err(|_| CopyError::Sink)?;
                (self.unflushed, *moved) = (true, true);
                continue;
            }
            if self.unflushed {
                ready!(Pin::new(&mut *sink).poll_flush(cx)).map_err(|_| CopyError::Sink)?;
                self.unflushed = false;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if source.eof {
                if self.decoder != BodyDecoder::UntilClose {
                    return Poll::Ready(Err(CopyError::Source));
                }
                self.make_room();
                self.end(b"").map_err(CopyError::Framing)?;
                continue;
            }
            let is_large =
                self.payload > SMALL as u64 || matches!(self.decoder, BodyDecoder::Length(left) if left > SMALL as u64);
            match ready!(source.poll_fill(cx, buffers, is_large)) {
                Ok(_) => *moved = true,
                Err(_) => return Poll::Ready(Err(CopyError::Source)),
            }
        }
    }

    /// Decodes what the source's buffer holds, until something should be written.
    fn gather<R>(&mut self, source: &mut BufferedIo<R>) -> Result<(), CopyError> {
        // A body that is over ends at once, however long its head is: its end needs no room that would have to be made.
        let has_room =
            |copier: &Self| copier.pending.filled().len() - copier.sent < PENDING_MAX || copier.decoder.is_done();
        while !self.ended && self.direct == 0 && has_room(self) {
            if self.ends_early && self.boundary.as_ref().is_some_and(|boundary| boundary.is_here()) {
                self.make_room();
                if matches!(self.boundary.as_deref(), Some(Boundary::Message(_))) {
                    self.pending.put(WEBSOCKET_CLOSE);
                }
                return self.end(b"").map_err(CopyError::Framing);
            }
            let input = source.filled();
            match self.decoder.step(input).map_err(CopyError::Framing)? {
                DecodeStep::Payload(len) => {
                    let len =
                        self.boundary.as_mut().map_or(len, |boundary| boundary.follow(&input[..len], self.ends_early));
                    self.payload += len as u64;
                    if self.payload > self.payload_max {
                        return Err(CopyError::TooLarge);
                    }
                    self.make_room();
                    if self.encoding == Encoding::Chunked {
                        put_chunk_size(&mut self.pending, len);
                    }
                    self.decoder.used(len);
                    if len > COPY_MAX {
                        self.direct = len;
                        return Ok(());
                    }
                    self.pending.put(&input[..len]);
                    source.consume(len);
                    self.end_chunk();
                }
                DecodeStep::Framing(len) => source.consume(len),
                DecodeStep::Trailers(len) => {
                    self.make_room();
                    self.end(&input[..len]).map_err(CopyError::Framing)?;
                    source.consume(len);
                }
                DecodeStep::Done => {
                    self.make_room();
                    self.end(b"").map_err(CopyError::Framing)?;
                }
                DecodeStep::More if source.is_full(0) => {
                    return Err(CopyError::Framing(BadFraming(
                        "a line of a chunked body does not fit into the buffer",
                    )));
                }
                DecodeStep::More => return Ok(()),
            }
        }
        Ok(())
    }

    /// Drops what is written of `pending`, before more goes into it.
    fn make_room(&mut self) {
        if self.sent > 0 && self.sent == self.pending.filled().len() {
            self.pending.clear();
            self.sent = 0;
            self.intact = false;
        }
    }

    fn end_chunk(&mut self) {
        if self.encoding == Encoding::Chunked {
            self.pending.put(b"\r\n");
        }
    }

    /// Puts the end of the body. `section` is the trailers with their empty line.
    fn end(&mut self, section: &[u8]) -> Result<(), BadFraming> {
        self.ended = true;
        self.grpc_status.end_of_body(section);
        if self.encoding == Encoding::Chunked {
            self.pending.put(b"0\r\n");
            if section.len() > 2 {
                for (name, value) in trailers(section)?.into_iter().filter(|(name, _)| Field::may_trail(name)) {
                    if self.dropped_trailers.iter().any(|hop| hop.eq_ignore_ascii_case(name)) {
                        continue;
                    }
                    put_field(&mut self.pending, name, value);
                }
            }
            self.pending.put(b"\r\n");
        }
        Ok(())
    }

    /// Writes once: what is pending, and the payload that goes without a copy.
    fn poll_write<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut BufferedIo<R>,
        sink: &mut W,
    ) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        let pending = &self.pending.filled()[self.sent..];
        let direct = &source.filled()[..self.direct];
        let n = if direct.is_empty() {
            ready!(Pin::new(sink).poll_write(cx, pending))?
        } else {
            ready!(Pin::new(sink).poll_write_vectored(cx, &[IoSlice::new(pending), IoSlice::new(direct)]))?
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += n as u64;
        let from_pending = n.min(pending.len());
        self.sent += from_pending;
        let from_direct = n - from_pending;
        if from_direct > 0 {
            self.intact = false;
            source.consume(from_direct);
            self.direct -= from_direct;
            if self.direct == 0 {
                self.make_room();
                self.end_chunk();
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn put_chunk_size(out: &mut Buffer, size: usize) {
    for digit in chunk_digits(size) {
        out.put(&[digit]);
    }
    out.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use crate::proxy::exchange::body_copy::*;

    /// Takes bytes at once and passes them on when it is flushed, as TLS may.
    #[derive(Default)]
    struct Holding {
        held: Vec<u8>,
        passed_on: Vec<u8>,
    }

    impl AsyncWrite for Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            let held = std::mem::take(&mut self.held);
            self.passed_on.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn nothing_is_held_back_while_more_is_waited_for_nor_at_the_end() {
        let (mut far, near) = tokio::io::duplex(64);
        let (buffers, mut source, mut sink) = (Buffers::default(), BufferedIo::new(near), Holding::default());
        let mut copier = BodyCopier::new(BodyDecoder::Length(6), Encoding::Plain, buffers.tiny(), 0);
        for (sent, so_far, is_over) in [("abc", "abc", false), ("def", "abcdef", true)] {
            far.write_all(sent.as_bytes()).await.expect("it is read");
            let polled = poll_fn(|cx| Poll::Ready(copier.poll(cx, &mut source, &mut sink, &buffers, &mut false))).await;
            assert_eq!((polled.is_ready(), &*sink.passed_on), (is_over, so_far.as_bytes()));
            assert!(!copier.is_blocked(), "all of it is gone");
        }
    }

    #[tokio::test]
    async fn payload_that_waits_in_the_source_is_not_taken_yet() {
        let (mut far, near) = tokio::io::duplex(SMALL);
        let (buffers, mut source) = (Buffers::default(), BufferedIo::new(near));
        let (mut sink, taker) = tokio::io::duplex(100);
        let mut copier = BodyCopier::new(BodyDecoder::Length(COPY_MAX as u64 + 1), Encoding::Plain, buffers.tiny(), 0);
        far.write_all(&[b'x'; COPY_MAX + 1]).await.expect("it is read");
        let polled = poll_fn(|cx| Poll::Ready(copier.poll(cx, &mut source, &mut sink, &buffers, &mut false))).await;
        assert!(polled.is_pending() && !source.filled().is_empty());
        assert!(!copier.has_all(), "what is left there would be read as the next request");
        drop(taker);
        let polled = poll_fn(|cx| copier.poll(cx, &mut source, &mut sink, &buffers, &mut false)).await;
        assert!(matches!(polled, Err(CopyError::Sink)) && !copier.has_all());
    }
}
