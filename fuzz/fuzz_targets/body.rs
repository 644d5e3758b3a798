//! Chunked bodies in pieces of any size.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cutover::proxy::fuzzing::body(bytes));
