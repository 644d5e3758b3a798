//! A connection with a buffer of bytes that were read from it: the client's, the upstream's, or that of an HTTP/2
//! session.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::http1::buffer::{Buffer, Buffers, SMALL};

/// A connection, with what was read from it and not used yet.
pub struct BufferedIo<S> {
    pub io: S,
    buffer: Option<Buffer>,
    /// The other side has sent its last byte.
    pub eof: bool,
}

impl<S> BufferedIo<S> {
    /// A connection from which nothing was read.
    pub fn new(io: S) -> Self {
        BufferedIo { io, buffer: None, eof: false }
    }

    /// The bytes that were read and not used yet.
    pub fn filled(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], Buffer::filled)
    }

    /// The same bytes, to be changed.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], Buffer::filled_mut)
    }

    /// Marks the first `n` bytes as used.
    pub fn consume(&mut self, n: usize) {
        if let Some(buffer) = &mut self.buffer {
            buffer.consume(n);
        }
    }

    /// The size of the buffer that holds them.
    pub fn buffered(&self) -> usize {
        self.buffer.as_ref().map_or(0, Buffer::size)
    }

    /// Whether no further byte fits, and the buffer is already `size` bytes large.
    pub fn is_full(&self, size: usize) -> bool {
        self.buffer.as_ref().is_some_and(|b| b.is_full() && b.size() >= size)
    }

    /// Makes room for a head of `size` bytes, if it has outgrown a small buffer.
    pub fn make_room(&mut self, size: usize) {
        if let Some(buffer) = self.buffer.as_mut().filter(|b| b.is_full()) {
            buffer.grow((buffer.size() * 2).min(size));
        }
    }

    /// Gives the buffer back if it is empty.
    pub fn release(&mut self, buffers: &Buffers) {
        if let Some(buffer) = self.buffer.take_if(|b| b.is_empty()) {
            buffers.give_back(buffer);
        }
    }
}

impl<S: AsyncRead + Unpin> BufferedIo<S> {
    /// Reads once into what room there is; 0 bytes mean the other side has sent its last one. Holds no buffer while
    /// it waits with nothing in it.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, buffers: &Buffers, large: bool) -> Poll<io::Result<usize>> {
        if large && self.buffer.as_ref().is_some_and(|b| b.is_empty() && b.size() <= SMALL) {
            self.release(buffers);
        }
        let buffer = self.buffer.get_or_insert_with(|| if large { buffers.large() } else { buffers.small() });
        let mut room = ReadBuf::new(buffer.spare());
        debug_assert!(room.remaining() > 0);
        let result = Pin::new(&mut self.io).poll_read(cx, &mut room);
        let n = room.filled().len();
        match result {
            Poll::Ready(Ok(())) => {
                buffer.add(n);
                self.eof = n == 0;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.release(buffers);
                Poll::Pending
            }
        }
    }
}
