//! Pure decisions: no tokio, no hyper, no files, no clock, no randomness. Time comes in as a number.

pub mod color;

pub use color::Color;
