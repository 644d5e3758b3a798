//! One client connection: heads are read, requests are routed and leased, exchanges are run, one after the other.

pub mod client;
pub mod forward;
pub mod freeze;
pub mod http2;
pub mod preview;
pub mod rehearsal;
pub mod static_fallback;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::access_log::Line;
use super::alarm::Alarm;
use super::exchange::response_copier;
use super::fault::Fault;
use crate::config;
use crate::http1::body::{BodyDecoder, DecodeStep};
use crate::http1::buffer::{Buffer, SMALL};
use crate::http1::header::Field;
use crate::http1::request::{self, BareLineFeed, HeadScanner, HeaderStorage, Origin, Request};
use crate::http1::response::{Encoding, HSTS, RequestInfo};
use crate::http2::{PREFACE, is_grpc};
use crate::os::clock;
use crate::proxy::admission::{Permit, QueuePlace};
use crate::proxy::connection::client::{Admission, Client};
use crate::proxy::connection::preview::Note;
use crate::proxy::context::WorkerContext;
use crate::proxy::exchange::body_copy::{BodyCopier, BufferedIo};
use crate::proxy::transport::Transport;
use crate::routing::{Access, FreezeQueue, Lease, RequestSource, TARGET_BYTES_MAX};
use crate::tls::Current;

/// How long a closing connection goes on reading what the client still sends, so that it can read our last answer.
const LINGER: Duration = Duration::from_secs(2);

/// How much of that is read.
const LINGER_BYTES_MAX: u64 = 8 << 20;

/// How long the first chunk of a chunked body may take before its head is sent ahead: until then a malformed first
/// chunk costs the upstream nothing.
const FIRST_CHUNK: Duration = Duration::from_secs(1);

/// The longest request id that is taken over from a trusted proxy.
const REQUEST_ID_MAX: usize = 128;

/// What is spoken with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 or HTTP/1.1; each request says which.
    Http1,
    /// HTTP/2: this is one of its streams.
    Http2,
}

/// Serves a connection to its end. Returns it, with what was read of it, where it goes on as HTTP/2.
pub async fn serve<S: Transport>(
    stream: S,
    client: Client,
    alarm: Rc<Alarm>,
    worker: Rc<WorkerContext>,
) -> Option<BufferedIo<S>> {
    let admission = client.admission;
    let mut connection = Connection::new(stream, client, alarm, worker);
    let next = match admission {
        Admission::Served => Next::Request,
        Admission::Refused => connection.refuse(Refused::with(Fault::TooManyConnections)).await,
    };
    connection.run(next).await.then_some(connection.client)
}

/// Answers a connection with nothing but `fault`.
pub async fn refuse<S: Transport>(
    stream: S,
    client: Client,
    fault: Fault,
    alarm: Rc<Alarm>,
    worker: Rc<WorkerContext>,
) {
    let mut connection = Connection::new(stream, client, alarm, worker);
    let next = connection.refuse(Refused::with(fault)).await;
    connection.run(next).await;
}

/// What follows an exchange on the same connection.
pub(super) enum Next {
    Request,
    /// All was said.
    Close,
    /// Something is missing, and nothing may look as if it were not; or the end was said already.
    Cut,
    /// Close, but read on for a moment first.
    Linger,
    /// What was read begins like HTTP/2.
    Http2,
}

pub(super) struct Connection<S> {
    pub(super) client: BufferedIo<S>,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) origin: Origin,
    pub(super) alarm: Rc<Alarm>,
    pub(super) worker: Rc<WorkerContext>,
    pub(super) security: Option<Arc<Current>>,
    is_new: bool,
    /// Of the request that waits for an application's answer.
    pub(super) permit: Option<Permit>,
    /// Requests that were accepted.
    accepted: u64,
}

/// A request that takes no lease.
pub(super) struct Refused {
    pub(super) fault: Fault,
    pub(super) is_head: bool,
    /// What else the answer says.
    pub(super) fields: Vec<(&'static str, String)>,
    /// What an ACME server wants to see.
    pub(super) proof: Option<String>,
}

/// A request that takes no lease now.
pub(super) enum Unaccepted {
    Refused(Refused),
    /// It may wait there; and whether it is a HEAD.
    Held(Arc<FreezeQueue>, bool),
}

impl Unaccepted {
    fn of(self, is_head: bool) -> Self {
        match self {
            Unaccepted::Refused(refused) => Unaccepted::Refused(Refused { is_head, ..refused }),
            Unaccepted::Held(hold, _) => Unaccepted::Held(hold, is_head),
        }
    }
}

impl From<Refused> for Unaccepted {
    fn from(refused: Refused) -> Self {
        Unaccepted::Refused(refused)
    }
}

impl Refused {
    pub(super) fn with(fault: Fault) -> Self {
        Refused { fault, is_head: false, fields: Vec::new(), proof: None }
    }

    /// Whatever is wrong with a head, the answer to HEAD has no content (RFC 9110 9.3.2).
    fn unread(fault: Fault, head: &[u8]) -> Self {
        Refused { is_head: head.starts_with(b"HEAD "), ..Refused::with(fault) }
    }
}

/// A request that was accepted: leased, and rebuilt for the upstream.
pub(super) struct Accepted {
    pub(super) lease: Lease,
    pub(super) request: RequestInfo,
    pub(super) method_index: usize,
    /// It may be sent again on a new connection when a kept one died.
    pub(super) idempotent: bool,
    /// It may be answered by the standby when the active color failed.
    pub(super) replayable: bool,
    pub(super) keep_alive: bool,
    pub(super) body: BodyDecoder,
    /// It is a call of gRPC.
    pub(super) is_call: bool,
    pub(super) expects_continue: bool,
    pub(super) head: Buffer,
    pub(super) request_id: String,
    /// Trailers that end here.
    pub(super) hops: Vec<String>,
    pub(super) began: Instant,
    pub(super) line: Option<Box<Line>>,
    /// Path and query, for the description of a failure while a watch runs.
    pub(super) target: Option<String>,
}

impl<S: Transport> Connection<S> {
    fn new(stream: S, client: Client, alarm: Rc<Alarm>, worker: Rc<WorkerContext>) -> Self {
        let Client { peer, local, security, version, .. } = client;
        let ip = peer.ip().to_canonical();
        let origin = Origin {
            ip: ip.to_string(),
            trusted: worker.proxy.trusted_proxies.iter().any(|network| network.contains(ip)),
            port: local.port(),
            scheme: if security.is_some() { "https" } else { "http" },
            local: local.to_string(),
            version,
        };
        Connection {
            client: BufferedIo::new(stream),
            peer,
            local,
            origin,
            alarm,
            worker,
            security,
            is_new: true,
            permit: None,
            accepted: 0,
        }
    }

    /// Whether it goes on as HTTP/2.
    async fn run(&mut self, mut next: Next) -> bool {
        loop {
            next = match next {
                Next::Request => self.next().await,
                Next::Close => self.say_goodbye().await,
                Next::Cut => return false,
                Next::Linger => self.linger().await,
                Next::Http2 => return true,
            };
        }
    }

    async fn next(&mut self) -> Next {
        let end = match self.read_head().await {
            Ok(Some(end)) => end,
            Ok(None) => return Next::Close,
            Err(Fault::VersionUnknown) if self.begins_http2() => return Next::Http2,
            Err(fault) => return self.refuse(Refused::unread(fault, self.client.filled())).await,
        };
        self.is_new = false;
        // Boxed: what a request needs is no part of an idle connection.
        Box::pin(self.serve_request(end)).await
    }

    /// Serves the request whose head ends at `end`.
    async fn serve_request(&mut self, end: usize) -> Next {
        let accepted = match self.accept(end) {
            Ok(accepted) => accepted,
            Err(Unaccepted::Refused(refused)) => return self.refuse(refused).await,
            Err(Unaccepted::Held(hold, is_head)) => match Box::pin(self.accept_later(end, hold, is_head)).await {
                Ok(accepted) => accepted,
                Err(refused) => return self.refuse(refused).await,
            },
        };
        if let Err(fault) = self.first_chunk(&accepted).await {
            let is_head = accepted.request.head;
            drop(accepted);
            return self.refuse(Refused { is_head, ..Refused::with(fault) }).await;
        }
        self.forward(accepted).await
    }

    /// With TLS it would have been agreed on before (RFC 9113 3.2).
    fn begins_http2(&self) -> bool {
        let is_possible = self.is_new && self.security.is_none() && self.origin.version == Version::Http1;
        let line = &PREFACE[..PREFACE.iter().position(|&byte| byte == b'\r').unwrap_or(0)];
        is_possible && self.worker.proxy.http2.enabled && self.client.filled().starts_with(line)
    }

    /// Waits for a complete head. `None`: the client left, was idle for too long, or the proxy is stopping.
    async fn read_head(&mut self) -> Result<Option<usize>, Fault> {
        let head_max = self.worker.proxy.max_header_bytes;
        let mut scan = HeadScanner::default();
        let mut empty_lines = 0;
        let mut version_checked = false;
        let mut begun = false;
        self.permit = None;
        self.alarm.set(Instant::now() + self.worker.proxy.idle_timeout);
        loop {
            if scan.first_line().is_none() && self.client.filled().first() == Some(&b'\r') {
                let more = request::empty_lines(self.client.filled(), empty_lines)?;
                empty_lines += more;
                self.client.consume(more);
                scan = HeadScanner::default();
            }
            let input = self.client.filled();
            if input.len() > 1 || input.first().is_some_and(|&b| b != b'\r') {
                let end = scan
                    .end(input)
                    .map_err(|BareLineFeed| Fault::BadRequest("a line of the request ends with a bare LF"))?;
                if let (Some(line_end), false) = (scan.first_line(), version_checked) {
                    request::check_version(&input[..line_end])?;
                    version_checked = true;
                }
                match end {
                    Some(end) if end <= head_max => return Ok(Some(end)),
                    None if input.len() < head_max => {}
                    Some(_) | None if memchr::memchr(b' ', input).is_none() => {
                        return Err(Fault::NotImplemented("the method is longer than any that is known"));
                    }
                    Some(_) | None if scan.first_line().is_none() => return Err(Fault::TargetTooLong),
                    Some(_) | None => return Err(Fault::HeadTooLarge),
                }
            }
            if !input.is_empty() && !begun {
                begun = true;
                self.alarm.set(Instant::now() + self.worker.proxy.header_timeout);
            }
            self.client.make_room(head_max.max(SMALL));
            if self.read_more(begun).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads more of a head, of which something has come if it has `begun`; its first bytes when it is their turn.
    /// None: the client left, was idle for too long, or the proxy is stopping.
    async fn read_more(&mut self, begun: bool) -> Result<usize, Fault> {
        let Connection { client, worker, alarm, permit, .. } = self;
        // Streams of HTTP/2 have their own limit, and were read before they are here.
        let stands_in_line = !begun && self.origin.version == Version::Http1;
        let mut place = QueuePlace::default();
        poll_fn(|cx| {
            let mut may_read = !stands_in_line || permit.is_some();
            let has_arrived = !may_read && client.io.poll_arrived(cx).is_ready();
            if has_arrived && let Poll::Ready(taken) = worker.admission.poll_permit(&mut place, cx) {
                *permit = Some(taken);
                may_read = true;
            }
            let filled = if may_read { client.poll_fill(cx, &worker.buffers, false) } else { Poll::Pending };
            if filled.is_pending() && !begun {
                *permit = None;
            }
            // Who waits for us only is not idle.
            let in_line = has_arrived && !may_read;
            let is_idle = || !in_line && (alarm.is_late() || worker.shutdown.closes_idle());
            match filled {
                Poll::Pending if alarm.is_late() && begun => Poll::Ready(Err(Fault::HeadTimedOut)),
                Poll::Pending if worker.shutdown.is_cutting() || (!begun && is_idle()) => Poll::Ready(Ok(0)),
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(n)) => Poll::Ready(Ok(n)),
                Poll::Ready(Err(_)) => Poll::Ready(Ok(0)),
            }
        })
        .await
    }

    /// Checks the head, finds the service, takes a lease and rebuilds the head. Uses the head's bytes.
    pub(super) fn accept(&mut self, end: usize) -> Result<Accepted, Unaccepted> {
        let head = &self.client.filled()[..end];
        let mut space = HeaderStorage::new();
        let mut request = Request::parse(head, &mut space).map_err(|fault| Refused::unread(fault, head))?;
        let is_head = request.method == "HEAD";
        let refused = |fault| Refused { is_head, ..Refused::with(fault) };
        if let Some(proof) = self.worker.terminator.as_ref().and_then(|tls| tls.challenges().http(request.path)) {
            return Err(Refused { proof: Some(proof), ..refused(Fault::Proof) }.into());
        }
        if let Some(port) = self.redirects(&request) {
            let location = request.secure_url(port).ok_or(Fault::BadRequest("no Host")).map_err(refused)?;
            return Err(Refused { fields: vec![("Location", location)], ..refused(Fault::Redirected) }.into());
        }
        let body_max = self.worker.proxy.max_body_bytes;
        if matches!(request.body, BodyDecoder::Length(length) if body_max > 0 && length > body_max) {
            return Err(refused(Fault::BodyTooLarge).into());
        }
        let began = Instant::now();
        let (mut lease, preview) = self.lease(&mut request, began).map_err(|no| no.of(is_head))?;
        if lease.is_watched() {
            lease.name_source(RequestSource::new(self.client_of(&request), request.path.as_bytes()));
        }
        let claimed = if self.origin.trusted { request.fields.values(Field::RequestId).next() } else { None };
        let request_id = match claimed {
            Some(id) if (1..=REQUEST_ID_MAX).contains(&id.len()) => String::from_utf8_lossy(id).into_owned(),
            Some(_) | None => new_request_id(),
        };
        let mut rebuilt = self.worker.buffers.tiny();
        request::write_head(&mut rebuilt, &request, &self.origin, request_id.as_bytes(), self.worker.proxy.via);
        let trails = matches!(request.body, BodyDecoder::Chunked(_)) && !request.named_hops().is_empty();
        let hops = if trails { request.named_hops().iter().map(|&name| name.to_owned()).collect() } else { Vec::new() };
        let accepted = Accepted {
            hops,
            request: RequestInfo { head: is_head, upgrade: request.upgrade.is_some(), is_1_0: request.is_1_0, preview },
            method_index: request.method_index,
            idempotent: request.is_idempotent(),
            replayable: may_replay(&request, lease.route().service.replay),
            keep_alive: request.keep_alive && !self.is_last(),
            expects_continue: request.expects_continue,
            line: self.worker.access_log.is_on().then(|| Box::new(self.line(&request, &request_id, &lease))),
            target: lease.failed().map(|_| told_target(request.path)),
            lease,
            // A stream of calls, which may pause.
            is_call: matches!(request.body, BodyDecoder::Chunked(_))
                && request.fields.values(Field::ContentType).any(is_grpc),
            body: request.body,
            head: rebuilt,
            request_id,
            began,
        };
        self.client.consume(end);
        self.accepted += 1;
        Ok(accepted)
    }

    /// Whether the next request is the last one that the connection may have. With HTTP/2 it is the session that
    /// counts.
    fn is_last(&self) -> bool {
        let max = self.worker.proxy.max_requests_per_connection;
        max > 0 && self.accepted + 1 >= max && self.origin.version == Version::Http1
    }

    /// The port of the redirect to TLS, for a request that came without. What a trusted proxy has taken out of TLS did.
    fn redirects(&self, request: &Request<'_>) -> Option<u16> {
        let port = self.worker.proxy.redirect_to_tls.filter(|_| self.security.is_none())?;
        if self.came_over_tls(request) { None } else { Some(port) }
    }

    fn came_over_tls(&self, request: &Request<'_>) -> bool {
        let says_so = || request.fields.values(Field::ForwardedProto).next() == Some(b"https");
        self.security.is_some() || (self.origin.trusted && says_so())
    }

    /// The lease is taken while both guards live; see `routing`. With it, what came of the preview's pass.
    fn lease(&self, request: &mut Request<'_>, now: Instant) -> Result<(Lease, Option<Note>), Unaccepted> {
        let held = |hold| Unaccepted::Held(hold, false);
        let table = self.worker.table.load();
        let service = table.find(request.host().as_bytes(), request.route().as_bytes());
        let service = service.ok_or_else(|| Refused::with(Fault::NoService))?;
        let Some(gate) = &service.info.preview else {
            let leased = service.route.load().lease(self.worker.index, access(request), now);
            return leased.map(|lease| (lease, None)).map_err(held);
        };
        if let Some(door) = gate.action(request.path) {
            let over_tls = self.came_over_tls(request);
            let (fault, fields) = preview::open(gate, door, request.method, over_tls, clock::unix_now());
            return Err(Refused { fields, ..Refused::with(fault) }.into());
        }
        request.hides_pass = true;
        let route = service.route.load();
        let note = preview::note(gate, request, route.active.other(), clock::unix_now);
        let lease = match note {
            Some(Note::Served(_)) => route.preview(self.worker.index, access(request), now),
            Some(Note::Ignored(_)) | None => route.lease(self.worker.index, access(request), now),
        };
        Ok((lease.map_err(held)?, note))
    }

    /// Who asks: the peer, or whom a trusted proxy names last.
    fn client_of<'r>(&'r self, request: &'r Request<'_>) -> &'r [u8] {
        let named = || request.fields.values(Field::ForwardedFor).last();
        let last =
            self.origin.trusted.then(named).flatten().and_then(|value| value.rsplit(|&byte| byte == b',').next());
        last.map_or(self.origin.ip.as_bytes(), <[u8]>::trim_ascii)
    }

    /// Waits a moment for the first chunk of a chunked body and checks what has come of the body.
    async fn first_chunk(&mut self, accepted: &Accepted) -> Result<(), Fault> {
        // Of HTTP/2 the chunks are our own.
        if !matches!(accepted.body, BodyDecoder::Chunked(_)) || self.origin.version == Version::Http2 {
            return Ok(());
        }
        self.alarm.set(Instant::now() + FIRST_CHUNK);
        loop {
            let first = accepted.body.clone().step(self.client.filled()).map_err(|why| Fault::BadRequest(why.0))?;
            if first != DecodeStep::More || accepted.expects_continue || self.client.is_full(0) {
                return accepted.body.check(self.client.filled()).map_err(|why| Fault::BadRequest(why.0));
            }
            let (client, worker, alarm) = (&mut self.client, &self.worker, &self.alarm);
            let filled = poll_fn(|cx| match client.poll_fill(cx, &worker.buffers, false) {
                Poll::Pending if alarm.is_late() => Poll::Ready(Ok(None)),
                Poll::Pending => Poll::Pending,
                Poll::Ready(result) => Poll::Ready(result.map(Some)),
            })
            .await;
            match filled {
                Ok(Some(1..)) => {}
                Ok(None) => return Ok(()),
                Ok(Some(_)) | Err(_) => return Err(Fault::ClientGone),
            }
        }
    }

    /// Answers a request that took no lease, and ends the connection.
    async fn refuse(&mut self, refused: Refused) -> Next {
        let Refused { fault, is_head, fields, proof } = refused;
        self.permit = None;
        self.worker.count_refusal(fault);
        let Some((status, _)) = fault.answer() else { return Next::Close };
        if !matches!(fault, Fault::Redirected | Fault::EndsHere | Fault::Proof | Fault::PassTaken) {
            self.worker.client_log.request_refused(self.peer, status, fault.hint());
        }
        let request_id = new_request_id();
        if self.worker.access_log.is_on() {
            let client = self.origin.ip.clone();
            let line = Line { client, status, end: fault.word(), request_id: request_id.clone(), ..Line::default() };
            self.worker.access_log.write(&line.ended(Duration::ZERO));
        }
        if self.client.io.fail_call(fault.grpc_code(), fault.hint()) {
            return Next::Cut;
        }
        let mut down = response_copier();
        let (fields, proof) = (&*fields, proof.as_deref());
        let tell = Tell { fault, is_head, keep: false, request_id: &request_id, fields, proof };
        tell.write(&mut down.pending, &self.worker.date(), hsts(self.security.as_ref()));
        let sent = self.send(&mut down).await;
        self.worker.buffers.give_back(down.pending);
        if sent.is_ok() { Next::Linger } else { Next::Close }
    }

    /// Writes what a pump holds.
    pub(super) async fn send(&mut self, down: &mut BodyCopier) -> Result<(), ()> {
        self.alarm.set(Instant::now() + self.worker.proxy.idle_timeout);
        down.frame(BodyDecoder::Length(0), Encoding::Plain);
        let mut nothing = BufferedIo::new(tokio::io::empty());
        let (client, alarm, buffers) = (&mut self.client, &self.alarm, &self.worker.buffers);
        poll_fn(|cx| match down.poll(cx, &mut nothing, &mut client.io, buffers, &mut false) {
            Poll::Pending if alarm.is_late() => {
                client.io.give_up();
                Poll::Ready(Err(()))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result.map_err(|_| ())),
        })
        .await
    }

    /// Says that all was said, for as long as that may take.
    async fn say_goodbye(&mut self) -> Next {
        self.alarm.set(Instant::now() + LINGER);
        let (client, worker, alarm) = (&mut self.client, &self.worker, &self.alarm);
        poll_fn(|cx| match client.io.poll_goodbye(cx) {
            Poll::Pending if !alarm.is_late() && !worker.shutdown.is_cutting() => Poll::Pending,
            Poll::Pending | Poll::Ready(()) => Poll::Ready(Next::Cut),
        })
        .await
    }

    /// Says goodbye, then reads what the client still sends for a moment: a close with unread bytes would be a reset,
    /// and a reset can overtake our last answer (RFC 9112 9.6).
    async fn linger(&mut self) -> Next {
        self.alarm.set(Instant::now() + LINGER);
        let (client, worker, alarm) = (&mut self.client, &self.worker, &self.alarm);
        let mut discarded = 0;
        let mut goodbye = false;
        poll_fn(|cx| {
            if !goodbye {
                match Pin::new(&mut client.io).poll_shutdown(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => goodbye = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                }
            }
            loop {
                let n = client.filled().len();
                client.consume(n);
                discarded += n as u64;
                if discarded > LINGER_BYTES_MAX || alarm.is_late() || worker.shutdown.is_cutting() || client.eof {
                    return Poll::Ready(());
                }
                match client.poll_fill(cx, &worker.buffers, false) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(()),
                }
            }
        })
        .await;
        Next::Cut
    }

    fn line(&self, request: &Request<'_>, request_id: &str, lease: &Lease) -> Line {
        let value = |name| request.value(name).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
        Line {
            client: self.origin.ip.clone(),
            method: request.method.to_owned(),
            host: request.authority.unwrap_or_default().to_owned(),
            path: request.path.to_owned(),
            protocol: match self.origin.version {
                Version::Http2 => "HTTP/2.0",
                Version::Http1 if request.is_1_0 => "HTTP/1.0",
                Version::Http1 => "HTTP/1.1",
            },
            service: lease.route().service.name.clone(),
            color: lease.color().as_str(),
            epoch: lease.route().epoch,
            request_id: request_id.to_owned(),
            referer: value("referer"),
            user_agent: value("user-agent"),
            ..Line::default()
        }
    }
}

/// The value of `Strict-Transport-Security` on a connection with that security.
pub(super) fn hsts(security: Option<&Arc<Current>>) -> Option<&str> {
    security.and_then(|tls| tls.hsts.as_deref())
}

/// An answer of the proxy's own.
pub(super) struct Tell<'a> {
    pub(super) fault: Fault,
    pub(super) is_head: bool,
    pub(super) keep: bool,
    pub(super) request_id: &'a str,
    /// What else it says.
    pub(super) fields: &'a [(&'static str, String)],
    /// The whole body, instead of a sentence.
    pub(super) proof: Option<&'a str>,
}

impl Tell<'_> {
    pub(super) fn write(&self, out: &mut Buffer, date: &[u8], hsts: Option<&str>) {
        let Some((status, reason)) = self.fault.answer() else { return };
        let sentence = || format!("{status} {reason}: {}\nrequest id: {}\n", self.fault.hint(), self.request_id);
        let body = self.proof.map_or_else(sentence, str::to_owned);
        out.put(format!("HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n").as_bytes());
        request::put_field(out, "Date", date);
        request::put_field(out, "X-Request-Id", self.request_id.as_bytes());
        request::put_length(out, body.len() as u64);
        let fields = self.fields.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in fields.chain(hsts.map(|value| (HSTS, value))) {
            request::put_field(out, name, value.as_bytes());
        }
        if status == 503 {
            let is_held = matches!(self.fault, Fault::HoldTimedOut | Fault::HoldFull);
            request::put_field(out, "Retry-After", if is_held { b"5" } else { b"1" });
        }
        if (status == 405 && self.fields.is_empty()) || self.fault == Fault::EndsHere {
            out.put(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        }
        if !self.keep {
            out.put(b"Connection: close\r\n");
        }
        out.put(b"\r\n");
        if !self.is_head {
            out.put(body.as_bytes());
        }
    }
}

fn access(request: &Request<'_>) -> Access {
    match (request.upgrade.is_some(), request.is_safe()) {
        (true, _) => Access::Upgrade,
        (false, true) => Access::Read,
        (false, false) => Access::Write,
    }
}

fn may_replay(request: &Request<'_>, replay: config::Replay) -> bool {
    let repeats_itself = || request.is_idempotent() || request.value("idempotency-key").is_some();
    (replay.safe && request.is_safe()) || (replay.idempotent && !request.is_safe() && repeats_itself())
}

/// As much of a target as is kept.
fn told_target(target: &str) -> String {
    target[..target.floor_char_boundary(TARGET_BYTES_MAX)].to_owned()
}

fn new_request_id() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bits = fastrand::u128(..);
    let mut id = String::with_capacity(32);
    for _ in 0..32 {
        id.push(char::from(DIGITS[(bits & 15) as usize]));
        bits >>= 4;
    }
    id
}
