//! The server of the admin API, with `/metrics` and the dashboard.
//!
//! It asks the control plane through [`crate::control::Handle`] and prints what was answered. It decides nothing about
//! colors, and nothing here is on the path of a proxied request.

mod connections;
mod context;
mod events;
mod guard;
mod listen;
pub mod metrics;
mod response;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod write_timeout;

#[cfg(fuzzing)]
pub use guard::fuzz as fuzz_guard;
pub use listen::{BindError, Bound, bind};
pub use server::serve;
