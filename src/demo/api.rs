//! Sends the two requests of the story to the admin API, over HTTP like any other client.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stage::{SERVICE, Trouble};
use crate::api::{ChangeRequest, Changed, Refusal, Status};
use crate::domain::Color;
use crate::http_client::send;

/// This is longer than a drain may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// This is more than any status of one service.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Says whether the response to a flip waits until the old color is drained.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// The response waits for the drain.
    UntilDrained,
    /// The response comes as soon as traffic goes to the new color.
    No,
}

/// Sends `GET /v1/status`.
///
/// # Errors
/// [`Trouble::Admin`] when there is no such response.
pub async fn status(admin: SocketAddr) -> Result<Status, Trouble> {
    let asked = "tell its status";
    let (_, body) = ask(asked, admin, "GET", "/v1/status", Bytes::new()).await?;
    parse(asked, &body)
}

/// Sends `POST /v1/services/demo/flip`; the inner result tells whether the proxy accepted it.
///
/// # Errors
/// [`Trouble::Admin`] when the proxy neither accepted nor refused.
pub async fn flip(admin: SocketAddr, to: Color, wait: Wait) -> Result<Result<Changed, Refusal>, Trouble> {
    #[derive(Deserialize)]
    struct RefusalBody {
        error: Refusal,
    }
    let asked = "answer a flip";
    let wait = Some(matches!(wait, Wait::UntilDrained));
    let change = ChangeRequest { to: Some(to), wait, by: Some("demo".into()), ..ChangeRequest::default() };
    let body = serde_json::to_vec(&change).expect("words and flags have a JSON form");
    let path = format!("/v1/services/{SERVICE}/flip");
    match ask(asked, admin, "POST", &path, body.into()).await? {
        (200, body) => Ok(Ok(parse(asked, &body)?)),
        (_, body) => Ok(Err(parse::<RefusalBody>(asked, &body)?.error)),
    }
}

fn parse<T: DeserializeOwned>(asked: &'static str, body: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(body)
        .map_err(|error| Trouble::Admin(asked, format!("{error} in {}", String::from_utf8_lossy(body))))
}

async fn ask(
    asked: &'static str,
    admin: SocketAddr,
    method: &str,
    path: &str,
    body: Bytes,
) -> Result<(u16, Bytes), Trouble> {
    let answer = timeout(PATIENCE, async {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, admin.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let (status, body) = send(TcpStream::connect(admin).await?, request, ANSWER_BYTES_MAX).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status.as_u16(), body))
    });
    match answer.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble::Admin(asked, error.to_string())),
        Err(_) => Err(Trouble::Admin(asked, format!("no response within {PATIENCE:?}"))),
    }
}
