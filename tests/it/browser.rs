//! Chromium through the proxy: a page with its files over TLS and HTTP/2, and on the same connection a WebSocket
//! (RFC 8441) and an event stream that go through a flip.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::harness::{Setup, Upstream, eventually, have, plain};

/// Asks for `/flip` when all is open, and says what it saw to `/report`.
const PAGE: &str = r#"<!doctype html>
<link rel="stylesheet" href="/style.css"><script src="/one.js"></script><script src="/two.js"></script>
<img src="/picture.svg"><iframe src="/frame.html"></iframe>
<script>
const once = (target, kind) => new Promise(done => target.addEventListener(kind, done, { once: true }));
async function hello(saw) {
    const socket = new WebSocket(`wss://${location.host}/socket`);
    await once(socket, "open");
    socket.send("hello");
    saw.push((await once(socket, "message")).data);
    return socket;
}
async function main() {
    await once(window, "load");
    const files = ["navigation", "resource"].flatMap(kind => performance.getEntriesByType(kind));
    const protocols = files.map(file => `${new URL(file.name).pathname} ${file.nextHopProtocol}`).sort();
    const sockets = [], events = [], stream = new EventSource("/events");
    events.push((await once(stream, "message")).data);
    const socket = await hello(sockets);
    const closed = once(socket, "close"), next = once(stream, "message");
    await fetch("/flip");
    sockets.push((await closed).code);
    events.push((await next).data);
    await hello(sockets);
    return { protocols, sockets, events };
}
const report = saw => fetch("/report", { method: "POST", body: JSON.stringify(saw) });
main().catch(error => ({ error: `${error}` })).then(report);
</script>"#;

/// The page's application. It says its color on sockets and event streams.
fn application(color: &'static str) -> Upstream {
    let typed = |kind: &str, body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        format!("{head}Cache-Control: no-store\r\n\r\n{body}").into_bytes()
    };
    Upstream::start(move |conn| {
        loop {
            let request = conn.request()?;
            conn.body(&request)?;
            match request.target() {
                "/" => conn.send(typed("text/html", PAGE))?,
                "/frame.html" => conn.send(typed("text/html", "<!doctype html>framed"))?,
                "/style.css" => conn.send(typed("text/css", "body { color: teal }"))?,
                "/picture.svg" => conn.send(typed("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>"))?,
                script if script.ends_with(".js") => conn.send(typed("text/javascript", "0;"))?,
                "/events" => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                    conn.send(format!("{head}retry: 50\ndata: {color}\n\n"))?;
                    return conn.rest().map(drop);
                }
                // What a browser accepts on HTTP/1 is not said: this is a WebSocket on HTTP/2 only (RFC 8441 5).
                "/socket" => {
                    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: none\r\n\r\n";
                    conn.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}"))?;
                    let masked = conn.exactly(2 + 4 + "hello".len())?;
                    let heard = masked[6..].iter().zip(masked[2..6].iter().cycle()).map(|(byte, mask)| byte ^ mask);
                    let said = format!("{color}: {}", String::from_utf8_lossy(&heard.collect::<Vec<u8>>()));
                    conn.send([&[0x81, said.len() as u8][..], said.as_bytes()].concat())?;
                    return conn.rest().map(drop);
                }
                "/flip" | "/report" => conn.send(plain("200 OK", ""))?,
                _ => conn.send(plain("404 Not Found", ""))?,
            }
        }
    })
}

/// A browser with all its processes; ended when dropped.
struct Browser(Child);

impl Browser {
    fn open(url: &str, profile: &std::path::Path) -> Browser {
        let mut chromium = Command::new("chromium");
        chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--ignore-certificate-errors"]);
        chromium.arg("--host-resolver-rules=MAP app.example 127.0.0.1");
        chromium.arg(format!("--user-data-dir={}", profile.display())).arg(url);
        chromium.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Browser(chromium.spawn().expect("it starts"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // SAFETY: a plain system call. The group is the one that was made for the browser, which is not waited for yet.
        unsafe { libc::kill(-(self.0.id() as i32), libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

#[test]
fn a_page_its_socket_and_its_events_come_over_http2_and_go_through_a_flip() {
    if !have("chromium") {
        return;
    }
    let (blue, green) = (application("blue"), application("green"));
    let setup = Setup::of(&blue, &green)
        .set("service.app.watch.window", "'0s'")
        .set("service.app.drain.timeout", "'3s'")
        .set("log.access", "'json'");
    let (setup, _, tls_port) = setup.with_tls();
    let cutover = setup.start();
    let profile = tempfile::tempdir().unwrap();
    let _browser = Browser::open(&format!("https://app.example:{tls_port}/"), profile.path());
    eventually("all is open", || blue.text().contains("GET /flip "));
    cutover.must_flip("green");
    let report = |upstream: &Upstream| {
        let seen = upstream.text();
        let body = seen.split_once("POST /report ")?.1.split_once("\r\n\r\n")?.1;
        serde_json::Deserializer::from_str(body).into_iter::<Value>().next()?.ok()
    };
    eventually("it says what it saw", || report(&green).is_some());
    let files = ["/", "/frame.html", "/one.js", "/picture.svg", "/style.css", "/two.js"];
    let want = json!({
        "protocols": files.map(|file| format!("{file} h2")),
        "sockets": ["blue: hello", 1001, "green: hello"],
        "events": ["blue", "green"],
    });
    assert_eq!(report(&green), Some(want));
    let log = cutover.file("stdout");
    let requests = log.lines().filter(|line| line.contains("\"path\":"));
    let not_http2: Vec<_> = requests.filter(|line| !line.contains("\"protocol\":\"HTTP/2.0\"")).collect();
    assert!(log.contains("\"path\":\"/socket\"") && not_http2.is_empty(), "{not_http2:?} in {log}");
}
