//! The real binary over real sockets. One test binary: each file directly under `tests/` would link the program again.

#![allow(clippy::unwrap_used)] // tests

mod harness;
mod proxying;
mod refusals;
