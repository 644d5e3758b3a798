//! A client's connection that speaks HTTP/2. Each of its streams is served by a task of its own, which takes the stream
//! for a kept HTTP/1 connection with one request after the other.
//!
//! The limits of the session bound what a connection holds. Without a stream it gives back all but the few bytes of a
//! frame that has begun.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::http2::{ConnectionError, ErrorCode, Role, Session, SessionEnd, SessionLimits};
use crate::proxy::alarm::Alarm;
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::connection::client::{Admission, Client};
use crate::proxy::connection::serve;
use crate::proxy::context::WorkerContext;
use crate::proxy::http2::driver::{Driver, DriverEnd};
use crate::proxy::http2::{Http2Stream, SharedSession};
use crate::proxy::transport::Transport;

/// How long a client may take to answer the PING of a closing connection. Until it has, streams may still be on their
/// way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long an ended connection goes on writing its GOAWAY and reading what still comes. A close with unread bytes
/// would be a reset, which can overtake the GOAWAY.
const LINGER: Duration = Duration::from_millis(500);

/// How much of what still comes is read.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How long a connection without streams keeps its memory.
const REST: Duration = Duration::from_secs(2);

/// Ends a connection whose client does not read, or does not complete the frame that it began.
const STALLED: ConnectionError = ConnectionError { code: ErrorCode::EnhanceYourCalm, end: SessionEnd::Stalled };

/// What the connection's alarm is set for. Streams have alarms of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AlarmFor {
    /// The client has to read what was written.
    Write,
    /// The client has to complete what it began; so many frames came whole before it.
    More(u64),
    /// The client has to answer the PING of a closing connection.
    LastCall,
    /// There is no stream, and the memory is given back.
    Rest,
    /// There is no stream, and the connection is closed.
    Idle,
    /// There are streams, which have time-outs of their own.
    Nothing,
}

/// A client's connection that speaks HTTP/2.
struct Http2Connection<S> {
    driver: Driver<S>,
    client: Client,
    alarm: Rc<Alarm>,
    worker: Rc<WorkerContext>,
    alarm_for: AlarmFor,
    /// The memory was given back since the last stream.
    has_rested: bool,
}

/// Serves a connection to its end. `stream` may hold bytes that were read before it was known to speak HTTP/2.
pub async fn serve<S: Transport>(stream: BufferedIo<S>, client: Client, alarm: Rc<Alarm>, worker: Rc<WorkerContext>) {
    let limits = SessionLimits {
        streams: worker.proxy.http2.max_streams,
        head_bytes: worker.proxy.max_header_bytes,
        resets: worker.proxy.http2.max_resets,
    };
    let session = Rc::new(RefCell::new(Session::new(Role::Server, limits, Instant::now())));
    let admission = client.admission;
    let driver = Driver::new(stream, session);
    let mut connection =
        Http2Connection { driver, client, alarm, worker, alarm_for: AlarmFor::Nothing, has_rested: false };
    let end = match admission {
        Admission::Served => poll_fn(|cx| connection.poll(cx)).await,
        // No stream was looked at, so the client may try again.
        Admission::Refused => {
            DriverEnd::Failed(ConnectionError { code: ErrorCode::NoError, end: SessionEnd::Protocol })
        }
    };
    connection.end(end, admission).await;
}

impl<S: Transport> Http2Connection<S> {
    fn session(&self) -> &SharedSession {
        &self.driver.session
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DriverEnd> {
        if self.worker.shutdown.is_cutting() {
            return Poll::Ready(DriverEnd::Disconnected); // the streams see it themselves
        }
        let served_max = self.worker.proxy.max_requests_per_connection;
        if self.worker.shutdown.is_stopping() || (served_max > 0 && self.session().borrow().completed() >= served_max) {
            self.session().borrow_mut().shut_down();
        }
        let mut progress = false;
        let session = Rc::clone(self.session());
        let (driver, worker) = (&mut self.driver, &self.worker);
        let client = &self.client;
        let fresh = || {
            while let Some(at) = { session.borrow_mut().accept() } {
                spawn(Http2Stream::new(Rc::clone(&session), at, Role::Server), client, worker);
            }
        };
        if let Poll::Ready(end) = driver.poll(cx, &worker.buffers, &mut progress, fresh) {
            return Poll::Ready(end);
        }
        if self.alarm.is_late()
            && !(progress && self.alarm_for == AlarmFor::Write)
            && let Some(end) = self.on_alarm()
        {
            return Poll::Ready(end);
        }
        if session.borrow().is_stalled() {
            return Poll::Ready(DriverEnd::Failed(STALLED));
        }
        if session.borrow().is_closed() && session.borrow().active_streams() == 0 && !self.driver.is_blocked() {
            return Poll::Ready(DriverEnd::Disconnected);
        }
        self.set_alarm(progress);
        Poll::Pending
    }

    /// Does what the alarm was set for. Returns why the connection ends, if it does.
    fn on_alarm(&mut self) -> Option<DriverEnd> {
        let alarm_for = std::mem::replace(&mut self.alarm_for, AlarmFor::Nothing);
        let mut session = self.driver.session.borrow_mut();
        match alarm_for {
            AlarmFor::More(_) if !session.expects_more(self.driver.io.filled()) => {}
            AlarmFor::Write | AlarmFor::More(_) => return Some(DriverEnd::Failed(STALLED)),
            AlarmFor::LastCall => session.close(),
            AlarmFor::Rest => {
                self.has_rested = true;
                session.shrink();
            }
            AlarmFor::Idle => session.shut_down(),
            AlarmFor::Nothing => {}
        }
        self.alarm.clear();
        drop(session);
        // The session may have something to send now, which is written at the next poll.
        self.alarm.wake();
        None
    }

    /// Sets the alarm for what the connection waits for now. `progress`: bytes were moved since it was set.
    fn set_alarm(&mut self, progress: bool) {
        let session = self.driver.session.borrow();
        let proxy = &self.worker.proxy;
        let is_idle = session.active_streams() == 0;
        self.has_rested &= is_idle;
        let (alarm_for, limit) = if self.driver.is_blocked() {
            (AlarmFor::Write, proxy.idle_timeout)
        } else if session.expects_more(self.driver.io.filled()) {
            (AlarmFor::More(session.received()), proxy.header_timeout)
        } else if session.is_closing() && !session.is_closed() {
            (AlarmFor::LastCall, LAST_CALL)
        } else if is_idle && !self.has_rested {
            (AlarmFor::Rest, REST.min(proxy.idle_timeout))
        } else if is_idle {
            (AlarmFor::Idle, proxy.idle_timeout.saturating_sub(REST))
        } else {
            (AlarmFor::Nothing, Duration::ZERO)
        };
        let starts_anew = progress && matches!(alarm_for, AlarmFor::Write | AlarmFor::Rest | AlarmFor::Idle);
        if alarm_for == self.alarm_for && !starts_anew {
            return;
        }
        self.alarm_for = alarm_for;
        match alarm_for {
            AlarmFor::Nothing => self.alarm.clear(),
            AlarmFor::Write | AlarmFor::More(_) | AlarmFor::LastCall | AlarmFor::Rest | AlarmFor::Idle => {
                self.alarm.set(Instant::now() + limit);
            }
        }
    }

    /// Sends the reason of the end, reads on for a moment, and waits until the last stream has noticed.
    async fn end(&mut self, end: DriverEnd, admission: Admission) {
        {
            let mut session = self.driver.session.borrow_mut();
            match end {
                DriverEnd::Disconnected => session.disconnected(),
                DriverEnd::Failed(error) => {
                    session.terminate(error.code);
                    if admission == Admission::Served {
                        self.worker.client_ends.http2.count(error.end);
                        self.worker.client_log.http2_ended(self.client.peer, error.end.as_str());
                    }
                }
            }
        }
        self.alarm.set(Instant::now() + LINGER);
        let mut discarded = 0;
        let mut is_closed = false;
        let (driver, worker, alarm) = (&mut self.driver, &self.worker, &self.alarm);
        poll_fn(|cx| {
            driver.session.borrow_mut().register_driver(cx.waker());
            if alarm.is_late() || worker.shutdown.is_cutting() {
                return Poll::Ready(());
            }
            if !is_closed {
                match driver.poll_write(cx, &mut false) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {}
                }
                match Pin::new(&mut driver.io.io).poll_shutdown(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => is_closed = true,
                }
            }
            loop {
                discarded += driver.io.filled().len();
                driver.io.consume(driver.io.filled().len());
                if discarded > LINGER_BYTES_MAX {
                    return Poll::Ready(());
                }
                match driver.io.poll_fill(cx, &worker.buffers, false) {
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
            session.register_driver(cx.waker());
            if session.tasks() == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Starts the task that serves a stream.
fn spawn(stream: Http2Stream, client: &Client, worker: &Rc<WorkerContext>) {
    let (client, worker) = (client.clone(), Rc::clone(worker));
    tokio::task::spawn_local(async move {
        let alarm = worker.alarms.register().await;
        serve::serve(stream, client, alarm, worker).await;
    });
}
