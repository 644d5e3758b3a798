//! Connections to upstreams that speak HTTP/2: shared by the requests of one worker, and opened one at a time, when
//! those there are take no more streams.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::http1::buffer::Buffers;
use crate::http2::{ErrorCode, Role, Session, SessionLimits};
use crate::proxy::alarm::{Alarm, Alarms};
use crate::proxy::exchange::body_copy::BufferedIo;
use crate::proxy::http2::Stream;
use crate::proxy::http2::driver::{Driver, Stopped};
use crate::proxy::shutdown::Shutdown;

/// Streams on one connection at most; an upstream may allow fewer.
const STREAMS_MAX: u32 = 256;

/// An answer head at most, as with HTTP/1.
const HEAD_MAX: usize = 64 * 1024;

/// How long an upstream that left a request without an answer may take for a PING, before its connection takes no more
/// streams for good. Those that are on it have time-outs of their own.
const PONG: Duration = Duration::from_secs(2);

/// How long what is to be said last may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// What the task that drives a connection uses of its worker.
#[derive(Clone)]
pub struct DriverContext {
    pub buffers: Rc<Buffers>,
    pub alarms: Rc<Alarms>,
    pub shutdown: Rc<Shutdown>,
}

/// A worker's connections to one upstream.
#[derive(Default)]
pub struct Shared {
    /// Each with the moment it was opened.
    open: RefCell<Vec<(crate::proxy::http2::Shared, Instant)>>,
    opening: Mutex<()>,
}

/// A stream, and whether its connection has served one before.
pub struct Opened {
    /// To write a request to.
    pub stream: Stream,
    /// Its connection may have died while nothing happened on it.
    pub is_reused: bool,
}

impl Shared {
    /// A stream on a connection that is there, if one takes more. One that `is_stale` by the moment it was opened takes
    /// no more, and ends with its last stream.
    pub fn stream(&self, is_stale: impl Fn(Instant) -> bool) -> Option<Opened> {
        let mut open = self.open.borrow_mut();
        open.retain(|(session, opened)| {
            let mut session = session.borrow_mut();
            if is_stale(*opened) {
                session.close();
            }
            !session.is_closing()
        });
        open.iter().find_map(|(session, _)| {
            let (at, served) = {
                let mut session = session.borrow_mut();
                (session.open()?, session.served())
            };
            Some(Opened { stream: Stream::new(Rc::clone(session), at, Role::Client), is_reused: served > 0 })
        })
    }
}

/// A stream: on a connection that is there, or on one that `dial` opens.
///
/// # Errors
/// Those of `dial`; the connection ended before it took a stream.
pub async fn open(
    shared: &Shared,
    context: &DriverContext,
    idle_timeout: Duration,
    dial: impl Future<Output = io::Result<TcpStream>>,
) -> io::Result<Opened> {
    let _turn = shared.opening.lock().await;
    // Whoever was waited for has opened one.
    if let Some(opened) = shared.stream(|_| false) {
        return Ok(opened);
    }
    let limits = SessionLimits { streams: STREAMS_MAX, head_bytes: HEAD_MAX, resets: u32::MAX };
    let session = Rc::new(RefCell::new(Session::new(Role::Client, limits, Instant::now())));
    let driver = Driver::new(BufferedIo::new(dial.await?), Rc::clone(&session));
    let greeted = Rc::new(tokio::sync::Notify::new());
    let task = Upstream { driver, context: context.clone(), idle_timeout, greeted: Rc::clone(&greeted) };
    tokio::task::spawn_local(task.run());
    // How many streams it takes is known from its greeting.
    greeted.notified().await;
    let at = session.borrow_mut().open().ok_or(io::ErrorKind::ConnectionAborted)?;
    let stream = Stream::new(Rc::clone(&session), at, Role::Client);
    shared.open.borrow_mut().push((session, Instant::now()));
    Ok(Opened { stream, is_reused: false })
}

/// What keeps a connection going.
struct Upstream {
    driver: Driver<TcpStream>,
    context: DriverContext,
    idle_timeout: Duration,
    greeted: Rc<tokio::sync::Notify>,
}

/// What the connection's time-out is for; requests have theirs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Pong,
    Idle,
    Nothing,
}

impl Upstream {
    async fn run(mut self) {
        let alarm = self.context.alarms.register().await;
        let mut waiting = Waiting::Nothing;
        let stopped = poll_fn(|cx| self.poll(cx, &alarm, &mut waiting)).await;
        {
            let mut session = self.driver.session.borrow_mut();
            match stopped {
                Stopped::Gone => session.end(ErrorCode::NoError),
                Stopped::ConnectionError(over) => session.end(over.reason),
            }
        }
        self.greeted.notify_one();
        alarm.set(Instant::now() + GOODBYE);
        poll_fn(|cx| match self.driver.poll_write(cx, &mut false) {
            Poll::Pending if !alarm.is_late() => Poll::Pending,
            Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
        })
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>, alarm: &Alarm, waiting: &mut Waiting) -> Poll<Stopped> {
        let mut progress = false;
        if let Poll::Ready(stopped) = self.driver.poll(cx, &self.context.buffers, &mut progress, || {}) {
            return Poll::Ready(stopped);
        }
        let mut session = self.driver.session.borrow_mut();
        if session.is_greeted() {
            self.greeted.notify_one();
        }
        let is_late = alarm.is_late() && !progress;
        if is_late && *waiting == Waiting::Pong {
            session.close();
        }
        let is_idle = session.busy() == 0;
        let shutdown = &self.context.shutdown;
        let is_over = shutdown.is_cutting() || (is_idle && (shutdown.is_stopping() || session.is_closing()));
        if is_over || (is_late && *waiting == Waiting::Idle) {
            return Poll::Ready(Stopped::Gone);
        }
        let (now_waiting, limit) = match (session.is_doubted() && !session.is_closing(), is_idle) {
            (true, _) => (Waiting::Pong, PONG),
            (false, true) => (Waiting::Idle, self.idle_timeout),
            (false, false) => (Waiting::Nothing, Duration::ZERO),
        };
        if now_waiting != *waiting || (progress && now_waiting == Waiting::Idle) {
            *waiting = now_waiting;
            match now_waiting {
                Waiting::Nothing => alarm.clear(),
                Waiting::Pong | Waiting::Idle => alarm.set(Instant::now() + limit),
            }
        }
        Poll::Pending
    }
}
