//! The runbook's steps: what is done around a flip, from outside.
//!
//! A client of the colors, of the admin API and of Docker. Nothing here is ever inside the proxy, and nothing here
//! decides about colors.

pub mod command;
pub mod compose;
pub mod data;
pub mod deploy;
pub mod files;
mod hold;
mod hooks;
pub mod http;
pub mod journal;
pub mod monitor;
pub mod plan;
pub mod show;
mod singletons;
pub mod site;
pub mod smoke;
pub mod steps;
pub mod stop;
