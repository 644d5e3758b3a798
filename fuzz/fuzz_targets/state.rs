//! What a state file may hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cutover::control::fuzz_state(bytes));
