//! One accepted request on its way: which color, which upstream, once more or not.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Protocol;
use crate::domain::Color;
use crate::http1::body::BodyDecoder;
use crate::http1::grpc_status::GrpcFailure;
use crate::http1::response::{Encoding, ServedBy};
use crate::os::clock;
use crate::proxy::connection::{Accepted, Connection, Next, Tell, hsts};
use crate::proxy::connection::{preview, rehearsal, static_fallback};
use crate::proxy::context::WorkerContext;
use crate::proxy::exchange::body_copy::BodyCopier;
use crate::proxy::exchange::min_rate::RateLimits;
use crate::proxy::exchange::tunnel;
use crate::proxy::exchange::{Completion, Exchange, ExchangeLimits, ExchangeProgress, Replaceable, response_copier};
use crate::proxy::fault::Fault;
use crate::proxy::transport::Transport;
use crate::proxy::upstream::pool::{self, Share};
use crate::proxy_protocol::Ends;
use crate::routing::{FailedRequest, METHODS, Outcome, ReplayResult, Standby, Symptom, Upstream};

/// A request and its answer on their way.
pub(in crate::proxy) struct Way {
    up: BodyCopier,
    pub(in crate::proxy) down: BodyCopier,
}

/// How it went on one color.
pub(in crate::proxy) struct Trial {
    pub(in crate::proxy) result: Result<Completion, Fault>,
    pub(in crate::proxy) progress: ExchangeProgress,
    keep_client: bool,
    /// The connection, while it may be used on.
    held: Option<Held>,
}

type Held = (Share, pool::Connection);

/// Where a request's search for a connection stands.
#[derive(Default)]
struct Dial {
    tried: Vec<usize>,
    deadline: Option<Instant>,
    /// No kept connection: one has just died.
    fresh: bool,
}

/// An answer by the color that does not serve.
pub(in crate::proxy) struct Replayed {
    pub(in crate::proxy) color: Color,
    pub(in crate::proxy) began: Instant,
    /// For the access log.
    pub(in crate::proxy) word: &'static str,
}

impl<S: Transport> Connection<S> {
    /// Runs the request: on the active color, and where that fails and a watch runs, once on the other.
    pub(in crate::proxy) async fn forward(&mut self, mut accepted: Accepted) -> Next {
        let worker = Rc::clone(&self.worker);
        let encoding =
            if matches!(accepted.body, BodyDecoder::Chunked(_)) { Encoding::Chunked } else { Encoding::Plain };
        rehearsal::offer(&accepted);
        let head = std::mem::take(&mut accepted.head);
        let mut way = Way {
            up: BodyCopier::new(accepted.body.clone(), encoding, head, worker.proxy.max_body_bytes),
            down: response_copier(),
        };
        way.up.hops = std::mem::take(&mut accepted.hops);
        let upstreams = Arc::clone(accepted.lease.upstreams());
        let from = if accepted.lease.has_standby() && accepted.replayable { 500 } else { u16::MAX };
        let replaceable = Replaceable { from, missing: static_fallback::may_miss(&accepted) };
        let mut trial = self.try_color(&mut accepted, &mut way, &upstreams, replaceable, None).await;
        let mut replayed = None;
        if trial.result == Ok(Completion::Failed(404)) {
            (trial, replayed) = self.ask_other(&mut accepted, &mut way, trial).await;
        } else if accepted.lease.has_standby() && way.is_replayable(&trial, accepted.replayable) {
            (trial, replayed) = self.replay(&mut accepted, &mut way, trial).await;
        } else if matches!(trial.result, Ok(Completion::Failed(_))) {
            trial = self.go_on(&accepted, &mut way, trial).await; // the watch has just ended
        }
        let next = self.settle(&mut accepted, &mut way, trial, replayed).await;
        worker.buffers.give_back(way.up.pending);
        worker.buffers.give_back(way.down.pending);
        self.client.release(&worker.buffers);
        next
    }

    /// Tries the upstreams of one color until one takes the request.
    pub(in crate::proxy) async fn try_color(
        &mut self,
        accepted: &mut Accepted,
        way: &mut Way,
        upstreams: &[Arc<Upstream>],
        replaceable: Replaceable,
        served_by: Option<ServedBy>,
    ) -> Trial {
        let mut dial = Dial::default();
        loop {
            let (share, connection) = match self.dial(accepted, upstreams, &mut dial).await {
                Ok(dialled) => dialled,
                Err(fault) => {
                    return Trial {
                        result: Err(fault),
                        progress: ExchangeProgress::default(),
                        keep_client: accepted.keep_alive,
                        held: None,
                    };
                }
            };
            if let Some(line) = &mut accepted.line {
                line.upstream = share.upstream.address.to_string();
            }
            let trial = self.run_on(accepted, way, (share, connection), replaceable, served_by).await;
            // A kept connection that died with our request on it: the upstream closed it while it was idle, or it
            // crashed. The request goes out once more, on a new connection, if that can do no harm.
            if trial.result == Err(Fault::AnswerMissing)
                && let Some((_, connection)) = &trial.held
                && connection.is_reused()
                && way.up.intact
                && !dial.fresh
                && (accepted.idempotent || connection.took_nothing())
            {
                way.up.rewind();
                dial.fresh = true;
                continue;
            }
            return trial;
        }
    }

    /// Runs the exchange on one connection.
    async fn run_on(
        &mut self,
        accepted: &Accepted,
        way: &mut Way,
        mut held: Held,
        replaceable: Replaceable,
        served_by: Option<ServedBy>,
    ) -> Trial {
        let mut exchange = Exchange {
            client: &mut self.client,
            upstream: &mut held.1.wire,
            up: &mut way.up,
            down: &mut way.down,
            request: accepted.request,
            keep_client: accepted.keep_alive,
            replaceable,
            served_by,
            hsts: hsts(self.security.as_ref()),
            limits: ExchangeLimits {
                body: RateLimits {
                    silence: self.worker.proxy.body_timeout,
                    rate: if accepted.is_call { 0 } else { self.worker.proxy.min_body_rate },
                },
                answer: RateLimits::of(accepted.lease.route().service.upstream.response_timeout),
                read: RateLimits { silence: self.worker.proxy.idle_timeout, rate: self.worker.proxy.min_read_rate },
            },
            pace: None,
            permit: &mut self.permit,
            lease: &accepted.lease,
            worker: &self.worker,
            alarm: &self.alarm,
            progress: ExchangeProgress::default(),
        };
        let result = exchange.run().await;
        let Exchange { progress, keep_client, .. } = exchange;
        Trial { result, progress, keep_client, held: Some(held) }
    }

    /// A connection to the next upstream worth trying.
    async fn dial(&self, accepted: &Accepted, upstreams: &[Arc<Upstream>], dial: &mut Dial) -> Result<Held, Fault> {
        // A guest is never sent to another color than the one that was asked for, nor kept waiting for one that is
        // down.
        let nobody = if accepted.lease.is_preview() { Fault::NothingToPreview } else { Fault::ConnectFailed };
        if accepted.lease.is_preview() && !accepted.lease.is_up() {
            return Err(nobody);
        }
        while let Some(share) = self.worker.pool.choose(upstreams, &dial.tried) {
            let now = Instant::now();
            let settings = &accepted.lease.route().service.upstream;
            let is_http1 = settings.protocol == Protocol::Http1;
            let announced =
                settings.proxy_protocol.map(|version| (version, Ends { client: self.peer, server: self.local }));
            if is_http1
                && !dial.fresh
                && let Some(kept) = self.worker.pool.take(&share, announced.map(|(_, ends)| ends), now)
            {
                return Ok((share, kept));
            }
            // All attempts together get the limit; each gets an even part of what is left.
            let left = dial.deadline.get_or_insert(now + settings.connect_timeout).saturating_duration_since(now);
            let attempts = u32::try_from(upstreams.len() - dial.tried.len()).unwrap_or(1).max(1);
            let limit = left / attempts;
            let connected = match settings.protocol {
                Protocol::Http1 => pool::connect(&share, announced, &self.alarm, limit).await,
                Protocol::H2c => {
                    let idle_timeout = settings.idle_timeout;
                    pool::stream(&self.worker.pool, &share, &self.alarm, limit, idle_timeout).await
                }
            };
            match connected {
                Ok(connection) => return Ok((share, connection)),
                Err(Fault::Exhausted) => {
                    self.worker.client_log.request_refused(self.peer, 503, Fault::Exhausted.hint());
                    return Err(Fault::Exhausted);
                }
                Err(_) => dial.tried.push(share.upstream.id),
            }
        }
        Err(nobody)
    }

    /// Asks the standby for an answer in place of a failed one. The failure counts now, before it is known whether
    /// anybody sees it. If the standby cannot be reached either, the first answer, where there was one, is passed on.
    async fn replay(&mut self, accepted: &mut Accepted, way: &mut Way, failed: Trial) -> (Trial, Option<Replayed>) {
        let status = match failed.result {
            Ok(Completion::Failed(status)) => Some(status),
            Ok(Completion::Answered | Completion::Tunnel) => failed.progress.status,
            Err(fault) => fault.answer().map(|(status, _)| status),
        };
        let outcome = failed.result.err().map_or(Outcome::Bad, Fault::outcome);
        accepted.lease.record(outcome, status, accepted.method_index, accepted.began.elapsed());
        let description = accepted.describe(&failed);
        if !accepted.lease.take_replay() {
            accepted.lease.route().count_replay(ReplayResult::OverBudget);
            accepted.leave(description, Some(ReplayResult::OverBudget));
            return (self.go_on(accepted, way, failed).await, None);
        }
        let standby: Standby = accepted.lease.standby().clone();
        if !accepted.lease.begin_standby() {
            accepted.leave(description, None);
            return (self.go_on(accepted, way, failed).await, None);
        }
        way.start_again(&self.worker);
        let began = Instant::now();
        let served_by = Some(ServedBy::Replayed(standby.color));
        let again = self.try_color(accepted, way, &standby.upstreams, Replaceable::NOTHING, served_by).await;
        let answered =
            matches!(again.result, Ok(Completion::Answered)) && again.progress.status.is_some_and(|code| code < 500);
        let result = if answered { ReplayResult::Answered } else { ReplayResult::Failed };
        accepted.lease.route().count_replay(result);
        accepted.leave(description, Some(result));
        if again.result == Err(Fault::ConnectFailed) {
            accepted.lease.end_standby();
            return (self.go_on(accepted, way, failed).await, None);
        }
        (again, Some(Replayed { color: standby.color, began, word: "replayed" }))
    }

    /// Passes on the failed answer after all.
    pub(in crate::proxy) async fn go_on(&mut self, accepted: &Accepted, way: &mut Way, failed: Trial) -> Trial {
        match failed {
            Trial { result: Ok(Completion::Failed(_)), held: Some(held), .. } => {
                way.up.skip_to_end();
                self.run_on(accepted, way, held, Replaceable::NOTHING, None).await
            }
            failed => failed,
        }
    }

    /// Ends the exchange on both connections, counts it and logs it.
    async fn settle(
        &mut self,
        accepted: &mut Accepted,
        way: &mut Way,
        trial: Trial,
        replayed: Option<Replayed>,
    ) -> Next {
        let description = accepted.describe(&trial);
        accepted.leave(description, None);
        let Trial { result, mut progress, keep_client, held } = trial;
        let (next, end) = match result {
            Ok(Completion::Tunnel) => {
                self.alarm.clear();
                accepted.lease.set_kind(progress.tunnel);
                let end = match held {
                    Some((_, mut connection)) => {
                        let sides = (&mut self.client, &mut connection.wire);
                        tunnel::run(
                            sides,
                            progress.tunnel,
                            &accepted.lease,
                            &self.alarm,
                            &self.worker.buffers,
                            &self.worker.shutdown,
                        )
                        .await
                    }
                    None => Ok(()),
                };
                (Next::Cut, end.map(|()| "tunnel"))
            }
            Ok(Completion::Answered | Completion::Failed(_)) => {
                if let Some((share, connection)) = held.filter(|_| progress.keep_upstream) {
                    self.keep(accepted, &share, connection, way.up.written);
                }
                let next = if keep_client && !self.has_no_more() && !self.worker.shutdown.is_stopping() {
                    Next::Request
                } else if way.up.has_all() && self.client.filled().is_empty() {
                    Next::Close
                } else {
                    Next::Linger
                };
                let word = match (&replayed, progress.failure) {
                    (Some(replayed), _) => replayed.word,
                    (None, Some(failure)) => failure.word(),
                    (None, None) if accepted.lease.is_preview() => "preview",
                    (None, None) => "ok",
                };
                (next, Ok(word))
            }
            Err(fault) => (self.end_badly(fault, accepted, way, &mut progress).await, Err(fault)),
        };
        if let Some(Replayed { color, began, .. }) = &replayed {
            accepted.lease.record_standby(progress.status, accepted.method_index, began.elapsed());
            if let Some(line) = &mut accepted.line {
                line.color = color.as_str();
            }
        }
        self.record(accepted, end, &progress, way.down.payload);
        next
    }

    fn keep(&self, accepted: &Accepted, share: &Share, mut connection: pool::Connection, sent: u64) {
        connection.wire.release(&self.worker.buffers);
        let idle_timeout = accepted.lease.route().service.upstream.idle_timeout;
        self.worker.pool.keep(share, connection, sent, Instant::now(), idle_timeout);
    }

    /// Whether the client has closed its side, and all that it sent before is used: it may have asked for more than one
    /// thing in a row.
    fn has_no_more(&self) -> bool {
        self.client.eof && self.client.filled().is_empty()
    }

    /// Ends an exchange without a complete answer: says so while that is possible, and otherwise cuts, so that the
    /// client never takes a part for the whole.
    async fn end_badly(
        &mut self,
        fault: Fault,
        accepted: &Accepted,
        way: &mut Way,
        progress: &mut ExchangeProgress,
    ) -> Next {
        self.permit = None;
        if fault == Fault::Stopped {
            self.worker.shutdown.count_cut();
        }
        if fault == Fault::ClientStalled {
            self.client.io.give_up();
        }
        if self.client.io.fail_call(fault.grpc_code(), fault.hint()) {
            progress.status = progress.status.or(fault.answer().map(|(status, _)| status));
            return Next::Cut;
        }
        let down = &mut way.down;
        if progress.status.is_some() && down.written > 0 {
            // Megabytes may wait in the kernel for a client that does not read them.
            if progress.ends_with_close || matches!(fault, Fault::ClientStalled | Fault::ReadTooSlow) {
                self.client.io.reset_on_close();
            }
            return Next::Cut;
        }
        if down.written == 0 {
            way.forget_answer(&self.worker);
        }
        let Some((status, _)) = fault.answer() else { return Next::Close };
        progress.status = Some(status);
        if matches!(fault, Fault::BadRequest(_) | Fault::BodyTooLarge) {
            self.worker.client_log.request_refused(self.peer, status, fault.hint());
        }
        let keep =
            accepted.keep_alive && way.up.has_all() && !self.has_no_more() && !self.worker.shutdown.is_stopping();
        let note = accepted.request.preview.map(|note| (preview::HEADER, note.as_str().to_owned()));
        let fields: Vec<_> = note.into_iter().collect();
        let (is_head, request_id) = (accepted.request.head, &*accepted.request_id);
        let tell = Tell { fault, is_head, keep, request_id, fields: &fields, proof: None };
        tell.write(&mut way.down.pending, &self.worker.date(), hsts(self.security.as_ref()));
        match self.send(&mut way.down).await {
            Ok(()) if keep => Next::Request,
            Ok(()) => Next::Linger,
            Err(()) => Next::Close,
        }
    }

    /// Counts and logs an exchange that took a lease.
    fn record(
        &self,
        accepted: &mut Accepted,
        end: Result<&'static str, Fault>,
        progress: &ExchangeProgress,
        bytes: u64,
    ) {
        let status = progress.status;
        if end == Err(Fault::Drained) {
            accepted.lease.count_cut();
        }
        if let Err(fault) = end {
            self.worker.count_refusal(fault);
        }
        let duration: Duration = accepted.began.elapsed();
        let outcome = match end {
            Ok(_) if status.is_some_and(|code| code >= 500) || progress.failure.is_some() => Outcome::Bad,
            Ok(_) => Outcome::Good,
            Err(fault) => fault.outcome(),
        };
        accepted.lease.record(outcome, status, accepted.method_index, duration);
        if let Some(mut line) = accepted.line.take() {
            (line.status, line.bytes) = (status.unwrap_or(0), bytes);
            line.end = end.unwrap_or_else(Fault::word);
            self.worker.access_log.write(&line.ended(duration));
        }
    }
}

impl Accepted {
    /// What is to be told of a request that failed on a watched color, or was slow; once, and `None` for any other.
    fn describe(&mut self, trial: &Trial) -> Option<(Symptom, FailedRequest)> {
        let mut ill = Symptom::Failed;
        let (status, fault) = match trial.result {
            Ok(Completion::Failed(status)) => (Some(status), None),
            Ok(Completion::Answered) if trial.progress.status.is_some_and(|code| code >= 500) => {
                (trial.progress.status, None)
            }
            Ok(Completion::Answered) if trial.progress.failure.is_some() => {
                (trial.progress.status, trial.progress.failure.map(GrpcFailure::word))
            }
            Ok(Completion::Answered) if self.lease.is_slow() => {
                ill = Symptom::Slow;
                (trial.progress.status, None)
            }
            Ok(Completion::Answered | Completion::Tunnel) => return None,
            Err(fault) => match fault.outcome() {
                Outcome::Bad | Outcome::Refused => (trial.progress.status, Some(fault.word())),
                Outcome::Good | Outcome::Void => return None,
            },
        };
        let target = self.target.take()?;
        self.lease.failed().filter(|place| place.has_room(ill))?;
        let upstream = match &trial.held {
            Some((share, _)) => share.upstream.address.to_string(),
            // No connection came about: all of them were tried.
            None => {
                let all: Vec<_> = self.lease.upstreams().iter().map(|upstream| upstream.address.to_string()).collect();
                all.join(", ")
            }
        };
        let request = FailedRequest {
            at_unix_ms: clock::unix_ms(),
            method: METHODS[self.method_index],
            target,
            status,
            fault,
            took: self.began.elapsed(),
            request_id: self.request_id.clone(),
            upstream,
            replay: None,
            synthetic: false,
        };
        Some((ill, request))
    }

    /// Leaves a description where the watch finds it; `replay` is what came of asking the standby.
    fn leave(&self, description: Option<(Symptom, FailedRequest)>, replay: Option<ReplayResult>) {
        if let (Some((ill, request)), Some(place)) = (description, self.lease.failed()) {
            place.add(ill, FailedRequest { replay, ..request });
        }
    }
}

impl Way {
    /// Whether another color may be asked: the request can be sent again, nothing of an answer has reached the client,
    /// and repeating it does no harm.
    fn is_replayable(&self, trial: &Trial, may_repeat: bool) -> bool {
        let failed = match trial.result {
            Ok(Completion::Failed(_)) => true,
            Ok(Completion::Answered | Completion::Tunnel) => false,
            Err(Fault::ConnectFailed) => return self.up.intact && self.down.written == 0,
            Err(fault) => fault.outcome() == Outcome::Bad, // refused is said above
        };
        failed && may_repeat && self.up.intact && self.up.has_all() && self.down.written == 0
    }

    pub(in crate::proxy) fn start_again(&mut self, worker: &WorkerContext) {
        self.up.rewind();
        self.forget_answer(worker);
    }

    /// Drops what was to be sent of an answer; none of it has left.
    fn forget_answer(&mut self, worker: &WorkerContext) {
        let unsent = std::mem::replace(&mut self.down, response_copier());
        worker.buffers.give_back(unsent.pending);
    }
}
