//! The admin API, `/metrics` and the dashboard: over TCP, and over a unix socket.
//!
//! It runs on the control plane's thread and speaks to it through [`Handle`] only; nothing here is on a request's way.

mod api;
pub mod client;
mod guard;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

use crate::config;
use crate::control::Handle;
use api::Api;

/// Connections served at once; further ones wait.
const CONNECTIONS_MAX: usize = 256;

/// For a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The bound listeners.
pub struct Bound {
    tcp: TcpListener,
    unix: Option<(UnixListener, PathBuf)>,
}

/// Binds both listeners.
///
/// # Errors
/// An address or a path is taken or not ours; the text names it.
pub fn bind(config: &config::Admin) -> io::Result<Bound> {
    let named = |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let tcp = TcpListener::bind(config.listen).map_err(named(format!("admin.listen {}", config.listen)))?;
    tcp.set_nonblocking(true)?;
    let unix = match &config.socket {
        None => None,
        Some(path) => {
            let listener = bind_unix(path).map_err(named(format!("admin.socket {}", path.display())))?;
            Some((listener, path.clone()))
        }
    };
    Ok(Bound { tcp, unix })
}

/// A socket file that nobody listens on is left over from a crash and replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        std::fs::remove_file(path)?;
    }
    // Made under another name and moved into place when its mode is right: nobody can connect in between.
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&hidden, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `stopped`. The unix socket's file goes away with it.
pub async fn serve(bound: Bound, token: Option<String>, handle: Handle, stopped: watch::Receiver<bool>) {
    let listen = bound.tcp.local_addr().ok();
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let token = token.map(Arc::from);
    let over_tcp = accept_tcp(bound.tcp, Api { handle: handle.clone(), token, listen }, Arc::clone(&seats));
    // Whoever may open the socket's file may do everything.
    let over_unix = accept_unix(bound.unix, Api { handle, token: None, listen: None }, seats);
    let mut stopped = stopped;
    tokio::select! {
        result = over_tcp => tracing::error!(?result, "the admin listener ended"),
        result = over_unix => tracing::error!(?result, "the admin socket ended"),
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

async fn accept_tcp(listener: TcpListener, api: Api, seats: Arc<Semaphore>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, api.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(seat);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn accept_unix(bound: Option<(UnixListener, PathBuf)>, api: Api, seats: Arc<Semaphore>) -> io::Result<()> {
    let Some((listener, path)) = bound else { return std::future::pending().await };
    let _remove = RemoveFile(path);
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, api.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(seat);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// A failed accept is a want of file descriptors as a rule: they do not come back in a microsecond.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "admin: cannot accept a connection; trying again");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, api: Api) {
    let service = hyper::service::service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection");
    }
}

struct RemoveFile(PathBuf);

impl Drop for RemoveFile {
    fn drop(&mut self) {
        // It may be gone already; then all is well.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The address the CLI reaches the API at.
pub fn address_of(config: &config::Admin) -> SocketAddr {
    match config.listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
        address => address,
    }
}
