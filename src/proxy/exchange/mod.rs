//! One request and its answer on two open connections, both directions at once.
//!
//! A hand-written poll rather than two tasks: both directions share the connections, the deadline and the lease, and
//! the whole is one small piece of the connection's task.

pub mod body_copy;
pub mod min_rate;
pub mod tunnel;

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::alarm::Alarm;
use super::fault::Fault;
use crate::http1::body::BodyDecoder;
use crate::http1::boundary::Boundary;
use crate::http1::buffer::SMALL;
use crate::http1::grpc_status::GrpcFailure;
use crate::http1::request::{BareLineFeed, HeadScanner, HeaderStorage};
use crate::http1::response::{Additions, Encoding, RequestInfo, ResponseHead, ServedBy, lower_version};
use crate::proxy::admission::Permit;
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::context::WorkerContext;
use crate::proxy::exchange::body_copy::{BodyCopier, CopyError};
use crate::proxy::exchange::min_rate::{RateGuard, RateLimits, Violation};
use crate::proxy::upstream::io::UpstreamIo;
use crate::routing::{Lease, LeaseKind};

/// An answer head at most; a larger one is 502.
const ANSWER_HEAD_MAX: usize = 64 * 1024;

/// Interim answers (1xx) to one request at most.
const INTERIM_MAX: u32 = 64;

/// The time-outs of one exchange.
#[derive(Clone, Copy)]
pub struct ExchangeLimits {
    /// The client's body.
    pub body: RateLimits,
    /// The upstream.
    pub answer: RateLimits,
    /// The client's reading.
    pub read: RateLimits,
}

/// How an exchange that brought a complete answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The answer is complete.
    Answered,
    /// `101`: from here on the bytes belong to another protocol.
    Tunnel,
    /// The answer's head has a status that is [`Replaceable`]. Nothing of it was used: run the exchange again without
    /// that to pass it on.
    Failed(u16),
}

/// Which answers had better come from another color, as long as the request can be sent again.
#[derive(Clone, Copy, Debug)]
pub struct Replaceable {
    /// Every status from here on.
    pub from: u16,
    /// 404, where a release may simply not have the file.
    pub missing: bool,
}

impl Replaceable {
    /// None.
    pub const NOTHING: Replaceable = Replaceable::from(u16::MAX);

    /// Every status from here on.
    pub const fn from(from: u16) -> Self {
        Replaceable { from, missing: false }
    }
}

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwaitedSide {
    /// The client, for its body.
    Body,
    /// The upstream.
    Response,
    /// The client, that it reads.
    Read,
}

/// One exchange under way.
pub struct Exchange<'a, S> {
    /// The client.
    pub client: &'a mut BufferedIo<S>,
    /// The upstream.
    pub upstream: &'a mut BufferedIo<UpstreamIo>,
    /// The request on its way up: its head, then its body.
    pub up: &'a mut BodyCopier,
    /// The answer on its way down: interim heads, its head, its body.
    pub down: &'a mut BodyCopier,
    /// The request, as far as the answer depends on it.
    pub request: RequestInfo,
    /// Whether the client's connection may be kept; the answer's head says so, and it is cleared where it may not.
    pub keep_client: bool,
    /// What may be replaced by another color's answer.
    pub replaceable: Replaceable,
    /// The color that answers in place of another, which the answer then says.
    pub served_by: Option<ServedBy>,
    /// `Strict-Transport-Security`, where the client came over TLS.
    pub hsts: Option<&'a str>,
    /// Time-outs.
    pub limits: ExchangeLimits,
    /// How the one who is waited for does.
    pub pace: Option<RateGuard<AwaitedSide>>,
    /// Of the request, until its answer has begun.
    pub permit: &'a mut Option<Permit>,
    /// The lease; the exchange ends when it is cut.
    pub lease: &'a Lease,
    /// The worker.
    pub worker: &'a WorkerContext,
    /// The connection's time-out.
    pub alarm: &'a Alarm,
    /// What is known of it so far.
    pub progress: ExchangeProgress,
}

/// What is known of an exchange, complete or not.
#[derive(Default)]
pub struct ExchangeProgress {
    /// The final status, once its head has been read.
    pub status: Option<u16>,
    /// A byte of an answer came from the upstream.
    pub answered_a_byte: bool,
    /// The upstream's connection may be used again.
    pub keep_upstream: bool,
    /// Only the end of the connection tells the client where the answer ends.
    pub ends_with_close: bool,
    /// How a call of gRPC failed that was answered.
    pub failure: Option<GrpcFailure>,
    /// What a tunnel is for.
    pub tunnel: LeaseKind,
    up_over: bool,
    up_failed: bool,
    event_stream: bool,
    /// When an event stream says goodbye, of those that do; from 0 to 1.
    turn: f64,
    interim: u32,
    scan: HeadScanner,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<'_, S> {
    /// Runs it to its end. It does nothing to the connections when it fails.
    ///
    /// # Errors
    /// Why there is no complete answer.
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
        if self.progress.event_stream {
            self.say_goodbye();
        }
        if self.alarm.is_late()
            && let Some(fault) = self.look_at_pace()
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

    /// The request's way up, and after it an eye on the client.
    fn poll_up(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Result<(), Fault> {
        if self.progress.up_over {
            return self.watch_client(cx);
        }
        match self.up.poll(cx, self.client, &mut self.upstream.io, &self.worker.buffers, moved) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.progress.up_over = true,
            // The upstream may have answered before it stopped reading: the answer, or its absence, decides.
            Poll::Ready(Err(CopyError::Sink)) => (self.progress.up_over, self.progress.up_failed) = (true, true),
            Poll::Ready(Err(CopyError::Source)) => return Err(Fault::ClientGone),
            Poll::Ready(Err(CopyError::Framing(why))) => return Err(Fault::BadRequest(why.0)),
            Poll::Ready(Err(CopyError::TooLarge)) => return Err(Fault::BodyTooLarge),
        }
        self.watch_client(cx)
    }

    /// A reset ends the exchange. A client that has closed its side may still read (RFC 9112 9.6 does not forbid it),
    /// unless it was an event stream's: those have no other way to say goodbye.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        while !self.client.eof && !self.client.is_full(0) {
            match self.client.poll_fill(cx, &self.worker.buffers, false) {
                Poll::Pending => break,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Fault::ClientGone),
            }
        }
        if self.client.eof && self.progress.event_stream { Err(Fault::ClientGone) } else { Ok(()) }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<Completion, Fault>> {
        loop {
            if self.progress.status.is_none() {
                match self.poll_head(cx, moved) {
                    Poll::Pending => {
                        // Interim answers go out while the final one is waited for.
                        if self.down.is_blocked() {
                            ready!(self.flush_interim(cx, moved))?;
                        }
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(None)) => {}
                    Poll::Ready(Ok(Some(status))) => return Poll::Ready(Ok(Completion::Failed(status))),
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                }
            }
            let pumped = self.down.poll(cx, self.upstream, &mut self.client.io, &self.worker.buffers, moved);
            match ready!(pumped) {
                Ok(()) if self.progress.status == Some(101) => return Poll::Ready(Ok(Completion::Tunnel)),
                Ok(()) if self.progress.status.is_some() => {
                    let whole = self.progress.up_over && !self.progress.up_failed && !self.down.has_left();
                    self.progress.keep_upstream &= whole && self.upstream.filled().is_empty();
                    self.progress.failure = self.down.call.failure();
                    if self.down.has_left() {
                        self.lease.count_closed();
                    }
                    return Poll::Ready(Ok(Completion::Answered));
                }
                Ok(()) => {}
                Err(CopyError::Sink) => return Poll::Ready(Err(Fault::ClientGone)),
                Err(CopyError::Source) => return Poll::Ready(Err(Fault::AnswerCut)),
                Err(CopyError::Framing(why)) => return Poll::Ready(Err(Fault::AnswerUnreadable(why.0))),
                Err(CopyError::TooLarge) => return Poll::Ready(Err(Fault::AnswerUnreadable("too large"))),
            }
        }
    }

    fn flush_interim(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<(), Fault>> {
        let pumped = self.down.poll(cx, self.upstream, &mut self.client.io, &self.worker.buffers, moved);
        pumped.map_err(|_| Fault::ClientGone)
    }

    /// Reads until an answer head, final or interim, is ready to be sent; or gives the status of one that had better be
    /// replaced.
    fn poll_head(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<Option<u16>, Fault>> {
        loop {
            let end = self.progress.scan.end(self.upstream.filled());
            if let Some(end) =
                end.map_err(|BareLineFeed| Fault::AnswerUnreadable("a line of the head ends with a bare LF"))?
            {
                return Poll::Ready(self.take_head(end));
            }
            if self.upstream.is_full(ANSWER_HEAD_MAX) {
                return Poll::Ready(Err(Fault::AnswerUnreadable("the head is too large")));
            }
            self.upstream.make_room(ANSWER_HEAD_MAX);
            match ready!(self.upstream.poll_fill(cx, &self.worker.buffers, false)) {
                Ok(0) if self.progress.answered_a_byte => return Poll::Ready(Err(Fault::AnswerCut)),
                Ok(0) => return Poll::Ready(Err(Fault::AnswerMissing)),
                Ok(_) => (self.progress.answered_a_byte, *moved) = (true, true),
                Err(_) if self.progress.answered_a_byte => return Poll::Ready(Err(Fault::AnswerCut)),
                Err(_) => return Poll::Ready(Err(Fault::AnswerMissing)),
            }
        }
    }

    fn take_head(&mut self, end: usize) -> Result<Option<u16>, Fault> {
        lower_version(&mut self.upstream.filled_mut()[..end]);
        let mut space = HeaderStorage::new();
        let answer = ResponseHead::parse(&self.upstream.filled()[..end], &mut space, self.request)?;
        if self.down.pending.size() == 0 {
            self.down.pending = self.worker.buffers.tiny();
        }
        match answer.status {
            101 if !answer.is_upgrade_of(self.up.pending.filled()) => {
                return Err(Fault::AnswerUnreadable("a switch to a protocol that was not requested"));
            }
            101 => {
                answer.write_interim(&mut self.down.pending);
                self.progress.status = Some(101);
                *self.permit = None;
                self.progress.tunnel = if answer.is_websocket() { LeaseKind::WebSocket } else { LeaseKind::Tunnel };
            }
            100..200 => {
                self.progress.interim += 1;
                if self.progress.interim > INTERIM_MAX {
                    return Err(Fault::AnswerUnreadable("too many interim responses"));
                }
                if !self.request.is_1_0 {
                    answer.write_interim(&mut self.down.pending);
                }
            }
            status @ 400.. if self.is_replaceable(status) => {
                self.progress.scan = HeadScanner::default();
                self.lease.answered();
                return Ok(Some(status));
            }
            _ => {
                // An answer before the end of the request: the rest of the request is not read.
                self.keep_client &=
                    self.up.has_all() && !answer.ends_with_close() && !self.worker.shutdown.is_stopping();
                let extra = Additions {
                    keep_alive: self.keep_client,
                    date: &self.worker.date(),
                    served_by: self.served_by,
                    hsts: self.hsts,
                    via: self.worker.proxy.via.then(|| via(&self.upstream.io, answer.is_1_0)),
                };
                answer.write_final(&mut self.down.pending, self.request, &extra);
                begin_answer(&answer, self.down, &mut self.progress);
                *self.permit = None;
                if self.served_by.is_none() {
                    self.lease.answered();
                }
                if self.progress.event_stream {
                    self.lease.set_kind(LeaseKind::EventStream);
                }
            }
        }
        self.upstream.consume(end);
        self.progress.scan = HeadScanner::default();
        Ok(None)
    }

    fn is_replaceable(&self, status: u16) -> bool {
        let Replaceable { from, missing } = self.replaceable;
        // With a part of it unsent the connection would take the next request for the rest.
        let is_sent = self.progress.up_over && !self.progress.up_failed;
        let can_be_sent_again = || is_sent && self.up.has_all() && self.up.intact && self.down.is_unused();
        (status >= from || (missing && status == 404)) && can_be_sent_again()
    }

    /// Who is being waited for, how patiently, and what has moved there.
    fn waiting_for(&self) -> (AwaitedSide, RateLimits, u64) {
        if self.down.is_blocked() {
            (AwaitedSide::Read, self.limits.read, self.down.written)
        } else if !self.progress.up_over && !self.up.is_blocked() && self.progress.status.is_none() {
            (AwaitedSide::Body, self.limits.body, self.up.payload)
        } else {
            (AwaitedSide::Response, self.limits.answer, 0)
        }
    }

    /// The fault that ends the wait, unless it goes on.
    fn look_at_pace(&mut self) -> Option<Fault> {
        let (waiting, patience, moved) = self.waiting_for();
        let late = self.pace.as_mut().map_or(Violation::Silent, |pace| pace.judge(patience, moved, Instant::now()));
        match (late, waiting) {
            (Violation::Silent, AwaitedSide::Body) => Some(Fault::BodyTimedOut),
            (Violation::Slow, AwaitedSide::Body) => Some(Fault::BodyTooSlow),
            (Violation::Silent, AwaitedSide::Read) => Some(Fault::ClientStalled),
            (Violation::Slow, AwaitedSide::Read) => Some(Fault::ReadTooSlow),
            (Violation::Silent | Violation::Slow, AwaitedSide::Response) => Some(Fault::AnswerTimedOut),
            (Violation::No, _) => {
                self.set_alarm();
                None
            }
        }
    }

    /// Ends an event stream after its present event, when its turn has come. The client asks again, and is answered by
    /// whoever is active then.
    fn say_goodbye(&mut self) {
        match self.close_at() {
            None => {}
            Some(at) if at > Instant::now() => self.alarm.set_at_most(at),
            Some(_) => {
                self.down.leave();
                self.set_alarm();
            }
        }
    }

    fn close_at(&self) -> Option<Instant> {
        let has_turn = self.progress.event_stream && self.down.boundary.is_some() && !self.down.is_leaving();
        if has_turn { self.worker.shutdown.close_at(self.lease, self.progress.turn) } else { None }
    }

    fn set_alarm(&mut self) {
        let (waiting, patience, moved) = self.waiting_for();
        let pace = RateGuard::follow(self.pace, waiting, patience, moved, Instant::now());
        self.pace = Some(pace);
        self.alarm.set(pace.due(patience));
        if let Some(at) = self.close_at() {
            self.alarm.set_at_most(at);
        }
    }
}

/// The final answer has begun: what its head says of what follows.
fn begin_answer(answer: &ResponseHead<'_>, down: &mut BodyCopier, progress: &mut ExchangeProgress) {
    down.frame(answer.body.clone(), answer.encoding);
    down.hops = answer.named_hops().iter().map(|&name| name.to_owned()).collect();
    down.call = answer.call();
    progress.status = Some(answer.status);
    progress.keep_upstream = answer.keep_alive && answer.body != BodyDecoder::UntilClose;
    progress.ends_with_close = answer.ends_with_close();
    progress.event_stream = answer.is_event_stream();
    if progress.event_stream {
        progress.turn = fastrand::f64();
        // An announced length leaves no way to end before it, a compression none to see where.
        if !answer.is_encoded() && (answer.encoding == Encoding::Chunked || answer.ends_with_close()) {
            down.boundary = Some(Boundary::of_events());
        }
    }
}

/// RFC 9110 7.6.3: what the answer came by.
fn via(upstream: &UpstreamIo, is_1_0: bool) -> &'static str {
    match (upstream, is_1_0) {
        (UpstreamIo::Stream(_), _) => "2.0 cutover",
        (UpstreamIo::Tcp(_), true) => "1.0 cutover",
        (UpstreamIo::Tcp(_), false) => "1.1 cutover",
    }
}

const _: () = assert!(SMALL < ANSWER_HEAD_MAX);
