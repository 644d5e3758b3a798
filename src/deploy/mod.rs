//! Brings releases into production: everything that `cutover deploy`, `smoke` and `monitor` do around a flip.
//!
//! This layer is a client of the colors, of the admin API and of Docker. The proxy never calls it, and it never decides
//! which color takes traffic: it asks the proxy to.

pub mod base_url;
pub mod command;
pub mod compose;
pub mod files;
mod freeze_lease;
pub mod journal;
pub mod monitor;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod request;
mod run;
pub mod signals;
mod singletons;
pub mod smoke;
mod smoke_error;
pub mod snapshot;
pub mod start;
pub mod target;
