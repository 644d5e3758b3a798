//! Real clients: curl, h2load and Python's httpx.

use std::path::Path;
use std::process::Command;

use crate::harness::{Cutover, Setup, Upstream, have, output, python_with};

const CLIENT: &str = "
import asyncio, httpx, sys
plain, secure, pem = sys.argv[1:]
async def main():
    for base, verify in ((f'http://app.example:{plain}', True), (f'https://app.example:{secure}', __import__('ssl').create_default_context(cafile=pem))):
        transport = httpx.AsyncHTTPTransport(http1=False, http2=True, verify=verify, local_address='127.0.0.1')
        async with httpx.AsyncClient(transport=transport) as client:
            base = base.replace('app.example', '127.0.0.1')
            ask = lambda path: client.get(base + path, extensions={'sni_hostname': 'app.example'})
            answers = await asyncio.gather(*(ask(f'/{n}') for n in range(100)))
            assert {(a.http_version, a.status_code, a.text) for a in answers} == {('HTTP/2', 200, 'blue')}, answers
            large = await client.post(base, content=b'x' * 1_000_000, extensions={'sni_hostname': 'app.example'})
            assert large.status_code == 200, large
    print('all')
asyncio.run(main())
";

fn stage(upstream: &Upstream) -> (Cutover, u16) {
    let (setup, _, tls_port) = Setup::in_front_of(upstream).with_tls();
    (setup.start(), tls_port)
}

#[test]
fn curl_asks_over_tls_and_without() {
    if !have("curl") {
        return;
    }
    let upstream = Upstream::saying("blue");
    let (cutover, tls_port) = stage(&upstream);
    let curl = |url: String, more: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert"]).arg(cutover.path("ca.pem"));
        curl.args([
            "--resolve",
            &format!("app.example:{tls_port}:127.0.0.1"),
            "-w",
            " %{http_code} %{http_version}",
            &url,
        ]);
        output(curl.args(more))
    };
    let (plain, secure) = (format!("http://127.0.0.1:{}/", cutover.port()), format!("https://app.example:{tls_port}/"));
    assert_eq!(curl(plain.clone(), &["--http2-prior-knowledge"]), "blue 200 2");
    assert_eq!(curl(secure.clone(), &["--http2"]), "blue 200 2");
    assert_eq!(curl(secure.clone(), &["--http1.1"]), "blue 200 1.1");
    // An upgrade from HTTP/1 is not offered any more (RFC 9113 3.1): it is an ordinary request.
    assert_eq!(curl(plain.clone(), &["--http2"]), "blue 200 1.1");
    cutover.write("body", &"x".repeat(3_000_000));
    let body = format!("@{}", cutover.path("body").display());
    assert_eq!(curl(secure, &["--http2", "--data-binary", &body]), "blue 200 2");
    assert!(curl(plain, &["--http2-prior-knowledge", "-I"]).contains(" 200 2"));
}

#[test]
fn h2load_loses_no_request() {
    if !have("h2load") {
        return;
    }
    let upstream = Upstream::saying("blue");
    let (cutover, tls_port) = stage(&upstream);
    for url in [format!("http://127.0.0.1:{}/", cutover.port()), format!("https://127.0.0.1:{tls_port}/")] {
        // Fewer at once than wait in the application's queue of connections (128): one more would wait for a second.
        let said = output(Command::new("h2load").args(["-n3000", "-c4", "-m25", &url]));
        assert!(said.contains("3000 succeeded, 0 failed, 0 errored"), "{said}");
    }
}

#[test]
fn httpx_asks_a_hundred_at_once() {
    let Some(mut python) = python_with("httpx, h2") else { return };
    let upstream = Upstream::saying("blue");
    let (cutover, tls_port) = stage(&upstream);
    let pem = cutover.path("ca.pem");
    let pem: &Path = &pem;
    let ports = [cutover.port().to_string(), tls_port.to_string()];
    assert_eq!(output(python.args(["-c", CLIENT]).args(ports).arg(pem)), "all\n");
}

#[test]
fn it_can_be_switched_off() {
    if !have("curl") {
        return;
    }
    let upstream = Upstream::saying("blue");
    let cutover = Setup::in_front_of(&upstream).set("proxy.http2.enabled", "false").start();
    let url = format!("http://127.0.0.1:{}/", cutover.port());
    let said = output(Command::new("curl").args(["-sS", "-m", "5", "--http2-prior-knowledge", &url]));
    assert!(said.contains("curl: ("), "{said}");
}
