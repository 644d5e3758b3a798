//! gRPC through the proxy, with Python's grpcio on both sides.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::json;

use crate::harness::{Cutover, Setup, Upstream, eventually, output, python_with};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/http2/grpc_app.py")
}

/// A running application; killed when dropped.
pub struct App(Child);

impl App {
    fn start(mut python: Command, args: &[&str]) -> App {
        python.arg(script()).args(args).stdin(Stdio::piped());
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
    stage_with(&[], |setup| setup.set("service.app.watch.window", "'0s'"))
}

/// The same with more arguments for green.
fn stage_with(green: &[&str], setup: impl FnOnce(Setup) -> Setup) -> Option<([App; 2], Cutover)> {
    let colors = [Upstream::stopped(), Upstream::stopped()];
    let ports = [colors[0].port.to_string(), colors[1].port.to_string()];
    let apps = [
        App::start(python_with("grpc")?, &["serve", &ports[0], "blue"]),
        App::start(python_with("grpc")?, &[&["serve", &ports[1], "green"], green].concat()),
    ];
    let setup_of = Setup::of(&colors[0], &colors[1])
        .set("service.app.upstream.protocol", "'h2c'")
        .set("service.app.health.protocol", "'grpc'")
        .set("service.app.drain.timeout", "'1s'");
    Some((apps, setup(setup_of).start()))
}

fn ask(what: &str, cutover: &Cutover) -> String {
    let mut python = python_with("grpc").expect("it was there before");
    output(python.arg(script()).args([what, &cutover.port().to_string()]))
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
    let mut tls_port = 0;
    let with_tls = |setup: Setup| {
        let (setup, _, port) = setup.with_tls();
        tls_port = port;
        setup
    };
    let Some((_apps, cutover)) = stage_with(&[], with_tls) else { return };
    let secure = [tls_port.to_string(), cutover.path("ca.pem").display().to_string()];
    for address in [vec![cutover.port().to_string()], secure.to_vec()] {
        let mut python = python_with("grpc").expect("it was there before");
        let said = output(python.arg(script()).arg("ask").args(&address));
        assert!(said.ends_with("\nall\n"), "{address:?}: {said}");
    }
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

#[test]
fn a_release_whose_calls_fail_in_their_own_words_is_taken_back() {
    let log = |setup: Setup| setup.set("service.app.watch.window", "'60s'").set("log.access", "'json'");
    let Some((_apps, cutover)) = stage_with(&["poison"], log) else { return };
    let port = cutover.port().to_string();
    let _load = App::start(python_with("grpc").expect("it was there before"), &["load", &port, "poison"]);
    eventually("there is a history", || cutover.app()["colors"]["blue"]["requests"].as_u64() > Some(50));
    cutover.must_flip("green");
    let app =
        cutover.until_app("it is taken back", |app| app["phase"] == "rolled_back" && app["evidence_file"].is_string());
    assert_eq!(app["active"], json!("blue"));
    let evidence = app["evidence_file"].as_str().unwrap();
    eventually("the evidence has the failure, which HTTP calls well", || {
        let evidence = cutover.file(evidence);
        evidence.contains(r#""fault":"grpc_unknown""#) && evidence.contains(r#""status":200"#)
    });
}
