//! One stream of a session as a connection: what is written to it and read from it is the text of HTTP/1.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http1::body::{BadFraming, BodyDecoder, ChunkState, DecodeStep};
use crate::http2::{AfterHead, Framing, Role, Session, StreamError, StreamRead};
use crate::proxy::fault::GrpcCode;
use crate::proxy::transport::Transport;

/// A session, as its driver and its streams share it. All of them are on one worker.
pub type SharedSession = Rc<RefCell<Session>>;

/// A slot of a session. To an upstream it carries one stream; from a client it carries one stream after the other, like
/// a kept connection.
pub struct Http2Stream {
    session: SharedSession,
    at: usize,
    role: Role,
    writing: Writing,
}

/// What the next written bytes belong to.
enum Writing {
    Head,
    Body(BodyDecoder),
    Tunnel,
}

impl Http2Stream {
    /// The slot `at` of `session`.
    pub fn new(session: SharedSession, at: usize, role: Role) -> Self {
        Http2Stream { session, at, role, writing: Writing::Head }
    }

    /// Whether the peer has refused the stream, and so has not processed its request (RFC 9113 8.7).
    pub fn is_refused(&self) -> bool {
        self.session.borrow().is_refused(self.at)
    }

    /// Writes what it can of `bytes` and returns how many that were.
    ///
    /// # Errors
    /// The stream is over, or the bytes are not the text that has to follow.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<usize, StreamError> {
        let session = &mut *self.session.borrow_mut();
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            match &mut self.writing {
                Writing::Head => {
                    if !session.may_write(self.at, cx.waker()) {
                        break;
                    }
                    // A head is always written from one buffer, and so comes whole.
                    let end = memchr::memmem::find(rest, b"\r\n\r\n").ok_or(StreamError)? + 4;
                    let follows = match self.role {
                        Role::Server => session.put_response(self.at, &rest[..end])?,
                        Role::Client => session.put_request(self.at, &rest[..end])?,
                    };
                    used += end;
                    self.writing = match follows {
                        AfterHead::Head | AfterHead::Body(Framing::None) => Writing::Head,
                        AfterHead::Body(Framing::Length(length)) => Writing::Body(BodyDecoder::Length(length)),
                        AfterHead::Body(Framing::Chunked) => Writing::Body(BodyDecoder::Chunked(ChunkState::Size)),
                        AfterHead::Body(Framing::Tunnel) => Writing::Tunnel,
                    };
                }
                Writing::Body(decoder) => match decoder.step(rest).map_err(|BadFraming(_)| StreamError)? {
                    DecodeStep::Payload(len) => {
                        let n = session.write(self.at, &rest[..len], cx.waker())?;
                        if n == 0 {
                            break;
                        }
                        decoder.used(n);
                        used += n;
                        if decoder.is_done() {
                            session.finish_writing(self.at);
                            self.writing = Writing::Head;
                        }
                    }
                    DecodeStep::Framing(len) => used += len,
                    DecodeStep::Trailers(len) => {
                        if len > 2 {
                            session.put_trailers(self.at, &rest[..len])?;
                        } else {
                            session.finish_writing(self.at);
                        }
                        used += len;
                        self.writing = Writing::Head;
                    }
                    DecodeStep::Done | DecodeStep::More => return Err(StreamError),
                },
                Writing::Tunnel => match session.write(self.at, rest, cx.waker())? {
                    0 => break,
                    n => used += n,
                },
            }
        }
        Ok(used)
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.session.borrow_mut().release(self.at);
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.session.borrow_mut().read(self.at, room.initialize_unfilled(), cx.waker());
        match read {
            StreamRead::Bytes(n) => {
                room.advance(n);
                Poll::Ready(Ok(()))
            }
            StreamRead::End => Poll::Ready(Ok(())),
            StreamRead::Wait => Poll::Pending,
            StreamRead::Broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.write(cx, bytes) {
            Ok(0) if !bytes.is_empty() => Poll::Pending,
            Ok(n) => Poll::Ready(Ok(n)),
            Err(StreamError) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Ready at once: the driver flushes whatever is written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends one side of a tunnel. A message has told its end itself, and after it no other follows here.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.borrow_mut();
        match self.writing {
            Writing::Tunnel => session.finish_writing(self.at),
            Writing::Head | Writing::Body(_) => session.dismiss(self.at),
        }
        Poll::Ready(Ok(()))
    }
}

impl Transport for Http2Stream {
    /// Does nothing: a stream that is dropped before its end is reset anyway.
    fn reset_on_close(&self) {}

    fn fail_call(&mut self, code: GrpcCode, text: &str) -> bool {
        self.session.borrow_mut().fail_grpc_call(self.at, code as u8, text)
    }

    fn give_up(&mut self) {
        self.session.borrow_mut().give_up(self.at);
    }

    /// Ready at once: the driver has read whatever belongs to the stream.
    fn poll_arrived(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Ready at once: the frames tell where a stream ends.
    fn poll_goodbye(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
