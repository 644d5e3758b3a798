//! Responses of the proxy's own, and requests that get nothing else.

use std::time::Duration;

use crate::http1::buffer::Buffer;
use crate::http1::request::{self, Origin};
use crate::http1::response::HSTS;
use crate::proxy::access_log::AccessLine;
use crate::proxy::connection::client::Client;
use crate::proxy::connection::client_io::{ClientIo, NextStep};
use crate::proxy::connection::request_id;
use crate::proxy::exchange::body_copy::BodyCopier;
use crate::proxy::fault::Fault;
use crate::proxy::transport::Transport;

/// A response that the proxy gives in place of an application.
pub struct ProxyResponse {
    /// Decides the status and the text.
    pub fault: Fault,
    /// The request was a HEAD, so the response has no content.
    pub is_head: bool,
    /// Further header fields.
    pub fields: Vec<(&'static str, String)>,
    /// The whole body, in place of the text: what an ACME server asks for.
    pub proof: Option<String>,
}

/// What a response says about its request and its connection.
pub struct ResponseContext<'a> {
    pub request_id: &'a str,
    pub date: &'a [u8],
    pub hsts: Option<&'a str>,
    /// The connection takes another request.
    pub keep_alive: bool,
}

impl ProxyResponse {
    /// A response without further fields, to a request that is no HEAD.
    pub fn to_fault(fault: Fault) -> Self {
        ProxyResponse { fault, is_head: false, fields: Vec::new(), proof: None }
    }

    /// A response to a request whose head could not be read. Whatever is wrong with it, a response to HEAD has no
    /// content (RFC 9110 9.3.2).
    pub fn to_unread(fault: Fault, head: &[u8]) -> Self {
        ProxyResponse { is_head: head.starts_with(b"HEAD "), ..ProxyResponse::to_fault(fault) }
    }

    /// Writes the whole response. A fault that has no response writes nothing.
    pub fn write(&self, out: &mut Buffer, context: &ResponseContext<'_>) {
        let Some((status, reason)) = self.fault.answer() else { return };
        let ResponseContext { request_id, date, hsts, keep_alive } = *context;
        let text = || format!("{status} {reason}: {}\nrequest id: {request_id}\n", self.fault.hint());
        let body = self.proof.clone().unwrap_or_else(text);
        out.put(format!("HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n").as_bytes());
        request::put_field(out, "Date", date);
        request::put_field(out, "X-Request-Id", request_id.as_bytes());
        request::put_length(out, body.len() as u64);
        let fields = self.fields.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in fields.chain(hsts.map(|value| (HSTS, value))) {
            request::put_field(out, name, value.as_bytes());
        }
        if status == 503 {
            let is_frozen = matches!(self.fault, Fault::HoldTimedOut | Fault::HoldFull);
            request::put_field(out, "Retry-After", if is_frozen { b"5" } else { b"1" });
        }
        if (status == 405 && self.fields.is_empty()) || self.fault == Fault::EndsHere {
            out.put(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        }
        if !keep_alive {
            out.put(b"Connection: close\r\n");
        }
        out.put(b"\r\n");
        if !self.is_head {
            out.put(body.as_bytes());
        }
    }
}

/// Answers a request that took no lease, counts and logs it, and ends the connection.
pub async fn refuse<S: Transport>(
    io: &mut ClientIo<S>,
    client: &Client,
    origin: &Origin,
    response: &ProxyResponse,
) -> NextStep {
    let fault = response.fault;
    io.permit = None;
    io.worker.count_refusal(fault);
    let Some((status, _)) = fault.answer() else { return NextStep::Close };
    if !matches!(fault, Fault::Redirected | Fault::EndsHere | Fault::Proof | Fault::PassTaken) {
        io.worker.client_log.request_refused(client.peer, status, fault.hint());
    }
    let request_id = request_id::random();
    if io.worker.access_log.is_on() {
        let (client, request_id) = (origin.ip.clone(), request_id.clone());
        let line = AccessLine { client, status, end: fault.word(), request_id, ..AccessLine::default() };
        io.worker.access_log.write(&line.ended(Duration::ZERO));
    }
    if io.stream.io.fail_call(fault.grpc_code(), fault.hint()) {
        return NextStep::Drop;
    }
    let mut down = BodyCopier::for_responses();
    let date = io.worker.date();
    let context = ResponseContext { request_id: &request_id, date: &date, hsts: client.hsts(), keep_alive: false };
    response.write(&mut down.pending, &context);
    let written = io.write(&mut down).await;
    io.worker.buffers.give_back(down.pending);
    if written.is_ok() { NextStep::Linger } else { NextStep::Close }
}
