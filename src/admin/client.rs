//! The CLI's way to the admin API: one request on one connection, over the unix socket where there is one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use super::address_of;
use crate::config;
use crate::status::Refusal;

/// For the connection; an answer may take as long as a drain.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the API is, and what it wants to see.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    token: Option<String>,
}

#[derive(Clone, Debug)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => write!(f, "http://{address}"),
            Target::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why there is no result.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answered at the admin address.
    NoAnswer {
        /// The address or socket.
        at: String,
        /// What the system said.
        why: String,
    },
    /// The proxy said no.
    Refused(Refusal),
    /// It answered something this version does not understand.
    NotUnderstood {
        /// The status of the answer.
        status: StatusCode,
        /// What it said.
        body: String,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoAnswer { at, why } => {
                write!(
                    f,
                    "no answer from the proxy's admin address {at}: {why}; is `cutover serve` running with this config?"
                )
            }
            ClientError::Refused(refusal) => refusal.fmt(f),
            ClientError::NotUnderstood { status, body } => {
                write!(f, "the admin API answered {status}: {}", body.trim())
            }
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// The exit code of the verb that asked.
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::NoAnswer { .. } => 6,
            ClientError::Refused(refusal) => refusal.code.exit_code(),
            ClientError::NotUnderstood { .. } => 1,
        }
    }
}

impl Client {
    /// The client for a config: its socket where that exists, else its address.
    pub fn new(config: &config::Admin) -> Self {
        let target = match &config.socket {
            Some(path) if path.exists() => Target::Unix(path.clone()),
            Some(_) | None => Target::Tcp(address_of(config)),
        };
        Client { target, token: config.token.clone() }
    }

    /// Reads.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, Bytes::new(), None).await
    }

    /// Changes; `if_epoch` refuses it when another epoch is in force.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        if_epoch: Option<u64>,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.send(Method::POST, path, body.into(), if_epoch).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        if_epoch: Option<u64>,
    ) -> Result<T, ClientError> {
        let (status, body) = self
            .exchange(method, path, body, if_epoch)
            .await
            .map_err(|why| ClientError::NoAnswer { at: self.target.to_string(), why: why.to_string() })?;
        if status.is_success()
            && let Ok(value) = serde_json::from_slice(&body)
        {
            return Ok(value);
        }
        #[derive(serde::Deserialize)]
        struct Error {
            error: Refusal,
        }
        Err(match serde_json::from_slice::<Error>(&body) {
            Ok(Error { error }) => ClientError::Refused(error),
            Err(_) => ClientError::NotUnderstood { status, body: String::from_utf8_lossy(&body).into_owned() },
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        if_epoch: Option<u64>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "timed out");
        let (host, stream): (String, Box<dyn Stream>) = match &self.target {
            Target::Tcp(address) => {
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(address)).await;
                (address.to_string(), Box::new(stream.map_err(timed_out)??))
            }
            Target::Unix(path) => {
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::UnixStream::connect(path)).await;
                ("localhost".into(), Box::new(stream.map_err(timed_out)??))
            }
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(epoch) = if_epoch {
            request = request.header(IF_MATCH, format!("\"{epoch}\""));
        }
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
