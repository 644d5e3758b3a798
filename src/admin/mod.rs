//! The admin API with `/metrics` and the dashboard, and the client of it that the verbs use.
//!
//! It asks the control plane through [`crate::control::Handle`] and prints what was answered. It decides nothing about
//! colors, and nothing here is on the path of a proxied request.

mod answer;
mod events;
mod guard;
mod listen;
pub mod metrics;
mod patient;
mod routes;
mod server;
#[cfg(test)]
mod tests;

#[cfg(fuzzing)]
pub use guard::fuzz as fuzz_guard;
pub use listen::{BindError, Bound, bind};
pub use server::serve;
