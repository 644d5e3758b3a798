//! From the head of a request to its lease: the head is checked, its service is found, a lease is taken, and the head
//! is rebuilt for the upstream.

use std::sync::Arc;
use std::time::Instant;

use crate::config;
use crate::http1::body::BodyDecoder;
use crate::http1::buffer::Buffer;
use crate::http1::fields::HeaderStorage;
use crate::http1::grpc_status::is_grpc;
use crate::http1::header::Field;
use crate::http1::method::Method;
use crate::http1::reject::Rejection;
use crate::http1::request::{HopLimit, Request};
use crate::http1::response::RequestInfo;
use crate::http1::upstream_head::{ClientIdentity, UpstreamHead};
use crate::os::clock;
use crate::proxy::access_log::AccessLine;
use crate::proxy::connection::client::Client;
use crate::proxy::connection::preview::{self, CookieSecurity, Note};
use crate::proxy::connection::refusal::{Cause, ProxyResponse};
use crate::proxy::connection::request_id;
use crate::proxy::context::WorkerContext;
use crate::proxy::fault::Fault;
use crate::proxy::local_reply::LocalReply;
use crate::routing::{Access, FreezeQueue, Lease, RequestSource, TARGET_BYTES_MAX};

/// A request that has a lease, and its head as the upstream will get it.
pub struct LeasedRequest {
    pub lease: Lease,
    /// What the response depends on.
    pub info: RequestInfo,
    /// What came of its preview pass, if it shows one.
    pub preview: Option<Note>,
    pub method: Method,
    /// The standby color may answer it when the active one failed.
    pub is_replayable: bool,
    /// The client's connection may take another request.
    pub keep_alive: bool,
    pub body: BodyDecoder,
    /// It is a gRPC call whose client may pause between messages.
    pub is_grpc_stream: bool,
    pub expects_continue: bool,
    /// The rebuilt head.
    pub head: Buffer,
    pub request_id: String,
    /// Trailers that end here, because `Connection` named them.
    pub hops: Vec<String>,
    pub began: Instant,
    /// What is known so far for the access log.
    pub line: Option<Box<AccessLine>>,
    /// Path and query, for the report of a failure while a watch runs.
    pub target: Option<String>,
}

/// Why a request has no lease.
pub enum Unleased {
    /// The proxy answers it by itself.
    Refused(ProxyResponse),
    /// Its service is frozen: it may wait in `queue`.
    Frozen { queue: Arc<FreezeQueue>, is_head: bool },
}

impl From<ProxyResponse> for Unleased {
    fn from(response: ProxyResponse) -> Self {
        Unleased::Refused(response)
    }
}

/// Leases the requests of one connection.
pub struct Leaser<'a> {
    pub client: &'a Client,
    pub identity: &'a ClientIdentity,
    /// The connection takes no request after this one.
    pub is_last: bool,
}

/// A lease, and what follows for the request from how it was taken.
struct TakenLease {
    lease: Lease,
    /// What came of the request's preview pass, if it shows one.
    preview: Option<Note>,
    /// The cookie that is kept from the application.
    hidden_cookie: Option<&'static str>,
}

impl Leaser<'_> {
    /// Checks the head, finds the service, takes a lease and rebuilds the head.
    ///
    /// # Errors
    /// See [`Unleased`].
    pub fn lease(&self, worker: &WorkerContext, head: &[u8]) -> Result<LeasedRequest, Unleased> {
        let mut storage = HeaderStorage::new();
        let request = Request::parse(head, &mut storage).map_err(|why| ProxyResponse::to_unread(why.into(), head))?;
        if let Some(response) = self.response_without_lease(worker, &request) {
            return Err(response.into());
        }
        let began = Instant::now();
        let TakenLease { mut lease, preview, hidden_cookie } = self.take_lease(worker, &request, began)?;
        if lease.is_watched() {
            lease.name_source(RequestSource::new(self.source_of(&request), request.path.as_bytes()));
        }
        let request_id = request_id::of(&request, self.identity);
        let mut rebuilt = worker.buffers.tiny();
        let upstream_head =
            UpstreamHead { request_id: request_id.as_bytes(), adds_via: worker.proxy.via, hidden_cookie };
        upstream_head.write(&mut rebuilt, &request, self.identity);
        let is_chunked = matches!(request.body, BodyDecoder::Chunked(_));
        let hops = if is_chunked { &request.named_hops[..] } else { &[] };
        Ok(LeasedRequest {
            hops: hops.iter().map(|&name| name.to_owned()).collect(),
            info: RequestInfo {
                is_head: request.method == Method::Head,
                is_upgrade: request.upgrade.is_some(),
                version: self.identity.version_of(&request),
            },
            preview,
            method: request.method,
            is_replayable: may_replay(&request, lease.route().service.replay),
            keep_alive: request.keep_alive && !self.is_last,
            expects_continue: request.expects_continue,
            line: worker.access_log.is_on().then(|| Box::new(self.access_line(&request, &request_id, &lease))),
            target: lease.failed().map(|_| reported_target(request.path)),
            lease,
            is_grpc_stream: is_chunked && request.fields.values(Field::ContentType).any(is_grpc),
            body: request.body,
            head: rebuilt,
            request_id,
            began,
        })
    }

    /// The proxy's own response to a request that no application has to see.
    fn response_without_lease(&self, worker: &WorkerContext, request: &Request<'_>) -> Option<ProxyResponse> {
        if request.hop_limit == HopLimit::EndsHere {
            return Some(response(request, LocalReply::OptionsEndsHere));
        }
        if let Some(proof) = worker.terminator.as_ref().and_then(|tls| tls.challenges().http(request.path)) {
            return Some(response(request, LocalReply::AcmeChallenge { proof }));
        }
        if let Some(port) = self.redirect_port(worker, request) {
            return Some(match request.secure_url(port) {
                Some(location) => response(request, LocalReply::RedirectToTls { location }),
                None => response(request, Fault::Rejected(Rejection::Malformed("no Host"))),
            });
        }
        let body_max = worker.proxy.max_body_bytes;
        let is_too_large = matches!(request.body, BodyDecoder::Length(length) if body_max > 0 && length > body_max);
        is_too_large.then(|| response(request, Fault::BodyTooLarge))
    }

    /// The port of the redirect to TLS, for a request that came without.
    fn redirect_port(&self, worker: &WorkerContext, request: &Request<'_>) -> Option<u16> {
        let port = worker.proxy.redirect_to_tls.filter(|_| self.client.security.is_none())?;
        if self.came_over_tls(request) { None } else { Some(port) }
    }

    /// Whether the request came over TLS, here or at a trusted proxy that has passed it on without.
    fn came_over_tls(&self, request: &Request<'_>) -> bool {
        let says_so = || request.fields.values(Field::ForwardedProto).next() == Some(b"https");
        self.client.security.is_some() || (self.identity.is_trusted && says_so())
    }

    /// Takes the lease while the guards of the table and of the route live; see [`crate::routing`].
    fn take_lease(&self, worker: &WorkerContext, request: &Request<'_>, now: Instant) -> Result<TakenLease, Unleased> {
        let is_head = request.method == Method::Head;
        let frozen = |queue| Unleased::Frozen { queue, is_head };
        let table = worker.table.load();
        let service = table.find(request.host().as_bytes(), request.route().as_bytes());
        let service = service.ok_or_else(|| response(request, LocalReply::NoService))?;
        let Some(gate) = &service.info.preview else {
            let leased = service.route.load().lease(worker.index, access(request), now);
            return match leased {
                Ok(lease) => Ok(TakenLease { lease, preview: None, hidden_cookie: None }),
                Err(queue) => Err(frozen(queue)),
            };
        };
        if let Some(action) = gate.action(request.path) {
            let cookie = if self.came_over_tls(request) { CookieSecurity::TlsOnly } else { CookieSecurity::Any };
            let reply = preview::open(gate, action, request.method, cookie, clock::unix_now());
            return Err(response(request, reply).into());
        }
        let route = service.route.load();
        let note = preview::note(gate, request, route.active.other(), clock::unix_now);
        let lease = match note {
            Some(Note::Served(_)) => route.preview(worker.index, access(request), now),
            Some(Note::Ignored(_)) | None => route.lease(worker.index, access(request), now),
        };
        Ok(TakenLease { lease: lease.map_err(frozen)?, preview: note, hidden_cookie: Some(preview::COOKIE) })
    }

    /// The client as a watch tells clients apart: the peer, or the address that a trusted proxy names last.
    fn source_of<'r>(&'r self, request: &'r Request<'_>) -> &'r [u8] {
        let named = || request.fields.values(Field::ForwardedFor).last();
        let last =
            self.identity.is_trusted.then(named).flatten().and_then(|value| value.rsplit(|&byte| byte == b',').next());
        last.map_or(self.identity.ip.as_bytes(), <[u8]>::trim_ascii)
    }

    fn access_line(&self, request: &Request<'_>, request_id: &str, lease: &Lease) -> AccessLine {
        let value = |name| request.value(name).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
        AccessLine {
            client: self.identity.ip.clone(),
            method: request.method_name.to_owned(),
            host: request.authority.unwrap_or_default().to_owned(),
            path: request.path.to_owned(),
            protocol: self.identity.version_of(request).as_str(),
            service: lease.route().service.name.clone(),
            color: lease.color().as_str(),
            epoch: lease.route().epoch,
            request_id: request_id.to_owned(),
            referer: value("referer"),
            user_agent: value("user-agent"),
            ..AccessLine::default()
        }
    }
}

fn response(request: &Request<'_>, cause: impl Into<Cause>) -> ProxyResponse {
    ProxyResponse { is_head: request.method == Method::Head, ..ProxyResponse::to(cause) }
}

/// What a freeze has to know of a request.
fn access(request: &Request<'_>) -> Access {
    match (request.upgrade.is_some(), request.method.is_safe()) {
        (true, _) => Access::Upgrade,
        (false, true) => Access::Read,
        (false, false) => Access::Write,
    }
}

/// Whether the standby may answer the request, by the rules of its service. A client that sends an `Idempotency-Key`
/// promises that repeating its request does no harm.
fn may_replay(request: &Request<'_>, replay: config::Replay) -> bool {
    let method = request.method;
    let is_repeatable = || method.is_idempotent() || request.value("idempotency-key").is_some();
    (replay.safe && method.is_safe()) || (replay.idempotent && !method.is_safe() && is_repeatable())
}

/// As much of a target as a report of a failure keeps.
fn reported_target(target: &str) -> String {
    target[..target.floor_char_boundary(TARGET_BYTES_MAX)].to_owned()
}
