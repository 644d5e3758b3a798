//! Accepting connections of the admin API, with limits on everything a client could hold.
//!
//! Runs on the control plane's thread, so nothing here may block it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::guard::{Door, Names, names};
use super::listen::Bound;
use super::patient::Patient;
use super::routes;
use crate::control::Handle;

/// Connections at once, of each door: strangers on the address must not keep the operator from the socket.
const CONNECTIONS_MAX: usize = 256;
/// How much of a connection is buffered in each direction.
const BUFFER_BYTES: usize = 64 * 1024;
/// After a failed accept (too many open files) it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For answers that are under way when the server is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// For a connection that was accepted just before a stop to ask what it came for.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// How long a client may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a request's head, and between requests on a kept connection.
    pub(super) head: Duration,
    /// For a whole body.
    pub(super) body: Duration,
    /// A write that waits longer for its reader ends the connection.
    pub(super) write: Duration,
}

const LIMITS: Limits =
    Limits { head: Duration::from_secs(10), body: Duration::from_secs(10), write: Duration::from_secs(10) };

/// What every request needs.
pub(super) struct Context {
    pub(super) handle: Handle,
    pub(super) token: Option<String>,
    pub(super) names: Names,
    pub(super) readers: Arc<Semaphore>,
    pub(super) limits: Limits,
    pub(super) stop: watch::Receiver<bool>,
}

/// Serves until `stop` is true (or its sender is gone), then gives answers under way 2 s.
///
/// At most 256 connections per door; one more is closed at once. Must run within a tokio runtime.
pub async fn serve(bound: Bound, token: Option<String>, handle: Handle, stop: watch::Receiver<bool>) {
    serve_within(LIMITS, bound, token, handle, stop).await;
}

/// As [`serve`], with other limits.
pub(super) async fn serve_within(
    limits: Limits,
    bound: Bound,
    token: Option<String>,
    handle: Handle,
    stop: watch::Receiver<bool>,
) {
    let Bound { tcp, address, socket, file: _file } = bound;
    let names = names(address, token.as_deref());
    let context = Arc::new(Context { handle, token, names, readers: Arc::new(routes::readers()), limits, stop });
    if let Err(error) = serve_doors(&context, address, tcp, socket).await {
        tracing::error!("admin: the runtime did not accept the listeners: {error}");
    }
}

async fn serve_doors(
    context: &Arc<Context>,
    address: SocketAddr,
    tcp: std::net::TcpListener,
    socket: Option<std::os::unix::net::UnixListener>,
) -> io::Result<()> {
    let tcp = accept_all(Arc::clone(context), Door::Tcp(address), TcpListener::from_std(tcp)?);
    match socket.map(UnixListener::from_std).transpose()? {
        None => tcp.await,
        Some(unix) => drop(tokio::join!(tcp, accept_all(Arc::clone(context), Door::Socket, unix))),
    }
    Ok(())
}

/// A bound listener of either kind.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

async fn accept_all(context: Arc<Context>, door: Door, listener: impl Accept) {
    let mut stop = context.stop.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(serve_connection(Arc::clone(&context), door, stream));
                }
                Ok(stream) => {
                    tracing::warn!("admin: {CONNECTIONS_MAX} connections are open, one more was closed");
                    drop(stream);
                }
                Err(error) => {
                    tracing::warn!("admin: a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let all_done = async { while connections.join_next().await.is_some() {} };
    // What is left after the limit is dropped, and with it closed.
    let _ = tokio::time::timeout(STOP_TIMEOUT, all_done).await;
}

async fn serve_connection<S>(context: Arc<Context>, door: Door, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stop = context.stop.clone();
    let asked = Notify::new();
    let service = service_fn(|request| {
        asked.notify_one();
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(routes::answer(&context, door, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.limits.head)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, context.limits.write)), service);
    let mut connection = pin!(connection);
    let stopped_and_asked = async {
        stopped(&mut stop).await;
        // One permit is left by the first request.
        let _ = tokio::time::timeout(FIRST_REQUEST, asked.notified()).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped_and_asked => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("admin: a connection ended early: {error}");
    }
}

/// Returns when the server is to stop. Cancel safe.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone stops us as well. The guard inside is dropped here: it must not live across an await.
    let _ = stop.wait_for(|stop| *stop).await;
}
