//! Probes of the upstreams: one task each, for ever, for both colors.
//!
//! Ready is a 200 whose body, where it is JSON with a `ready` field, says `true`. Each probe is a fresh connection: it
//! asks what a new connection would meet. With grpc, ready is what grpc.health.v1 says. It only reports; what `rise`
//! and `fall` make of it is `domain::health`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::{Address, Check, Health};
use crate::domain::health::ProbeOutcome;
use crate::http_client::{Wire, announce, grpc, says_ready, wire};
use crate::os::resource_shortage::is_local_shortage;
use crate::proxy_protocol::Version;

/// The `User-Agent` of a probe.
const NAME: &str = "cutover-probe";
/// A longer response is not read to its end, and means that the upstream is not ready.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a probe of one upstream found.
pub(in crate::control) struct ProbeReport {
    pub(in crate::control) service: Arc<str>,
    /// The upstream's [`crate::routing::Upstream::id`].
    pub(in crate::control) upstream: usize,
    pub(in crate::control) outcome: ProbeOutcome,
}

/// Probes one upstream until it is dropped.
pub(in crate::control) struct Prober(AbortHandle);

impl Drop for Prober {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Prober {
    /// The first probe begins after `delay`, the others `health.interval` apart, later while one is still running.
    pub(in crate::control) fn start(
        service: Arc<str>,
        upstream: usize,
        address: Address,
        health: Health,
        delay: Duration,
        reports: mpsc::Sender<ProbeReport>,
    ) -> Self {
        let task = tokio::spawn(async move {
            let mut timer = tokio::time::interval_at(Instant::now() + delay, health.interval);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                timer.tick().await;
                let outcome = probe(&address, &health).await;
                if reports.send(ProbeReport { service: Arc::clone(&service), upstream, outcome }).await.is_err() {
                    return;
                }
            }
        });
        Prober(task.abort_handle())
    }
}

/// Probes one upstream once.
pub(in crate::control) async fn probe(address: &Address, health: &Health) -> ProbeOutcome {
    match tokio::time::timeout(health.timeout, ask(address, health)).await {
        Ok(probe) => probe,
        Err(_) => ProbeOutcome::Failed(format!("timed out after {:?}", health.timeout)),
    }
}

async fn ask(address: &Address, health: &Health) -> ProbeOutcome {
    let stream = match connect(address, health.proxy_protocol).await {
        Ok(stream) => stream,
        Err(error) => return of_connect_error(&error),
    };
    match &health.check {
        Check::Http(protocol) => get(wire(stream, *protocol), address, &health.path).await,
        Check::Grpc(service) => match grpc::check(stream, &address.to_string(), NAME, service).await {
            Ok(Ok(())) => ProbeOutcome::Ready,
            Ok(Err(why)) => ProbeOutcome::Failed(why),
            Err(error) => ProbeOutcome::Failed(format!("no HTTP/2 response: {error}")),
        },
    }
}

async fn get(stream: Box<dyn Wire>, address: &Address, path: &str) -> ProbeOutcome {
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, NAME)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else { return ProbeOutcome::Failed(format!("health.path {path:?} is not a path")) };
    let broken = |error: hyper::Error| ProbeOutcome::Failed(format!("no HTTP response: {error}"));
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(ends) => ends,
        Err(error) => return broken(error),
    };
    let mut driver = JoinSet::new(); // ends with this probe, however it ends
    driver.spawn(async move { drop(connection.await) });
    let answer = match sender.send_request(request).await {
        Ok(answer) => answer,
        Err(error) => return broken(error),
    };
    if answer.status() != StatusCode::OK {
        return ProbeOutcome::Failed(answer.status().as_u16().to_string());
    }
    match Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => says_ready(&body.to_bytes()).map_or_else(ProbeOutcome::Failed, |()| ProbeOutcome::Ready),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            ProbeOutcome::Failed(format!("the response is longer than {} KiB", BODY_BYTES_MAX / 1024))
        }
        Err(error) => ProbeOutcome::Failed(format!("the response broke off: {error}")),
    }
}

/// A connection of our own to `address`, which says so where it has to.
pub(in crate::control) async fn connect(address: &Address, proxy_protocol: Option<Version>) -> io::Result<TcpStream> {
    let mut stream = match address.socket() {
        Some(socket) => TcpStream::connect(socket).await?,
        None => TcpStream::connect((address.host.as_str(), address.port)).await?,
    };
    announce(&mut stream, proxy_protocol).await?;
    Ok(stream)
}

fn of_connect_error(error: &io::Error) -> ProbeOutcome {
    if is_local_shortage(error) {
        return ProbeOutcome::Missing(format!("could not be probed: {error}"));
    }
    ProbeOutcome::Failed(match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route to it".into(),
        _ => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use crate::config::Protocol;
    use crate::control::service::probe::*;

    async fn probe(address: &Address, path: &str, timeout: Duration) -> ProbeOutcome {
        let health = Health {
            path: path.into(),
            check: Check::Http(Protocol::Http1),
            proxy_protocol: None,
            interval: timeout,
            timeout,
            rise: 1,
            fall: 1,
        };
        crate::control::service::probe::probe(address, &health).await
    }

    /// An upstream that reads a head, answers `raw` to each connection, and closes.
    async fn upstream(raw: Vec<u8>) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
                let text = String::from_utf8(head).unwrap().to_lowercase();
                assert!(text.starts_with("get /readyz http/1.1\r\n") && text.contains("user-agent: cutover-probe\r\n"));
                assert!(text.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{text}");
                if raw.is_empty() {
                    std::future::pending::<()>().await;
                }
                drop(stream.write_all(&raw).await);
            }
        });
        Address { host: "127.0.0.1".into(), port }
    }

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
    }

    #[tokio::test]
    async fn says_why_an_upstream_is_not_ready() {
        let failed = |why: &str| ProbeOutcome::Failed(why.into());
        for (case, raw, want) in [
            ("plain text", answer("200 OK", "ok"), ProbeOutcome::Ready),
            ("no body", answer("200 OK", ""), ProbeOutcome::Ready),
            ("JSON that says so", answer("200 OK", r#"{"ready": true}"#), ProbeOutcome::Ready),
            ("JSON that does not speak of it", answer("200 OK", r#"{"status":"ok"}"#), ProbeOutcome::Ready),
            ("not yet", answer("200 OK", r#"{"ready":false}"#), failed("\"ready\": false")),
            ("not a bool", answer("200 OK", r#"{"ready":"yes"}"#), failed("\"ready\": \"yes\"")),
            ("unavailable", answer("503 Service Unavailable", ""), failed("503")),
            ("a redirect is not ready", answer("302 ProbeReport", ""), failed("302")),
            ("204 is not 200", answer("204 No Content", ""), failed("204")),
            ("too long", answer("200 OK", &"x".repeat(70_000)), failed("the response is longer than 64 KiB")),
            ("silent", Vec::new(), failed("timed out after 300ms")),
        ] {
            let address = upstream(raw).await;
            assert_eq!(probe(&address, "/readyz", Duration::from_millis(300)).await, want, "{case}");
        }
    }

    #[tokio::test]
    async fn says_what_is_broken() {
        let limit = Duration::from_secs(2);
        let garbage = upstream(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).await;
        assert!(
            matches!(probe(&garbage, "/readyz", limit).await, ProbeOutcome::Failed(why) if why.starts_with("no HTTP response"))
        );
        let torn = upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()).await;
        assert!(
            matches!(probe(&torn, "/readyz", limit).await, ProbeOutcome::Failed(why) if why.starts_with("the response broke off"))
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = Address { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        drop(listener);
        assert_eq!(probe(&nobody, "/readyz", limit).await, ProbeOutcome::Failed("connection refused".into()));
    }

    #[test]
    fn a_shortage_of_our_own_is_missing_data() {
        assert!(matches!(of_connect_error(&io::Error::from_raw_os_error(libc::EMFILE)), ProbeOutcome::Missing(_)));
        assert!(matches!(of_connect_error(&io::Error::from_raw_os_error(libc::EHOSTUNREACH)), ProbeOutcome::Failed(_)));
    }
}
