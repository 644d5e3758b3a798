//! What a test needs beside Rust and a C compiler: a program, Python's packages, a Docker engine, root. A test that
//! cannot have it ends at once, and the last lines of the run name it: libtest knows no such end and counts it as
//! passed.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once};

/// The tests that were skipped in this process, by what they needed.
static SKIPPED: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// Whether a program is installed. The calling test is noted as skipped when it is not.
#[track_caller]
pub fn have(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let is_found = folders.any(|folder| Path::new(folder).join(program).is_file());
    is_found || skipped_for(program)
}

/// Whether the tests run as root. The calling test is noted as skipped when they do not.
#[track_caller]
pub fn have_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    is_root || skipped_for("root")
}

/// A Python that has these modules: the one that `CUTOVER_TEST_PYTHON` names, or the system's. The calling test is
/// noted as skipped when it has not.
#[track_caller]
pub fn python_with(modules: &str) -> Option<Command> {
    let python = std::env::var("CUTOVER_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut check = Command::new(&python);
    check.args(["-c", &format!("import {modules}")]).stdin(Stdio::null()).stderr(Stdio::null());
    let has_all = check.status().is_ok_and(|status| status.success());
    (has_all || skipped_for(&format!("Python with {modules}"))).then(|| Command::new(python))
}

/// Notes that the test which calls it is skipped for want of this, and is `false`. With `CUTOVER_REQUIRE_ALL` in the
/// environment that is a failure.
#[track_caller]
pub fn skipped_for(want: &str) -> bool {
    assert!(std::env::var_os("CUTOVER_REQUIRE_ALL").is_none(), "{want} is required, and is not here");
    let caller = Location::caller();
    // libtest names the thread of a test after it, unless all tests run on the main thread.
    let test = match std::thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => format!("{}:{}", caller.file(), caller.line()),
    };
    SKIPPED.lock().expect("nobody panics with it").entry(want.to_owned()).or_default().insert(test);
    static AT_EXIT: Once = Once::new();
    AT_EXIT.call_once(|| {
        // SAFETY: the handler is a function of this program, and does not unwind: it locks and prints.
        let refused = unsafe { libc::atexit(print_skipped) };
        assert_eq!(refused, 0, "there is room for one handler");
    });
    false
}

/// Called when the process exits, which is after libtest's own summary.
extern "C" fn print_skipped() {
    let Ok(skipped) = SKIPPED.lock() else { return };
    let tests: BTreeSet<_> = skipped.values().flatten().collect();
    println!("SKIPPED {} tests (counted as passed) for want of:", tests.len());
    for (want, tests) in skipped.iter() {
        let names: Vec<_> = tests.iter().map(String::as_str).collect();
        println!("  {want} ({}): {}", tests.len(), names.join(", "));
    }
    println!(".ci/run installs all of it on Debian; with CUTOVER_REQUIRE_ALL=1 a skipped test fails.");
}
