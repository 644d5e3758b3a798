//! `cutover`: a blue/green reverse proxy and the deploys around it, in one binary.
//!
//! The folders are layers (`docs/architecture.md`); `tests/it/tidy` keeps them so.

pub mod admin;
pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
mod deploy;
mod docker;
pub mod domain;
pub mod handover;
mod http1;
pub mod http2;
pub mod http_client;
pub mod ledger;
pub mod os;
pub mod proxy;
pub mod proxy_protocol;
pub mod routing;
pub mod serve;
pub mod tls;
