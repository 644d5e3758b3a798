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
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long anything may take before it counts as never. Only a test that fails waits that long, and a machine with
/// many times the load that its cores can bear is no reason to fail.
pub const PATIENCE: Duration = Duration::from_secs(60);

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
    static PORTS: Mutex<Ports> = Mutex::new(Ports { left: 0..0, claims: Vec::new() });
    let mut ports = PORTS.lock().expect("nobody panics with it");
    loop {
        let Some(port) = ports.left.next() else {
            ports.claim_block();
            continue;
        };
        // Asked by a connect, not by a bind: a listener of ours that another test's fork holds until its exec would
        // keep the port from its owner.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
}

/// The ports that this process may give out. Test runs in other processes claim other blocks, so that none of them
/// takes a port between the question whether it is free and the start of its owner.
struct Ports {
    left: Range<u16>,
    /// Held until the process ends.
    claims: Vec<UnixListener>,
}

impl Ports {
    fn claim_block(&mut self) {
        const FIRST: u16 = 10_000;
        const BLOCK: u16 = 100;
        const BLOCKS: u16 = 200;
        let claim = (0..BLOCKS).find_map(|block| {
            let name = SocketAddr::from_abstract_name(format!("cutover-test-ports-{block}")).expect("a short name");
            Some((block, UnixListener::bind_addr(&name).ok()?))
        });
        let (block, claim) = claim.expect("a block of ports that no other test run has");
        self.claims.push(claim);
        self.left = FIRST + block * BLOCK..FIRST + (block + 1) * BLOCK;
    }
}

/// What a program said and how it ended, which must be soon.
pub fn ended(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("it starts");
    let pid = i32::try_from(child.id()).expect("a pid");
    let (over, is_over) = channel();
    let waiting = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = over.send(());
        output
    });
    let is_late = is_over.recv_timeout(PATIENCE).is_err();
    if is_late {
        // SAFETY: kill has no memory effects; the process is our own child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    let output = waiting.join().expect("no panic").expect("our child");
    assert!(!is_late, "it does not end: {output:?}");
    output
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
