//! Pure decisions: no tokio, no hyper, no files, no clock, no randomness. Time comes in as a number.

pub mod asset;
pub mod color;
pub mod cutover;
pub mod freeze;
pub mod health;
pub mod listed;
pub mod rehearsal;
pub mod release;
pub mod verdict;
pub mod watch;

pub use color::Color;
