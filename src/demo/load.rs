//! Plays the users: sends a steady stream of requests, and records how each of them ended.
//!
//! Requests become due by the clock, whether or not earlier ones have finished. A request that has to wait for its
//! connection counts from its due time, so that a stalled proxy cannot look fast by slowing the load down. Nothing is
//! retried. The load has its own thread and runtime, so that drawing a screen cannot delay it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use super::app::RELEASE_HEADER;
use super::figures::{End, Record};

/// The load sends this many requests per second over all connections.
pub const RATE: u32 = 400;

/// The load keeps this many connections open; each sends one request at a time.
pub const CONNECTIONS: u32 = 16;

/// Each connection sends a request this often.
const EVERY: Duration = Duration::from_nanos(1_000_000_000 * CONNECTIONS as u64 / RATE as u64);

/// One request in this many is a `POST` with a body of [`ORDER_BYTES`].
const ORDER_EVERY: u32 = 8;
const ORDER_BYTES: usize = 2000;

/// A user gives up after this long without a whole response.
const PATIENCE: Duration = Duration::from_secs(5);

/// The load keeps this many of the latest records, which are more than four minutes of them.
const RECORDS_MAX: usize = 100_000;

/// A running load; it stops when dropped.
pub struct Load {
    shared: Arc<LoadState>,
    thread: Option<JoinHandle<()>>,
}

struct LoadState {
    target: SocketAddr,
    began: Instant,
    stop: AtomicBool,
    records: Mutex<VecDeque<Record>>,
}

impl Load {
    /// Starts sending to `target`.
    ///
    /// # Errors
    /// Fails when no thread or runtime is available.
    pub fn start(target: SocketAddr) -> io::Result<Load> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(LoadState {
            target,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            records: Mutex::new(VecDeque::new()),
        });
        let users = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("demo-load".into()).spawn(move || {
            runtime.block_on(async {
                let mut all = tokio::task::JoinSet::new();
                for number in 0..CONNECTIONS {
                    all.spawn(use_it(Arc::clone(&users), number));
                }
                all.join_all().await;
            });
        })?;
        Ok(Load { shared, thread: Some(thread) })
    }

    /// Returns the time since the load began, which is the clock of its records.
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Returns the records so far, in the order in which the requests ended.
    pub fn records(&self) -> MutexGuard<'_, VecDeque<Record>> {
        self.shared.records.lock().expect("no holder panics")
    }

    /// Sends no more requests, waits for the responses still due (5 s at most) and returns every record.
    pub fn finish(mut self) -> Vec<Record> {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.records().iter().copied().collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

impl LoadState {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Sends one connection's requests, until the load stops.
async fn use_it(shared: Arc<LoadState>, number: u32) {
    let mut connection = None;
    let mut due = EVERY * number / CONNECTIONS;
    let mut free_at = Duration::ZERO;
    for count in number.. {
        sleep_until((shared.began + due).into()).await;
        if shared.stop.load(Relaxed) {
            return;
        }
        // An idle user's timer may fire late, which is not the proxy's fault. A busy user has been waiting since `due`.
        let begun = if free_at > due { due } else { shared.now() };
        let request = compose(shared.target, count % ORDER_EVERY == 0);
        let (release, replayed, end) = match timeout(PATIENCE, send(&mut connection, shared.target, request)).await {
            Ok(seen) => seen,
            Err(_) => (None, false, End::TimedOut),
        };
        free_at = shared.now();
        let mut records = shared.records.lock().expect("no holder panics");
        if records.len() == RECORDS_MAX {
            records.pop_front();
        }
        records.push_back(Record { begun, ended: free_at, release, replayed, end });
        drop(records);
        due += EVERY;
    }
}

fn compose(target: SocketAddr, order: bool) -> Request<Full<Bytes>> {
    let (method, path, body) = match order {
        true => (Method::POST, "/orders", Bytes::from_static(&[b'.'; ORDER_BYTES])),
        false => (Method::GET, "/", Bytes::new()),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, target.to_string())
        .body(Full::new(body))
        .expect("a path and an address make a valid request")
}

/// Sends one request on the kept connection, or on a new one. The connection is kept only after a whole answer.
async fn send(
    kept: &mut Option<SendRequest<Full<Bytes>>>,
    target: SocketAddr,
    request: Request<Full<Bytes>>,
) -> (Option<u8>, bool, End) {
    let still_open = match kept.take() {
        Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
        None => None,
    };
    let mut sender = match still_open {
        Some(sender) => sender,
        None => match connect(target).await {
            Ok(sender) => sender,
            Err(_) => return (None, false, End::NoConnection),
        },
    };
    let Ok(response) = sender.send_request(request).await else { return (None, false, End::Broken) };
    let status = response.status().as_u16();
    let release = response.headers().get(RELEASE_HEADER).and_then(|n| n.to_str().ok()?.parse().ok());
    let replayed = response.headers().contains_key("x-cutover-replayed");
    if response.into_body().collect().await.is_err() {
        return (release, replayed, End::Broken);
    }
    *kept = Some(sender);
    (release, replayed, End::Answered(status))
}

async fn connect(target: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::super::app::{App, Quality, Release, WORK};
    use super::super::figures::Figures;
    use super::*;

    fn free_address() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
    }

    /// Returns the records of a load on `release` for `time`, without a proxy.
    fn saw(release: Release, time: Duration) -> Vec<Record> {
        let address = free_address();
        let _app = App::start(release, address).expect("the app starts");
        let load = Load::start(address).expect("the load starts");
        std::thread::sleep(time);
        load.finish()
    }

    mod load {
        use super::*;

        #[test]
        fn sees_a_good_release_answer_everything_at_a_steady_rate() {
            let records = saw(Release { number: 7, quality: Quality::Good }, Duration::from_secs(1));
            let figures = Figures::of(&records);
            assert_eq!(figures.failed, 0, "{records:?}");
            assert!((250..=420).contains(&figures.requests), "{figures:?}");
            assert!(records.iter().all(|r| r.release == Some(7) && r.ended - r.begun >= WORK));
            assert!(records.iter().any(|r| r.end == End::Answered(201)), "no order was taken");
        }

        #[test]
        fn sees_the_share_that_a_bad_release_fails() {
            let release = Release { number: 3, quality: Quality::Bad { share_of_500: 0.5 } };
            let figures = Figures::of(&saw(release, Duration::from_secs(1)));
            let share = figures.failed as f64 / figures.requests as f64;
            assert!((0.3..0.7).contains(&share), "{figures:?}");
        }

        #[test]
        fn sees_an_app_end_and_its_successor_on_the_same_port() {
            let address = free_address();
            let app = App::start(Release { number: 1, quality: Quality::Good }, address).expect("the app starts");
            let load = Load::start(address).expect("the load starts");
            std::thread::sleep(Duration::from_millis(200));
            drop(app);
            std::thread::sleep(Duration::from_millis(200));
            let _app =
                App::start(Release { number: 2, quality: Quality::Good }, address).expect("the port is free again");
            std::thread::sleep(Duration::from_millis(200));
            let records = load.finish();
            assert!(records.iter().any(|r| r.end == End::NoConnection), "nobody met the gap");
            assert!(!records.last().expect("there are records").end.is_failure());
            for number in [1, 2] {
                assert!(records.iter().any(|r| r.release == Some(number)), "v{number} never answered");
            }
        }

        #[test]
        fn counts_a_stall_from_when_requests_were_due() {
            // The listener accepts connections into its backlog and never responds.
            let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let load = Load::start(silent.local_addr().expect("it is bound")).expect("the load starts");
            std::thread::sleep(Duration::from_millis(300));
            drop(silent);
            std::thread::sleep(Duration::from_millis(100));
            let records = load.finish();
            // A connection has a request due every 40 ms: its first one is stuck, and those after it wait behind it.
            let waited = records.iter().filter(|r| r.ended - r.begun > Duration::from_millis(150)).count();
            assert!(waited >= 3 * CONNECTIONS as usize, "only {waited} requests waited: {records:?}");
        }
    }
}
