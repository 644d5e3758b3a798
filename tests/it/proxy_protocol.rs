//! The PROXY protocol in front of us and behind us, on raw sockets and with HAProxy, nginx and curl.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::harness::{Client, Cutover, PATIENCE, Setup, Upstream, eventually, free_port, have, secured_over};
use super::peers::Nginx;

const GET: &str = "GET / HTTP/1.1\r\nHost: app.example\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 8443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x02\x12\x67\x20\xfb";

/// Everybody on this machine must say whose connection it is.
fn told(blue: &Upstream) -> Cutover {
    Setup::in_front_of(blue).set("proxy.proxy_protocol_from", "['127.0.0.0/8']").start()
}

fn forwarded_for(app: &Upstream) -> String {
    let seen = app.text();
    let line = seen.lines().rev().find_map(|line| line.strip_prefix("X-Forwarded-For: "));
    line.unwrap_or_else(|| panic!("no X-Forwarded-For in {seen}")).to_owned()
}

mod in_front {
    use super::*;

    #[test]
    fn the_client_is_whom_the_header_names() {
        let blue = Upstream::saying("blue");
        let cutover = told(&blue);
        for (case, header, want) in [
            ("1", V1, "192.0.2.7"),
            ("2", V2, "192.0.2.7"),
            ("1, IPv6", b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"),
            ("1, nobody", b"PROXY UNKNOWN\r\n", "127.0.0.1"),
            ("2, the sender's own", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
        ] {
            // At once with two requests, and byte by byte.
            blue.forget();
            let mut client = cutover.client();
            client.send([header, GET.as_bytes(), GET.as_bytes()].concat());
            for _ in 0..2 {
                let answer = client.answer();
                assert_eq!((answer.status, answer.text()), (200, "blue"), "{case}");
                assert_eq!(forwarded_for(&blue), want, "{case}");
            }
            blue.forget();
            let mut client = cutover.client();
            for byte in [header, GET.as_bytes()].concat() {
                client.send([byte]);
            }
            assert_eq!((client.answer().status, forwarded_for(&blue).as_str()), (200, want), "{case}, byte by byte");
        }
        let seen = blue.text();
        assert!(seen.contains("X-Forwarded-Port: ") && !seen.contains("PROXY "), "{seen}");
    }

    #[test]
    fn the_port_is_the_one_that_the_client_came_to() {
        let blue = Upstream::saying("blue");
        let cutover = told(&blue);
        let mut client = cutover.client();
        client.send([V1, GET.as_bytes()].concat());
        assert_eq!(client.answer().status, 200);
        assert!(blue.text().contains("X-Forwarded-Port: 8443\r\n"), "{}", blue.text());
    }

    #[test]
    fn without_a_header_nobody_is_served_and_nobody_else_may_send_one() {
        let blue = Upstream::saying("blue");
        let cutover = told(&blue);
        for (case, sent) in [
            ("HTTP at once", GET.as_bytes()),
            ("a malformed header", b"PROXY TCP4 nobody 198.51.100.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a line without end", [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 300]].concat().leak()),
        ] {
            let mut client = cutover.client();
            let _ = client.try_send(sent);
            client.rest_or_reset();
            assert_eq!(blue.text(), "", "{case}");
        }
        eventually("it is said", || cutover.log().contains("connection closed"));
        let counted = "cutover_refused_total{reason=\"proxy_header\"} 3";
        eventually("and counted", || cutover.admin_with("GET", "/metrics", "", "").text().contains(counted));
        let other = Setup::in_front_of(&blue).set("proxy.proxy_protocol_from", "['10.0.0.0/8']").start();
        let mut client = other.client();
        client.send([V1, GET.as_bytes()].concat());
        assert_eq!(client.answer().status, 400);
        let mut client = other.client();
        client.send([V2, GET.as_bytes()].concat());
        assert_eq!(client.answer().status, 400);
        assert_eq!(blue.text(), "");
    }

    #[test]
    fn one_that_does_not_come_is_waited_for_no_longer_than_a_head() {
        let blue = Upstream::saying("blue");
        let setup = Setup::in_front_of(&blue).set("proxy.proxy_protocol_from", "['127.0.0.0/8']");
        let cutover = setup.set("proxy.header_timeout", "'200ms'").start();
        for sent in [&b""[..], b"PROXY TCP4 192.0.2.7 ", &V2[..14]] {
            let mut client = cutover.client();
            client.send(sent);
            let (bytes, _) = client.rest();
            assert_eq!(bytes, b"", "closed without an answer");
        }
        let until = "no PROXY header within proxy.header_timeout";
        eventually("it is said", || cutover.log().contains(until));
    }

    #[test]
    fn tls_begins_behind_it() {
        let blue = Upstream::saying("blue");
        let (setup, authority, port) = Setup::in_front_of(&blue).with_tls();
        let _cutover = setup.set("proxy.proxy_protocol_from", "['127.0.0.1']").start();
        for header in [V1, V2] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(header).unwrap();
            let mut client = secured_over(stream, "app.example", &authority.trusted()).expect("a handshake");
            assert_eq!(client.ask(GET).status, 200);
            assert_eq!(forwarded_for(&blue), "192.0.2.7");
            blue.forget();
        }
    }

    #[test]
    fn curl_speaks_either_http_behind_it() {
        if !have("curl") {
            return;
        }
        let blue = Upstream::saying("blue");
        let cutover = told(&blue);
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--max-time", "10", "--haproxy-protocol", version]);
            let output = curl.args(["--interface", "127.0.0.9"]).arg(format!("http://127.0.0.1:{}/", cutover.port()));
            let output = output.output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "blue", "{version}: {output:?}");
            assert_eq!(forwarded_for(&blue), "127.0.0.9", "{version}");
            blue.forget();
        }
    }
}

/// HAProxy with this configuration below its defaults. Killed when dropped.
struct Haproxy {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    fn start(port: u16, config: &str) -> Haproxy {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("haproxy.cfg");
        let defaults = "defaults\n mode http\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n";
        std::fs::write(&path, format!("{defaults}{config}")).unwrap();
        let mut command = Command::new("haproxy");
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())).arg("-db").arg("-f");
        let child = command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let haproxy = Haproxy { child: child.expect("HAProxy starts"), _folder: folder };
        eventually("HAProxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection from another address of this machine.
fn client_from(address: [u8; 4], port: u16) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(address), 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::of(socket.into())
}

#[test]
fn haproxy_in_front_names_its_clients_in_either_version() {
    if !have("haproxy") {
        return;
    }
    let blue = Upstream::saying("blue");
    let cutover = told(&blue);
    for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"] {
        let port = free_port();
        let to = format!(" server cutover 127.0.0.1:{} {version}\n", cutover.port());
        let _haproxy =
            Haproxy::start(port, &format!("listen in\n bind 127.0.0.1:{port}\n unique-id-format %pid-%rt\n{to}"));
        blue.forget();
        let answer = client_from([127, 0, 0, 5], port).ask(GET);
        assert_eq!((answer.status, answer.text()), (200, "blue"), "{version}");
        assert_eq!(forwarded_for(&blue), "127.0.0.5", "{version}");
    }
}

mod behind {
    use super::*;

    /// `port` tells, of each request, whom it is told to be from, and the how many-th it is on its connection.
    fn before(port: u16, version: &str) -> Cutover {
        let cutover = Setup::in_front_of(&Upstream::stopped())
            .set("service.app.blue", port)
            .set("service.app.upstream.proxy_protocol", format!("'{version}'"))
            .set("service.app.watch.window", "'0s'")
            .start();
        assert_eq!(cutover.app()["colors"]["blue"]["ready"], true, "probes say that they are our own");
        cutover
    }

    #[test]
    fn nginx_is_told_of_each_connection_whose_it_is() {
        if !have("nginx") {
            return;
        }
        let port = free_port();
        let tells =
            "location / { return 200 \"$proxy_protocol_addr $proxy_protocol_server_port $connection_requests\"; }";
        let _nginx = Nginx::start(&format!("listen 127.0.0.1:{port} proxy_protocol; {tells}"));
        for version in ["v1", "v2"] {
            let cutover = before(port, version);
            let mut clients = [1, 2, 3].map(|n| (n, client_from([127, 0, 0, n], cutover.port())));
            for nth in 1..=3 {
                for (n, client) in &mut clients {
                    let answer = client.ask(GET);
                    let want = format!("127.0.0.{n} {} {nth}", cutover.port());
                    assert_eq!((answer.status, answer.text()), (200, want.as_str()), "{version}");
                }
            }
        }
    }

    #[test]
    fn haproxy_takes_either_version() {
        if !have("haproxy") {
            return;
        }
        let port = free_port();
        let tells = "http-request return status 200 content-type text/plain lf-string %[src]:%[dst_port]";
        let config = format!("frontend in\n bind 127.0.0.1:{port} accept-proxy\n {tells}\n");
        let _haproxy = Haproxy::start(port, &config);
        for version in ["v1", "v2"] {
            let cutover = before(port, version);
            let answer = client_from([127, 0, 0, 8], cutover.port()).ask(GET);
            assert_eq!(answer.text(), format!("127.0.0.8:{}", cutover.port()), "{version}");
        }
    }

    #[test]
    fn whom_others_name_is_named_on() {
        let nobody = Upstream::stopped();
        let listener = std::net::TcpListener::bind(("127.0.0.1", nobody.port)).unwrap();
        let (said, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut got = Vec::new();
                while !got.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    got.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&got).into_owned();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                let _ = said.send(text.lines().next().unwrap_or_default().to_owned());
            }
        });
        let cutover = Setup::in_front_of(&nobody)
            .set("proxy.proxy_protocol_from", "['127.0.0.1']")
            .set("service.app.upstream.proxy_protocol", "'v1'")
            .start();
        let mut client = cutover.client();
        client.send([V1, GET.as_bytes()].concat());
        assert_eq!(client.answer().status, 200);
        let line = |wanted: &str| {
            std::iter::from_fn(|| lines.recv_timeout(Duration::from_secs(5)).ok()).any(|line| line == wanted)
        };
        assert!(line("PROXY UNKNOWN"), "a probe");
        assert!(line("PROXY TCP4 192.0.2.7 198.51.100.2 4711 8443"), "the request");
    }
}
