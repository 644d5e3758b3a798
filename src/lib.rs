//! `cutover`: a blue/green reverse proxy and the runbook around it, in one binary.
//!
//! The folders are layers (`docs/architecture.md`); `tests/it/tidy.rs` keeps them so.

pub mod acme;
pub mod admin;
pub mod background;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod docker;
pub mod domain;
pub mod handover;
pub mod http;
pub mod http2;
pub mod ledger;
pub mod lines;
pub mod metrics;
pub mod preview;
pub mod proxy;
pub mod proxy_protocol;
pub mod redact;
pub mod runbook;
pub mod serve;
pub mod shared;
pub mod status;
pub mod switch;
pub mod tls;
