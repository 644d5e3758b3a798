//! A worker's connections to upstreams: which upstream a request goes to, and which kept connection it may use.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::http1::buffer::Buffers;
use crate::proxy::alarm::Alarms;
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::shutdown::Shutdown;
use crate::proxy::upstream::dns::Lookup;
use crate::proxy::upstream::http2::{DriverContext, OpenedStream, SharedConnections};
use crate::proxy::upstream::io::{UpstreamIo, acknowledged};
use crate::proxy_protocol::Ends;
use crate::routing::Upstream;

/// How many connections to one upstream a worker keeps.
const KEPT_MAX: usize = 8192;

/// How long a connection to a name's address is kept, however busy it is. A new connection resolves the name anew;
/// without this limit, connections that are always in use would never learn that the name has moved.
const RESOLVED_FOR: Duration = Duration::from_secs(30);

/// A connection to an upstream, with a request in flight on it.
pub struct UpstreamConn {
    /// The connection, with what was read from it and not used yet.
    pub io: BufferedIo<UpstreamIo>,
    guard: InFlightGuard,
    /// Bytes of the requests before this one. All of them were answered, so the peer has acknowledged these bytes. Of a
    /// stream it is only known whether there were any.
    sent_before: u64,
    /// Bytes of the PROXY header in front of the first request.
    header_bytes: u64,
    opened: Instant,
    /// The client that the PROXY header named.
    announced: Option<Ends>,
}

impl UpstreamConn {
    /// A new TCP connection, on which a PROXY header of `header_bytes` for `announced` was sent.
    pub(super) fn new(guard: InFlightGuard, stream: TcpStream, header_bytes: u64, announced: Option<Ends>) -> Self {
        let io = BufferedIo::new(UpstreamIo::Tcp(stream));
        UpstreamConn { io, guard, sent_before: 0, header_bytes, opened: Instant::now(), announced }
    }

    /// A stream of a shared connection.
    pub(super) fn on_stream(guard: InFlightGuard, opened: OpenedStream) -> Self {
        let OpenedStream { stream, is_reused } = opened;
        let (io, sent_before) = (BufferedIo::new(UpstreamIo::Stream(stream)), is_reused.into());
        UpstreamConn { io, guard, sent_before, header_bytes: 0, opened: Instant::now(), announced: None }
    }

    /// The upstream at its other end.
    pub fn upstream(&self) -> &Upstream {
        &self.guard.upstream
    }

    /// Whether the connection served a request before this one, so that it may have died while it was kept.
    pub fn is_reused(&self) -> bool {
        self.sent_before > 0 || matches!(&self.io.io, UpstreamIo::Stream(stream) if stream.is_refused())
    }

    /// Whether the peer's kernel acknowledged not a single byte of this request. The application has then never seen
    /// it, and it may be sent again whatever its method.
    pub fn took_nothing(&self) -> bool {
        match &self.io.io {
            // The SYN counts as one byte.
            UpstreamIo::Tcp(stream) => acknowledged(stream) == Some(self.header_bytes + self.sent_before + 1),
            UpstreamIo::Stream(stream) => stream.is_refused(),
        }
    }
}

/// A TCP connection without a request on it.
struct KeptConn {
    stream: TcpStream,
    sent_before: u64,
    opened: Instant,
    since: Instant,
    idle_timeout: Duration,
    announced: Option<Ends>,
}

/// What a worker has of one upstream.
#[derive(Default)]
pub(super) struct Slot {
    in_flight: Cell<u32>,
    kept: RefCell<Vec<KeptConn>>,
    /// Connections that speak HTTP/2.
    pub(super) http2: SharedConnections,
    pub(super) lookup: Rc<Lookup>,
}

/// Counts a request as in flight to one upstream, until this is dropped.
pub struct InFlightGuard {
    pub(super) slot: Rc<Slot>,
    /// Where the request goes.
    pub upstream: Arc<Upstream>,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.slot.in_flight.set(self.slot.in_flight.get() - 1);
    }
}

/// A worker's connections, by upstream.
pub struct Pool {
    pub(super) driver_context: DriverContext,
    slots: RefCell<Vec<Option<Rc<Slot>>>>,
    /// Where the next search among equals begins.
    turn: Cell<usize>,
}

impl Pool {
    /// A pool without connections. The HTTP/2 connections that it opens later use these parts of their worker.
    pub fn new(buffers: Rc<Buffers>, alarms: Rc<Alarms>, shutdown: Rc<Shutdown>) -> Self {
        let driver_context = DriverContext { buffers, alarms, shutdown };
        Pool { driver_context, slots: RefCell::default(), turn: Cell::default() }
    }

    fn slot(&self, id: usize) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= id {
            slots.resize_with(id + 1, || None);
        }
        Rc::clone(slots[id].get_or_insert_default())
    }

    /// Chooses the upstream with the fewest requests of this worker in flight, leaving out those in `tried`. One that
    /// is down is chosen only if all are: a request with nowhere better to go is tried there all the same.
    pub fn choose(&self, upstreams: &[Arc<Upstream>], tried: &[usize]) -> Option<InFlightGuard> {
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let guard = |upstream: &Arc<Upstream>| {
            let slot = self.slot(upstream.id);
            slot.in_flight.set(slot.in_flight.get() + 1);
            InFlightGuard { slot, upstream: Arc::clone(upstream) }
        };
        if let [only] = upstreams {
            return (!tried.contains(&only.id)).then(|| guard(only));
        }
        (0..upstreams.len())
            .map(|i| &upstreams[(turn.wrapping_add(i)) % upstreams.len()])
            .filter(|upstream| !tried.contains(&upstream.id))
            .min_by_key(|upstream| (upstream.is_down(), self.slot(upstream.id).in_flight.get()))
            .map(guard)
    }

    /// Takes a kept connection that is still open, and puts the request of `guard` on it. A connection that the
    /// application takes for one client's must not carry another client's request, so `announced` has to be the same.
    ///
    /// # Errors
    /// Returns the guard where no such connection is kept.
    pub fn take(
        &self,
        guard: InFlightGuard,
        announced: Option<Ends>,
        now: Instant,
    ) -> Result<UpstreamConn, InFlightGuard> {
        let mut all = guard.slot.kept.borrow_mut();
        while let Some(at) = all.iter().rposition(|kept| kept.announced == announced) {
            let kept = all.remove(at);
            // Nothing to read is the only healthy state of an unused connection. No system call is made unless the
            // driver has seen something arrive.
            let is_quiet = matches!(kept.stream.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
            let is_fresh = now.duration_since(kept.since) < kept.idle_timeout;
            if is_quiet && is_fresh && !is_stale(&guard.upstream, kept.opened, now) {
                drop(all);
                let KeptConn { stream, sent_before, opened, announced, .. } = kept;
                let io = BufferedIo::new(UpstreamIo::Tcp(stream));
                return Ok(UpstreamConn { io, guard, sent_before, header_bytes: 0, opened, announced });
            }
        }
        drop(all);
        Err(guard)
    }

    /// Keeps a connection for the next request, after one of `sent` bytes was answered in full. It is closed if it is
    /// not used again within `idle_timeout`.
    pub fn keep(&self, mut conn: UpstreamConn, sent: u64, now: Instant, idle_timeout: Duration) {
        conn.io.release(&self.driver_context.buffers);
        let UpstreamConn { io, guard, sent_before, header_bytes, opened, announced } = conn;
        let mut kept = guard.slot.kept.borrow_mut();
        if let (UpstreamIo::Tcp(stream), true) = (io.io, kept.len() < KEPT_MAX) {
            let sent_before = header_bytes + sent_before + sent;
            kept.push(KeptConn { stream, sent_before, opened, since: now, idle_timeout, announced });
        }
    }

    /// Closes connections that were not used for their `idle_timeout`.
    pub fn sweep(&self, now: Instant) {
        for slot in self.slots.borrow().iter().flatten() {
            let mut kept = slot.kept.borrow_mut();
            // The least recently used ones are in front.
            let fresh = kept.iter().position(|k| now.duration_since(k.since) < k.idle_timeout).unwrap_or(kept.len());
            kept.drain(..fresh);
        }
    }
}

/// Whether the upstream's name may have moved since the connection was opened.
pub(super) fn is_stale(upstream: &Upstream, opened: Instant, now: Instant) -> bool {
    upstream.socket.is_none() && now.duration_since(opened) >= RESOLVED_FOR
}

#[cfg(test)]
mod tests {
    use crate::config::Address;
    use crate::proxy::upstream::pool::*;

    #[tokio::test]
    async fn a_name_is_asked_for_anew_however_busy_its_connections_are() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (idle_timeout, second) = (Duration::from_secs(4), Duration::from_secs(1));
        for (host, lasts) in [("localhost", 30), ("127.0.0.1", 60)] {
            let shutdown = Rc::new(Shutdown::new(second));
            let pool = Pool::new(Rc::default(), Rc::default(), shutdown);
            let upstream = Upstream::new(Address { host: host.into(), port });
            assert_eq!(upstream.socket.is_none(), host == "localhost");
            let choose = || pool.choose(&[Arc::clone(&upstream)], &[]).unwrap();
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let mut conn = UpstreamConn::new(choose(), stream, 0, None);
            let opened = conn.opened;
            let mut now = opened;
            let used = loop {
                pool.keep(conn, 1, now, idle_timeout);
                now += second;
                match pool.take(choose(), None, now) {
                    Ok(kept) if now < opened + 60 * second => conn = kept,
                    Ok(_) | Err(_) => break now.duration_since(opened).as_secs(),
                }
            };
            assert_eq!(used, lasts, "{host}");
        }
    }
}
