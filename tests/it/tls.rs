//! TLS towards clients: who is met with which certificate, and what becomes of it when files change.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

use crate::harness::{
    Authority, Client, Cutover, Load, PATIENCE, Secured, Setup, Upstream, eventually, free_port, have, secured,
    secured_over,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: app.example\r\n\r\n";

/// A proxy with TLS in front of two colors, and a client that trusts it.
struct Stage {
    blue: Upstream,
    green: Upstream,
    cutover: Cutover,
    port: u16,
    authority: Authority,
    trusted: Arc<ClientConfig>,
}

/// With a certificate for `app.example`, and whatever else `more` sets.
fn stage(blue: Upstream, more: impl FnOnce(Setup, &Authority) -> Setup) -> Stage {
    let (green, authority, port) = (Upstream::saying("green"), Authority::new(), free_port());
    let (cert, key) = authority.sign(&["app.example"]);
    let setup = Setup::of(&blue, &green)
        .set("proxy.listen_tls", format!("['127.0.0.1:{port}']"))
        .set("tls.certificates", "[{ cert = 'app.pem', key = 'app.key' }]")
        .file("app.pem", &cert)
        .file("app.key", &key)
        .file("ca.pem", &authority.pem);
    let cutover = more(setup, &authority).start();
    let trusted = authority.trusted();
    Stage { blue, green, cutover, port, authority, trusted }
}

fn plain_stage() -> Stage {
    stage(Upstream::saying("blue"), |setup, _| setup)
}

impl Stage {
    fn client(&self) -> Client<Secured> {
        self.try_client("app.example").expect("a handshake")
    }

    fn try_client(&self, name: &str) -> std::io::Result<Client<Secured>> {
        secured(self.port, name, &self.trusted)
    }

    fn metric(&self, sample: &str) -> f64 {
        let metrics = self.cutover.admin_with("GET", "/metrics", "", "");
        let value = metrics.text().lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {sample} in {}", metrics.text())).parse().unwrap()
    }

    fn handshakes(&self, result: &str) -> f64 {
        self.metric(&format!("cutover_tls_handshakes_total{{result=\"{result}\"}}"))
    }

    fn until_handshakes(&self, result: &str, count: f64) {
        eventually(&format!("{count} handshakes are {result}"), || self.handshakes(result) >= count);
    }

    /// The certificate that a new connection is met with.
    fn met_with(&self) -> Vec<u8> {
        let client = self.client();
        client.stream().conn.peer_certificates().expect("a certificate")[0].to_vec()
    }

    fn problems(&self) -> String {
        self.cutover.status()["problems"].to_string()
    }

    /// curl, which checks name and chain; what it printed.
    fn curl(&self, name: &str, args: &[&str]) -> String {
        let (ca, resolve) = (self.cutover.path("ca.pem"), format!("{name}:{}:127.0.0.1", self.port));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(ca).args(["--resolve", &resolve]).args(args);
        let output = curl.arg(format!("https://{name}:{}/", self.port)).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

/// Reads to the end: what came, and whether it ended with `close_notify`.
fn to_the_end(client: &mut Client<Secured>) -> (Vec<u8>, bool) {
    let mut rest = Vec::new();
    match client.stream_mut().read_to_end(&mut rest) {
        Ok(_) => (rest, true),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => (rest, false),
        Err(error) => panic!("the connection did not end: {error}"),
    }
}

#[test]
fn the_name_picks_the_certificate_in_tls_1_2_and_1_3() {
    let stage = stage(Upstream::saying("blue"), |setup, authority| {
        let ((wild, wild_key), (other, other_key)) =
            (authority.sign(&["*.wild.example"]), authority.sign(&["other.example"]));
        let certificates = "[{ cert = 'app.pem', key = 'app.key' }, { cert = 'wild.pem', key = 'wild.key' }, \
                            { cert = 'other.pem', key = 'other.key' }]";
        setup
            .set("tls.certificates", certificates)
            .file("wild.pem", &wild)
            .file("wild.key", &wild_key)
            .file("other.pem", &other)
            .file("other.key", &other_key)
    });
    if !have("curl") {
        return;
    }
    for versions in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        for name in ["app.example", "www.wild.example", "other.example", "OTHER.example"] {
            let said = stage.curl(name, &[&versions[..], &["-w", " %{http_code} %{http_version}"]].concat());
            assert_eq!(said, "blue 200 2", "{name} {versions:?}");
        }
        let said = stage.curl("two.labels.wild.example", &versions);
        assert!(said.contains("curl: (60)"), "the first certificate, which is for another name: {said}");
        let said = stage.curl("app.example", &["--tlsv1.0", "--tls-max", "1.1"]);
        assert!(said.contains("curl: (35)"), "an old version: {said}");
    }
    let files: Vec<_> = ["app.pem", "wild.pem", "other.pem"].map(|file| json!(file)).into();
    let shown = stage.cutover.status()["certificates"].clone();
    assert_eq!(shown.as_array().unwrap().iter().map(|one| one["file"].clone()).collect::<Vec<_>>(), files);
    assert_eq!(
        (&shown[1]["names"], &shown[1]["expires"]),
        (&json!(["*.wild.example"]), &json!("2040-01-01T00:00:00Z"))
    );
    assert_eq!(stage.metric("cutover_certificate_expiry_timestamp_seconds{cert=\"app.pem\"}"), 2_208_988_800.0);
}

#[test]
fn a_name_without_a_certificate_may_be_refused() {
    let stage = stage(Upstream::saying("blue"), |setup, _| setup.set("tls.unknown_name", "'refuse'"));
    assert_eq!(stage.client().ask(GET).text(), "blue");
    let error = stage.try_client("other.example").err().expect("no handshake");
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    assert!(stage.try_client("127.0.0.1").is_err(), "an address is no name");
    stage.until_handshakes("unknown_name", 2.0);
}

#[test]
fn sessions_are_resumed_whichever_worker_is_met() {
    let stage = stage(Upstream::saying("blue"), |setup, _| setup.set("proxy.workers", 2));
    let kind = |client: &Client<Secured>| client.stream().conn.handshake_kind();
    let mut open = Vec::new();
    for n in 0..6 {
        let mut client = stage.client();
        assert_eq!(client.ask(GET).text(), "blue");
        let want = if n == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
        assert_eq!(kind(&client), Some(want), "connection {n}; those before are open, so each worker has some");
        open.push(client);
    }
    // A certificate that is renewed ends no session.
    let (cert, key) = stage.authority.sign(&["app.example"]);
    stage.cutover.write("app.pem", &cert);
    stage.cutover.write("app.key", &key);
    assert_eq!(stage.cutover.admin("POST", "/v1/reload", &json!({})).0, 200);
    assert_eq!(kind(&stage.client()), Some(HandshakeKind::Resumed));
    stage.until_handshakes("resumed", 6.0);
    assert_eq!(stage.handshakes("full"), 1.0);
}

#[test]
fn sessions_of_tls_1_2_are_resumed_too() {
    if !have("openssl") {
        return;
    }
    let stage = stage(Upstream::saying("blue"), |setup, _| setup.set("proxy.workers", 2));
    let address = format!("127.0.0.1:{}", stage.port);
    let openssl = ["s_client", "-reconnect", "-tls1_2", "-servername", "app.example", "-connect", &address];
    let output = Command::new("openssl").args(openssl).stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.matches("Reused, TLSv1.2").count(), 5, "TLS 1.2 too: {said}");
}

#[test]
fn certificates_are_renewed_under_load_without_a_failed_request() {
    let stage = plain_stage();
    let (port, trusted) = (stage.port, Arc::clone(&stage.trusted));
    let load = Load::over(2, move || secured(port, "app.example", &trusted));
    let mut kept = stage.client();
    assert_eq!(kept.ask(GET).text(), "blue");
    for round in 0..6 {
        let before = stage.met_with();
        let (cert, key) = stage.authority.sign(&["app.example"]);
        stage.cutover.write("app.key", &key);
        stage.cutover.write("app.pem", &cert);
        if round % 2 == 0 {
            stage.cutover.signal(libc::SIGHUP);
        }
        eventually("new connections get the new one", || stage.met_with() != before);
        // Each of these begins on a new connection.
        let (port, trusted) = (stage.port, Arc::clone(&stage.trusted));
        let fresh = Load::over(2, move || secured(port, "app.example", &trusted));
        eventually("they are served", || fresh.answered() > 20);
        assert_eq!(fresh.end().1, Vec::<String>::new());
    }
    assert_eq!(kept.ask(GET).text(), "blue", "the connection that was open all the time");
    let (answered, failures) = load.end();
    assert!(failures.is_empty() && answered > 100, "{answered} {failures:?}");
    eventually("all is well", || stage.problems() == "[]");
}

#[test]
fn a_bad_new_certificate_leaves_the_old_one_in_force() {
    let mut stage = plain_stage();
    let (good, good_key) = (stage.cutover.file("app.pem"), stage.cutover.file("app.key"));
    let in_force = stage.met_with();
    let stranger = stage.authority.sign(&["app.example"]);
    for (case, cert, key, said) in [
        ("another's key", &*good, &*stranger.1, "app.key is not the key of the first certificate in app.pem"),
        ("garbage", "no certificate", &*good_key, "app.pem holds no certificate"),
        ("an empty key", &*good, "", "app.key holds no private key"),
    ] {
        stage.cutover.write("app.pem", cert);
        stage.cutover.write("app.key", key);
        eventually(case, || stage.problems().contains(said));
        let (code, answer) = stage.cutover.cli_code(&["reload"]);
        assert!(code == 2 && answer.contains(said) && answer.contains("help: "), "{case}: {code} {answer}");
        assert_eq!(stage.met_with(), in_force, "{case}");
        let (code, said) = stage.cutover.cli_code(&["status"]);
        assert!(code == 0 && !said.contains("the config is not valid"), "a client needs no certificate: {said}");
        stage.cutover.must_flip("green");
        stage.cutover.must_flip("blue");
    }
    std::fs::remove_file(stage.cutover.path("app.pem")).unwrap();
    eventually("its absence is said", || stage.problems().contains("app.pem cannot be read"));
    assert_eq!(stage.met_with(), in_force);
    stage.cutover.write("app.key", &good_key);
    stage.cutover.write("app.pem", &good);
    eventually("it is well again", || stage.problems() == "[]");
    stage.cutover.configure("tls.certificates", "[]");
    assert_eq!(stage.cutover.admin("POST", "/v1/reload", &json!({})).0, 422, "the listener would have none");
    assert_eq!(stage.met_with(), in_force);
}

#[test]
fn what_is_odd_and_yet_usable_is_said() {
    let stage = stage(Upstream::saying("blue"), |setup, authority| {
        let ((old, old_key), (twin, twin_key)) =
            (authority.sign_until(&["old.example"], 2020), authority.sign(&["app.example"]));
        let certificates = "[{ cert = 'app.pem', key = 'app.key' }, { cert = 'old.pem', key = 'old.key' }, \
                            { cert = 'twin.pem', key = 'twin.key' }]";
        setup
            .set("tls.certificates", certificates)
            .file("old.pem", &old)
            .file("old.key", &old_key)
            .file("twin.pem", &twin)
            .file("twin.key", &twin_key)
    });
    let problems = stage.problems();
    assert!(problems.contains("certificate old.pem expired on 2020-01-01"), "{problems}");
    assert!(problems.contains("certificates app.pem and twin.pem are both for app.example"), "{problems}");
    let (code, said) = stage.cutover.cli_code(&["check"]);
    assert!(code == 0 && said.contains("warning: certificate old.pem expired on"), "{code} {said}");
    assert!(said.contains("app.pem: app.example, until 2040-01-01T00:00:00Z"), "{said}");
    assert_eq!(stage.client().ask(GET).text(), "blue");
    assert!(stage.try_client("old.example").is_err(), "clients refuse it");
    stage.until_handshakes("refused_by_client", 1.0);
}

#[test]
fn clients_show_a_certificate_where_that_is_asked_for() {
    let guests = Authority::new();
    let mut stage = stage(Upstream::saying("blue"), |setup, _| {
        setup.file("clients.pem", &guests.pem).set("tls.client_ca", "'clients.pem'")
    });
    let welcome = stage.authority.trusted_by(&guests.sign(&["guest"]));
    let stranger = stage.authority.trusted_by(&Authority::new().sign(&["stranger"]));
    let ask = |config: &Arc<ClientConfig>| {
        let mut client = secured(stage.port, "app.example", config)?;
        client.try_send(GET.as_bytes())?;
        client.try_answer(false) // in TLS 1.3 the refusal comes after the client's part of the handshake
    };
    assert_eq!(ask(&welcome).unwrap().text(), "blue");
    assert_eq!(ask(&welcome).unwrap().text(), "blue", "resumed");
    assert!(ask(&stranger).is_err());
    assert!(ask(&stage.trusted).is_err());
    stage.until_handshakes("client_certificate", 2.0);
    assert!(stage.blue.text().matches("GET / ").count() == 2, "nothing of the others went upstream");

    stage.cutover.configure("tls.client_certificates", "'optional'");
    assert_eq!(stage.cutover.admin("POST", "/v1/reload", &json!({})).0, 200);
    let ask = |config: &Arc<ClientConfig>| {
        let mut client = secured(stage.port, "app.example", config)?;
        client.try_send(GET.as_bytes())?;
        client.try_answer(false)
    };
    assert_eq!(ask(&stage.trusted).unwrap().text(), "blue", "without one");
    assert_eq!(ask(&welcome).unwrap().text(), "blue");
    assert!(ask(&stranger).is_err(), "a shown one must be sound");

    // Other authorities: a session that the old ones began does not get past the new ones.
    stage.cutover.write("clients.pem", &Authority::new().pem);
    stage.cutover.configure("tls.client_certificates", "'required'");
    assert_eq!(stage.cutover.admin("POST", "/v1/reload", &json!({})).0, 200);
    let mut refused = secured(stage.port, "app.example", &welcome);
    let answer = refused.as_mut().map(|client| client.try_send(GET.as_bytes()).and_then(|()| client.try_answer(false)));
    assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
}

#[test]
fn plain_requests_are_sent_to_tls_and_hsts_is_said_there_only() {
    let stage = stage(Upstream::saying("blue"), |setup, _| {
        setup
            .set("proxy.redirect_to_tls", true)
            .set("proxy.trusted_proxies", "['127.0.0.1']")
            .set("tls.hsts", "'365d'")
            .set("service.app.hosts", "['app.example']")
    });
    let redirected =
        stage.cutover.client().ask("POST /a/b?c=d HTTP/1.1\r\nHost: app.example:8080\r\nContent-Length: 2\r\n\r\nhi");
    let location = format!("https://app.example:{}/a/b?c=d", stage.port);
    assert_eq!((redirected.status, redirected.header("location")), (308, Some(&*location)), "{redirected:?}");
    assert_eq!(redirected.header("strict-transport-security"), None);
    assert_eq!(stage.cutover.client().ask("GET / HTTP/1.0\r\n\r\n").status, 400, "no host to send anybody to");
    assert_eq!(stage.cutover.client().ask("GET / HTTP/1.1\r\nHost: a b\r\n\r\n").status, 400);
    let unwrapped = "GET / HTTP/1.1\r\nHost: app.example\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(stage.cutover.client().ask(unwrapped).text(), "blue", "a trusted proxy has taken it out of TLS");

    let mut client = stage.client();
    let said = |client: &mut Client<Secured>, request: &str| {
        let answer = client.ask(request);
        (answer.status, answer.header("strict-transport-security").map(str::to_owned))
    };
    let ours = Some("max-age=31536000".to_owned());
    assert_eq!(said(&mut client, GET), (200, ours.clone()));
    stage.blue.behave(|conn| {
        conn.answer_all(b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n")
    });
    stage.blue.stop_connections();
    assert_eq!(said(&mut client, GET), (200, Some("max-age=1".into())), "the application knows better");
    assert_eq!(said(&mut client, "GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"), (404, ours));
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let stage = stage(Upstream::saying("blue"), |setup, _| setup.set("tls.handshake_timeout", "'300ms'"));
    let began = Instant::now();
    let silent = TcpStream::connect(("127.0.0.1", stage.port)).unwrap();
    let mut slow = TcpStream::connect(("127.0.0.1", stage.port)).unwrap();
    slow.write_all(&[0x16, 3, 1, 2, 0]).unwrap(); // a record of 512 bytes that never come
    for mut stream in [silent, slow] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match stream.read(&mut [0; 16]) {
            Ok(read) => assert_eq!(read, 0),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
    stage.until_handshakes("timed_out", 2.0);
    eventually("they are not counted as open", || stage.cutover.status()["connections"] == 0);
}

#[test]
fn what_is_not_tls_is_told_or_ended() {
    let stage = plain_stage();
    let answer = Client::connect(stage.port).ask(GET);
    assert!(answer.status == 400 && answer.text().contains("this port speaks TLS"), "{answer:?}");
    stage.until_handshakes("plain_http", 1.0);
    let mut garbage = Client::connect(stage.port);
    garbage.send([0x16, 3, 1, 0, 5, 99, 0, 0, 1, 0]);
    drop(garbage.rest());
    let mut garbage = Client::connect(stage.port);
    garbage.send([0, 1, 2, 3, 4, 5, 6, 7]);
    drop(garbage.rest());
    stage.until_handshakes("malformed", 2.0);
    drop(TcpStream::connect(("127.0.0.1", stage.port)));
    stage.until_handshakes("closed", 1.0);
    let mut h3_only = (*stage.trusted).clone();
    h3_only.alpn_protocols = vec![b"h3".to_vec()];
    assert!(secured(stage.port, "app.example", &Arc::new(h3_only)).is_err());
    stage.until_handshakes("unsupported", 1.0);
    let mut both = (*stage.trusted).clone();
    both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = secured(stage.port, "app.example", &Arc::new(both)).unwrap();
    assert_eq!(client.stream().conn.alpn_protocol(), Some(&b"h2"[..]));
    assert!(stage.blue.text().is_empty(), "nothing of it went upstream");
}

#[test]
fn the_application_learns_that_it_was_tls() {
    let stage = plain_stage();
    let mut client = stage.client();
    for _ in 0..3 {
        assert_eq!(client.ask(GET).text(), "blue");
    }
    let seen = stage.blue.text();
    let port = stage.port;
    for line in ["X-Forwarded-Proto: https", &format!("X-Forwarded-Port: {port}"), ";proto=https"] {
        assert_eq!(seen.matches(line).count(), 3, "{line}: {seen}");
    }
}

#[test]
fn large_bodies_arrive_as_they_were_sent() {
    let stage = stage(
        Upstream::start(|conn| {
            loop {
                let request = conn.request()?;
                let body = conn.body(&request)?;
                let framing = match request.header("transfer-encoding") {
                    Some(_) => "Transfer-Encoding: chunked".to_owned(),
                    None => format!("Content-Length: {}", body.len()),
                };
                conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))?;
                conn.send(&body)?;
            }
        }),
        |setup, _| setup,
    );
    let body: Vec<u8> = (0..5_000_011_u32).map(|n| (n % 251) as u8).collect();
    let mut client = stage.client();
    for _ in 0..2 {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).send(&body);
        assert!(client.answer().body == body, "with a length");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(70_001) {
            client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
        }
        assert!(client.send("0\r\n\r\n").answer().body == body, "in chunks");
    }
}

/// What TLS has encrypted and the socket did not take must not wait for the next write, which never comes.
#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let body: Vec<u8> = (0..8_000_017_u32).map(|n| (n % 251) as u8).collect();
    let answer = [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let stage = stage(Upstream::answering(answer), |setup, _| setup);
    // With little room in the kernel the socket is full at all times, at the last byte too.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], stage.port)).into()).unwrap();
    let mut client = secured_over(socket.into(), "app.example", &stage.trusted).unwrap();
    for round in 0..2 {
        client.send(GET);
        let head = client.head().unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (mut got, mut slept_at, mut piece) = (0, 0, [0; 16 * 1024]);
        while got < body.len() {
            let n = client.some(&mut piece).unwrap();
            assert!(n > 0 && piece[..n] == body[got..got + n], "a wrong byte after {got} in round {round}");
            got += n;
            if got - slept_at > 32 * 1024 {
                slept_at = got;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[test]
fn close_notify_ends_what_is_whole_and_nothing_else() {
    let whole = Upstream::closing_after("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it");
    let stage = stage(whole, |setup, _| setup.set("proxy.idle_timeout", "'300ms'"));
    let old = "GET / HTTP/1.0\r\nHost: app.example\r\n\r\n";
    let mut client = stage.client();
    let (answer, goodbye) = to_the_end(client.send(old));
    assert!(answer.ends_with(b"\r\n\r\nall of it") && goodbye, "the end of the body is the end of the connection");

    let (_, goodbye) = to_the_end(stage.client().send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    assert!(goodbye, "an answer with an end of its own");
    let (_, goodbye) = to_the_end(stage.client().send("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"));
    assert!(goodbye, "a refusal");
    let (nothing, goodbye) = to_the_end(&mut stage.client());
    assert!(nothing.is_empty() && goodbye, "an idle connection");

    stage.blue.behave(|conn| {
        let request = conn.request()?;
        let framing = if request.target() == "/length" { "Content-Length: 99" } else { "Transfer-Encoding: chunked" };
        conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nabcde\r\n"))?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    });
    for request in ["GET /length HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", old] {
        let (answer, goodbye) = to_the_end(stage.client().send(request));
        assert!(!goodbye, "{request:?} was cut: {}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_each_way_ends_on_its_own() {
    let stage = stage(
        Upstream::start(|conn| {
            conn.request()?;
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi ")?;
            loop {
                let mut piece = [0; 4096];
                match conn.some(&mut piece)? {
                    0 => return conn.send("bye"),
                    n => conn.send(&piece[..n])?,
                }
            }
        }),
        |setup, _| setup,
    );
    let mut client = stage.client();
    client.send("GET /ws HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly ");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.exactly(9).unwrap(), b"hi early ");
    for n in 0..100 {
        let message = format!("message {n} ").repeat(n * 20 + 1);
        client.send(&message);
        assert_eq!(client.exactly(message.len()).unwrap(), message.as_bytes());
    }
    assert_eq!(stage.cutover.app()["colors"]["blue"]["in_flight"], 1);
    client.stream_mut().conn.send_close_notify();
    client.stream_mut().flush().unwrap();
    assert_eq!(to_the_end(&mut client), (b"bye".to_vec(), true));
    stage.cutover.until_app("the lease is back", |app| app["colors"]["blue"]["in_flight"] == 0);
}

#[test]
fn flips_under_load_lose_no_request() {
    let stage = plain_stage();
    let (port, trusted) = (stage.port, Arc::clone(&stage.trusted));
    let load = Load::over(4, move || secured(port, "app.example", &trusted));
    for round in 0..10 {
        let (to, there) = if round % 2 == 0 { ("green", &stage.green) } else { ("blue", &stage.blue) };
        let before = there.text().matches("/load ").count();
        stage.cutover.must_flip(to);
        eventually("traffic is there", || there.text().matches("/load ").count() > before + 20);
    }
    let (answered, failures) = load.end();
    assert!(failures.is_empty() && answered > 200, "{answered} {failures:?}");
}
