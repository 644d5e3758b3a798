//! Beside real programs: nginx behind and before the proxy, and curl, Python and wrk as clients.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::harness::{Client, Cutover, Setup, Upstream, eventually, free_port, have};

/// A real nginx in a folder of its own. Killed when dropped.
pub struct Nginx {
    port: u16,
    folder: TempDir,
    child: Child,
}

impl Nginx {
    /// Serves `server` (directives inside `server {}`); files are in `www`.
    pub fn start(server: &str) -> Nginx {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let at = folder.path().display();
        fs::create_dir(folder.path().join("www")).unwrap();
        // As root nginx would change to a user that may not read our folder.
        let user = if at_root() { "user root;" } else { "" };
        let config = format!(
            "{user} daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
             events {{ worker_connections 512; }}
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
                 fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                 server {{ listen 127.0.0.1:{port}; root {at}/www; client_max_body_size 0;
                     location = /readyz {{ return 200; }} {server} }} }}"
        );
        fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin")).arg("-c").arg(folder.path().join("nginx.conf"));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx starts");
        let nginx = Nginx { port, folder, child };
        eventually("nginx listens", || Client::try_connect(("127.0.0.1", port)).is_ok());
        nginx
    }

    fn www(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("www").join(name)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // TERM, so that the master takes its worker with it.
        // SAFETY: kill has no memory effects; the process is our own child, which was not waited for yet.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

fn at_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// `app` with blue at this port and nobody at green.
fn before(port: u16) -> Cutover {
    let nobody = Upstream::stopped();
    let setup = Setup::of(&nobody, &nobody).set("service.app.blue", port).set("service.app.watch.window", "'0s'");
    let cutover = setup.set("service.app.green", nobody.port).start_unready();
    cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
    cutover
}

fn run(program: &str, args: &[&str], folder: &Path) -> Output {
    let output = Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    output
}

fn curl(args: &[&str], folder: &Path) -> String {
    let args = [&["--silent", "--show-error", "--max-time", "20"], args].concat();
    String::from_utf8_lossy(&run("curl", &args, folder).stdout).into_owned()
}

/// Bytes that do not compress and do not repeat at any buffer's size.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

mod nginx {
    use super::*;

    #[test]
    fn behind_it_serves_files_ranges_and_not_modified() {
        if !have("nginx") || !have("curl") {
            return;
        }
        let nginx = Nginx::start("location / { }");
        let file = noise(3_000_001);
        fs::write(nginx.www("file"), &file).unwrap();
        let cutover = before(nginx.port);
        let url = format!("http://127.0.0.1:{}/file", cutover.port());
        let folder = cutover.dir.path();
        curl(&["-o", "whole", "-D", "head", &url], folder);
        assert_eq!(fs::read(folder.join("whole")).unwrap(), file);
        curl(&["-o", "part", "-r", "1000000-1999999", &url], folder);
        assert_eq!(fs::read(folder.join("part")).unwrap(), file[1_000_000..2_000_000]);
        let etag = cutover.file("head").lines().find_map(|line| line.strip_prefix("ETag: ").map(str::to_owned));
        let condition = format!("If-None-Match: {}", etag.expect("nginx sends an ETag"));
        assert_eq!(curl(&["-o", "none", "-w", "%{http_code}", "-H", &condition, &url], folder), "304");
        let head = curl(&["-I", &url], folder);
        assert!(head.contains("200 OK") && head.contains("Content-Length: 3000001"), "{head}");
        assert_eq!(curl(&["-0", "-o", "old", "-w", "%{http_code}", &url], folder), "200");
        assert_eq!(fs::read(folder.join("old")).unwrap(), file);
    }

    #[test]
    fn that_closes_kept_connections_costs_no_request() {
        if !have("nginx") {
            return;
        }
        // It closes after three requests, which it says, and after 30 ms of idleness, which it does not.
        let nginx = Nginx::start("keepalive_requests 3; keepalive_timeout 30ms; location / { return 200 ok; }");
        let cutover = before(nginx.port);
        let mut client = cutover.client();
        for n in 0..120 {
            let request = if n % 2 == 0 {
                "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello"
            } else {
                "GET / HTTP/1.1\r\nHost: app\r\n\r\n"
            };
            assert_eq!(client.ask(request).status, 200, "request {n}");
            if n % 3 == 0 {
                // Around the instant at which nginx closes: that is the race.
                std::thread::sleep(Duration::from_millis(25 + n % 10));
            }
        }
    }

    #[test]
    fn before_it_is_believed_about_the_client_when_trusted() {
        if !have("nginx") {
            return;
        }
        let app = Upstream::saying("app");
        for (trusted, want) in [("['127.0.0.0/8']", "198.51.100.7, 127.0.0.1, 127.0.0.1"), ("[]", "127.0.0.1")] {
            app.forget();
            let idle = Upstream::saying("idle");
            let cutover = Setup::of(&app, &idle).set("proxy.trusted_proxies", trusted).start();
            let nginx = Nginx::start(&format!(
                "location / {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1; proxy_set_header Host $host;
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}",
                cutover.port()
            ));
            let mut client = Client::connect(nginx.port);
            let answer = client.ask("GET / HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n");
            assert_eq!((answer.status, answer.text()), (200, "app"));
            let seen = app.text();
            let forwarded = seen.lines().find_map(|line| line.strip_prefix("X-Forwarded-For: "));
            assert_eq!(forwarded, Some(want), "{seen}");
            assert!(seen.contains("Host: shop.example\r\n"), "{seen}");
        }
    }

    #[test]
    fn behind_it_takes_uploads_of_every_framing() {
        if !have("nginx") || !have("curl") {
            return;
        }
        // nginx reads the whole body before it passes it on: what arrives is what was sent.
        let sink = Upstream::start(|conn| {
            loop {
                let request = conn.request()?;
                let body = conn.body(&request)?;
                let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
                conn.send(super::super::harness::plain("200 OK", &format!("{} {sum}", body.len())))?;
            }
        });
        let nginx = Nginx::start(&format!("location / {{ proxy_pass http://127.0.0.1:{}; }}", sink.port));
        let cutover = before(nginx.port);
        let file = noise(2_000_003);
        fs::write(cutover.path("file"), &file).unwrap();
        let sum: u64 = file.iter().map(|&byte| u64::from(byte)).sum();
        let url = format!("http://127.0.0.1:{}/", cutover.port());
        for (case, args) in [
            ("a length", &["-T", "file"][..]),
            ("chunks", &["-T", "file", "-H", "Transfer-Encoding: chunked"]),
            ("with 100-continue", &["-T", "file", "-H", "Expect: 100-continue"]),
            ("without 100-continue", &["-T", "file", "-H", "Expect:"]),
            ("a POST", &["--data-binary", "@file"]),
        ] {
            let said = curl(&[args, &[&url]].concat(), cutover.dir.path());
            assert_eq!(said, format!("{} {sum}", file.len()), "{case}");
        }
    }
}

mod python {
    use super::*;

    #[test]
    fn keeps_its_connection_and_uploads_an_iterator() {
        if !have("python3") {
            return;
        }
        let app = Upstream::start(|conn| {
            loop {
                let request = conn.request()?;
                let body = conn.body(&request)?;
                conn.send(super::super::harness::plain("200 OK", &body.len().to_string()))?;
            }
        });
        let cutover = before(app.port);
        let script = format!(
            "import http.client
c = http.client.HTTPConnection('127.0.0.1', {}, timeout=20)
c.connect(); port = c.sock.getsockname()
for n in range(50):
    c.request('GET', '/'); r = c.getresponse(); assert (r.status, r.read()) == (200, b'0')
c.request('POST', '/', body=iter([b'x' * 1000] * 100), encode_chunked=True, headers={{'Transfer-Encoding': 'chunked'}})
r = c.getresponse(); said = r.read(); assert r.status == 200, r.status
# As it came: 100 chunks of '3e8 CRLF 1000 bytes CRLF', and the last one.
assert int(said) >= 100000, said
c.request('GET', '/'); r = c.getresponse(); r.read()
assert c.sock.getsockname() == port, 'one connection for all'
",
            cutover.port()
        );
        run("python3", &["-c", &script], cutover.dir.path());
        assert_eq!(app.seen().len(), 1, "and one connection upstream");
    }
}

mod wrk {
    use super::*;

    #[test]
    fn sees_nothing_of_twenty_flips() {
        if !have("wrk") {
            return;
        }
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        let cutover = Setup::of(&blue, &green).start();
        let url = format!("http://127.0.0.1:{}/", cutover.port());
        let mut wrk = Command::new("wrk");
        let wrk =
            wrk.args(["-t1", "-c16", "-d3s", &url]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it is under way", || cutover.app()["colors"]["blue"]["requests"].as_u64() > Some(100));
        for flip in 0..20 {
            cutover.must_flip(if flip % 2 == 0 { "green" } else { "blue" });
        }
        let output = wrk.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("requests in"), "{output:?}");
        assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    }
}
