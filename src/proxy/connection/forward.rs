//! One leased request on its way: which color, which upstream, once more or not, and how it is counted.
//!
//! A request reads from top to bottom here. [`Forwarder::run`] sends it to the color that its lease is on, looks
//! whether the other color should answer in its place, and settles what came of it: on both connections, in the
//! counters, and in the access log.
//!
//! A request can be sent to a second upstream only as long as three things hold. The proxy still has all of it, which
//! ends with the first byte of a body that does not fit into the buffer ([`BodyCopier::intact`]). Nothing of a response
//! has reached the client. And repeating it does no harm: no upstream took it, or its method or its service says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http1::body::BodyDecoder;
use crate::http1::reject::Rejection;
use crate::http1::response::Encoding;
use crate::proxy::connection::attempt::{Attempt, Replacement, ReplacementReason, RequestEnd};
use crate::proxy::connection::client::Client;
use crate::proxy::connection::client_io::{ClientIo, NextStep};
use crate::proxy::connection::lease::LeasedRequest;
use crate::proxy::connection::preview::Note;
use crate::proxy::connection::refusal::{ProxyResponse, ResponseContext};
use crate::proxy::connection::{rehearsal, static_fallback};
use crate::proxy::exchange::body_copy::BodyCopier;
use crate::proxy::exchange::min_rate::RateLimits;
use crate::proxy::exchange::tunnel::Tunnel;
use crate::proxy::exchange::{Completion, Exchange, ExchangeLimits, ExchangeProgress, Replaceable, ServedBy};
use crate::proxy::fault::Fault;
use crate::proxy::transport::Transport;
use crate::proxy::upstream::connect::{ConnectAttempts, ConnectError, Target};
use crate::proxy::upstream::pool::UpstreamConn;
use crate::proxy_protocol::Ends;
use crate::routing::{Outcome, ReplayResult, Standby, Upstream};

/// Forwards one request.
pub struct Forwarder<'a, S> {
    io: &'a mut ClientIo<S>,
    client: &'a Client,
    request: LeasedRequest,
    state: ForwardState,
}

/// The request and its response on their way.
struct ForwardState {
    up: BodyCopier,
    down: BodyCopier,
}

impl<'a, S: Transport> Forwarder<'a, S> {
    /// Forwards `request`, whose head is used up in `io`.
    pub fn new(io: &'a mut ClientIo<S>, client: &'a Client, mut request: LeasedRequest) -> Self {
        let encoding =
            if matches!(request.body, BodyDecoder::Chunked(_)) { Encoding::Chunked } else { Encoding::Plain };
        let head = std::mem::take(&mut request.head);
        let mut up = BodyCopier::new(request.body.clone(), encoding, head, io.worker.proxy.max_body_bytes);
        up.dropped_trailers = std::mem::take(&mut request.hops);
        Forwarder { io, client, request, state: ForwardState { up, down: BodyCopier::for_responses() } }
    }

    /// Runs the request to its end. Returns what follows on the client's connection.
    pub async fn run(&mut self) -> NextStep {
        rehearsal::offer(&self.request, self.state.up.pending.filled());
        let upstreams = Arc::clone(self.request.lease.upstreams());
        let from = if self.may_be_replayed() { 500 } else { u16::MAX };
        let replaceable = Replaceable { from, missing: static_fallback::may_apply(&self.request) };
        let mut attempt = self.try_color(&upstreams, replaceable, None).await;
        let mut replacement = None;
        if attempt.result == Ok(Completion::Failed(404)) && self.take_search() {
            (attempt, replacement) = self.search_other_color(attempt).await;
        } else if self.needs_replay(&attempt) {
            (attempt, replacement) = self.replay(attempt).await;
        } else if matches!(attempt.result, Ok(Completion::Failed(_))) {
            // The watch has just ended, or the 404 is no static file's.
            attempt = self.resume(attempt).await;
        }
        let next = self.settle(attempt, replacement).await;
        let (state, buffers) = (&mut self.state, &self.io.worker.buffers);
        buffers.give_back(std::mem::take(&mut state.up.pending));
        buffers.give_back(std::mem::take(&mut state.down.pending));
        self.io.stream.release(buffers);
        next
    }

    /// Tries the upstreams of one color until one takes the request.
    async fn try_color(
        &mut self,
        upstreams: &[Arc<Upstream>],
        replaceable: Replaceable,
        served_by: Option<ServedBy>,
    ) -> Attempt {
        let mut attempts = ConnectAttempts::default();
        loop {
            let conn = match self.connect(&mut attempts, upstreams).await {
                Ok(conn) => conn,
                Err(fault) => {
                    let (progress, keep_client) = (ExchangeProgress::default(), self.request.keep_alive);
                    return Attempt { result: Err(fault), progress, keep_client, conn: None };
                }
            };
            if let Some(line) = &mut self.request.line {
                line.upstream = conn.upstream().address.to_string();
            }
            let attempt = self.exchange_on(conn, replaceable, served_by).await;
            // A kept connection that died with our request on it: the upstream closed it while it was idle, or it
            // crashed. The request goes out once more, on a new connection, if that can do no harm.
            if attempt.result == Err(Fault::ResponseMissing)
                && let Some(conn) = &attempt.conn
                && conn.is_reused()
                && self.state.up.intact
                && !attempts.skips_kept()
                && (self.request.method.is_idempotent() || conn.took_nothing())
            {
                self.state.up.rewind();
                attempts.skip_kept();
                continue;
            }
            return attempt;
        }
    }

    /// Finds a connection to one of the upstreams.
    async fn connect(
        &self,
        attempts: &mut ConnectAttempts,
        upstreams: &[Arc<Upstream>],
    ) -> Result<UpstreamConn, Fault> {
        let LeasedRequest { lease, .. } = &self.request;
        // A preview is never sent to another color than the one that was asked for, nor kept waiting for one that is
        // down.
        let unreachable = if lease.is_preview() { Fault::NothingToPreview } else { Fault::ConnectFailed };
        if lease.is_preview() && !lease.is_up() {
            return Err(unreachable);
        }
        let Client { peer, local, .. } = *self.client;
        let (settings, client) = (&lease.route().service.upstream, Ends { client: peer, server: local });
        let target = Target { upstreams, settings, client };
        attempts.next(&self.io.worker.pool, &target, &self.io.alarm).await.map_err(|error| match error {
            ConnectError::Unreachable => unreachable,
            ConnectError::Exhausted => {
                self.io.worker.client_log.request_refused(peer, 503, Fault::Exhausted.sentence());
                Fault::Exhausted
            }
        })
    }

    /// Runs the exchange on one connection.
    async fn exchange_on(
        &mut self,
        mut conn: UpstreamConn,
        replaceable: Replaceable,
        served_by: Option<ServedBy>,
    ) -> Attempt {
        let ClientIo { stream, alarm, permit, worker } = &mut *self.io;
        let request = &self.request;
        let limits = ExchangeLimits {
            request_body: RateLimits {
                silence: worker.proxy.body_timeout,
                bytes_per_second: if request.is_grpc_stream { 0 } else { worker.proxy.min_body_rate },
            },
            response: RateLimits::silence(request.lease.route().service.upstream.response_timeout),
            client_read: RateLimits {
                silence: worker.proxy.idle_timeout,
                bytes_per_second: worker.proxy.min_read_rate,
            },
        };
        let mut exchange = Exchange {
            client: stream,
            upstream: &mut conn.io,
            up: &mut self.state.up,
            down: &mut self.state.down,
            request: request.info,
            keep_client: request.keep_alive,
            replaceable,
            served_by,
            preview: request.preview.map(Note::field),
            hsts: self.client.hsts(),
            limits,
            guard: None,
            permit,
            lease: &request.lease,
            worker,
            alarm,
            progress: ExchangeProgress::default(),
        };
        let result = exchange.run().await;
        let Exchange { progress, keep_client, .. } = exchange;
        Attempt { result, progress, keep_client, conn: Some(conn) }
    }

    /// Whether the standby may answer the request in place of a color that is watched.
    fn may_be_replayed(&self) -> bool {
        self.request.lease.has_standby() && self.request.is_replayable
    }

    /// Whether the standby has to be asked. A request that no upstream took may be repeated whatever its method; a 404
    /// is never replayed, because it says nothing against the color.
    fn needs_replay(&self, attempt: &Attempt) -> bool {
        let ForwardState { up, down } = &self.state;
        let can_be_sent_again = self.request.lease.has_standby() && up.intact && down.written == 0;
        let failed = match attempt.result {
            Ok(Completion::Failed(status)) => status >= 500,
            Ok(Completion::Answered | Completion::Tunnel) => false,
            Err(Fault::ConnectFailed) => return can_be_sent_again,
            Err(fault) => fault.outcome() == Outcome::Bad,
        };
        failed && can_be_sent_again && self.request.is_replayable && up.has_all()
    }

    /// Asks the standby for a response in place of a failed one. The failure counts now, before it is known whether
    /// anybody sees it. If the standby cannot be reached either, the first response, where there was one, is passed on.
    async fn replay(&mut self, failed: Attempt) -> (Attempt, Option<Replacement>) {
        let outcome = failed.result.err().map_or(Outcome::Bad, Fault::outcome);
        let LeasedRequest { method, began, .. } = self.request;
        self.request.lease.record(outcome, failed.status(), method, began.elapsed());
        let report = failed.report(&mut self.request);
        let leave_report = |this: &Self, result| {
            if let Some(report) = report {
                report.leave(&this.request.lease, result);
            }
        };
        if !self.request.lease.take_replay() {
            self.request.lease.route().count_replay(ReplayResult::OverBudget);
            leave_report(self, Some(ReplayResult::OverBudget));
            return (self.resume(failed).await, None);
        }
        let standby: Standby = self.request.lease.standby().clone();
        if !self.request.lease.begin_standby() {
            leave_report(self, None);
            return (self.resume(failed).await, None);
        }
        self.start_again();
        let began = Instant::now();
        let served_by = Some(ServedBy::Replayed(standby.color));
        let again = self.try_color(&standby.upstreams, Replaceable::NOTHING, served_by).await;
        let answered =
            matches!(again.result, Ok(Completion::Answered)) && again.progress.status.is_some_and(|code| code < 500);
        let result = if answered { ReplayResult::Answered } else { ReplayResult::Failed };
        self.request.lease.route().count_replay(result);
        leave_report(self, Some(result));
        if again.result == Err(Fault::ConnectFailed) {
            self.request.lease.end_standby();
            return (self.resume(failed).await, None);
        }
        (again, Some(Replacement { color: standby.color, began, reason: ReplacementReason::Replay }))
    }

    /// Whether the other color has to be asked for what the first one does not have. Takes that out of the budget.
    fn take_search(&self) -> bool {
        static_fallback::take_search(&self.request.lease, self.state.up.pending.filled())
    }

    /// Asks the other color for a file that is `missing`. If it does not have the file either, the first response is
    /// passed on.
    async fn search_other_color(&mut self, missing: Attempt) -> (Attempt, Option<Replacement>) {
        let other: Standby = self.request.lease.standby().clone();
        if !self.request.lease.begin_standby() {
            return (self.resume(missing).await, None);
        }
        let first_took = self.request.began.elapsed();
        let first_upstream = self.request.line.as_ref().map(|line| line.upstream.clone());
        self.start_again();
        let began = Instant::now();
        let served_by = Some(ServedBy::Skew(other.color));
        let again = self.try_color(&other.upstreams, Replaceable::from(400), served_by).await;
        let request = &mut self.request;
        if self.state.down.written == 0 && again.result != Ok(Completion::Answered) {
            if let Ok(Completion::Failed(status)) = again.result {
                request.lease.record_standby(Some(status), request.method, began.elapsed());
            }
            request.lease.end_standby();
            if let (Some(line), Some(upstream)) = (&mut request.line, first_upstream) {
                line.upstream = upstream;
            }
            self.start_again();
            return (self.resume(missing).await, None);
        }
        // The 404 is what the first color said of the request. What comes of the other one's response is not its doing.
        request.lease.record(Outcome::Good, Some(404), request.method, first_took);
        if again.progress.status.is_some_and(|status| status < 400) {
            other.count_skew_answer();
        }
        (again, Some(Replacement { color: other.color, began, reason: ReplacementReason::Skew }))
    }

    /// Passes on the failed response after all, if there is one.
    async fn resume(&mut self, failed: Attempt) -> Attempt {
        match failed {
            Attempt { result: Ok(Completion::Failed(_)), conn: Some(conn), .. } => {
                self.state.up.skip_to_end();
                self.exchange_on(conn, Replaceable::NOTHING, None).await
            }
            failed => failed,
        }
    }

    /// Prepares to send the request once more, from its first byte.
    fn start_again(&mut self) {
        self.state.up.rewind();
        self.forget_response();
    }

    /// Drops what was to be sent of a response; none of it has left.
    fn forget_response(&mut self) {
        let unsent = std::mem::replace(&mut self.state.down, BodyCopier::for_responses());
        self.io.worker.buffers.give_back(unsent.pending);
    }

    /// Ends the exchange on both connections, counts it and logs it.
    async fn settle(&mut self, attempt: Attempt, replacement: Option<Replacement>) -> NextStep {
        if let Some(report) = attempt.report(&mut self.request) {
            report.leave(&self.request.lease, None);
        }
        let Attempt { result, mut progress, keep_client, conn } = attempt;
        let (next, end) = match result {
            Ok(Completion::Tunnel) => (NextStep::Drop, self.tunnel(&progress, conn).await),
            Ok(Completion::Answered | Completion::Failed(_)) => {
                if let Some(conn) = conn.filter(|_| progress.keep_upstream) {
                    let idle_timeout = self.request.lease.route().service.upstream.idle_timeout;
                    self.io.worker.pool.keep(conn, self.state.up.written, Instant::now(), idle_timeout);
                }
                (self.after_response(keep_client), self.complete_end(&progress, replacement.as_ref()))
            }
            Err(fault) => (self.end_with_fault(fault, &mut progress).await, RequestEnd::Failed(fault)),
        };
        if let Some(Replacement { color, began, .. }) = replacement {
            self.request.lease.record_standby(progress.status, self.request.method, began.elapsed());
            if let Some(line) = &mut self.request.line {
                line.color = color.as_str();
            }
        }
        self.record(end, &progress);
        next
    }

    /// Runs the tunnel that the request has become.
    async fn tunnel(&mut self, progress: &ExchangeProgress, conn: Option<UpstreamConn>) -> RequestEnd {
        self.io.alarm.clear();
        let lease = &self.request.lease;
        lease.set_kind(progress.tunnel);
        let Some(mut conn) = conn else { return RequestEnd::Tunnel };
        let ClientIo { stream, alarm, worker, .. } = &mut *self.io;
        let (buffers, shutdown) = (&*worker.buffers, &*worker.shutdown);
        let tunnel =
            Tunnel { client: stream, upstream: &mut conn.io, kind: progress.tunnel, lease, alarm, buffers, shutdown };
        tunnel.run().await.map_or_else(RequestEnd::Failed, |()| RequestEnd::Tunnel)
    }

    /// What follows a complete response. If the client still sends its request, the rest has to be read before the
    /// connection is closed.
    fn after_response(&self, keep_client: bool) -> NextStep {
        if keep_client && !self.io.is_at_end() && !self.io.worker.shutdown.is_stopping() {
            NextStep::ReadRequest
        } else if self.state.up.has_all() && self.io.stream.filled().is_empty() {
            NextStep::Close
        } else {
            NextStep::Linger
        }
    }

    /// How a request with a complete response ended.
    fn complete_end(&self, progress: &ExchangeProgress, replacement: Option<&Replacement>) -> RequestEnd {
        match (replacement, progress.failure) {
            (Some(replacement), _) => RequestEnd::Replaced(replacement.reason),
            (None, Some(failure)) => RequestEnd::GrpcFailed(failure),
            (None, None) if self.request.lease.is_preview() => RequestEnd::Preview,
            (None, None) => RequestEnd::Complete,
        }
    }

    /// Ends an exchange without a complete response: says so while that is possible, and otherwise cuts the connection,
    /// so that the client never takes a part for the whole.
    async fn end_with_fault(&mut self, fault: Fault, progress: &mut ExchangeProgress) -> NextStep {
        self.io.permit = None;
        if fault == Fault::Stopped {
            self.io.worker.shutdown.count_cut();
        }
        if fault == Fault::ClientStalled {
            self.io.stream.io.give_up();
        }
        if self.io.stream.io.fail_call(fault.grpc_code(), fault.sentence()) {
            progress.status = progress.status.or(fault.status());
            return NextStep::Drop;
        }
        if progress.status.is_some() && self.state.down.written > 0 {
            // Megabytes may wait in the kernel for a client that does not read them.
            if progress.ends_with_close || matches!(fault, Fault::ClientStalled | Fault::ReadTooSlow) {
                self.io.stream.io.reset_on_close();
            }
            return NextStep::Drop;
        }
        if self.state.down.written == 0 {
            self.forget_response();
        }
        let Some(status) = fault.status() else { return NextStep::Close };
        progress.status = Some(status);
        if matches!(fault, Fault::Rejected(Rejection::Malformed(_)) | Fault::BodyTooLarge) {
            self.io.worker.client_log.request_refused(self.client.peer, status, fault.sentence());
        }
        self.respond_to_fault(fault).await
    }

    /// Sends the proxy's own response, and keeps the connection if the client's request was read to its end.
    async fn respond_to_fault(&mut self, fault: Fault) -> NextStep {
        let LeasedRequest { keep_alive, info, preview, request_id, .. } = &self.request;
        let may_go_on = self.state.up.has_all() && !self.io.is_at_end() && !self.io.worker.shutdown.is_stopping();
        let keep_alive = *keep_alive && may_go_on;
        let (date, hsts) = (self.io.worker.date(), self.client.hsts());
        let preview = preview.map(Note::field);
        let context = ResponseContext { request_id, date: &date, hsts, preview, keep_alive };
        let response = ProxyResponse { is_head: info.is_head, ..ProxyResponse::to(fault) };
        response.write(&mut self.state.down.pending, &context);
        match self.io.write(&mut self.state.down).await {
            Ok(()) if keep_alive => NextStep::ReadRequest,
            Ok(()) => NextStep::Linger,
            Err(_) => NextStep::Close,
        }
    }

    /// Counts and logs the request.
    fn record(&mut self, end: RequestEnd, progress: &ExchangeProgress) {
        let (worker, request) = (&self.io.worker, &mut self.request);
        let duration: Duration = request.began.elapsed();
        let outcome = match end.fault() {
            Some(fault) => fault.outcome(),
            None if progress.status.is_some_and(|code| code >= 500) || progress.failure.is_some() => Outcome::Bad,
            None => Outcome::Good,
        };
        if let Some(fault) = end.fault() {
            worker.count_refusal(fault);
        }
        if end.fault() == Some(Fault::Drained) {
            request.lease.count_cut();
        }
        request.lease.record(outcome, progress.status, request.method, duration);
        if let Some(mut line) = request.line.take() {
            (line.status, line.bytes) = (progress.status.unwrap_or(0), self.state.down.payload);
            line.end = end.as_str();
            worker.access_log.write(&line.ended(duration));
        }
    }
}
