//! Finds a connection for a request: a kept one, a new one, or a stream of a shared one, at the first upstream that
//! takes it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::config::{self, Protocol};
use crate::os::resource_shortage::is_local_shortage;
use crate::proxy::alarm::Alarm;
use crate::proxy::upstream::http2;
use crate::proxy::upstream::pool::{InFlightGuard, Pool, UpstreamConn, is_stale};
use crate::proxy_protocol::{self, Ends};
use crate::routing::Upstream;

/// Where a request may go.
pub struct Target<'a> {
    /// The upstreams of one color.
    pub upstreams: &'a [Arc<Upstream>],
    /// Time-outs and the protocol of their service.
    pub settings: &'a config::Upstream,
    /// The client, for a PROXY header.
    pub client: Ends,
}

/// Why a request has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// No upstream took a connection.
    Unreachable,
    /// This machine has no descriptor, memory or port left for one.
    Exhausted,
}

/// One request's search for a connection. It may go on after a connection was found and turned out to be dead.
#[derive(Default)]
pub struct ConnectAttempts {
    /// Upstreams that took no connection.
    tried: Vec<usize>,
    /// All attempts together end here; set when the first of them begins.
    deadline: Option<Instant>,
    skips_kept: bool,
}

impl ConnectAttempts {
    /// Uses no kept connection any more, because one has just died.
    pub fn skip_kept(&mut self) {
        self.skips_kept = true;
    }

    /// Whether a kept connection has died.
    pub fn skips_kept(&self) -> bool {
        self.skips_kept
    }

    /// Finds the next connection, at the upstream with the fewest requests in flight that was not tried before.
    ///
    /// # Errors
    /// No connection came about; see [`ConnectError`].
    pub async fn next(
        &mut self,
        pool: &Pool,
        target: &Target<'_>,
        alarm: &Alarm,
    ) -> Result<UpstreamConn, ConnectError> {
        let Target { upstreams, settings, client } = target;
        while let Some(mut guard) = pool.choose(upstreams, &self.tried) {
            let now = Instant::now();
            if settings.protocol == Protocol::Http1 && !self.skips_kept {
                match pool.take(guard, settings.proxy_protocol.map(|_| *client), now) {
                    Ok(kept) => return Ok(kept),
                    Err(unused) => guard = unused,
                }
            }
            // All attempts together get `connect_timeout`; each gets an even part of what is left of it.
            let left = self.deadline.get_or_insert(now + settings.connect_timeout).saturating_duration_since(now);
            let attempts = u32::try_from(upstreams.len() - self.tried.len()).unwrap_or(1).max(1);
            let limit = left / attempts;
            let id = guard.upstream.id;
            let connected = match settings.protocol {
                Protocol::Http1 => connect(guard, settings.proxy_protocol, *client, alarm, limit).await,
                Protocol::H2c => open_stream(pool, guard, settings.idle_timeout, alarm, limit).await,
            };
            match connected {
                Err(ConnectError::Unreachable) => self.tried.push(id),
                Ok(_) | Err(ConnectError::Exhausted) => return connected,
            }
        }
        Err(ConnectError::Unreachable)
    }
}

/// Opens a connection within `limit`, and sends the PROXY header first where the upstream wants one.
async fn connect(
    guard: InFlightGuard,
    proxy_protocol: Option<proxy_protocol::Version>,
    client: Ends,
    alarm: &Alarm,
    limit: Duration,
) -> Result<UpstreamConn, ConnectError> {
    let header = proxy_protocol.map(|version| proxy_protocol::write(version, Some(client))).unwrap_or_default();
    let connecting = within(limit, alarm, async {
        let mut stream = connect_tcp(&guard).await?;
        stream.write_all(&header).await?;
        Ok(stream)
    });
    match connecting.await {
        Ok(stream) => Ok(UpstreamConn::new(guard, stream, header.len() as u64, proxy_protocol.map(|_| client))),
        Err(error) => Err(connect_error(&guard.upstream, &error)),
    }
}

/// Opens a stream of HTTP/2 on a connection that takes one more, or on a new one.
async fn open_stream(
    pool: &Pool,
    guard: InFlightGuard,
    idle_timeout: Duration,
    alarm: &Alarm,
    limit: Duration,
) -> Result<UpstreamConn, ConnectError> {
    let shared = &guard.slot.http2;
    let opened = match shared.stream(|opened| is_stale(&guard.upstream, opened, Instant::now())) {
        Some(opened) => Ok(opened),
        None => {
            let connecting = connect_tcp(&guard);
            within(limit, alarm, http2::open(shared, &pool.driver_context, idle_timeout, connecting)).await
        }
    };
    match opened {
        Ok(opened) => Ok(UpstreamConn::on_stream(guard, opened)),
        Err(error) => Err(connect_error(&guard.upstream, &error)),
    }
}

/// Tries every address of the upstream. A name is resolved on a thread of its own: a slow resolver costs this request
/// its time, and no other one.
async fn connect_tcp(guard: &InFlightGuard) -> io::Result<TcpStream> {
    let Upstream { socket, address, .. } = &*guard.upstream;
    let stream = match socket {
        Some(socket) => TcpStream::connect(socket).await?,
        None => TcpStream::connect(&*guard.slot.lookup.addresses(&address.host, address.port).await?).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Runs `opening` for at most `limit`. It has memory of its own, because most requests find a kept connection and need
/// none of it.
async fn within<T>(limit: Duration, alarm: &Alarm, opening: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    alarm.set(Instant::now() + limit);
    let mut opening = Box::pin(opening);
    poll_fn(|cx| {
        if alarm.is_late() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        opening.as_mut().poll(cx)
    })
    .await
}

/// Tells a shortage of this machine, which another upstream would meet as well, from a fault of the upstream's.
fn connect_error(upstream: &Upstream, error: &io::Error) -> ConnectError {
    tracing::debug!(upstream = %upstream.address, %error, "connect failed");
    if is_local_shortage(error) { ConnectError::Exhausted } else { ConnectError::Unreachable }
}
