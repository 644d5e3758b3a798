//! What an upstream may send as the head of a response.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cutover::proxy::fuzzing::response(bytes));
