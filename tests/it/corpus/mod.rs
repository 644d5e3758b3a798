//! The corpus under `tests/corpus`, run against the real binary.

mod mutations;
mod notation;
mod requests;
mod strict;
