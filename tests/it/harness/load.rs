//! Steady load on kept connections, which counts what its users would complain about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Client;
use std::io::{self, Read, Write};

/// Running clients. Each waits for its answer before it asks again.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    answered: AtomicU64,
}

impl Load {
    /// `clients` connections to `port`; every third request is a POST with a body.
    pub fn start(port: u16, clients: usize) -> Load {
        let connect = move || Client::try_connect(("127.0.0.1", port));
        Load::with(clients, connect, 3, Duration::ZERO)
    }

    /// `clients` connections to `port` that only GET, each some twenty times a second.
    pub fn of_gets(port: u16, clients: usize) -> Load {
        let connect = move || Client::try_connect(("127.0.0.1", port));
        Load::with(clients, connect, u64::MAX, Duration::from_millis(50))
    }

    /// The same as [`Load::start`] over connections of any kind.
    pub fn over<S, C>(clients: usize, connect: C) -> Load
    where
        S: Read + Write + 'static,
        C: Fn() -> io::Result<Client<S>> + Send + Sync + 'static,
    {
        Load::with(clients, connect, 3, Duration::ZERO)
    }

    fn with<S, C>(clients: usize, connect: C, post_every: u64, pause: Duration) -> Load
    where
        S: Read + Write + 'static,
        C: Fn() -> io::Result<Client<S>> + Send + Sync + 'static,
    {
        let connect = Arc::new(connect);
        let shared = Arc::<Shared>::default();
        let client = |_| {
            let shared = Arc::clone(&shared);
            let connect = Arc::clone(&connect);
            std::thread::spawn(move || run(&*connect, &shared, post_every, pause))
        };
        Load { clients: (0..clients).map(client).collect(), shared }
    }

    /// Requests answered so far, well or badly.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Relaxed)
    }

    /// Ends it: how many were answered, and what went wrong.
    pub fn end(self) -> (u64, Vec<String>) {
        self.shared.over.store(true, Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
        (self.shared.answered.load(Relaxed), failures)
    }
}

fn run<S: Read + Write>(
    connect: &dyn Fn() -> io::Result<Client<S>>,
    shared: &Shared,
    post_every: u64,
    pause: Duration,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut client = None;
    let mut count = 0_u64;
    while !shared.over.load(Relaxed) {
        count += 1;
        let request = if count.is_multiple_of(post_every) {
            "POST /load HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello"
        } else {
            "GET /load HTTP/1.1\r\nHost: app\r\n\r\n"
        };
        let mut ask = || {
            if client.is_none() {
                client = Some(connect()?);
            }
            let connection = client.as_mut().expect("just connected");
            connection.try_send(request.as_bytes())?;
            connection.try_answer(false)
        };
        let answer = ask();
        shared.answered.fetch_add(1, Relaxed);
        std::thread::sleep(pause);
        match answer {
            Ok(answer) if answer.status == 200 && answer.header("connection").is_none() => {}
            Ok(answer) => failures.push(format!("request {count}: {answer:?}")),
            Err(error) => {
                failures.push(format!("request {count}: {error}"));
                client = None;
                // Nobody there: the test is failing, and says so when it ends.
                if failures.len() > 100 {
                    break;
                }
            }
        }
    }
    failures
}
