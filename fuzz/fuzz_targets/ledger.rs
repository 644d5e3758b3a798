//! Whatever is written to the ledger is one line without control characters, whatever the file holds can be shown.
#![no_main]

use std::fs;

use cutover::ledger::{self, Line};

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &[u8])| {
    let (words, value, before) = input;
    let folder = std::env::temp_dir().join(format!("cutover-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder of our own");
    let path = folder.join("releases.log");
    fs::write(&path, before).expect("a file of our own");
    let lines = |path| ledger::tail(path, usize::MAX).expect("any file can be read");
    let had = lines(&path).len();
    ledger::append(&path, &Line::new(words).with("key", value)).expect("a file of our own");
    let now = lines(&path);
    let last = now.last().expect("there is one");
    assert!(now.len() > had.min(1) && last.starts_with('[') && !last.chars().any(char::is_control), "{last:?}");
});
