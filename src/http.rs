//! One HTTP/1.1 exchange over a connection that is already there, for our own clients.
//!
//! The proxy's exchange is another one (`proxy::exchange`): it streams. This one holds a whole answer, up to a limit.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends `request` and reads the answer to its end. It sets no limit in time; drop it when it takes too long.
///
/// # Errors
/// The other side broke off, does not speak HTTP, or its body is longer than `body_bytes_max`.
pub async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), body_bytes_max).collect().await?;
        Ok((status, body.to_bytes()))
    };
    let connection = async {
        // Its errors are heard by the exchange as well, which is the one to tell them.
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = exchange => answer,
        () = connection => unreachable!("a future that is pending for ever does not end"),
    }
}
