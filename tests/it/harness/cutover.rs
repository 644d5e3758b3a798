//! The real binary in a folder of its own, with a config that is made from `key = value` lines.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, Authority, Client, PATIENCE, Upstream, eventually, free_port};

const BINARY: &str = env!("CARGO_BIN_EXE_cutover");

/// A config in the making. Keys are dotted, values are TOML.
#[derive(Clone)]
pub struct Setup {
    pub port: u16,
    pub admin_port: u16,
    lines: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    /// The colors that [`Setup::start`] waits for.
    awaited: &'static [&'static str],
}

impl Setup {
    /// For tests that need one color only: nobody listens at green's address.
    pub fn in_front_of(blue: &Upstream) -> Setup {
        Setup { awaited: &["blue"], ..Setup::of(blue, &Upstream::stopped()) }
    }

    /// One service, `app`, with a quick health check and one upstream a color.
    pub fn of(blue: &Upstream, green: &Upstream) -> Setup {
        let (port, admin_port) = (free_port(), free_port());
        Setup { port, admin_port, lines: BTreeMap::new(), files: BTreeMap::new(), awaited: &["blue", "green"] }
            .set("proxy.listen", format!("['127.0.0.1:{port}']"))
            .set("admin.listen", format!("'127.0.0.1:{admin_port}'"))
            .set("state.dir", "'state'")
            .set("state.ledger", "'releases.log'")
            .service("app", &[blue], &[green])
    }

    /// One more service.
    pub fn service(self, name: &str, blue: &[&Upstream], green: &[&Upstream]) -> Setup {
        let list = |all: &[&Upstream]| {
            let all: Vec<_> = all.iter().map(|upstream| format!("'127.0.0.1:{}'", upstream.port)).collect();
            format!("[{}]", all.join(", "))
        };
        self.set(&format!("service.{name}.blue"), list(blue))
            .set(&format!("service.{name}.green"), list(green))
            .set(&format!("service.{name}.health.interval"), "'50ms'")
            // One late answer is enough to fall, and on a busy machine some are late.
            .set(&format!("service.{name}.health.timeout"), "'10s'")
            .set(&format!("service.{name}.health.rise"), "1")
            .set(&format!("service.{name}.health.fall"), "1")
    }

    /// Sets or replaces one key.
    pub fn set(mut self, key: &str, value: impl ToString) -> Setup {
        self.lines.insert(key.to_owned(), value.to_string());
        self
    }

    /// A file that lies in the folder before the start.
    pub fn file(mut self, name: &str, text: &str) -> Setup {
        self.files.insert(name.to_owned(), text.to_owned());
        self
    }

    /// Has it speak TLS as well, as `app.example` and on the port given back. Whom to trust is in its file `ca.pem`
    /// too.
    pub fn with_tls(self) -> (Setup, Authority, u16) {
        let (authority, tls_port) = (Authority::new(), free_port());
        let (cert, key) = authority.sign(&["app.example"]);
        let setup = self
            .set("proxy.listen_tls", format!("['127.0.0.1:{tls_port}']"))
            .set("tls.certificates", "[{ cert = 'app.pem', key = 'app.key' }]")
            .file("app.pem", &cert)
            .file("app.key", &key)
            .file("ca.pem", &authority.pem);
        (setup, authority, tls_port)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        self.lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    /// Starts it and waits until the colors of every service are ready.
    pub fn start(self) -> Cutover {
        let awaited = self.awaited;
        let cutover = self.start_unready();
        let is_ready = |service: &Value| awaited.iter().all(|&color| service["colors"][color]["ready"] == true);
        eventually("the colors are ready", || {
            cutover.status()["services"].as_object().is_some_and(|all| all.values().all(is_ready))
        });
        cutover
    }

    /// Starts it and waits until the admin API answers.
    pub fn start_unready(self) -> Cutover {
        let mut cutover = self.prepared();
        cutover.run();
        cutover
    }

    /// Writes the config and starts nothing.
    pub fn prepared(self) -> Cutover {
        let cutover = Cutover { dir: folder(), setup: self, child: None };
        cutover.setup.files.iter().for_each(|(name, text)| cutover.write(name, text));
        cutover.write_config();
        cutover
    }
}

/// In memory where there is such a place: flips wait for fsync, and a build on the same disk can make that seconds.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A running (or stopped) proxy. Killed when dropped.
pub struct Cutover {
    pub dir: TempDir,
    pub setup: Setup,
    child: Option<Child>,
}

impl Cutover {
    /// Writes the config as it is in `setup`.
    pub fn write_config(&self) {
        fs::write(self.path("cutover.toml"), self.setup.text()).expect("a folder of our own");
    }

    /// Writes a file in its folder, in place.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a folder of our own");
    }

    /// Changes one key and writes the config.
    pub fn configure(&mut self, key: &str, value: impl ToString) {
        self.setup = self.setup.clone().set(key, value);
        self.write_config();
    }

    /// Starts the binary and waits until the admin API answers.
    pub fn run(&mut self) {
        self.spawn();
        self.await_admin();
    }

    /// The same in a mount namespace of its own, after `script`; [`Cutover::in_mounts`] reaches into it. The process is
    /// the one that was started: neither `unshare` nor the shell stays.
    pub fn run_in_mounts(&mut self, script: &str) {
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-ec", &format!("{script}\nexec \"$0\" \"$@\""), BINARY]);
        command.current_dir(self.dir.path()).env_remove("CUTOVER_CONFIG").env_remove("RUST_LOG");
        self.spawn_as(command);
        self.await_admin();
    }

    /// Runs a script in the folder as the proxy sees it.
    pub fn in_mounts(&self, script: &str) {
        let folder = self.dir.path().to_str().expect("a path of ours");
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string(), "--mount", &format!("--wdns={folder}")]);
        let output = command.args(["bash", "-ec", script]).stdin(Stdio::null()).output().expect("nsenter starts");
        assert!(output.status.success(), "{script}: {output:?}");
    }

    /// A file in the folder as the proxy sees it.
    pub fn file_in_mounts(&self, name: &str) -> String {
        let root = format!("/proc/{}/root", self.pid());
        let path = self.path(name);
        fs::read_to_string(PathBuf::from(root + path.to_str().expect("a path of ours"))).unwrap_or_default()
    }

    fn await_admin(&mut self) {
        eventually("the admin API answers", || {
            if let Some(code) = self.child.as_mut().and_then(|child| child.try_wait().expect("our child")) {
                panic!("it ended with {code}: {}", self.log());
            }
            Client::try_connect(("127.0.0.1", self.setup.admin_port)).is_ok()
        });
    }

    /// Starts the binary.
    pub fn spawn(&mut self) {
        self.spawn_as(self.command());
    }

    /// Starts it by a program at another path.
    pub fn spawn_program(&mut self, program: &std::path::Path) {
        let mut command = self.command();
        let folder = self.dir.path().to_owned();
        command = {
            let mut other = Command::new(program);
            other.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
            other.env_remove("CUTOVER_CONFIG").env_remove("RUST_LOG").current_dir(folder);
            other
        };
        self.spawn_as(command);
    }

    fn spawn_as(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.path("stderr")).expect("a folder of our own");
        let out = File::options().create(true).append(true).open(self.path("stdout")).expect("a folder of our own");
        let child = command.arg("serve").stdin(Stdio::null()).stdout(out).stderr(log).spawn();
        self.child = Some(child.expect("the binary starts"));
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.dir.path()).env_remove("CUTOVER_CONFIG").env_remove("RUST_LOG").env("USER", "tester");
        command
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The text of a file in its folder; empty when there is none.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// What it said on standard error so far.
    pub fn log(&self) -> String {
        self.file("stderr")
    }

    /// The ledger so far.
    pub fn ledger(&self) -> String {
        self.file("releases.log")
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.setup.port
    }

    /// A client connection.
    pub fn client(&self) -> Client {
        Client::connect(self.port())
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        Client::get(self.port(), path)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        // SAFETY: kill has no memory effects; the pid is our own child's, which was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "a running child");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let child = self.child.as_mut().expect("it was started");
        loop {
            if let Some(status) = child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("our child").is_none())
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs one verb of the binary in its folder.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.command().args(args).stdin(Stdio::null()).output().expect("the binary starts")
    }

    /// Runs a verb and takes its exit code; the rest is for the message of an assertion.
    pub fn cli_code(&self, args: &[&str]) -> (i32, String) {
        let output = self.cli(args);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// Where the admin API and the dashboard are.
    pub fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.setup.admin_port)
    }

    /// One request to the admin API, with header lines of the test's own (each with its CRLF).
    pub fn admin_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut client = Client::connect(self.setup.admin_port);
        let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
        client.ask(&format!("{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
    }

    /// One request to the admin API: its status and JSON.
    pub fn admin(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.admin_with(method, path, "Content-Type: application/json\r\n", &body);
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// `GET /v1/status`
    pub fn status(&self) -> Value {
        self.admin("GET", "/v1/status", &Value::Null).1
    }

    /// The service `app` in the status.
    pub fn app(&self) -> Value {
        self.status()["services"]["app"].clone()
    }

    /// Flips `app` by the API and waits for the drain.
    pub fn flip(&self, to: &str) -> (u16, Value) {
        self.admin("POST", "/v1/services/app/flip", &json!({ "to": to }))
    }

    /// Flips `app` by the API, which must be done.
    pub fn must_flip(&self, to: &str) -> Value {
        let (status, changed) = self.flip(to);
        assert_eq!(status, 200, "{changed}");
        changed
    }

    /// Waits until `app` says so.
    pub fn until_app(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let app = self.app();
            if holds(&app) {
                return app;
            }
            assert!(Instant::now() < deadline, "it never came true that {what}: {app:#}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits until every thread of it sleeps, and counts how often they are woken in the second after that. A thread
    /// that spins is never seen asleep and one that is woken for nothing is counted, however busy the machine is:
    /// processor time would tell neither there.
    pub fn must_rest(&self) {
        eventually("no thread of it runs", || self.threads().iter().all(|(state, _)| *state == 'S'));
        let woken = || self.threads().iter().map(|(_, woken)| woken).sum::<u64>();
        let before = woken();
        std::thread::sleep(std::time::Duration::from_secs(1));
        // 20 probes a second wake it, and those who ask for its status.
        let woken = woken().saturating_sub(before);
        assert!(woken < 500, "it was woken {woken} times in a second of nothing");
    }

    /// Of each thread, its state and how often it has gone to sleep so far.
    fn threads(&self) -> Vec<(char, u64)> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("a running child");
        let of_status = |text: String| {
            let value = |key: &str| text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()));
            let slept = value("voluntary_ctxt_switches:")?.parse().ok()?;
            Some((value("State:")?.chars().next()?, slept))
        };
        let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).ok().and_then(of_status);
        threads.filter_map(|thread| status(thread.ok()?)).collect()
    }

    /// Resident memory, in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running child");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS line");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
    }
}

impl Drop for Cutover {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the proxy said ---\n{}", self.log());
        }
        self.kill();
    }
}
