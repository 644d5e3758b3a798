//! Responses of the proxy's own, and requests that get nothing else.

use std::time::Duration;

use crate::http1::buffer::Buffer;
use crate::http1::fields::{FieldLine, put_field, put_length};
use crate::http1::reject::Rejection;
use crate::http1::response::HSTS;
use crate::http1::status::reason_phrase;
use crate::http1::upstream_head::ClientIdentity;
use crate::proxy::access_log::AccessLine;
use crate::proxy::connection::client::Client;
use crate::proxy::connection::client_io::{ClientIo, NextStep};
use crate::proxy::connection::{preview, request_id};
use crate::proxy::exchange::body_copy::BodyCopier;
use crate::proxy::fault::{Fault, GrpcCode};
use crate::proxy::local_reply::LocalReply;
use crate::proxy::transport::Transport;

/// Why the proxy answers in place of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing failed.
    Reply(LocalReply),
    Fault(Fault),
}

impl From<LocalReply> for Cause {
    fn from(reply: LocalReply) -> Self {
        Cause::Reply(reply)
    }
}

impl From<Fault> for Cause {
    fn from(fault: Fault) -> Self {
        Cause::Fault(fault)
    }
}

impl Cause {
    fn status(&self) -> Option<u16> {
        match self {
            Cause::Reply(reply) => Some(reply.status()),
            Cause::Fault(fault) => fault.status(),
        }
    }

    fn sentence(&self) -> &'static str {
        match self {
            Cause::Reply(reply) => reply.sentence(),
            Cause::Fault(fault) => fault.sentence(),
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Cause::Reply(reply) => reply.label(),
            Cause::Fault(fault) => fault.label(),
        }
    }

    fn grpc_code(&self) -> GrpcCode {
        match self {
            Cause::Reply(reply) => reply.grpc_code(),
            Cause::Fault(fault) => fault.grpc_code(),
        }
    }
}

/// A response that the proxy gives in place of an application.
pub struct ProxyResponse {
    pub cause: Cause,
    /// The request was a HEAD, so the response has no content.
    pub is_head: bool,
}

/// What a response says about its request and its connection.
pub struct ResponseContext<'a> {
    pub request_id: &'a str,
    pub date: &'a [u8],
    pub hsts: Option<&'a str>,
    /// What came of a preview pass.
    pub preview: Option<FieldLine<'a>>,
    /// The connection takes another request.
    pub keep_alive: bool,
}

impl ProxyResponse {
    /// A response to a request that is no HEAD, or whose method is not known.
    pub fn to(cause: impl Into<Cause>) -> Self {
        ProxyResponse { cause: cause.into(), is_head: false }
    }

    /// A response to a request whose head could not be read. Whatever is wrong with it, a response to HEAD has no
    /// content (RFC 9110 9.3.2).
    pub fn to_unread(fault: Fault, head: &[u8]) -> Self {
        ProxyResponse { is_head: head.starts_with(b"HEAD "), ..ProxyResponse::to(fault) }
    }

    /// Writes the whole response. A fault that has no response writes nothing.
    pub fn write(&self, out: &mut Buffer, context: &ResponseContext<'_>) {
        let Some(status) = self.cause.status() else { return };
        let ResponseContext { request_id, date, hsts, preview, keep_alive } = *context;
        let status_line = format!("{status} {}", reason_phrase(status));
        let body = match &self.cause {
            Cause::Reply(LocalReply::AcmeChallenge { proof }) => proof.clone(),
            cause => format!("{status_line}: {}\nrequest id: {request_id}\n", cause.sentence()),
        };
        out.put(format!("HTTP/1.1 {status_line}\r\nContent-Type: text/plain; charset=utf-8\r\n").as_bytes());
        put_field(out, "Date", date);
        put_field(out, "X-Request-Id", request_id.as_bytes());
        put_length(out, body.len() as u64);
        self.put_cause_fields(out);
        let marks = [preview, hsts.map(|value| FieldLine { name: HSTS, value })];
        for FieldLine { name, value } in marks.into_iter().flatten() {
            put_field(out, name, value.as_bytes());
        }
        if status == 503 {
            put_field(out, "Retry-After", if self.is_frozen() { b"5" } else { b"1" });
        }
        if !keep_alive {
            out.put(b"Connection: close\r\n");
        }
        out.put(b"\r\n");
        if !self.is_head {
            out.put(body.as_bytes());
        }
    }

    /// Writes the fields that only this response has.
    fn put_cause_fields(&self, out: &mut Buffer) {
        const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
        match &self.cause {
            Cause::Reply(LocalReply::RedirectToTls { location }) => put_field(out, "Location", location.as_bytes()),
            Cause::Reply(LocalReply::PreviewPassTaken { location, cookie }) => {
                put_field(out, "Location", location.as_bytes());
                put_field(out, "Set-Cookie", cookie.as_bytes());
                preview::put_discretion(out);
            }
            Cause::Reply(LocalReply::PreviewPassRefused) => preview::put_discretion(out),
            Cause::Reply(LocalReply::PreviewMethodNotAllowed) => put_field(out, "Allow", b"GET, HEAD"),
            Cause::Reply(LocalReply::OptionsEndsHere) | Cause::Fault(Fault::Rejected(Rejection::MethodNotAllowed)) => {
                put_field(out, "Allow", METHODS);
            }
            Cause::Reply(
                LocalReply::AcmeChallenge { .. }
                | LocalReply::NoService
                | LocalReply::FreezeTimedOut
                | LocalReply::FreezeQueueFull,
            )
            | Cause::Fault(_) => {}
        }
    }

    /// Whether a freeze is the cause, which lasts for longer than other causes of a 503.
    fn is_frozen(&self) -> bool {
        matches!(self.cause, Cause::Reply(LocalReply::FreezeTimedOut | LocalReply::FreezeQueueFull))
    }
}

/// Answers a request that took no lease, counts and logs it, and ends the connection.
pub async fn refuse<S: Transport>(
    io: &mut ClientIo<S>,
    client: &Client,
    identity: &ClientIdentity,
    response: &ProxyResponse,
) -> NextStep {
    let cause = &response.cause;
    io.permit = None;
    if let Cause::Fault(fault) = *cause {
        io.worker.count_refusal(fault);
    }
    let Some(status) = cause.status() else { return NextStep::Close };
    if status >= 400 {
        io.worker.client_log.request_refused(client.peer, status, cause.sentence());
    }
    let request_id = request_id::random();
    if io.worker.access_log.is_on() {
        let (client, request_id) = (identity.ip.clone(), request_id.clone());
        let line = AccessLine { client, status, end: cause.label(), request_id, ..AccessLine::default() };
        io.worker.access_log.write(&line.ended(Duration::ZERO));
    }
    if io.stream.io.fail_call(cause.grpc_code(), cause.sentence()) {
        return NextStep::Drop;
    }
    let mut down = BodyCopier::for_responses();
    let date = io.worker.date();
    let (request_id, date, hsts) = (&*request_id, &date[..], client.hsts());
    let context = ResponseContext { request_id, date, hsts, preview: None, keep_alive: false };
    response.write(&mut down.pending, &context);
    let written = io.write(&mut down).await;
    io.worker.buffers.give_back(down.pending);
    if written.is_ok() { NextStep::Linger } else { NextStep::Close }
}
