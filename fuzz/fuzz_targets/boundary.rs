//! Where event streams and WebSockets may end.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cutover::proxy::fuzzing::boundary(bytes));
