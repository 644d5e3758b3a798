//! A scriptable application: what it does with a connection is a closure, and it remembers every byte it saw.
//!
//! Health probes are answered by the harness itself and are not among what was seen.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::client::header;
use super::{PATIENCE, eventually, free_port};

type Behavior = Arc<dyn Fn(&mut Conn) -> io::Result<()> + Send + Sync>;

/// A server on a port of its own.
pub struct Upstream {
    pub port: u16,
    host: &'static str,
    shared: Arc<Shared>,
    running: Option<Running>,
}

struct Running {
    listener: TcpListener,
    thread: JoinHandle<()>,
}

struct Shared {
    behavior: Mutex<Behavior>,
    /// What `/readyz` is answered: a whole answer.
    probe: Mutex<Vec<u8>>,
    /// One entry a connection, without probes.
    seen: Mutex<Vec<Vec<u8>>>,
    open: Mutex<Vec<Open>>,
}

/// A second descriptor of a connection, to end it from outside.
struct Open {
    stream: TcpStream,
    carried_a_request: bool,
}

impl Open {
    fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A 200 with this body.
pub fn plain(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Upstream {
    /// Serves each connection with `behavior`, after which it is closed.
    pub fn start(behavior: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static) -> Upstream {
        let mut upstream = Upstream::stopped();
        upstream.behave(behavior);
        upstream.restart();
        upstream
    }

    /// Has a port, and listens after [`Upstream::restart`].
    pub fn stopped() -> Upstream {
        let shared = Shared {
            behavior: Mutex::new(Arc::new(|_| Ok(()))),
            probe: Mutex::new(plain("200 OK", r#"{"ready":true}"#)),
            seen: Mutex::default(),
            open: Mutex::default(),
        };
        Upstream { port: free_port(), host: "127.0.0.1", shared: Arc::new(shared), running: None }
    }

    /// Answers every request 200 with `body`, on kept connections.
    pub fn saying(body: &str) -> Upstream {
        Self::answering(plain("200 OK", body))
    }

    /// The same at another address of this machine, on a port of `other`.
    pub fn saying_at(host: &'static str, other: &Upstream, body: &str) -> Upstream {
        let answer = plain("200 OK", body);
        let mut upstream = Upstream::stopped();
        (upstream.host, upstream.port) = (host, other.port);
        upstream.behave(move |conn| conn.answer_all(&answer));
        upstream.restart();
        upstream
    }

    /// Answers every request, read whole, with these bytes, and keeps the connection.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Upstream {
        let answer = answer.into();
        Self::start(move |conn| conn.answer_all(&answer))
    }

    /// Answers the first request with these bytes, and closes the connection.
    pub fn closing_after(answer: impl Into<Vec<u8>>) -> Upstream {
        let answer = answer.into();
        Self::start(move |conn| {
            conn.request()?;
            conn.send(&answer)
        })
    }

    /// From the next connection on.
    pub fn behave(&self, behavior: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static) {
        *lock(&self.shared.behavior) = Arc::new(behavior);
    }

    /// Whether probes find it ready.
    pub fn be_ready(&self, ready: bool) {
        let status = if ready { "200 OK" } else { "503 Service Unavailable" };
        *lock(&self.shared.probe) = plain(status, &format!(r#"{{"ready":{ready}}}"#));
    }

    /// What a probe is answered: a whole answer, or nothing at all.
    pub fn answer_probes(&self, answer: &str) {
        *lock(&self.shared.probe) = answer.into();
    }

    /// Listens on the same port again.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "it is running");
        // A listener that was closed may live on for a moment in another test's fork, until its exec.
        let mut bound = None;
        eventually("the upstream's own port is free", || {
            bound = TcpListener::bind((self.host, self.port)).ok();
            bound.is_some()
        });
        let listener = bound.expect("it came true");
        let (ours, shared) = (listener.try_clone().expect("a descriptor"), Arc::clone(&self.shared));
        let thread = std::thread::spawn(move || accept_all(&listener, &shared));
        self.running = Some(Running { listener: ours, thread });
    }

    /// Closes the listener and every connection, as a stopped process would.
    pub fn stop(&mut self) {
        let Some(Running { listener, thread }) = self.running.take() else { return };
        socket2::SockRef::from(&listener).shutdown(Shutdown::Both).expect("a listener");
        thread.join().expect("the accepting thread does not panic");
        drop(listener);
        for open in lock(&self.shared.open).drain(..) {
            let _ = open.stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes every connection that carried a request and goes on listening. Probes are left alone: one that fails
    /// makes a color not ready.
    pub fn stop_connections(&self) {
        for open in lock(&self.shared.open).iter().filter(|open| open.carried_a_request) {
            let _ = open.stream.shutdown(Shutdown::Both);
        }
    }

    /// What each connection sent, without probes.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.seen).clone()
    }

    /// The same as one text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen().concat()).into_owned()
    }

    /// Forgets what it saw before.
    pub fn forget(&self) {
        lock(&self.shared.seen).iter_mut().for_each(Vec::clear);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        let shared = Arc::clone(shared);
        {
            let mut open = lock(&shared.open);
            // A closed connection has no peer any more.
            open.retain(|open| open.peer().is_some());
            open.push(Open { stream: stream.try_clone().expect("a descriptor"), carried_a_request: false });
        }
        std::thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let behavior = Arc::clone(&lock(&shared.behavior));
            let mut conn = Conn { stream, buffer: Vec::new(), shared, entry: None, is_reset: false };
            // An error is the proxy's close, or our own stop.
            let _ = behavior(&mut conn);
            if !conn.is_reset {
                conn.close();
            }
        });
    }
}

/// A connection of the proxy, seen from the application.
pub struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
    /// Index into `seen`.
    entry: Option<usize>,
    is_reset: bool,
}

/// A request's head.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: String,
}

impl Request {
    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

const PROBE: &[u8] = b"GET /readyz ";

impl Conn {
    /// Reads a request's head. Answers probes before it.
    pub fn request(&mut self) -> io::Result<Request> {
        loop {
            let head = self.until(b"\r\n\r\n")?;
            if head.starts_with(PROBE) {
                let answer = lock(&self.shared.probe).clone();
                self.stream.write_all(&answer)?;
            } else {
                return Ok(Request { head: String::from_utf8_lossy(&head).into_owned() });
            }
        }
    }

    /// Reads the body that `request` announced, chunks and trailers as they came.
    pub fn body(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        if request.header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let line = self.until(b"\r\n")?;
                let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim_end(), 16);
                body.extend(line);
                match size.map_err(io::Error::other)? {
                    0 => break,
                    size => body.extend(self.exactly(size + 2)?),
                }
            }
            loop {
                let line = self.until(b"\r\n")?;
                body.extend(&line);
                if line == b"\r\n" {
                    return Ok(body);
                }
            }
        }
        let length = request.header("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        self.exactly(length)
    }

    /// Reads requests whole and answers each with these bytes, until the proxy closes.
    pub fn answer_all(&mut self, answer: &[u8]) -> io::Result<()> {
        loop {
            let request = self.request()?;
            self.body(&request)?;
            self.send(answer)?;
        }
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Reads up to and with `end`.
    pub fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill()?;
        }
    }

    /// Reads exactly so many bytes.
    pub fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < n {
            self.fill()?;
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Reads whatever comes until the proxy closes; an error is a reset.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that no more will be sent; goes on reading.
    pub fn close_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Ends the connection with a reset, as a crash with unread bytes does.
    pub fn reset(&mut self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("a socket");
        // Without its twin in `open`, the last descriptor is ours.
        let address = self.stream.peer_addr().ok();
        lock(&self.shared.open).retain(|open| open.peer() != address);
        self.is_reset = true;
    }

    /// Closes both ways.
    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Reads some bytes of a large body, and does not remember them.
    pub fn some(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            return self.stream.read(piece);
        }
        let n = piece.len().min(self.buffer.len());
        piece[..n].copy_from_slice(&self.buffer[..n]);
        self.buffer.drain(..n);
        Ok(n)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        let n = self.stream.read(&mut piece)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&piece[..n]);
        let maybe_probe = self.buffer.starts_with(PROBE) || PROBE.starts_with(&self.buffer);
        match self.entry {
            Some(entry) => lock(&self.shared.seen)[entry].extend_from_slice(&piece[..n]),
            None if maybe_probe => {}
            None => {
                let mut seen = lock(&self.shared.seen);
                self.entry = Some(seen.len());
                seen.push(self.buffer.clone());
                let address = self.stream.peer_addr().ok();
                if let Some(open) = lock(&self.shared.open).iter_mut().find(|open| open.peer() == address) {
                    open.carried_a_request = true;
                }
            }
        }
        Ok(())
    }
}
