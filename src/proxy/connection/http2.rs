//! A client's connection: each of its streams is served by a task that takes it for a kept HTTP/1 connection, one
//! request after the other.
//!
//! A connection holds at most what the session's limits let it. With no stream it goes back to its frames' few bytes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::http2::{ConnectionError, ErrorCode, Role, Session, SessionEnd, SessionLimits};
use crate::proxy::alarm::Alarm;
use crate::proxy::connection::client::{Admission, Client};
use crate::proxy::connection::serve;
use crate::proxy::context::WorkerContext;
use crate::proxy::exchange::body_copy::BufferedIo;
use crate::proxy::http2::driver::{Driver, DriverEnd};
use crate::proxy::http2::{SharedSession, Stream};
use crate::proxy::transport::Transport;

/// How long a client may take to answer the PING of a closing connection: until then streams may still be on their way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long an ended connection goes on writing its reason and reading what still comes, and how much of it: a close
/// with unread bytes would be a reset, which can overtake the reason.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// A connection without streams gives its memory back after this.
const REST: Duration = Duration::from_secs(2);

/// The client does not read, or does not go on with what it began.
const STALLED: ConnectionError = ConnectionError { reason: ErrorCode::EnhanceYourCalm, end: SessionEnd::Stalled };

/// What the connection's own time-out is for. Streams have theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// The client does not read.
    Write,
    /// Something has begun and is not complete; so many came whole before it.
    More(u64),
    /// The end of a connection that is closing.
    LastCall,
    /// No stream, for a moment.
    Rest,
    /// No stream, for long.
    Idle,
    /// Streams.
    Nothing,
}

/// A client's connection that speaks HTTP/2.
struct Connection<S> {
    driver: Driver<S>,
    client: Client,
    alarm: Rc<Alarm>,
    worker: Rc<WorkerContext>,
    waiting: Waiting,
    has_rested: bool,
}

/// Serves a connection to its end. `wire` may hold what was read of it already.
pub async fn serve<S: Transport>(wire: BufferedIo<S>, client: Client, alarm: Rc<Alarm>, worker: Rc<WorkerContext>) {
    let limits = SessionLimits {
        streams: worker.proxy.http2.max_streams,
        head_bytes: worker.proxy.max_header_bytes,
        resets: worker.proxy.http2.max_resets,
    };
    let session = Rc::new(RefCell::new(Session::new(Role::Server, limits, Instant::now())));
    let admission = client.admission;
    let driver = Driver::new(wire, session);
    let mut connection = Connection { driver, client, alarm, worker, waiting: Waiting::Nothing, has_rested: false };
    let stopped = match admission {
        Admission::Served => poll_fn(|cx| connection.poll(cx)).await,
        // Nothing was looked at: the client may try again.
        Admission::Refused => {
            DriverEnd::Failed(ConnectionError { reason: ErrorCode::NoError, end: SessionEnd::Protocol })
        }
    };
    connection.end(stopped, admission).await;
}

impl<S: Transport> Connection<S> {
    fn session(&self) -> &SharedSession {
        &self.driver.session
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DriverEnd> {
        if self.worker.shutdown.is_cutting() {
            return Poll::Ready(DriverEnd::Disconnected); // the streams see it themselves
        }
        let served_max = self.worker.proxy.max_requests_per_connection;
        if self.worker.shutdown.is_stopping() || (served_max > 0 && self.session().borrow().served() >= served_max) {
            self.session().borrow_mut().close_softly();
        }
        let mut progress = false;
        let session = Rc::clone(self.session());
        let (driver, worker) = (&mut self.driver, &self.worker);
        let client = &self.client;
        let fresh = || {
            while let Some(at) = { session.borrow_mut().next_fresh() } {
                spawn(Stream::new(Rc::clone(&session), at, Role::Server), client, worker);
            }
        };
        if let Poll::Ready(stopped) = driver.poll(cx, &worker.buffers, &mut progress, fresh) {
            return Poll::Ready(stopped);
        }
        if self.alarm.is_late()
            && !(progress && self.waiting == Waiting::Write)
            && let Some(stopped) = self.is_late()
        {
            return Poll::Ready(stopped);
        }
        if session.borrow().is_stalled() {
            return Poll::Ready(DriverEnd::Failed(STALLED));
        }
        if session.borrow().is_closed() && session.borrow().busy() == 0 && !self.driver.is_blocked() {
            return Poll::Ready(DriverEnd::Disconnected);
        }
        self.set_alarm(progress);
        Poll::Pending
    }

    /// What follows from the time-out.
    fn is_late(&mut self) -> Option<DriverEnd> {
        let waited = std::mem::replace(&mut self.waiting, Waiting::Nothing);
        let mut session = self.driver.session.borrow_mut();
        match waited {
            Waiting::More(_) if !session.waits_for_more(self.driver.wire.filled()) => {}
            Waiting::Write | Waiting::More(_) => return Some(DriverEnd::Failed(STALLED)),
            Waiting::LastCall => session.close(),
            Waiting::Rest => {
                self.has_rested = true;
                session.shrink();
            }
            Waiting::Idle => session.close_softly(),
            Waiting::Nothing => {}
        }
        self.alarm.clear();
        drop(session);
        // What the above has put there is written at the next poll.
        self.alarm.wake();
        None
    }

    fn set_alarm(&mut self, progress: bool) {
        let session = self.driver.session.borrow();
        let proxy = &self.worker.proxy;
        let is_idle = session.busy() == 0;
        self.has_rested &= is_idle;
        let (waiting, limit) = if self.driver.is_blocked() {
            (Waiting::Write, proxy.idle_timeout)
        } else if session.waits_for_more(self.driver.wire.filled()) {
            (Waiting::More(session.came_whole()), proxy.header_timeout)
        } else if session.is_closing() && !session.is_closed() {
            (Waiting::LastCall, LAST_CALL)
        } else if is_idle && !self.has_rested {
            (Waiting::Rest, REST.min(proxy.idle_timeout))
        } else if is_idle {
            (Waiting::Idle, proxy.idle_timeout.saturating_sub(REST))
        } else {
            (Waiting::Nothing, Duration::ZERO)
        };
        let goes_on = progress && matches!(waiting, Waiting::Write | Waiting::Rest | Waiting::Idle);
        if waiting == self.waiting && !goes_on {
            return;
        }
        self.waiting = waiting;
        match waiting {
            Waiting::Nothing => self.alarm.clear(),
            Waiting::Write | Waiting::More(_) | Waiting::LastCall | Waiting::Rest | Waiting::Idle => {
                self.alarm.set(Instant::now() + limit);
            }
        }
    }

    /// Says why it ends, waits for the streams to notice, and closes.
    async fn end(&mut self, end: DriverEnd, admission: Admission) {
        {
            let mut session = self.driver.session.borrow_mut();
            match end {
                DriverEnd::Disconnected => session.break_off(),
                DriverEnd::Failed(error) => {
                    session.end(error.reason);
                    if admission == Admission::Served {
                        self.worker.client_ends.http2.count(error.end);
                        self.worker.client_log.http2_ended(self.client.peer, error.end.as_str());
                    }
                }
            }
        }
        self.alarm.set(Instant::now() + LINGER);
        let mut discarded = 0;
        let mut is_said = false;
        let (driver, worker, alarm) = (&mut self.driver, &self.worker, &self.alarm);
        poll_fn(|cx| {
            driver.session.borrow_mut().watch(cx.waker());
            if alarm.is_late() || worker.shutdown.is_cutting() {
                return Poll::Ready(());
            }
            if !is_said {
                match driver.poll_write(cx, &mut false) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {}
                }
                match Pin::new(&mut driver.wire.io).poll_shutdown(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => is_said = true,
                }
            }
            loop {
                discarded += driver.wire.filled().len();
                driver.wire.consume(driver.wire.filled().len());
                if discarded > LINGER_BYTES_MAX {
                    return Poll::Ready(());
                }
                match driver.wire.poll_fill(cx, &worker.buffers, false) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(()),
                }
            }
        })
        .await;
        // The connection counts as open until its last stream is over.
        self.alarm.clear();
        poll_fn(|cx| {
            let mut session = driver.session.borrow_mut();
            session.watch(cx.waker());
            if session.workers() == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn spawn(stream: Stream, client: &Client, worker: &Rc<WorkerContext>) {
    let (client, worker) = (client.clone(), Rc::clone(worker));
    tokio::task::spawn_local(async move {
        let alarm = worker.alarms.register().await;
        serve::serve(stream, client, alarm, worker).await;
    });
}
