//! A worker's connections to upstreams: which upstream, a kept connection or a new one, and whether a request that
//! got no answer may be sent again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::http2;
use crate::http1::buffer::Buffers;
use crate::os::resource_shortage::is_local_shortage;
use crate::proxy::alarm::{Alarm, Alarms};
use crate::proxy::exchange::body_copy::BufferedIo;
use crate::proxy::fault::Fault;
use crate::proxy::http2::Stream;
use crate::proxy::shutdown::Shutdown;
use crate::proxy::upstream::dns::Lookup;
use crate::proxy_protocol::{self, Ends, Version};
use crate::routing::Upstream;

/// Kept connections to one upstream at most, per worker.
const KEPT_MAX: usize = 8192;

/// A connection to a name's address is kept for so long at most: busy ones would otherwise never hear that the name has
/// moved. A new connection resolves the name anew.
const RESOLVED_FOR: Duration = Duration::from_secs(30);

/// What is spoken with an upstream.
pub enum Io {
    /// HTTP/1, on a connection of its own.
    Tcp(TcpStream),
    /// HTTP/2, on one of many streams.
    Stream(Stream),
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, room),
            Io::Stream(stream) => Pin::new(stream).poll_read(cx, room),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Io::Stream(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Io::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A connection to an upstream, and what was sent on it.
pub struct Connection {
    /// The connection with what was read from it.
    pub wire: BufferedIo<Io>,
    /// Bytes of the requests before this one; all were answered, so the peer has acknowledged them.
    pub sent_before: u64,
    /// Bytes in front of its first request, which say whose it is.
    announced: u64,
    opened: Instant,
    /// Whose it is, where the application was told.
    whose: Option<Ends>,
}

impl Connection {
    /// Whether it has served a request before.
    pub fn is_reused(&self) -> bool {
        self.sent_before > 0 || matches!(&self.wire.io, Io::Stream(stream) if stream.is_refused())
    }

    /// Whether the peer's kernel took not a single byte of this request: it was never seen, and may be sent again
    /// whatever its method. `TCP_INFO` can still be read after a reset.
    pub fn took_nothing(&self) -> bool {
        match &self.wire.io {
            Io::Tcp(stream) => acked(stream) == Some(self.announced + self.sent_before + 1), // the SYN counts as one byte
            Io::Stream(stream) => stream.is_refused(),
        }
    }
}

/// How many bytes the peer's kernel has acknowledged.
fn acked(stream: &TcpStream) -> Option<u64> {
    let size = size_of::<libc::tcp_info>();
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`, which is plain numbers and already zeroed.
    let (failed, info) = unsafe {
        let fd = stream.as_raw_fd();
        let failed = libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len);
        (failed, info.assume_init())
    };
    // A kernel before Linux 4.1 leaves the field 0, which is never equal to what was sent.
    (failed == 0).then_some(info.tcpi_bytes_acked)
}

struct Kept {
    stream: TcpStream,
    sent_before: u64,
    opened: Instant,
    since: Instant,
    idle_timeout: Duration,
    whose: Option<Ends>,
}

#[derive(Default)]
struct Slot {
    in_flight: Cell<u32>,
    kept: RefCell<Vec<Kept>>,
    /// Connections that speak HTTP/2.
    shared: http2::Shared,
    lookup: Rc<Lookup>,
}

/// A worker's connections, by upstream.
pub struct Pool {
    context: http2::DriverContext,
    slots: RefCell<Vec<Option<Rc<Slot>>>>,
    turn: Cell<usize>,
}

/// A request in flight to one upstream, for the balance; ends when dropped.
pub struct Share {
    slot: Rc<Slot>,
    /// Where the request goes.
    pub upstream: Arc<Upstream>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.slot.in_flight.set(self.slot.in_flight.get() - 1);
    }
}

impl Pool {
    /// No connections; those of HTTP/2 that are opened later use these parts of their worker.
    pub fn new(buffers: Rc<Buffers>, alarms: Rc<Alarms>, shutdown: Rc<Shutdown>) -> Self {
        let context = http2::DriverContext { buffers, alarms, shutdown };
        Pool { context, slots: RefCell::default(), turn: Cell::default() }
    }

    fn slot(&self, id: usize) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= id {
            slots.resize_with(id + 1, || None);
        }
        Rc::clone(slots[id].get_or_insert_default())
    }

    /// The upstream with the fewest requests of this worker in flight, not one of `tried`. One that is down is only
    /// taken when all are: with nowhere better to go, a request is tried.
    pub fn choose(&self, upstreams: &[Arc<Upstream>], tried: &[usize]) -> Option<Share> {
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let share = |upstream: &Arc<Upstream>| {
            let slot = self.slot(upstream.id);
            slot.in_flight.set(slot.in_flight.get() + 1);
            Share { slot, upstream: Arc::clone(upstream) }
        };
        if let [only] = upstreams {
            return (!tried.contains(&only.id)).then(|| share(only));
        }
        (0..upstreams.len())
            .map(|i| &upstreams[(turn.wrapping_add(i)) % upstreams.len()])
            .filter(|upstream| !tried.contains(&upstream.id))
            .min_by_key(|upstream| (upstream.is_down(), self.slot(upstream.id).in_flight.get()))
            .map(share)
    }

    /// A kept connection that is still open, or `None`. One that the application takes for somebody's is nobody else's:
    /// `whose` must be the same.
    pub fn take(&self, share: &Share, whose: Option<Ends>, now: Instant) -> Option<Connection> {
        let mut kept = share.slot.kept.borrow_mut();
        while let Some(at) = kept.iter().rposition(|kept| kept.whose == whose) {
            let Kept { stream, sent_before, opened, since, idle_timeout, whose } = kept.remove(at);
            // Nothing to read is the only healthy state of an unused connection. No system call is made unless the
            // driver has seen something arrive.
            let quiet = matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
            if quiet && now.duration_since(since) < idle_timeout && !is_stale(&share.upstream, opened, now) {
                return Some(Connection {
                    wire: BufferedIo::new(Io::Tcp(stream)),
                    sent_before,
                    announced: 0,
                    opened,
                    whose,
                });
            }
        }
        None
    }

    /// Keeps a connection for the next request, after one of `sent` bytes was answered in full.
    pub fn keep(&self, share: &Share, connection: Connection, sent: u64, now: Instant, idle_timeout: Duration) {
        let mut kept = share.slot.kept.borrow_mut();
        let Connection { wire, sent_before, announced, opened, whose } = connection;
        if let (Io::Tcp(stream), true) = (wire.io, kept.len() < KEPT_MAX) {
            kept.push(Kept {
                stream,
                sent_before: announced + sent_before + sent,
                opened,
                since: now,
                idle_timeout,
                whose,
            });
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

/// Whether its name may have moved since.
fn is_stale(upstream: &Upstream, opened: Instant, now: Instant) -> bool {
    upstream.socket.is_none() && now.duration_since(opened) >= RESOLVED_FOR
}

/// Opens a connection within `limit`, trying every address of the upstream's name. Where `announced` is given, that
/// header goes first. A name is resolved on a thread of its own: a slow resolver costs this request its time, and no
/// other one.
///
/// # Errors
/// [`Fault::ConnectFailed`]; [`Fault::Exhausted`] where the fault is this machine's.
pub async fn connect(
    share: &Share,
    announced: Option<(Version, Ends)>,
    alarm: &Alarm,
    limit: Duration,
) -> Result<Connection, Fault> {
    let header = announced.map(|(version, ends)| proxy_protocol::write(version, Some(ends))).unwrap_or_default();
    let dialled = within(limit, alarm, async {
        let mut stream = dial(share).await?;
        stream.write_all(&header).await?;
        Ok(stream)
    });
    match dialled.await {
        Ok(stream) => Ok(Connection {
            wire: BufferedIo::new(Io::Tcp(stream)),
            sent_before: 0,
            announced: header.len() as u64,
            opened: Instant::now(),
            whose: announced.map(|(_, ends)| ends),
        }),
        Err(error) => Err(failed(&share.upstream, &error)),
    }
}

/// Gives `opening` so much time.
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

/// What it means that no connection came about.
fn failed(upstream: &Upstream, error: &io::Error) -> Fault {
    tracing::debug!(upstream = %upstream.address, %error, "connect failed");
    if is_local_shortage(error) { Fault::Exhausted } else { Fault::ConnectFailed }
}

/// A stream to an upstream that speaks HTTP/2, on a connection that takes one more, or on a new one.
///
/// # Errors
/// As [`connect`].
pub async fn stream(
    pool: &Pool,
    share: &Share,
    alarm: &Alarm,
    limit: Duration,
    idle_timeout: Duration,
) -> Result<Connection, Fault> {
    let opened = match share.slot.shared.stream(|opened| is_stale(&share.upstream, opened, Instant::now())) {
        Some(opened) => Ok(opened),
        None => {
            let dialled = dial(share);
            within(limit, alarm, http2::open(&share.slot.shared, &pool.context, idle_timeout, dialled)).await
        }
    };
    match opened {
        // What was sent before is not known of a stream, only that there was something.
        Ok(opened) => Ok(Connection {
            wire: BufferedIo::new(Io::Stream(opened.stream)),
            sent_before: opened.is_reused.into(),
            announced: 0,
            opened: Instant::now(),
            whose: None,
        }),
        Err(error) => Err(failed(&share.upstream, &error)),
    }
}

async fn dial(share: &Share) -> io::Result<TcpStream> {
    let Upstream { socket, address, .. } = &*share.upstream;
    let stream = match socket {
        Some(socket) => TcpStream::connect(socket).await?,
        None => TcpStream::connect(&*share.slot.lookup.addresses(&address.host, address.port).await?).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
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
            let share = pool.choose(&[Arc::clone(&upstream)], &[]).unwrap();
            let opened = Instant::now();
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let mut connection = Connection {
                wire: BufferedIo::new(Io::Tcp(stream)),
                sent_before: 0,
                announced: 0,
                opened,
                whose: None,
            };
            let mut now = opened;
            let used = loop {
                pool.keep(&share, connection, 1, now, idle_timeout);
                now += second;
                match pool.take(&share, None, now) {
                    Some(kept) if now < opened + 60 * second => connection = kept,
                    Some(_) | None => break now.duration_since(opened).as_secs(),
                }
            };
            assert_eq!(used, lasts, "{host}");
        }
    }
}
