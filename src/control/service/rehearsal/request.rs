//! One copied request, asked of one upstream on a connection of its own.
//!
//! It asks for the whole answer, uncompressed, whatever the client asked for: ranges, conditions and encodings would
//! make the same answer look different. Everything else goes as it came, credentials included.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Address, Upstream};
use crate::control::service::probe;
use crate::control::service::rehearsal::compare::{Body, ColorResponse, Shape};
use crate::http_client::wire;

/// A longer body is not compared.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Header fields of a request, as the data plane has it.
const FIELDS_MAX: usize = 128;
/// Says to application and logs what this is.
const MARKER: HeaderName = HeaderName::from_static("x-cutover-rehearsal");

/// A request that can be asked again and again.
#[derive(Debug)]
pub(super) struct CopiedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// Why there is nothing to compare.
pub(super) struct Unreachable;

impl CopiedRequest {
    /// Reads a head as it went upstream. `None` for what only our own parser accepts.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut fields);
        parsed.parse(head).ok().filter(httparse::Status::is_complete)?;
        let mut headers = HeaderMap::new();
        for field in parsed.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            if !is_left_out(&name) {
                headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
            }
        }
        headers.insert(MARKER, HeaderValue::from_static("1"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let (method, uri) = (parsed.method?.parse().ok()?, parsed.path?.parse().ok()?);
        Some(CopiedRequest { method, uri, headers })
    }

    pub(super) fn method(&self) -> &str {
        self.method.as_str()
    }

    pub(super) fn target(&self) -> String {
        self.uri.path_and_query().map_or_else(|| "/".into(), ToString::to_string)
    }

    /// Asks `address`; `names` are the headers worth comparing. A connection that does not come about in
    /// `to.connect_timeout` is no answer, good or bad: the probes judge that.
    pub(super) async fn send(
        &self,
        address: &Address,
        names: &[String],
        to: &Upstream,
        limit: Duration,
    ) -> Result<ColorResponse, Unreachable> {
        let Ok(Ok(stream)) = timeout(to.connect_timeout, probe::connect(address, to.proxy_protocol)).await else {
            return Err(Unreachable);
        };
        let exchange = async {
            let mut request = hyper::Request::new(Empty::<Bytes>::new());
            (*request.method_mut(), *request.uri_mut()) = (self.method.clone(), self.uri.clone());
            *request.headers_mut() = self.headers.clone();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(wire(stream, to.protocol))).await?;
            let mut driver = JoinSet::new(); // ends with this exchange, however it ends
            driver.spawn(async move { drop(connection.await) });
            read(names, sender.send_request(request).await?).await
        };
        Ok(match timeout(limit, exchange).await {
            Err(_) => ColorResponse::Missing(format!("timed out after {limit:?}")),
            Ok(Err(_)) => ColorResponse::Missing("the connection broke".into()),
            Ok(Ok(answer)) => answer,
        })
    }
}

fn is_left_out(name: &HeaderName) -> bool {
    const LEFT_OUT: [HeaderName; 9] = [
        MARKER,
        header::CONNECTION,
        header::TE,
        header::UPGRADE,
        header::EXPECT,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::ACCEPT_ENCODING,
        header::RANGE,
    ];
    LEFT_OUT.contains(name) || name.as_str().starts_with("if-")
}

async fn read(names: &[String], answer: Response<hyper::body::Incoming>) -> Result<ColorResponse, hyper::Error> {
    let status = answer.status().as_u16();
    let value = |name: &String| {
        let values: Vec<_> = answer.headers().get_all(name.as_str()).iter().map(HeaderValue::as_bytes).collect();
        (!values.is_empty()).then(|| String::from_utf8_lossy(&values.join(&b", "[..])).into_owned())
    };
    let headers = names.iter().map(value).collect();
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.to_ascii_lowercase();
    let is_json = kind.contains("json") && !answer.headers().contains_key(header::CONTENT_ENCODING);
    if kind.starts_with("text/event-stream") {
        return Ok(ColorResponse::Whole { status, headers, body: Body::Stream });
    }
    let body = match Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await {
        Err(error) if error.is::<LengthLimitError>() => Body::Long,
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => return Err(*error),
            Err(_) => Body::Long,
        },
        Ok(body) => match body.to_bytes() {
            bytes if bytes.is_empty() => Body::Empty,
            // A large document is worth a thread: verdicts of other services wait for this one.
            bytes if is_json => tokio::task::spawn_blocking(move || of_json(&bytes)).await.unwrap_or(Body::Other),
            _ => Body::Other,
        },
    };
    Ok(ColorResponse::Whole { status, headers, body })
}

fn of_json(bytes: &[u8]) -> Body {
    serde_json::from_slice(bytes).map_or(Body::Other, |value| Body::Json(Shape::of(&value)))
}

#[cfg(test)]
mod tests {
    use crate::control::service::rehearsal::request::*;

    #[test]
    fn a_copy_asks_for_the_whole_answer_and_says_what_it_is() {
        let head = "GET /a/42?b=1 HTTP/1.1\r\nHost: app\r\nCookie: id=1\r\nRange: bytes=0-1\r\nAccept-Encoding: gzip\r\n\
                    If-None-Match: \"1\"\r\nConnection: te\r\nTE: trailers\r\nX-Cutover-Rehearsal: 0\r\nContent-Length: 0\r\n\r\n";
        let request = CopiedRequest::of(head.as_bytes()).unwrap();
        assert_eq!((request.method(), request.target().as_str()), ("GET", "/a/42?b=1"));
        let mut fields: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        fields.sort();
        assert_eq!(
            fields,
            ["connection: \"close\"", "cookie: \"id=1\"", "host: \"app\"", "x-cutover-rehearsal: \"1\""]
        );
        assert!(CopiedRequest::of(b"GET / HTTP/1.1\r\nHost: a\r\n").is_none());
    }
}
