//! Implements the health check of gRPC applications, grpc.health.v1, for probes and smoke tests.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use hyper::{Request, StatusCode};
use tokio::net::TcpStream;

use crate::http_client::{Failure, Protocol, exchange, wire};

/// Limits the name of a service, because its length takes one byte in the message.
pub const SERVICE_BYTES_MAX: usize = 127;

/// `SERVING` of grpc.health.v1.HealthCheckResponse, as field 1 of the message.
const SERVING: [u8; 2] = [0x08, 1];
/// This is far more than any response needs.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Calls `Check` of grpc.health.v1 for `service`, of at most [`SERVICE_BYTES_MAX`] bytes; an empty name means the
/// server as a whole. The inner `Err` says why the application does not serve.
///
/// # Errors
/// Fails when there was no whole HTTP/2 response.
pub async fn check(
    stream: TcpStream,
    authority: &str,
    user_agent: &str,
    service: &str,
) -> Result<Result<(), String>, Failure> {
    let request = Request::post("/grpc.health.v1.Health/Check")
        .header(HOST, authority)
        .header(USER_AGENT, user_agent)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(message(service)))?;
    let answer = exchange(wire(stream, Protocol::H2c), request, BODY_BYTES_MAX).await?;
    let (head, body) = answer.into_parts();
    let code = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    let code =
        code.or(head.headers.get("grpc-status")).map(|code| String::from_utf8_lossy(code.as_bytes()).into_owned());
    let body = body.to_bytes();
    // A message consists of a flag, its length in four bytes, and its content.
    Ok(match (head.status, code.as_deref(), body.get(5..)) {
        (StatusCode::OK, Some("0"), Some(message)) if message == SERVING => Ok(()),
        (StatusCode::OK, Some("0"), _) => Err("not serving".into()),
        (StatusCode::OK, Some(code), _) => Err(format!("grpc-status {code}")),
        (StatusCode::OK, None, _) => Err("no grpc-status".into()),
        (status, _, _) => Err(status.as_u16().to_string()),
    })
}

/// Encodes a HealthCheckRequest: `service` is field 1, unless it is empty.
fn message(service: &str) -> Bytes {
    let mut message = vec![0, 0, 0, 0, 0];
    if !service.is_empty() {
        message.extend([0x0a, service.len() as u8]);
        message.extend(service.as_bytes());
    }
    message[4] = (message.len() - 5) as u8;
    message.into()
}

#[cfg(test)]
mod tests {
    use crate::http_client::grpc::*;

    #[test]
    fn a_service_is_named_in_the_message() {
        assert_eq!(&message("")[..], [0; 5]);
        assert_eq!(&message("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
    }
}
