//! The runbook's steps: what is done around a flip, from outside.
//!
//! A client of the colors, of the admin API and of Docker. Nothing here is ever inside the proxy, and nothing here
//! decides about colors.

pub mod docker;
pub mod http;
pub mod smoke;
