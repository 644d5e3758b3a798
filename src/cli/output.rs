//! Where a verb prints: results, and what is no result.

use std::io::Write;

use serde::Serialize;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
}

/// Prints a result. A reader that has left (`| head`) is no failure of the verb.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(super) fn print_json(value: &impl Serialize) {
    print(&format!("{}\n", serde_json::to_string_pretty(value).expect("our own types have a JSON form")));
}

/// Prints what is not a result: progress, errors.
pub(super) fn complain(text: &str) {
    let mut err = std::io::stderr();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
