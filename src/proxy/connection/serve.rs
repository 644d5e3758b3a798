//! Serves one client connection: heads are read, requests are leased and forwarded, one after the other.
//!
//! The loop is [`Connection::run`]. Everything that it calls works on the parts of the connection that it is given, so
//! the parameters tell what a step may touch.

use std::rc::Rc;

use crate::http1::reject::Rejection;
use crate::http1::upstream_head::ClientIdentity;
use crate::http1::version::ClientProtocol;
use crate::http2::PREFACE;
use crate::proxy::alarm::Alarm;
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::connection::client::{Admission, Client};
use crate::proxy::connection::client_io::{ClientIo, NextStep};
use crate::proxy::connection::forward::Forwarder;
use crate::proxy::connection::freeze::lease_after_freeze;
use crate::proxy::connection::head::{check_first_chunk, read_head};
use crate::proxy::connection::lease::{LeasedRequest, Leaser, Unleased};
use crate::proxy::connection::refusal::{self, ProxyResponse};
use crate::proxy::context::WorkerContext;
use crate::proxy::fault::Fault;
use crate::proxy::transport::Transport;

/// How the service of a connection ended.
pub enum Served<S> {
    /// The connection is over.
    Closed,
    /// It goes on as HTTP/2; `stream` holds what was read of it.
    Http2 { stream: BufferedIo<S>, client: Client },
}

/// Serves a connection to its end, or to where it goes on as HTTP/2.
pub async fn serve<S: Transport>(stream: S, client: Client, alarm: Rc<Alarm>, worker: Rc<WorkerContext>) -> Served<S> {
    let mut connection = Connection::new(stream, client, alarm, worker);
    let first = match connection.client.admission {
        Admission::Served => NextStep::ReadRequest,
        Admission::Refused => connection.refuse(&ProxyResponse::to(Fault::TooManyConnections)).await,
    };
    match connection.run(first).await {
        LoopEnd::Closed => Served::Closed,
        LoopEnd::Http2 => Served::Http2 { stream: connection.io.stream, client: connection.client },
    }
}

/// Answers whatever a connection asks with `fault`, and ends it.
pub async fn refuse<S: Transport>(
    stream: S,
    client: Client,
    fault: Fault,
    alarm: Rc<Alarm>,
    worker: Rc<WorkerContext>,
) {
    let mut connection = Connection::new(stream, client, alarm, worker);
    let next = connection.refuse(&ProxyResponse::to(fault)).await;
    connection.run(next).await;
}

/// Why the loop over the requests of a connection ended.
enum LoopEnd {
    Closed,
    Http2,
}

struct Connection<S> {
    io: ClientIo<S>,
    client: Client,
    identity: ClientIdentity,
    /// Requests that took a lease.
    leased: u64,
}

impl<S: Transport> Connection<S> {
    fn new(stream: S, client: Client, alarm: Rc<Alarm>, worker: Rc<WorkerContext>) -> Self {
        let identity = client.identity(&worker.proxy);
        Connection { io: ClientIo::new(stream, alarm, worker), client, identity, leased: 0 }
    }

    /// Runs the connection from one step to the next.
    async fn run(&mut self, mut next: NextStep) -> LoopEnd {
        loop {
            next = match next {
                NextStep::ReadRequest => self.next_request().await,
                NextStep::Close => self.io.say_goodbye().await,
                NextStep::Linger => self.io.linger().await,
                NextStep::Drop => return LoopEnd::Closed,
                NextStep::ServeHttp2 => return LoopEnd::Http2,
            };
        }
    }

    async fn next_request(&mut self) -> NextStep {
        let end = match read_head(&mut self.io, self.identity.protocol).await {
            Ok(Some(end)) => end,
            Ok(None) => return NextStep::Close,
            Err(Fault::Rejected(Rejection::VersionNotSupported)) if self.begins_http2() => return NextStep::ServeHttp2,
            Err(fault) => {
                let response = ProxyResponse::to_unread(fault, self.io.stream.filled());
                return self.refuse(&response).await;
            }
        };
        // Boxed: what a request needs is no part of an idle connection.
        Box::pin(self.serve_request(end)).await
    }

    /// Serves the request whose head ends at `end`.
    async fn serve_request(&mut self, end: usize) -> NextStep {
        let request = match self.lease(end).await {
            Ok(request) => request,
            Err(response) => return self.refuse(&response).await,
        };
        if let Err(fault) = check_first_chunk(&mut self.io, self.identity.protocol, &request).await {
            let is_head = request.info.is_head;
            drop(request);
            return self.refuse(&ProxyResponse { is_head, ..ProxyResponse::to(fault) }).await;
        }
        let mut forwarder = Forwarder::new(&mut self.io, &self.client, request);
        forwarder.run().await
    }

    /// Leases the request whose head ends at `end`, after a freeze if there is one, and uses up the head.
    async fn lease(&mut self, end: usize) -> Result<LeasedRequest, ProxyResponse> {
        let leaser = Leaser { client: &self.client, identity: &self.identity, is_last: self.is_last_request() };
        let request = match leaser.lease(&self.io.worker, &self.io.stream.filled()[..end]) {
            Ok(request) => request,
            Err(Unleased::Refused(response)) => return Err(response),
            Err(Unleased::Frozen { queue, is_head }) => {
                // Boxed: few requests meet a freeze, and the others need none of this memory.
                Box::pin(lease_after_freeze(&mut self.io, &leaser, end, queue, is_head)).await?
            }
        };
        self.io.stream.consume(end);
        self.leased += 1;
        Ok(request)
    }

    /// Whether the connection may have no request after the next one. A session of HTTP/2 counts its streams itself.
    fn is_last_request(&self) -> bool {
        let max = self.io.worker.proxy.max_requests_per_connection;
        max > 0 && self.leased + 1 >= max && self.identity.protocol == ClientProtocol::Http1
    }

    /// Whether the connection begins with the first bytes of HTTP/2. Over TLS the protocol was agreed on before (RFC
    /// 9113 3.2). A refused request ends its connection, so a connection that has leased none is at its first bytes.
    fn begins_http2(&self) -> bool {
        let is_possible =
            self.leased == 0 && self.client.security.is_none() && self.identity.protocol == ClientProtocol::Http1;
        let line = &PREFACE[..PREFACE.iter().position(|&byte| byte == b'\r').unwrap_or(0)];
        is_possible && self.io.worker.proxy.http2.enabled && self.io.stream.filled().starts_with(line)
    }

    fn refuse(&mut self, response: &ProxyResponse) -> impl Future<Output = NextStep> {
        refusal::refuse(&mut self.io, &self.client, &self.identity, response)
    }
}
