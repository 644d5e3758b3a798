//! Builds responses: JSON, text, the dashboard, and every kind of refusal.
//!
//! A failure is always `{"error":{"code":…,"message":…}}`, whether the control plane refused or the request was wrong.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::events::EventStream;
use crate::api::Refusal;

/// A response has either a whole body or a stream of events without an end.
pub(super) type AdminResponse = Response<Either<Full<Bytes>, EventStream>>;

/// Says why a request was not carried out.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(HeaderName, &'static str)>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, code, message: message.into(), header: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn foreign_host(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, "foreign_host", message)
    }

    pub(super) fn foreign_origin(message: &str) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message)
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        let failure = ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
        ApiError { header: Some((WWW_AUTHENTICATE, "Bearer")), ..failure }
    }

    pub(super) fn not_found(path: &str) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {path} here; try GET /v1/status"))
    }

    pub(super) fn wrong_method(allow: &'static str) -> Self {
        let failure = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("use {allow}"));
        ApiError { header: Some((ALLOW, allow)), ..failure }
    }

    pub(super) fn not_json() -> Self {
        let message = "a body must be JSON: send Content-Type: application/json";
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(super) fn too_large(bytes_max: usize) -> Self {
        let message = format!("the body is longer than {bytes_max} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn too_slow() -> Self {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not arrive in time")
    }

    pub(super) fn too_many_readers(max: usize) -> Self {
        let message = format!("{max} clients already read events; poll GET /v1/status instead");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_readers", message)
    }

    pub(super) fn into_response(self) -> AdminResponse {
        let mut answer = error(self.status, &serde_json::json!({ "code": self.code, "message": self.message }));
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// Translates a refusal of the control plane into the API's response.
pub(super) fn refused(refusal: &Refusal) -> AdminResponse {
    let status = StatusCode::from_u16(refusal.code.http_status()).expect("every refusal code has a real status");
    error(status, refusal)
}

fn error(status: StatusCode, error: &impl Serialize) -> AdminResponse {
    json(status, &serde_json::json!({ "error": error }))
}

/// Serializes `value` as JSON in one line.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> AdminResponse {
    let mut body = serde_json::to_vec(value).expect("our own types have a JSON form");
    body.push(b'\n');
    whole(status, "application/json", body)
}

/// Builds a response with a whole body. Nothing here may be cached, because the next response may differ.
pub(super) fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    set_common(&mut answer, kind);
    answer
}

/// Builds a response of server-sent events.
pub(super) fn stream(events: EventStream) -> AdminResponse {
    let mut answer = Response::new(Either::Right(events));
    set_common(&mut answer, "text/event-stream");
    answer
}

fn set_common(answer: &mut AdminResponse, kind: &'static str) {
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
}

/// Adds the epoch as the ETag that a later `If-Match` may name.
pub(super) fn with_epoch(mut answer: AdminResponse, epoch: u64) -> AdminResponse {
    let value = HeaderValue::from_str(&format!("\"{epoch}\"")).expect("digits and quotes are a header value");
    answer.headers_mut().insert(ETAG, value);
    answer
}

/// Serves the dashboard: only its own script and style run, it talks only to this server, and nobody may frame it.
pub(super) fn dashboard() -> AdminResponse {
    // The keys of a `RandomState` come from the system's random source, so no page can guess these 128 bits.
    let nonce = format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    let page = include_str!("dashboard.html").replace("NONCE", &nonce);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut answer = whole(StatusCode::OK, "text/html; charset=utf-8", page);
    let policy = HeaderValue::from_str(&policy).expect("plain ASCII is a header value");
    answer.headers_mut().insert("content-security-policy", policy);
    answer.headers_mut().insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    answer
}
