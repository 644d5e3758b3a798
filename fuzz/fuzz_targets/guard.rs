//! Who may ask the admin API.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| cutover::admin::fuzz_guard(text));
