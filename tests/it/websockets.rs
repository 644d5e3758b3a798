//! WebSockets between the Python package `websockets` and itself, over HTTP/1 with TLS and without.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::harness::{Cutover, Setup, Upstream, output, python_with};

fn python(args: &[&str]) -> Option<Command> {
    let mut python = python_with("websockets")?;
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/websockets_app.py")).args(args);
    Some(python)
}

/// A running program; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both colors, a proxy before them, and its addresses. `None` without the package.
fn stage() -> Option<([Running; 2], Cutover, [Vec<String>; 2])> {
    let ports = [Upstream::stopped(), Upstream::stopped()];
    let app = |upstream: &Upstream, name| {
        let mut python = python(&["serve", &upstream.port.to_string(), name])?;
        Some(Running(python.stdin(Stdio::piped()).spawn().expect("Python starts")))
    };
    let apps = [app(&ports[0], "blue")?, app(&ports[1], "green")?];
    let setup = Setup::of(&ports[0], &ports[1])
        .set("service.app.watch.window", "'0s'")
        .set("service.app.drain.timeout", "'1s'");
    let (setup, _, tls_port) = setup.with_tls();
    let cutover = setup.start();
    let plain = vec![format!("ws://127.0.0.1:{}", cutover.port())];
    let secure = vec![format!("wss://127.0.0.1:{tls_port}"), cutover.path("ca.pem").display().to_string()];
    Some((apps, cutover, [plain, secure]))
}

#[test]
fn messages_fragments_pings_and_closes_pass() {
    let Some((_apps, cutover, addresses)) = stage() else { return };
    for address in addresses {
        let said = output(python(&["ask"]).expect("it was there before").args(&address));
        assert!(said.ends_with("\nall\n"), "{address:?}: {said}");
    }
    cutover.until_app("nothing is left", |app| app["colors"]["blue"]["in_flight"] == 0);
}

#[test]
fn a_flip_closes_a_socket_with_a_word_and_the_next_one_is_the_other_color_s() {
    let Some((_apps, cutover, addresses)) = stage() else { return };
    for (address, [from, to]) in addresses.iter().zip([["blue", "green"], ["green", "blue"]]) {
        let mut holds = python(&["hold"]).expect("it was there before");
        let mut holds = Running(holds.args(address).stdout(Stdio::piped()).spawn().expect("Python starts"));
        let mut lines = BufReader::new(holds.0.stdout.take().expect("its output")).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some(from));
        cutover.must_flip(to);
        assert_eq!(lines.next().as_deref(), Some("1001"), "going away");
        assert_eq!(lines.next().as_deref(), Some(to));
    }
}
