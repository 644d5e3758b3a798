//! HTTP/2 from clients and to upstreams.

mod clients;
mod compression;
mod conformance;
mod floods;
mod frames;
mod grpc;
mod lifetime;
mod messages;
mod own;
mod requests;
mod sockets;
mod upstreams;
mod windows;
pub mod wire;

use std::process::{Command, Stdio};

use crate::harness::{Authority, Setup, free_port};

/// A Python that has these modules: the one that `CUTOVER_TEST_PYTHON` names, or the system's. It is said when there is
/// none, and with `CUTOVER_REQUIRE_ALL` in the environment that is a failure.
fn python_with(modules: &str) -> Option<Command> {
    let python = std::env::var("CUTOVER_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut check = Command::new(&python);
    check.args(["-c", &format!("import {modules}")]).stdin(Stdio::null()).stderr(Stdio::null());
    if check.status().is_ok_and(|status| status.success()) {
        return Some(Command::new(python));
    }
    eprintln!("skipped: {python} has not all of {modules}");
    assert!(std::env::var_os("CUTOVER_REQUIRE_ALL").is_none(), "{modules} are required and not installed");
    None
}

/// Has a proxy speak TLS as well, as `app.example` and on the port given back; whom to trust is in its file `ca.pem` too.
fn with_tls(setup: Setup) -> (Setup, Authority, u16) {
    let (authority, tls_port) = (Authority::new(), free_port());
    let (cert, key) = authority.sign(&["app.example"]);
    let setup = setup
        .set("proxy.listen_tls", format!("['127.0.0.1:{tls_port}']"))
        .set("tls.certificates", "[{ cert = 'app.pem', key = 'app.key' }]")
        .file("app.pem", &cert)
        .file("app.key", &key)
        .file("ca.pem", &authority.pem);
    (setup, authority, tls_port)
}
