//! gRPC through the proxy, with Python's grpcio on both sides.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::python_with;
use crate::harness::{Cutover, Setup, Upstream};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/http2/grpc_app.py")
}

/// A running application; killed when dropped.
pub struct App(Child);

impl App {
    fn start(mut python: Command, port: u16, name: &str) -> App {
        python.arg(script()).args(["serve", &port.to_string(), name]).stdin(Stdio::piped());
        App(python.spawn().expect("Python starts"))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both colors and a proxy before them. `None` without grpcio.
pub fn stage() -> Option<([App; 2], Cutover)> {
    let ports = [Upstream::stopped(), Upstream::stopped()];
    let [blue, green] = ["blue", "green"];
    let apps =
        [App::start(python_with("grpc")?, ports[0].port, blue), App::start(python_with("grpc")?, ports[1].port, green)];
    let cutover = Setup::of(&ports[0], &ports[1])
        .set("service.app.upstream.protocol", "'h2c'")
        .set("service.app.health.protocol", "'grpc'")
        .set("service.app.watch.window", "'0s'")
        .set("service.app.drain.timeout", "'1s'")
        .start();
    Some((apps, cutover))
}

fn ask(what: &str, cutover: &Cutover) -> String {
    let mut python = python_with("grpc").expect("it was there before");
    let output = python.arg(script()).args([what, &cutover.port().to_string()]).output().expect("Python starts");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A stream in both directions that stays open.
struct Held {
    child: Child,
    lines: ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
}

impl Held {
    fn open(cutover: &Cutover) -> Held {
        let mut python = python_with("grpc").expect("it was there before");
        python.arg(script()).args(["hold", &cutover.port().to_string()]);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Held { child, lines, answers }
    }

    fn say(&mut self, line: &str) -> String {
        writeln!(self.lines, "{line}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    fn error(self) -> String {
        let output = self.child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[test]
fn all_kinds_of_calls_pass() {
    let Some((_apps, cutover)) = stage() else { return };
    let said = ask("ask", &cutover);
    assert!(said.ends_with("\nall\n"), "{said}");
    assert_eq!(cutover.app()["colors"]["blue"]["in_flight"], 0);
}

#[test]
fn a_stream_stays_on_its_color_through_a_flip_and_the_connection_does_as_well() {
    let Some((_apps, cutover)) = stage() else { return };
    let mut held = Held::open(&cutover);
    assert_eq!(held.say("one"), "blue:one");
    let (status, changed) =
        cutover.admin("POST", "/v1/services/app/flip", &serde_json::json!({ "to": "green", "wait": false }));
    assert_eq!(status, 200, "{changed}");
    assert_eq!(held.say("two"), "blue:two", "it began there");
    let said = ask("ask", &cutover);
    assert!(said.ends_with("\nall\n"), "{said}");
    // It has no end of its own: at the deadline it is told to go elsewhere.
    let error = held.error();
    assert!(error.contains("StatusCode.UNAVAILABLE"), "{error}");
}

#[test]
fn a_call_that_fails_here_says_so_in_grpc() {
    let Some((mut apps, cutover)) = stage() else { return };
    let mut held = Held::open(&cutover);
    assert_eq!(held.say("one"), "blue:one");
    apps[0].0.kill().unwrap();
    let error = held.error();
    assert!(error.contains("StatusCode.UNAVAILABLE"), "within an answer: {error}");
    assert_eq!(ask("fail", &cutover).trim(), "UNAVAILABLE the application could not be reached");
}
