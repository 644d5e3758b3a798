//! Connections to upstreams that speak HTTP/2. The requests of one worker share them, and a new one is opened, one at a
//! time, when those that are there take no more streams.

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
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::http2::driver::{Driver, DriverEnd};
use crate::proxy::http2::{Http2Stream, SharedSession};
use crate::proxy::shutdown::Shutdown;

/// How many streams one connection carries; an upstream may allow fewer.
const STREAMS_MAX: u32 = 256;

/// The largest response head, as with HTTP/1.
const HEAD_MAX: usize = 64 * 1024;

/// How long an upstream that left a request without a response may take to answer a PING. After that its connection
/// takes no more streams; those that are on it have time-outs of their own.
const PONG: Duration = Duration::from_secs(2);

/// How long the last frames of a connection may take to be written.
const GOODBYE: Duration = Duration::from_millis(500);

/// What the task that drives a connection uses of its worker.
#[derive(Clone)]
pub struct DriverContext {
    pub buffers: Rc<Buffers>,
    pub alarms: Rc<Alarms>,
    pub shutdown: Rc<Shutdown>,
}

/// A worker's HTTP/2 connections to one upstream.
#[derive(Default)]
pub struct SharedConnections {
    open: RefCell<Vec<OpenConnection>>,
    /// Held while a connection is opened, so that requests which come meanwhile wait for it instead of opening more.
    opening: Mutex<()>,
}

struct OpenConnection {
    session: SharedSession,
    opened: Instant,
}

/// A stream to write a request to.
pub struct OpenedStream {
    pub stream: Http2Stream,
    /// Whether its connection has served a request before, so that it may have died while nothing happened on it.
    pub is_reused: bool,
}

impl SharedConnections {
    /// Opens a stream on a connection that is there, if one takes more. A connection that `is_stale` by the moment it
    /// was opened takes no more, and ends with its last stream.
    pub fn stream(&self, is_stale: impl Fn(Instant) -> bool) -> Option<OpenedStream> {
        let mut open = self.open.borrow_mut();
        open.retain(|OpenConnection { session, opened }| {
            let mut session = session.borrow_mut();
            if is_stale(*opened) {
                session.close();
            }
            !session.is_closing()
        });
        open.iter().find_map(|OpenConnection { session, .. }| {
            let (at, served) = {
                let mut session = session.borrow_mut();
                (session.open()?, session.completed())
            };
            Some(OpenedStream { stream: Http2Stream::new(Rc::clone(session), at, Role::Client), is_reused: served > 0 })
        })
    }
}

/// Opens a stream on a connection that is there by now, or on one that `connecting` opens.
///
/// # Errors
/// Those of `connecting`, or the connection ended before it took a stream.
pub async fn open(
    shared: &SharedConnections,
    context: &DriverContext,
    idle_timeout: Duration,
    connecting: impl Future<Output = io::Result<TcpStream>>,
) -> io::Result<OpenedStream> {
    let _opening = shared.opening.lock().await;
    // The request that held the lock may have opened a connection with room for this one.
    if let Some(opened) = shared.stream(|_| false) {
        return Ok(opened);
    }
    let limits = SessionLimits { streams: STREAMS_MAX, head_bytes: HEAD_MAX, resets: u32::MAX };
    let session = Rc::new(RefCell::new(Session::new(Role::Client, limits, Instant::now())));
    let driver = Driver::new(BufferedIo::new(connecting.await?), Rc::clone(&session));
    let greeted = Rc::new(tokio::sync::Notify::new());
    let task = ConnectionTask {
        driver,
        context: context.clone(),
        idle_timeout,
        greeted: Rc::clone(&greeted),
        alarm_for: AlarmFor::Nothing,
    };
    tokio::task::spawn_local(task.run());
    // The upstream's SETTINGS say how many streams it takes.
    greeted.notified().await;
    let at = session.borrow_mut().open().ok_or(io::ErrorKind::ConnectionAborted)?;
    let stream = Http2Stream::new(Rc::clone(&session), at, Role::Client);
    shared.open.borrow_mut().push(OpenConnection { session, opened: Instant::now() });
    Ok(OpenedStream { stream, is_reused: false })
}

/// The task that keeps a connection going.
struct ConnectionTask {
    driver: Driver<TcpStream>,
    context: DriverContext,
    idle_timeout: Duration,
    /// Notified when the upstream's SETTINGS have come, or never will.
    greeted: Rc<tokio::sync::Notify>,
    alarm_for: AlarmFor,
}

/// What the connection's alarm is set for. Requests have alarms of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AlarmFor {
    Pong,
    Idle,
    Nothing,
}

impl ConnectionTask {
    async fn run(mut self) {
        let alarm = self.context.alarms.register().await;
        let end = poll_fn(|cx| self.poll(cx, &alarm)).await;
        {
            let mut session = self.driver.session.borrow_mut();
            match end {
                DriverEnd::Disconnected => session.terminate(ErrorCode::NoError),
                DriverEnd::Failed(error) => session.terminate(error.code),
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

    fn poll(&mut self, cx: &mut Context<'_>, alarm: &Alarm) -> Poll<DriverEnd> {
        let mut progress = false;
        if let Poll::Ready(end) = self.driver.poll(cx, &self.context.buffers, &mut progress, || {}) {
            return Poll::Ready(end);
        }
        let mut session = self.driver.session.borrow_mut();
        if session.has_peer_settings() {
            self.greeted.notify_one();
        }
        let is_late = alarm.is_late() && !progress;
        if is_late && self.alarm_for == AlarmFor::Pong {
            session.close();
        }
        let is_idle = session.active_streams() == 0;
        let shutdown = &self.context.shutdown;
        let is_over = shutdown.is_cutting() || (is_idle && (shutdown.is_stopping() || session.is_closing()));
        if is_over || (is_late && self.alarm_for == AlarmFor::Idle) {
            return Poll::Ready(DriverEnd::Disconnected);
        }
        let (alarm_for, limit) = match (session.awaits_pong() && !session.is_closing(), is_idle) {
            (true, _) => (AlarmFor::Pong, PONG),
            (false, true) => (AlarmFor::Idle, self.idle_timeout),
            (false, false) => (AlarmFor::Nothing, Duration::ZERO),
        };
        if alarm_for != self.alarm_for || (progress && alarm_for == AlarmFor::Idle) {
            self.alarm_for = alarm_for;
            match alarm_for {
                AlarmFor::Nothing => alarm.clear(),
                AlarmFor::Pong | AlarmFor::Idle => alarm.set(Instant::now() + limit),
            }
        }
        Poll::Pending
    }
}
