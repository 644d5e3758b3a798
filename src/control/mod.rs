//! The control plane: one task owns every service's cutover machine. Events in, effects out.
//!
//! It never touches a client's bytes, and the data plane never waits for it. [`Handle`] is how the admin API, the
//! signals and the file watch reach it. `task` is that one task; `service` is what it holds of each service.

mod deploy_block;
mod file_watch;
mod handle;
mod messages;
mod saved_state;
mod service;
mod start;
mod status_snapshot;
mod task;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use handle::Command;
pub use handle::{HandOverError, Handle, UpgradeError};
#[cfg(fuzzing)]
pub use saved_state::fuzz as fuzz_state;
pub use start::{Control, DataPlaneLinks, StartError, start};
pub use status_snapshot::{FlipCount, HeldCount, StatusSnapshot, WatchEndCount};
pub use task::OtherProblem;
pub use task::upgrade::{InheritedCounters, counters};
