//! Accepts connections of the admin API, and limits everything that a client could hold.
//!
//! It runs on the control plane's thread, so nothing here may block.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::connections::{ConnectionTrust, OpenConnections, Trust};
use super::context::{AdminContext, AdminLimits, stopped};
use super::guard::{self, Endpoint, host_check};
use super::listen::Bound;
use super::routes;
use super::write_timeout::WriteTimeout;
use crate::control::Handle;

/// Limits the connections of each endpoint separately: strangers on the address must not keep the operator from the
/// socket.
const CONNECTIONS_MAX: usize = 256;
/// Limits how much of a connection is buffered in each direction.
const BUFFER_BYTES: usize = 64 * 1024;
/// The server waits this long after a failed accept (too many open files) before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Responses under way have this long to finish when the server is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that was accepted just before a stop has this long to send its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

const LIMITS: AdminLimits =
    AdminLimits { head: Duration::from_secs(10), body: Duration::from_secs(10), write: Duration::from_secs(10) };

/// Serves until `stop` is true (or its sender is gone), then gives responses under way 2 s to finish.
///
/// Each endpoint takes at most 256 connections. One more takes the place of the oldest that has sent no request, or not
/// shown the token; if all have, it is closed at once. Must run within a tokio runtime.
pub async fn serve(bound: Bound, token: Option<String>, handle: Handle, stop: watch::Receiver<bool>) {
    serve_within(LIMITS, bound, token, handle, stop).await;
}

/// Serves like [`serve`], with other limits.
pub(super) async fn serve_within(
    limits: AdminLimits,
    bound: Bound,
    token: Option<String>,
    handle: Handle,
    stop: watch::Receiver<bool>,
) {
    let Bound { tcp, address, socket, file: _file } = bound;
    let host_check = host_check(address, token.as_deref());
    let context =
        Arc::new(AdminContext { handle, token, host_check, readers: Arc::new(routes::readers()), limits, stop });
    if let Err(error) = serve_doors(&context, address, tcp, socket).await {
        tracing::error!("admin: the runtime did not accept the listeners: {error}");
    }
}

async fn serve_doors(
    context: &Arc<AdminContext>,
    address: SocketAddr,
    tcp: std::net::TcpListener,
    socket: Option<std::os::unix::net::UnixListener>,
) -> io::Result<()> {
    let tcp = accept_all(Arc::clone(context), Endpoint::Tcp(address), TcpListener::from_std(tcp)?);
    match socket.map(UnixListener::from_std).transpose()? {
        None => tcp.await,
        Some(unix) => drop(tokio::join!(tcp, accept_all(Arc::clone(context), Endpoint::Socket, unix))),
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

async fn accept_all(context: Arc<AdminContext>, endpoint: Endpoint, listener: impl Accept) {
    let mut stop = context.stop.clone();
    let mut connections = JoinSet::new();
    let has_token = matches!(endpoint, Endpoint::Tcp(_)) && context.token.is_some();
    let mut open = OpenConnections::new(CONNECTIONS_MAX, has_token);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) if open.make_room() => {
                    let trust = Arc::<ConnectionTrust>::default();
                    let served = serve_connection(Arc::clone(&context), endpoint, stream, Arc::clone(&trust));
                    open.add(trust, connections.spawn(served));
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
    // Connections that are left after the limit are dropped, which closes them.
    let _ = tokio::time::timeout(STOP_TIMEOUT, all_done).await;
}

async fn serve_connection<S>(context: Arc<AdminContext>, endpoint: Endpoint, stream: S, trust: Arc<ConnectionTrust>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stop = context.stop.clone();
    let asked = Notify::new();
    let service = service_fn(|request: Request<Incoming>| {
        asked.notify_one();
        let is_known = guard::check_token(endpoint, context.token.as_deref(), request.headers()).is_ok();
        trust.raise(if is_known { Trust::Known } else { Trust::Asked });
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(routes::answer(&context, endpoint, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.limits.head)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream, context.limits.write)), service);
    let mut connection = pin!(connection);
    let stopped_and_asked = async {
        stopped(&mut stop).await;
        // The first request leaves one permit.
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
