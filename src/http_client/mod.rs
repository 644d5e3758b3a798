//! Makes one HTTP exchange over a connection that is already open, for the proxy's own clients.
//!
//! The proxy's exchange (`proxy::exchange`) streams. This one holds a whole response, up to a limit.

pub mod grpc;
mod wire;

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub use wire::{Wire, wire};

use crate::proxy_protocol;

/// The protocol of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 uses a connection for each request in flight.
    Http1,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 3.3), uses a few connections with many requests each.
    H2c,
}

/// Sends a PROXY header that says the connection is the proxy's own, where the application expects such a header.
///
/// # Errors
/// Fails when the connection is gone.
pub async fn announce(stream: &mut TcpStream, version: Option<proxy_protocol::Version>) -> io::Result<()> {
    match version {
        None => Ok(()),
        Some(version) => stream.write_all(&proxy_protocol::write(version, None)).await,
    }
}

/// Checks whether the body of a 200 says that its application is ready. Only JSON with a `ready` that is not `true`
/// says no.
///
/// # Errors
/// Returns the value that the body has instead.
pub fn says_ready(body: &[u8]) -> Result<(), String> {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    match json.as_ref().and_then(|json| json.get("ready")) {
        None | Some(serde_json::Value::Bool(true)) => Ok(()),
        Some(other) => Err(format!("\"ready\": {}", other.to_string().chars().take(60).collect::<String>())),
    }
}

/// Says why there was no whole response.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends `request` and reads the response to its end. It sets no time limit; drop it when it takes too long.
///
/// # Errors
/// Fails when the other side closes the connection, does not speak HTTP, or sends a body longer than `body_bytes_max`.
pub async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<(StatusCode, Bytes), Failure> {
    let answer = exchange(stream, request, body_bytes_max).await?;
    Ok((answer.status(), answer.into_body().to_bytes()))
}

/// Sends like [`send`], and also returns the response's fields and trailers.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<Response<Collected<Bytes>>, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, Limited::new(body, body_bytes_max).collect().await?))
    };
    let connection = async {
        // The exchange sees the connection's errors as well, and reports them.
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = exchange => answer,
        () = connection => unreachable!("a future that is pending for ever does not end"),
    }
}

#[cfg(test)]
mod tests {
    use crate::http_client::*;

    #[test]
    fn ready_is_what_does_not_say_otherwise() {
        for (body, want) in [
            ("ok", Ok(())),
            ("", Ok(())),
            (r#"{"ready": true}"#, Ok(())),
            (r#"{"status": "ok"}"#, Ok(())),
            (r#"{"ready": false}"#, Err("\"ready\": false".into())),
            (r#"{"ready": "yes"}"#, Err("\"ready\": \"yes\"".into())),
        ] {
            assert_eq!(says_ready(body.as_bytes()), want, "{body}");
        }
    }
}
