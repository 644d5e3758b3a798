//! Holds the valid configuration, which the rest of the program reads.
//!
//! `section` reads the file's tables with their places; each section has a file with its types and its reader, and
//! `file` puts them together into a [`Config`], or into every problem at once.

mod address;
mod beside;
mod color;
mod deploy;
mod env_file;
mod file;
mod freeze;
mod hooks;
mod monitor;
mod problem;
mod proxy;
mod rehearse;
mod section;
mod service;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod values;
mod watch;

pub use address::{Address, Cidr, NotANetwork, NotAnAddress};
pub use beside::{Preview, SkewShield};
pub use color::ColorConfig;
pub use deploy::{Backup, Deploy, ExpectedVersion, Migrate, Retire};
pub use env_file::EnvFile;
pub use file::{AccessLog, Admin, Config, LEDGER, Log, PLACES, State, find};
pub use freeze::Freeze;
pub use hooks::Hooks;
pub use monitor::Monitor;
pub use problem::{Problem, Problems};
pub use proxy::{Http2, Proxy};
pub use rehearse::Rehearse;
pub use service::{Check, Drain, Health, Service, Upstream};
pub use units::duration;
pub use watch::{Replay, Synthetic, Watch};

pub use crate::http_client::Protocol;
