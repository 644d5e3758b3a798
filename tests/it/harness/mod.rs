//! What every test stands on: the real binary, scriptable upstreams and raw clients. Plain sockets and threads, no
//! async.

mod client;
mod cutover;
mod docker;
mod load;
mod needs;
mod tls;
mod upstream;

pub use client::{Answer, Client, End};
pub use cutover::{Cutover, Setup};
pub use docker::{Project, box_image, docker, have_docker, test_api_image, try_docker};
pub use load::Load;
pub use needs::{have, have_root, python_with};
pub use tls::{Authority, Secured, secured, secured_over};
pub use upstream::{Conn, Request, Upstream, plain};

use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long anything may take that is not itself about time. Long, because two cores run all tests at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `holds`; `what` names it when it does not come true.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came true that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port on 127.0.0.1 that nobody listens on. Below the range from which the kernel takes the ports of outgoing
/// connections: those of a thousand test clients would otherwise sit on it before its owner does.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 100) as u16 * 200;
    for _ in 0..COUNT {
        let port = FIRST + (begin + NEXT.fetch_add(1, Relaxed)) % COUNT;
        // Asked by a connect, not by a bind: a listener of ours that another test's fork holds until its exec would
        // keep the port from its owner.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
    panic!("no free port");
}

/// What a program said, on both of its outputs.
pub fn output(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Ledger lines without their place in the chain.
pub fn unchained(ledger: &str) -> String {
    ledger.lines().map(|line| format!("{}\n", line.rsplit_once(" chain=").map_or(line, |(text, _)| text))).collect()
}
