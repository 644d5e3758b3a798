//! Whatever is written to the ledger is one line without control characters; whatever the file holds can be shown and
//! verified.
#![no_main]

use std::fs;

use cutover::ledger::{self, Line, Place};

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &[u8])| {
    let (words, value, before) = input;
    let folder = std::env::temp_dir().join(format!("cutover-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder of our own");
    let place = Place { path: folder.join("releases.log"), head: None };
    fs::write(&place.path, before).expect("a file of our own");
    let written = ledger::append(&place, &Line::new(words).with("key", value)).expect("a file of our own").lines;
    assert!(written.iter().all(|line| line.starts_with('[') && !line.chars().any(char::is_control)), "{written:?}");
    let last = ledger::tail(&place.path, 1).expect("any file can be read");
    assert_eq!(last.last(), written.last());
    let verified = ledger::verify_file(&place).expect("any file can be read");
    assert!(verified.chained > 0 && verified.lines >= verified.chained, "{verified:?}");
});
