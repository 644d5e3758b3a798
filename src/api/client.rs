//! Implements the client of the admin API, with which the verbs talk to a running proxy.
//!
//! It opens one connection per request. It prefers the unix socket where its file exists, because that needs no token
//! and no port.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::api::{
    ChangeRequest, Changed, Drained, FreezeRequest, Frozen, Pass, Refusal, RehearsalReport, Reloaded, Status,
    ThawRequest, Thawed, Upgraded,
};
use crate::config;
use crate::http_client::send;

/// Limits the time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limits the time to a response that waits at most for a disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A new binary has this long to start, or to fail.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);
/// Limits the time to a response that waits for a drain; it is longer than any sensible drain timeout.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);
/// Limits the size of a response; the status of thousands of services fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The changes that can be asked of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Makes a color active.
    Flip,
    /// Returns to the color before this one.
    Rollback,
    /// Waits until the idle color holds no lease.
    Drain,
    /// Holds requests.
    Freeze,
    /// Releases held requests.
    Thaw,
}

impl Verb {
    /// Lists every verb.
    pub const ALL: [Verb; 5] = [Verb::Flip, Verb::Rollback, Verb::Drain, Verb::Freeze, Verb::Thaw];

    /// Returns the word in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Flip => "flip",
            Verb::Rollback => "rollback",
            Verb::Drain => "drain",
            Verb::Freeze => "freeze",
            Verb::Thaw => "thaw",
        }
    }
}

/// Says why a request to the API did not succeed.
#[derive(Debug)]
pub enum ClientError {
    /// There was no response: the connection failed, broke, or took too long.
    NoAnswer {
        /// The address that was asked.
        address: String,
        /// The error of the connection.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy refused, and nothing was changed.
    Refused(Refusal),
    /// The token is missing or wrong, or the address is not one that the API accepts.
    Denied(String),
    /// Something responded, but not in the way of this API.
    Strange {
        /// The address that was asked.
        address: String,
        /// Describes the response that came instead.
        what: String,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoAnswer { address, source } => {
                write!(f, "no answer from {address}: {source}; is `cutover serve` running?")
            }
            ClientError::Refused(refusal) => refusal.fmt(f),
            ClientError::Denied(message) => {
                write!(f, "{message}; does this config name the token_file that the proxy was started with?")
            }
            ClientError::Strange { address, what } => {
                write!(f, "{address} does not respond like a cutover: {what}; is something else listening there?")
            }
        }
    }
}

impl std::error::Error for ClientError {}

/// The address of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Tcp(SocketAddr),
    Socket(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Talks to the API of one proxy.
pub struct Client {
    address: Address,
    token: Option<String>,
}

impl Client {
    /// Creates a client of the proxy that runs (or would run) with this configuration. Does not connect yet.
    pub fn new(admin: &config::Admin) -> Self {
        let address = match &admin.socket {
            Some(path) if path.exists() => Address::Socket(path.clone()),
            Some(_) | None => Address::Tcp(reachable(admin.listen)),
        };
        Client { address, token: admin.token.clone() }
    }

    /// Returns the body of `GET /v1/status`.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within 15 s.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status", Vec::new(), None, ANSWER_TIMEOUT).await
    }

    /// Flips `service`; with `if_epoch`, only if that is still its epoch.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within 15 s, or an hour where the response waits for a drain.
    pub async fn flip(
        &self,
        service: &str,
        request: &ChangeRequest,
        if_epoch: Option<u64>,
    ) -> Result<Changed, ClientError> {
        self.change(service, Verb::Flip, request, if_epoch).await
    }

    /// Rolls `service` back; with `if_epoch`, only if that is still its epoch.
    ///
    /// # Errors
    /// Fails like [`Client::flip`].
    pub async fn rollback(
        &self,
        service: &str,
        request: &ChangeRequest,
        if_epoch: Option<u64>,
    ) -> Result<Changed, ClientError> {
        self.change(service, Verb::Rollback, request, if_epoch).await
    }

    /// Waits until the idle color of `service` holds no lease.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within an hour.
    pub async fn drain(&self, service: &str) -> Result<Drained, ClientError> {
        let path = format!("/v1/services/{service}/{}", Verb::Drain.as_str());
        self.ask(Method::POST, &path, Vec::new(), None, DRAIN_TIMEOUT).await
    }

    /// Holds requests of `service`.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within 15 s beyond `freeze.finish`, which the proxy observes.
    pub async fn freeze(&self, service: &str, request: &FreezeRequest) -> Result<Frozen, ClientError> {
        let limit = if request.wait == Some(false) { ANSWER_TIMEOUT } else { DRAIN_TIMEOUT };
        self.post(service, Verb::Freeze, request, limit).await
    }

    /// Releases the held requests of `service`.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within 15 s.
    pub async fn thaw(&self, service: &str, request: &ThawRequest) -> Result<Thawed, ClientError> {
        self.post(service, Verb::Thaw, request, ANSWER_TIMEOUT).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        service: &str,
        verb: Verb,
        request: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(request).expect("our own types have a JSON form");
        let path = format!("/v1/services/{service}/{}", verb.as_str());
        self.ask(Method::POST, &path, body, None, limit).await
    }

    /// Returns the report of the rehearsal of the idle color of `service`.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within 15 s.
    pub async fn rehearsal(&self, service: &str) -> Result<RehearsalReport, ClientError> {
        let path = format!("/v1/services/{service}/rehearsal");
        self.ask(Method::GET, &path, Vec::new(), None, ANSWER_TIMEOUT).await
    }

    /// Creates a pass to the idle color of `service`, for whole seconds; `by` goes into the proxy's log.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within 15 s.
    pub async fn preview(&self, service: &str, lasting: Duration, by: &str) -> Result<Pass, ClientError> {
        let body = serde_json::json!({ "for_seconds": lasting.as_secs(), "by": by }).to_string().into_bytes();
        self.ask(Method::POST, &format!("/v1/services/{service}/preview"), body, None, ANSWER_TIMEOUT).await
    }

    /// Makes the proxy read its config again; `by` goes into its log.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within 15 s.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, ClientError> {
        let body = serde_json::json!({ "by": by }).to_string().into_bytes();
        self.ask(Method::POST, "/v1/reload", body, None, ANSWER_TIMEOUT).await
    }

    /// Makes the proxy start its binary anew and hand everything over to it; `by` goes into the ledger.
    ///
    /// # Errors
    /// Returns [`ClientError`]; within 60 s.
    pub async fn upgrade(&self, by: &str) -> Result<Upgraded, ClientError> {
        let body = serde_json::json!({ "by": by }).to_string().into_bytes();
        self.ask(Method::POST, "/v1/upgrade", body, None, UPGRADE_TIMEOUT).await
    }

    async fn change(
        &self,
        service: &str,
        verb: Verb,
        request: &ChangeRequest,
        if_epoch: Option<u64>,
    ) -> Result<Changed, ClientError> {
        let limit = if request.wait == Some(false) { ANSWER_TIMEOUT } else { DRAIN_TIMEOUT };
        let body = serde_json::to_vec(request).expect("our own types have a JSON form");
        self.ask(Method::POST, &format!("/v1/services/{service}/{}", verb.as_str()), body, if_epoch, limit).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        if_epoch: Option<u64>,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let host = match &self.address {
            Address::Tcp(address) => address.to_string(),
            Address::Socket(_) => "localhost".into(),
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(epoch) = if_epoch {
            request = request.header(IF_MATCH, format!("\"{epoch}\""));
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::from(body));
        let request = request.map_err(|error| self.no_answer(format!("this request cannot be made: {error}")))?;
        let (status, body) = self.exchange(request, limit).await.map_err(|source| self.no_answer(source))?;
        self.understand(status, &body)
    }

    fn no_answer(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::NoAnswer { address: self.address.to_string(), source: source.into() }
    }

    fn understand<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        #[derive(Deserialize)]
        struct RefusalBody {
            error: Refusal,
        }
        #[derive(Deserialize)]
        struct ErrorBody {
            error: ErrorText,
        }
        #[derive(Deserialize)]
        struct ErrorText {
            message: String,
        }
        let strange = |what| ClientError::Strange { address: self.address.to_string(), what };
        if status.is_success() {
            return serde_json::from_slice(body).map_err(|error| strange(error.to_string()));
        }
        if let Ok(RefusalBody { error }) = serde_json::from_slice(body) {
            return Err(ClientError::Refused(error));
        }
        let message = serde_json::from_slice(body).map(|ErrorBody { error: ErrorText { message } }| message);
        Err(match (status, message) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Ok(message)) => ClientError::Denied(message),
            (_, Ok(message)) => strange(format!("{status}: {message}")),
            (_, Err(_)) => strange(status.to_string()),
        })
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        match &self.address {
            Address::Tcp(address) => {
                let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| too_slow())??;
                timeout(limit, send(stream, request, ANSWER_BYTES_MAX)).await.map_err(|_| too_slow())?
            }
            Address::Socket(path) => {
                let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await.map_err(|_| too_slow())??;
                timeout(limit, send(stream, request, ANSWER_BYTES_MAX)).await.map_err(|_| too_slow())?
            }
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it took too long")
}

/// Returns the address to connect to for a listen address, because a client cannot connect to "every address".
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
