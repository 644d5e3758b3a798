//! Runs the sample app: it stands for a team's application, with a release number and perhaps a fault.
//!
//! Each running app has its own thread and runtime, so that stopping it is as abrupt as a container's end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

/// Each response of the app takes this long, so that requests are in flight whenever a flip comes. Probes are
/// immediate.
pub const WORK: Duration = Duration::from_millis(10);

/// The header tells a user of the app which release responded, such as `2`.
pub const RELEASE_HEADER: HeaderName = HeaderName::from_static("x-release");

/// A larger body of an order is refused with 413.
const ORDER_BYTES_MAX: usize = 64 * 1024;

/// The release that runs in a color.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The number is 1 for v1, and so on.
    pub number: u8,
    /// Says how well the release works.
    pub quality: Quality,
}

/// Says how well a release works.
#[derive(Clone, Copy, Debug)]
pub enum Quality {
    /// Every request succeeds.
    Good,
    /// The release reports itself ready, but this share of requests, 0.0 to 1.0, gets 500.
    Bad {
        /// The outcome is drawn anew for each request.
        share_of_500: f64,
    },
}

/// A running app; it stops when dropped.
pub struct App {
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl App {
    /// Starts `release` on `address`.
    ///
    /// # Errors
    /// Fails when the address cannot be listened on, or no thread or runtime is available.
    pub fn start(release: Release, address: SocketAddr) -> io::Result<App> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("demo-app-v{}", release.number)).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = serve(release, listener) => {}
                }
            });
        })?;
        Ok(App { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for App {
    /// Ends the app like a killed process: the port and every connection are closed when this returns.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(release: Release, listener: std::net::TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("the listener is non-blocking, in a runtime");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // The process is most likely out of descriptors, so other connections must close first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = hyper::service::service_fn(move |request| answer(release, request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn answer(release: Release, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let n = release.number;
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/readyz") => (StatusCode::OK, JSON, r#"{"ready":true}"#.into()),
        (&Method::GET, "/healthz") => (StatusCode::OK, JSON, r#"{"ok":true}"#.into()),
        (&Method::GET, "/version") => (StatusCode::OK, JSON, format!(r#"{{"service":"demo","version":"v{n}"}}"#)),
        (&Method::GET, "/") => work(release, StatusCode::OK, HTML, page(n)).await,
        (&Method::POST, "/orders") => match Limited::new(request.into_body(), ORDER_BYTES_MAX).collect().await {
            Ok(order) => {
                let receipt = format!(r#"{{"received_bytes":{}}}"#, order.to_bytes().len());
                work(release, StatusCode::CREATED, JSON, receipt).await
            }
            Err(_) => (StatusCode::PAYLOAD_TOO_LARGE, TEXT, "the order is too large\n".into()),
        },
        _ => (StatusCode::NOT_FOUND, TEXT, "there is no such page\n".into()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response.headers_mut().insert(RELEASE_HEADER, u16::from(n).into());
    Ok(response)
}

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Waits for the work time, and fails for a share of the requests.
async fn work(
    release: Release,
    status: StatusCode,
    kind: &'static str,
    body: String,
) -> (StatusCode, &'static str, String) {
    tokio::time::sleep(WORK).await;
    match release.quality {
        Quality::Bad { share_of_500 } if fastrand::f64() < share_of_500 => {
            (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("v{} has a bug here\n", release.number))
        }
        Quality::Good | Quality::Bad { .. } => (status, kind, body),
    }
}

fn page(number: u8) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>demo v{number}</title>\n\
         <body style=\"font-family: system-ui; margin: 4rem\">\n<h1>Hello from v{number}</h1>\n\
         <p>Reload after a flip: the number changes, the address does not.</p>\n"
    )
}
