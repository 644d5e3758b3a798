//! Any env file is read, or every line that is none is named; a value that is put in is the one that is read.
#![no_main]

use std::path::Path;

use cutover::config::EnvFile;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let path = Path::new(".env");
    let Ok(file) = EnvFile::parse(text.to_owned(), path) else { return };
    let changed = file.with("IMAGE_TAG", "sha-1");
    let again = EnvFile::parse(changed.clone(), path).unwrap_or_else(|problems| panic!("{changed:?}: {problems:?}"));
    assert_eq!(again.get("IMAGE_TAG").map(|(value, _)| value), Some("sha-1"), "{changed:?}");
    for key in file.keys().filter(|key| *key != "IMAGE_TAG") {
        assert_eq!(again.get(key).map(|(value, _)| value), file.get(key).map(|(value, _)| value), "{key} in {changed:?}");
    }
});
