//! The client's side of a connection: its bytes, its time-out, and the ways to end it.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::http1::body::BodyDecoder;
use crate::http1::response::Encoding;
use crate::proxy::admission::Permit;
use crate::proxy::alarm::Alarm;
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::context::WorkerContext;
use crate::proxy::exchange::body_copy::BodyCopier;
use crate::proxy::transport::Transport;

/// How long a connection that is ended goes on reading what the client still sends, so that the client can read the
/// last response.
const LINGER: Duration = Duration::from_secs(2);

/// How much of that is read.
const LINGER_BYTES_MAX: u64 = 8 << 20;

/// What follows a request on its connection.
pub enum NextStep {
    /// The next request is read.
    ReadRequest,
    /// The client is told that nothing follows, and the connection is closed.
    Close,
    /// What the client still sends is read for a moment before the connection is closed.
    Linger,
    /// The connection is closed without another word: the client was told already, or must see that something is
    /// missing.
    Drop,
    /// The bytes that were read begin like HTTP/2.
    ServeHttp2,
}

/// The client took no response: it left, or it did not read for too long.
#[derive(Debug)]
pub struct WriteFailed;

/// What a connection reads, writes and waits with.
pub struct ClientIo<S> {
    /// The connection, with what was read from it and not used yet.
    pub stream: BufferedIo<S>,
    /// Wakes the connection's task.
    pub alarm: Rc<Alarm>,
    /// Of the present request, until its response begins.
    pub permit: Option<Permit>,
    /// Lends buffers, and knows whether the proxy stops.
    pub worker: Rc<WorkerContext>,
}

impl<S: Transport> ClientIo<S> {
    /// A connection from which nothing was read.
    pub fn new(stream: S, alarm: Rc<Alarm>, worker: Rc<WorkerContext>) -> Self {
        ClientIo { stream: BufferedIo::new(stream), alarm, permit: None, worker }
    }

    /// Whether the client has closed its side and everything that it sent before is used. It may have sent several
    /// requests before it closed.
    pub fn is_at_end(&self) -> bool {
        self.stream.eof && self.stream.filled().is_empty()
    }

    /// Writes what a response of the proxy's own has in its buffer.
    ///
    /// # Errors
    /// [`WriteFailed`]: nothing more can be written.
    pub async fn write(&mut self, response: &mut BodyCopier) -> Result<(), WriteFailed> {
        self.alarm.set(Instant::now() + self.worker.proxy.idle_timeout);
        response.begin_body(BodyDecoder::Length(0), Encoding::Plain);
        let mut nothing = BufferedIo::new(tokio::io::empty());
        let (stream, alarm, buffers) = (&mut self.stream, &self.alarm, &self.worker.buffers);
        poll_fn(|cx| match response.poll(cx, &mut nothing, &mut stream.io, buffers, &mut false) {
            Poll::Pending if alarm.is_late() => {
                stream.io.give_up();
                Poll::Ready(Err(WriteFailed))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result.map_err(|_| WriteFailed)),
        })
        .await
    }

    /// Tells the client that nothing follows, for as long as that may take.
    pub async fn say_goodbye(&mut self) -> NextStep {
        self.alarm.set(Instant::now() + LINGER);
        let (stream, shutdown, alarm) = (&mut self.stream, &self.worker.shutdown, &self.alarm);
        poll_fn(|cx| match stream.io.poll_goodbye(cx) {
            Poll::Pending if !alarm.is_late() && !shutdown.is_cutting() => Poll::Pending,
            Poll::Pending | Poll::Ready(()) => Poll::Ready(NextStep::Drop),
        })
        .await
    }

    /// Closes our side, then reads and drops what the client still sends for a moment. A close with unread bytes would
    /// be a reset, and a reset can overtake the last response (RFC 9112 9.6).
    pub async fn linger(&mut self) -> NextStep {
        self.alarm.set(Instant::now() + LINGER);
        let (stream, worker, alarm) = (&mut self.stream, &self.worker, &self.alarm);
        let mut discarded = 0;
        let mut is_closed = false;
        poll_fn(|cx| {
            if !is_closed {
                match Pin::new(&mut stream.io).poll_shutdown(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => is_closed = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(NextStep::Drop),
                }
            }
            loop {
                let n = stream.filled().len();
                stream.consume(n);
                discarded += n as u64;
                if discarded > LINGER_BYTES_MAX || alarm.is_late() || worker.shutdown.is_cutting() || stream.eof {
                    return Poll::Ready(NextStep::Drop);
                }
                match stream.poll_fill(cx, &worker.buffers, false) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(NextStep::Drop),
                }
            }
        })
        .await
    }
}
