//! What a client may send as a head.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cutover::proxy::fuzzing::request(bytes));
