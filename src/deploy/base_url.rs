//! Probes one color directly, behind the proxy, bounded in time and bytes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::http::uri::Uri;
use hyper::{Request, StatusCode};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http_client::{self, Protocol, announce, grpc, send, wire};
use crate::proxy_protocol::Version;

/// The user agent that the application sees.
const NAME: &str = "cutover-smoke";
/// A longer response counts as none.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The protocol of a probe, chosen by the scheme of the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeScheme {
    /// `http://` and `h2c://` send a GET.
    Get(Protocol),
    /// `grpc://` calls gRPC's health check.
    Grpc,
}

impl ProbeScheme {
    fn as_str(self) -> &'static str {
        match self {
            ProbeScheme::Get(Protocol::Http1) => "http",
            ProbeScheme::Get(Protocol::H2c) => "h2c",
            ProbeScheme::Grpc => "grpc",
        }
    }
}

/// Locates an application: `http://host:port`, optionally with a path that prefixes every request. In a `grpc://` URL
/// the path is the name of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: ProbeScheme,
    /// `host:port`, as the `Host` field has it.
    authority: String,
    /// A name or an IP address, IPv6 without brackets.
    host: String,
    port: u16,
    /// Empty, or begins with `/` and does not end with one.
    prefix: String,
    /// The version of the PROXY header that its connections begin with.
    proxy_protocol: Option<Version>,
}

impl BaseUrl {
    /// Returns the host: a name or an IP address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, 80 by default.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes every connection begin with a PROXY header.
    pub fn announced(self, proxy_protocol: Option<Version>) -> Self {
        BaseUrl { proxy_protocol, ..self }
    }

    /// Returns the protocol of its probes.
    pub fn scheme(&self) -> ProbeScheme {
        self.scheme
    }

    /// Sends a GET for `path` on a connection of its own, and reads the whole response within `limit`.
    ///
    /// # Errors
    /// [`ProbeError`]; any status is a response, and no error.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<(StatusCode, Bytes), ProbeError> {
        let ProbeScheme::Get(protocol) = self.scheme else { return Err(ProbeError::GrpcHasNoPaths) };
        let request = Request::get(format!("{}{path}", self.prefix))
            .header(HOST, &self.authority)
            .header(USER_AGENT, NAME)
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .body(Full::default())
            .map_err(|error| ProbeError::Http(error.into()))?;
        let exchange = async {
            send(wire(self.connect().await?, protocol), request, BODY_BYTES_MAX).await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    ProbeError::TooLong
                } else {
                    ProbeError::Http(error)
                }
            })
        };
        within(limit, exchange).await
    }

    /// Calls gRPC's health check of the service that the URL names, or of the server as a whole, within `limit`.
    ///
    /// # Errors
    /// [`ProbeError`], with [`ProbeError::NotServing`] where the check says so.
    pub async fn check_grpc(&self, limit: Duration) -> Result<(), ProbeError> {
        let service = self.prefix.trim_start_matches('/');
        within(limit, async {
            let checked = grpc::check(self.connect().await?, &self.authority, NAME, service).await;
            checked.map_err(ProbeError::Http2)?.map_err(ProbeError::NotServing)
        })
        .await
    }

    async fn connect(&self) -> Result<TcpStream, ProbeError> {
        let connect = async {
            let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            announce(&mut stream, self.proxy_protocol).await?;
            Ok(stream)
        };
        connect.await.map_err(ProbeError::Connect)
    }
}

async fn within<T>(limit: Duration, exchange: impl Future<Output = Result<T, ProbeError>>) -> Result<T, ProbeError> {
    timeout(limit, exchange).await.unwrap_or(Err(ProbeError::Timeout(limit)))
}

/// Explains why a probe got no usable response.
#[derive(Debug)]
pub enum ProbeError {
    /// There was no connection.
    Connect(std::io::Error),
    /// The response was not complete in time.
    Timeout(Duration),
    /// The response is longer than 64 KiB.
    TooLong,
    /// The peer broke off or does not speak HTTP/1.1.
    Http(http_client::Failure),
    /// The peer broke off or does not speak HTTP/2.
    Http2(http_client::Failure),
    /// gRPC's health check says that the service does not serve.
    NotServing(String),
    /// A `grpc://` URL has no paths to get.
    GrpcHasNoPaths,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeError::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                f.write_str("connection refused")
            }
            ProbeError::Connect(error) => write!(f, "no connection: {error}"),
            ProbeError::Timeout(limit) => write!(f, "no response within {limit:?}"),
            ProbeError::TooLong => write!(f, "the response is longer than {} KiB", BODY_BYTES_MAX / 1024),
            ProbeError::Http(error) => write!(f, "no HTTP response: {error}"),
            ProbeError::Http2(error) => write!(f, "no HTTP/2 response: {error}"),
            ProbeError::NotServing(why) => f.write_str(why),
            ProbeError::GrpcHasNoPaths => f.write_str("a gRPC server has no paths"),
        }
    }
}

impl std::error::Error for ProbeError {}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.prefix)
    }
}

/// Explains why a text is no [`BaseUrl`].
#[derive(Debug, PartialEq, Eq)]
pub struct BaseUrlError(&'static str);

impl fmt::Display for BaseUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; for example: http://127.0.0.1:8001", self.0)
    }
}

impl std::error::Error for BaseUrlError {}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let uri: Uri = text.parse().map_err(|_| BaseUrlError("this is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => ProbeScheme::Get(Protocol::Http1),
            Some("h2c") => ProbeScheme::Get(Protocol::H2c),
            Some("grpc") => ProbeScheme::Grpc,
            Some(_) => {
                return Err(BaseUrlError(
                    "it must be http://, h2c:// or grpc://, and name a color itself, behind the proxy",
                ));
            }
            None => return Err(BaseUrlError("the URL must begin with http://")),
        };
        let authority = uri.authority().ok_or(BaseUrlError("the URL names no host"))?;
        if authority.as_str().contains('@') {
            // The URL is written to the ledger, where no password may stand.
            return Err(BaseUrlError("the URL must not have a user or a password"));
        }
        if uri.query().is_some() {
            return Err(BaseUrlError("the URL must not have a query: /readyz and other paths are appended to it"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(BaseUrlError("the URL names no host"));
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => {
                port.parse().ok().filter(|&port| port > 0).ok_or(BaseUrlError("the port must be from 1 to 65535"))?
            }
            None => 80,
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        if scheme == ProbeScheme::Grpc && prefix.len() > 1 + grpc::SERVICE_BYTES_MAX {
            return Err(BaseUrlError("the name of a gRPC service has at most 127 bytes"));
        }
        Ok(BaseUrl {
            scheme,
            authority: authority.as_str().to_owned(),
            host: host.to_owned(),
            port,
            prefix,
            proxy_protocol: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::deploy::base_url::*;

    #[test]
    fn a_base_is_read_from_what_people_type() {
        for (text, host, port, shown) in [
            ("http://127.0.0.1:8001", "127.0.0.1", 8001, "http://127.0.0.1:8001"),
            ("http://127.0.0.1:8001/", "127.0.0.1", 8001, "http://127.0.0.1:8001"),
            ("http://green.example", "green.example", 80, "http://green.example"),
            ("http://[::1]:8001/app/", "::1", 8001, "http://[::1]:8001/app"),
            ("h2c://127.0.0.1:8001", "127.0.0.1", 8001, "h2c://127.0.0.1:8001"),
            ("grpc://127.0.0.1:8001/a.Greeter", "127.0.0.1", 8001, "grpc://127.0.0.1:8001/a.Greeter"),
        ] {
            let base: BaseUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((base.host(), base.port(), &*base.to_string()), (host, port, shown), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_an_example() {
        for text in [
            "",
            "127.0.0.1:8001",
            "/readyz",
            "https://127.0.0.1:8001",
            "http://ann:secret@127.0.0.1:8001",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:8001/?a=b",
            "http://:8001",
        ] {
            let error = text.parse::<BaseUrl>().expect_err(text).to_string();
            assert!(error.contains("http://127.0.0.1:8001") && !error.contains("secret"), "{text}: {error}");
        }
    }
}
