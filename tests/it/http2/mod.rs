//! HTTP/2 from clients and to upstreams.

mod clients;
mod conformance;
mod floods;
mod frames;
mod grpc;
mod lifetime;
mod own;
mod requests;
mod sockets;
mod upstreams;
pub mod wire;

use std::process::{Command, Stdio};

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
