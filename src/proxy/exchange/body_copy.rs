//! Moves one body from one side to the other with back-pressure: it reads only when all it read before is written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::http1::body::{BadFraming, BodyDecoder, DecodeStep, trailers};
use crate::http1::boundary::{Boundary, WEBSOCKET_CLOSE};
use crate::http1::buffer::{Buffer, Buffers, SMALL};
use crate::http1::grpc_status::GrpcStatus;
use crate::http1::header::Field;
use crate::http1::request::put_field;
use crate::http1::response::Encoding;
use crate::http2::chunk_digits;
use crate::proxy::buffered_io::BufferedIo;

/// Payload up to this size is copied behind what is already waiting to be written: one system call for many chunks.
const COPY_MAX: usize = 4 * 1024;

/// Once this much waits, it is written before more is gathered.
const PENDING_MAX: usize = SMALL - COPY_MAX;

/// Why a body could not be moved to its end.
#[derive(Debug)]
pub enum CopyError {
    /// The source ended within the body, or failed.
    Source,
    /// The source's framing is wrong.
    Framing(BadFraming),
    /// The sink failed.
    Sink,
    /// More payload than allowed.
    TooLarge,
}

/// One body on its way.
pub struct BodyCopier {
    decoder: BodyDecoder,
    encoding: Encoding,
    /// Written before more payload: a head, chunk lines, small payload.
    pub pending: Buffer,
    sent: usize,
    /// Payload at the front of the source's buffer that goes to the sink without a copy.
    direct: usize,
    ended: bool,
    /// The sink has taken bytes that it may not have passed on yet, as TLS does while the socket is full.
    unflushed: bool,
    /// All that was ever to be written is still in `pending`: it can be sent again.
    pub intact: bool,
    /// Payload bytes taken from the source.
    pub payload: u64,
    /// Bytes written to the sink since the last rewind.
    pub written: u64,
    payload_max: u64,
    /// Trailers that end here, because `Connection` named them.
    pub hops: Vec<String>,
    /// Where the body may end before its end.
    pub boundary: Option<Box<Boundary>>,
    /// It ends at the next boundary.
    leaving: bool,
    /// Whether it answers a call of gRPC, and how that ended.
    pub call: GrpcStatus,
}

impl BodyCopier {
    /// A body that follows what `pending` holds (a head). `payload_max` 0 is no limit.
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
            hops: Vec::new(),
            boundary: None,
            leaving: false,
            call: GrpcStatus::NotACall,
        }
    }

    /// A copier for responses. Interim heads and the final one are put into its buffer, which it gets with the first of
    /// them: until then, which is most of the time, a request in flight holds one buffer and not two.
    pub fn for_responses() -> Self {
        BodyCopier::new(BodyDecoder::Length(0), Encoding::Plain, Buffer::default(), 0)
    }

    /// Ends the body at its next boundary, as if it were over; whether that is possible, and was not asked for before.
    pub fn leave(&mut self) -> bool {
        let may = self.boundary.as_ref().is_some_and(|boundary| !boundary.is_closing()) && !self.has_all();
        may && !std::mem::replace(&mut self.leaving, true)
    }

    /// Whether it ends at its next boundary, or has.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether it was ended before its end.
    pub fn has_left(&self) -> bool {
        self.leaving && self.ended
    }

    /// Says how the body that follows is framed; nothing of it has been read yet.
    pub fn frame(&mut self, decoder: BodyDecoder, encoding: Encoding) {
        (self.decoder, self.encoding, self.ended) = (decoder, encoding, false);
    }

    /// Whether the whole body has been taken out of the source: what its buffer holds then is the next message.
    pub fn has_all(&self) -> bool {
        self.direct == 0 && (self.ended || self.decoder.is_done())
    }

    /// Whether something waits to be written.
    pub fn is_blocked(&self) -> bool {
        self.sent < self.pending.filled().len() || self.direct > 0 || self.unflushed
    }

    /// Whether nothing was put into it to be written.
    pub fn is_unused(&self) -> bool {
        self.written == 0 && self.pending.is_empty()
    }

    /// Starts again from the first byte. Only while [`BodyCopier::intact`].
    pub fn rewind(&mut self) {
        (self.sent, self.written) = (0, 0);
    }

    /// Takes all of it as written, after a rewind that was for nothing. Only while [`BodyCopier::intact`].
    pub fn skip_to_end(&mut self) {
        self.sent = self.pending.filled().len();
        self.written = self.sent as u64;
    }

    /// Moves what can be moved. `Ready(Ok)`: the body and its end are written.
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
            let large =
                self.payload > SMALL as u64 || matches!(self.decoder, BodyDecoder::Length(left) if left > SMALL as u64);
            match ready!(source.poll_fill(cx, buffers, large)) {
                Ok(_) => *moved = true,
                Err(_) => return Poll::Ready(Err(CopyError::Source)),
            }
        }
    }

    /// Decodes what the source's buffer holds, until something should be written.
    fn gather<R>(&mut self, source: &mut BufferedIo<R>) -> Result<(), CopyError> {
        // A body that is over ends at once, however long its head is: nothing has to be written to make room for it.
        let has_room = |pump: &Self| pump.pending.filled().len() - pump.sent < PENDING_MAX || pump.decoder.is_done();
        while !self.ended && self.direct == 0 && has_room(self) {
            if self.leaving && self.boundary.as_ref().is_some_and(|boundary| boundary.is_here()) {
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
                        self.boundary.as_mut().map_or(len, |boundary| boundary.follow(&input[..len], self.leaving));
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

    /// Before more goes into `pending`, drops what of it is written.
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

    fn end(&mut self, section: &[u8]) -> Result<(), BadFraming> {
        self.ended = true;
        self.call.end(section);
        if self.encoding == Encoding::Chunked {
            self.pending.put(b"0\r\n");
            if section.len() > 2 {
                for (name, value) in trailers(section)?.into_iter().filter(|(name, _)| Field::may_trail(name)) {
                    if self.hops.iter().any(|hop| hop.eq_ignore_ascii_case(name)) {
                        continue;
                    }
                    put_field(&mut self.pending, name, value);
                }
            }
            self.pending.put(b"\r\n");
        }
        Ok(())
    }

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
        let mut pump = BodyCopier::new(BodyDecoder::Length(6), Encoding::Plain, buffers.tiny(), 0);
        for (sent, so_far, is_over) in [("abc", "abc", false), ("def", "abcdef", true)] {
            far.write_all(sent.as_bytes()).await.expect("it is read");
            let polled = poll_fn(|cx| Poll::Ready(pump.poll(cx, &mut source, &mut sink, &buffers, &mut false))).await;
            assert_eq!((polled.is_ready(), &*sink.passed_on), (is_over, so_far.as_bytes()));
            assert!(!pump.is_blocked(), "all of it is gone");
        }
    }

    #[tokio::test]
    async fn payload_that_waits_in_the_source_is_not_taken_yet() {
        let (mut far, near) = tokio::io::duplex(SMALL);
        let (buffers, mut source) = (Buffers::default(), BufferedIo::new(near));
        let (mut sink, taker) = tokio::io::duplex(100);
        let mut pump = BodyCopier::new(BodyDecoder::Length(COPY_MAX as u64 + 1), Encoding::Plain, buffers.tiny(), 0);
        far.write_all(&[b'x'; COPY_MAX + 1]).await.expect("it is read");
        let polled = poll_fn(|cx| Poll::Ready(pump.poll(cx, &mut source, &mut sink, &buffers, &mut false))).await;
        assert!(polled.is_pending() && !source.filled().is_empty());
        assert!(!pump.has_all(), "what is left there would be read as the next request");
        drop(taker);
        let polled = poll_fn(|cx| pump.poll(cx, &mut source, &mut sink, &buffers, &mut false)).await;
        assert!(matches!(polled, Err(CopyError::Sink)) && !pump.has_all());
    }
}
