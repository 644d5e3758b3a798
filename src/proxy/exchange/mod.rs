//! One request and its response on two open connections, both directions at once.
//!
//! The exchange is one poll function and not two tasks. Both directions share the connections, the deadline and the
//! lease, and either of them may end the other: tasks would have to share all of that behind a lock or through
//! channels, and allocate for it in every request. As a plain value the exchange is one small piece of the connection's
//! task.
//!
//! The request's direction runs until its body is sent; after that it only watches whether the client leaves. The
//! response's direction first finds the head, then copies the body. The alarm is set to the time by which the awaited
//! side has to move, and [`Exchange::poll`] asks [`RateGuard`] what it means when that time comes.

pub mod body_copy;
pub mod min_rate;
pub mod tunnel;

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::domain::Color;
use crate::http1::body::BodyDecoder;
use crate::http1::boundary::Boundary;
use crate::http1::buffer::SMALL;
use crate::http1::fields::{FieldLine, HeaderStorage};
use crate::http1::grpc_status::GrpcFailure;
use crate::http1::head_scanner::{BareLineFeed, HeadScanner};
use crate::http1::reject::{MalformedResponse, Rejection};
use crate::http1::response::{Additions, Encoding, RequestInfo, ResponseHead, lower_version};
use crate::http1::version::HttpVersion;
use crate::proxy::admission::Permit;
use crate::proxy::alarm::Alarm;
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::context::WorkerContext;
use crate::proxy::exchange::body_copy::{BodyCopier, CopyError};
use crate::proxy::exchange::min_rate::{RateGuard, RateLimits, Violation};
use crate::proxy::fault::Fault;
use crate::proxy::upstream::io::UpstreamIo;
use crate::routing::{Lease, LeaseKind};

/// The largest response head in bytes. A larger one is answered with 502.
const RESPONSE_HEAD_MAX: usize = 64 * 1024;

/// How many interim responses (1xx) one request may have.
const INTERIM_MAX: u32 = 64;

const _: () = assert!(SMALL < RESPONSE_HEAD_MAX, "a buffer for a response head can grow");

/// How long each side may take for its part of an exchange.
#[derive(Clone, Copy)]
pub struct ExchangeLimits {
    pub request_body: RateLimits,
    pub response: RateLimits,
    /// The client's reading of the response.
    pub client_read: RateLimits,
}

/// How an exchange ended that brought a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The response is complete.
    Answered,
    /// The response is a `101`: from here on the bytes belong to another protocol.
    Tunnel,
    /// The response has this status, which is [`Replaceable`]. Nothing of it was used: another exchange on the same
    /// connection passes it on.
    Failed(u16),
}

/// Which responses had better come from another color, as long as the request can be sent again.
#[derive(Clone, Copy, Debug)]
pub struct Replaceable {
    /// Every status from here on.
    pub from: u16,
    /// A 404 as well, because the color's release may simply not have the file.
    pub missing: bool,
}

impl Replaceable {
    /// Every response is passed on.
    pub const NOTHING: Replaceable = Replaceable::from(u16::MAX);

    /// Every status from here on.
    pub const fn from(from: u16) -> Self {
        Replaceable { from, missing: false }
    }
}

/// The color that serves a request in place of the one that was asked first, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// The first one failed.
    Replayed(Color),
    /// The first one does not have the file.
    Skew(Color),
}

impl ServedBy {
    /// The field of the response that says so.
    fn field(self) -> FieldLine<'static> {
        match self {
            ServedBy::Replayed(color) => FieldLine { name: "X-Cutover-Replayed", value: color.as_str() },
            ServedBy::Skew(color) => FieldLine { name: "X-Cutover-Skew", value: color.as_str() },
        }
    }
}

/// The side that has to move next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwaitedSide {
    /// The client has to send more of its body.
    RequestBody,
    /// The upstream has to send more of its response.
    Response,
    /// The client has to read.
    ClientRead,
}

/// The side that has to move next, what it is given, and what it has moved so far.
struct Awaited {
    side: AwaitedSide,
    limits: RateLimits,
    moved: u64,
}

/// How far the request is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sending {
    #[default]
    UnderWay,
    Complete,
    /// The upstream stopped reading. It may have responded before that: the response, or its absence, decides.
    Failed,
}

/// What became of a head that was read.
enum HeadResult {
    /// The head is to be written to the client.
    Forwarded,
    /// The response has this status, and had better come from another color.
    Replaceable(u16),
}

/// One exchange.
pub struct Exchange<'a, S> {
    pub client: &'a mut BufferedIo<S>,
    pub upstream: &'a mut BufferedIo<UpstreamIo>,
    /// Copies the request: its head, which is there, then its body.
    pub up: &'a mut BodyCopier,
    /// Copies the response: interim heads, its head, then its body.
    pub down: &'a mut BodyCopier,
    pub request: RequestInfo,
    /// Whether the client's connection may take another request. The response says so, and this is cleared where it
    /// says no.
    pub keep_client: bool,
    pub replaceable: Replaceable,
    pub served_by: Option<ServedBy>,
    /// What came of a preview pass.
    pub preview: Option<FieldLine<'static>>,
    /// The value of `Strict-Transport-Security`, where the client came over TLS.
    pub hsts: Option<&'a str>,
    pub limits: ExchangeLimits,
    /// Measures the awaited side.
    pub guard: Option<RateGuard<AwaitedSide>>,
    /// The request's place among those that wait for a response, until its response begins.
    pub permit: &'a mut Option<Permit>,
    /// The exchange ends when its lease is cut.
    pub lease: &'a Lease,
    pub worker: &'a WorkerContext,
    pub alarm: &'a Alarm,
    pub progress: ExchangeProgress,
}

/// What is known of an exchange, be it complete or not.
#[derive(Default)]
pub struct ExchangeProgress {
    /// The status of the final response, once its head has been read.
    pub status: Option<u16>,
    /// The upstream's connection may be used again.
    pub keep_upstream: bool,
    /// Only the end of the connection tells the client where the response ends.
    pub ends_with_close: bool,
    /// How a gRPC call failed.
    pub failure: Option<GrpcFailure>,
    /// What a tunnel is for.
    pub tunnel: LeaseKind,
    sending: Sending,
    /// A byte of a response has come from the upstream.
    has_response_byte: bool,
    is_event_stream: bool,
    /// The place of an event stream among those that end with a goodbye, from 0 (first) to 1 (last).
    turn: f64,
    interim_responses: u32,
    head_scanner: HeadScanner,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<'_, S> {
    /// Runs the exchange to its end. Where it fails, nothing is done to the connections.
    ///
    /// # Errors
    /// Why there is no complete response.
    pub async fn run(&mut self) -> Result<Completion, Fault> {
        self.set_alarm();
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Completion, Fault>> {
        if self.lease.is_cut() {
            return Poll::Ready(Err(Fault::Drained));
        }
        if self.worker.shutdown.is_cutting() {
            return Poll::Ready(Err(Fault::Stopped));
        }
        if self.progress.is_event_stream {
            self.say_goodbye();
        }
        if self.alarm.is_late()
            && let Some(fault) = self.check_awaited()
        {
            return Poll::Ready(Err(fault));
        }
        let mut moved = false;
        self.poll_up(cx, &mut moved)?;
        let done = self.poll_down(cx, &mut moved);
        if moved && done.is_pending() {
            self.set_alarm();
        }
        done
    }

    /// Sends the request, and watches the client after that.
    fn poll_up(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Result<(), Fault> {
        if self.progress.sending != Sending::UnderWay {
            return self.watch_client(cx);
        }
        match self.up.poll(cx, self.client, &mut self.upstream.io, &self.worker.buffers, moved) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.progress.sending = Sending::Complete,
            Poll::Ready(Err(CopyError::Sink)) => self.progress.sending = Sending::Failed,
            Poll::Ready(Err(CopyError::Source)) => return Err(Fault::ClientGone),
            Poll::Ready(Err(CopyError::Framing(why))) => return Err(Rejection::from(why).into()),
            Poll::Ready(Err(CopyError::TooLarge)) => return Err(Fault::BodyTooLarge),
        }
        self.watch_client(cx)
    }

    /// Ends the exchange when the client resets its connection. A client that has closed its side may still read, which
    /// RFC 9112 9.6 does not forbid. One of an event stream does not: closing is its only way to say goodbye.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        while !self.client.eof && !self.client.is_full(0) {
            match self.client.poll_fill(cx, &self.worker.buffers, false) {
                Poll::Pending => break,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Fault::ClientGone),
            }
        }
        if self.client.eof && self.progress.is_event_stream { Err(Fault::ClientGone) } else { Ok(()) }
    }

    /// Reads the response and passes it on.
    fn poll_down(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<Completion, Fault>> {
        loop {
            if self.progress.status.is_none() {
                match self.poll_head(cx, moved) {
                    Poll::Pending => {
                        // Interim responses go out while the final one is awaited.
                        if self.down.is_blocked() {
                            ready!(self.poll_copy(cx, moved)).map_err(|_| Fault::ClientGone)?;
                        }
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(HeadResult::Forwarded)) => {}
                    Poll::Ready(Ok(HeadResult::Replaceable(status))) => {
                        return Poll::Ready(Ok(Completion::Failed(status)));
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                }
            }
            match ready!(self.poll_copy(cx, moved)) {
                Ok(()) if self.progress.status == Some(101) => return Poll::Ready(Ok(Completion::Tunnel)),
                Ok(()) if self.progress.status.is_some() => return Poll::Ready(Ok(self.end_response())),
                Ok(()) => {}
                Err(CopyError::Sink) => return Poll::Ready(Err(Fault::ClientGone)),
                Err(CopyError::Source) => return Poll::Ready(Err(Fault::ResponseCut)),
                Err(CopyError::Framing(why)) => return Poll::Ready(Err(MalformedResponse::from(why).into())),
                Err(CopyError::TooLarge) => return Poll::Ready(Err(Fault::ResponseMalformed("too large"))),
            }
        }
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<(), CopyError>> {
        self.down.poll(cx, self.upstream, &mut self.client.io, &self.worker.buffers, moved)
    }

    /// Takes note of what the end of a complete response says.
    fn end_response(&mut self) -> Completion {
        let ended_early = self.down.has_ended_early();
        let is_whole = self.progress.sending == Sending::Complete && !ended_early;
        self.progress.keep_upstream &= is_whole && self.upstream.filled().is_empty();
        self.progress.failure = self.down.grpc_status.failure();
        if ended_early {
            self.lease.count_closed();
        }
        Completion::Answered
    }

    /// Reads until the head of a response, final or interim, is there, and takes it.
    fn poll_head(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<HeadResult, Fault>> {
        const BARE_LF: Fault = Fault::ResponseMalformed("a line of the head ends with a bare LF");
        loop {
            let head_len = self.progress.head_scanner.head_len(self.upstream.filled());
            if let Some(head_len) = head_len.map_err(|BareLineFeed| BARE_LF)? {
                return Poll::Ready(self.take_head(head_len));
            }
            if self.upstream.is_full(RESPONSE_HEAD_MAX) {
                return Poll::Ready(Err(Fault::ResponseMalformed("the head is too large")));
            }
            self.upstream.make_room(RESPONSE_HEAD_MAX);
            match ready!(self.upstream.poll_fill(cx, &self.worker.buffers, false)) {
                Ok(1..) => (self.progress.has_response_byte, *moved) = (true, true),
                Ok(_) | Err(_) if self.progress.has_response_byte => return Poll::Ready(Err(Fault::ResponseCut)),
                Ok(_) | Err(_) => return Poll::Ready(Err(Fault::ResponseMissing)),
            }
        }
    }

    /// Takes the head of `head_len` bytes at the front of the upstream's buffer.
    fn take_head(&mut self, head_len: usize) -> Result<HeadResult, Fault> {
        lower_version(&mut self.upstream.filled_mut()[..head_len]);
        let mut storage = HeaderStorage::new();
        let response = ResponseHead::parse(&self.upstream.filled()[..head_len], &mut storage, self.request)?;
        if self.down.pending.size() == 0 {
            self.down.pending = self.worker.buffers.tiny();
        }
        match response.status {
            101 if !response.is_upgrade_of(self.up.pending.filled()) => {
                return Err(Fault::ResponseMalformed("a switch to a protocol that was not requested"));
            }
            101 => {
                response.write_interim(&mut self.down.pending);
                self.progress.status = Some(101);
                *self.permit = None;
                self.progress.tunnel = if response.is_websocket() { LeaseKind::WebSocket } else { LeaseKind::Tunnel };
            }
            100..200 => {
                self.progress.interim_responses += 1;
                if self.progress.interim_responses > INTERIM_MAX {
                    return Err(Fault::ResponseMalformed("too many interim responses"));
                }
                if self.request.version != HttpVersion::Http10 {
                    response.write_interim(&mut self.down.pending);
                }
            }
            status @ 400.. if self.is_replaceable(status) => {
                self.progress.head_scanner = HeadScanner::default();
                self.lease.answered();
                return Ok(HeadResult::Replaceable(status));
            }
            _ => {
                // Where the response came before the end of the request, the rest of the request is not read.
                let is_stopping = self.worker.shutdown.is_stopping();
                self.keep_client &= self.up.has_all() && !response.ends_with_close() && !is_stopping;
                let additions = Additions {
                    keep_alive: self.keep_client,
                    date: &self.worker.date(),
                    served_by: self.served_by.map(ServedBy::field),
                    preview: self.preview,
                    hsts: self.hsts,
                    via: self.worker.proxy.via.then(|| version_of(&self.upstream.io, &response).via()),
                };
                response.write_final(&mut self.down.pending, self.request, &additions);
                begin_response(&response, self.down, &mut self.progress);
                *self.permit = None;
                if self.served_by.is_none() {
                    self.lease.answered();
                }
                if self.progress.is_event_stream {
                    self.lease.set_kind(LeaseKind::EventStream);
                }
            }
        }
        self.upstream.consume(head_len);
        self.progress.head_scanner = HeadScanner::default();
        Ok(HeadResult::Forwarded)
    }

    fn is_replaceable(&self, status: u16) -> bool {
        let Replaceable { from, missing } = self.replaceable;
        // With a part of the request unsent, the connection would take the next request for the rest of this one.
        let can_be_sent_again = || {
            self.progress.sending == Sending::Complete && self.up.has_all() && self.up.intact && self.down.is_unused()
        };
        (status >= from || (missing && status == 404)) && can_be_sent_again()
    }

    fn awaited(&self) -> Awaited {
        let ExchangeLimits { request_body, response, client_read } = self.limits;
        let is_sending = self.progress.sending == Sending::UnderWay;
        if self.down.is_blocked() {
            Awaited { side: AwaitedSide::ClientRead, limits: client_read, moved: self.down.written }
        } else if is_sending && !self.up.is_blocked() && self.progress.status.is_none() {
            Awaited { side: AwaitedSide::RequestBody, limits: request_body, moved: self.up.payload }
        } else {
            Awaited { side: AwaitedSide::Response, limits: response, moved: 0 }
        }
    }

    /// Looks at the awaited side, whose time has come. Returns the fault that ends the exchange, unless enough has
    /// moved.
    fn check_awaited(&mut self) -> Option<Fault> {
        let Awaited { side, limits, moved } = self.awaited();
        let guard = self.guard.as_mut();
        let violation = guard.map_or(Some(Violation::Silent), |guard| guard.check(limits, moved, Instant::now()));
        match (violation, side) {
            (Some(Violation::Silent), AwaitedSide::RequestBody) => Some(Fault::BodyTimedOut),
            (Some(Violation::Slow), AwaitedSide::RequestBody) => Some(Fault::BodyTooSlow),
            (Some(Violation::Silent), AwaitedSide::ClientRead) => Some(Fault::ClientStalled),
            (Some(Violation::Slow), AwaitedSide::ClientRead) => Some(Fault::ReadTooSlow),
            (Some(Violation::Silent | Violation::Slow), AwaitedSide::Response) => Some(Fault::ResponseTimedOut),
            (None, _) => {
                self.set_alarm();
                None
            }
        }
    }

    /// Ends an event stream after its present event, when its turn has come. The client connects again, and the color
    /// that is active then answers.
    fn say_goodbye(&mut self) {
        match self.close_at() {
            None => {}
            Some(at) if at > Instant::now() => self.alarm.set_at_most(at),
            Some(_) => {
                self.down.end_at_boundary();
                self.set_alarm();
            }
        }
    }

    fn close_at(&self) -> Option<Instant> {
        let may_close = self.progress.is_event_stream && self.down.boundary.is_some() && !self.down.is_ending_early();
        if may_close { self.worker.shutdown.close_at(self.lease, self.progress.turn) } else { None }
    }

    fn set_alarm(&mut self) {
        let Awaited { side, limits, moved } = self.awaited();
        let guard = RateGuard::resume(self.guard, side, limits, moved, Instant::now());
        self.guard = Some(guard);
        self.alarm.set(guard.due(limits));
        if let Some(at) = self.close_at() {
            self.alarm.set_at_most(at);
        }
    }
}

/// Takes note of what the head of a final response says of its body and its connection.
fn begin_response(response: &ResponseHead<'_>, down: &mut BodyCopier, progress: &mut ExchangeProgress) {
    down.begin_body(response.body.clone(), response.encoding);
    down.dropped_trailers = response.named_hops().iter().map(|&name| name.to_owned()).collect();
    down.grpc_status = response.grpc_status();
    progress.status = Some(response.status);
    progress.keep_upstream = response.keep_alive && response.body != BodyDecoder::UntilClose;
    progress.ends_with_close = response.ends_with_close();
    progress.is_event_stream = response.is_event_stream();
    if progress.is_event_stream {
        progress.turn = fastrand::f64();
        // An announced length leaves no way to end the body early, and a compressed body no way to see where.
        if !response.is_encoded() && (response.encoding == Encoding::Chunked || response.ends_with_close()) {
            down.boundary = Some(Boundary::of_events());
        }
    }
}

/// The version of HTTP in which the upstream has sent its response. The text of a response of HTTP/2 says HTTP/1.1.
fn version_of(upstream: &UpstreamIo, response: &ResponseHead<'_>) -> HttpVersion {
    match upstream {
        UpstreamIo::Stream(_) => HttpVersion::Http2,
        UpstreamIo::Tcp(_) => response.version,
    }
}
