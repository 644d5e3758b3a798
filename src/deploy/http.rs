//! A question to one color, bounded in time and bytes.

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

use crate::http_client::{Protocol, announce, grpc, send, wire};
use crate::proxy_protocol::Version;

/// Who asks, to the application.
const NAME: &str = "cutover-smoke";
/// A longer answer is none.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How an application is asked, which the scheme of its URL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http://` and `h2c://`: by GET.
    Get(Protocol),
    /// `grpc://`: by the health check of gRPC.
    Grpc,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Scheme::Get(Protocol::Http1) => "http",
            Scheme::Get(Protocol::H2c) => "h2c",
            Scheme::Grpc => "grpc",
        }
    }
}

/// Where an application is: `http://host:port`, perhaps with a path that every question begins with. With `grpc://` the
/// path is the name of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    scheme: Scheme,
    /// `host:port`, as it goes into `Host`.
    authority: String,
    /// A name or an IP address, IPv6 without brackets.
    host: String,
    port: u16,
    /// Empty, or begins with `/` and does not end with one.
    prefix: String,
    /// With what its connections begin.
    proxy_protocol: Option<Version>,
}

impl Base {
    /// The host: a name or an IP address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 80 where none was named.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same, on connections that begin with a header of the PROXY protocol.
    pub fn announced(self, proxy_protocol: Option<Version>) -> Self {
        Base { proxy_protocol, ..self }
    }

    /// How it is asked.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Asks for `path`, on a connection of its own, and reads the answer within `limit`.
    ///
    /// # Errors
    /// There was no whole answer; the sentence says what came instead.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<(StatusCode, Bytes), String> {
        let Scheme::Get(protocol) = self.scheme else { return Err("gRPC is not asked for paths".into()) };
        let request = Request::get(format!("{}{path}", self.prefix))
            .header(HOST, &self.authority)
            .header(USER_AGENT, NAME)
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        let exchange = async {
            send(wire(self.connect().await?, protocol), request, BODY_BYTES_MAX).await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    format!("the answer is longer than {} KiB", BODY_BYTES_MAX / 1024)
                } else {
                    format!("no HTTP answer: {error}")
                }
            })
        };
        within(limit, exchange).await
    }

    /// Asks whether the service that a `grpc://` URL names serves, within `limit`; without a name, the server as a
    /// whole.
    ///
    /// # Errors
    /// It does not; the sentence says what came instead.
    pub async fn check_grpc(&self, limit: Duration) -> Result<(), String> {
        let service = self.prefix.trim_start_matches('/');
        within(limit, async {
            let answer = grpc::check(self.connect().await?, &self.authority, NAME, service).await;
            answer.unwrap_or_else(|error| Err(format!("no HTTP/2 answer: {error}")))
        })
        .await
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let connect = async {
            let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            announce(&mut stream, self.proxy_protocol).await?;
            Ok(stream)
        };
        connect.await.map_err(|error: std::io::Error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => format!("no connection: {error}"),
        })
    }
}

async fn within<T>(limit: Duration, exchange: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.prefix)
    }
}

/// Why a text is no [`Base`].
#[derive(Debug, PartialEq, Eq)]
pub struct NotABase(&'static str);

impl fmt::Display for NotABase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; for example: http://127.0.0.1:8001", self.0)
    }
}

impl std::error::Error for NotABase {}

impl FromStr for Base {
    type Err = NotABase;

    fn from_str(text: &str) -> Result<Self, NotABase> {
        let uri: Uri = text.parse().map_err(|_| NotABase("this is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Get(Protocol::Http1),
            Some("h2c") => Scheme::Get(Protocol::H2c),
            Some("grpc") => Scheme::Grpc,
            Some(_) => {
                return Err(NotABase(
                    "only http://, h2c:// and grpc:// can be asked: a color itself, behind the proxy",
                ));
            }
            None => return Err(NotABase("the URL begins with http://")),
        };
        let authority = uri.authority().ok_or(NotABase("the URL names no host"))?;
        if authority.as_str().contains('@') {
            // It would end in the ledger.
            return Err(NotABase("the URL must not hold a user or a password"));
        }
        if uri.query().is_some() {
            return Err(NotABase("the URL must not have a query: /readyz and others are put behind it"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(NotABase("the URL names no host"));
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|&port| port > 0).ok_or(NotABase("the port is 1 to 65535"))?,
            None => 80,
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        if scheme == Scheme::Grpc && prefix.len() > 1 + grpc::SERVICE_BYTES_MAX {
            return Err(NotABase("the name of a gRPC service has at most 127 bytes"));
        }
        Ok(Base {
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
    use crate::deploy::http::*;

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
            let base: Base = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
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
            let error = text.parse::<Base>().expect_err(text).to_string();
            assert!(error.contains("http://127.0.0.1:8001") && !error.contains("secret"), "{text}: {error}");
        }
    }
}
