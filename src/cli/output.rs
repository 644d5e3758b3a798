//! Prints results, and everything that is not a result.

use std::io::Write;

use serde::Serialize;

/// Says how results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
}

/// Prints a result. A reader that has left (`| head`) is not a failure of the verb.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(super) fn print_json(value: &impl Serialize) {
    print(&format!("{}\n", serde_json::to_string_pretty(value).expect("our own types have a JSON form")));
}

/// Prints progress and errors, which are not results.
pub(super) fn complain(text: &str) {
    let mut err = std::io::stderr();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
