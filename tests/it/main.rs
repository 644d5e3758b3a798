//! The real binary over real sockets. One test binary: each file directly under `tests/` would link the program again.

#![allow(clippy::unwrap_used)] // tests

mod acme;
mod admin;
mod bad_days;
mod browser;
mod cli;
mod corpus;
mod dashboard;
mod deploy;
mod docker_said;
mod evidence;
mod files;
mod flips;
mod freeze;
mod harness;
mod health;
mod http2;
mod lease_model;
mod ledger;
mod limits;
mod monitor;
mod mounts;
mod peers;
mod preview;
mod proxy_protocol;
mod proxying;
mod refusals;
mod rehearse;
mod reloads;
mod replay;
mod shared;
mod signals;
mod skew;
mod smoke;
mod state;
mod stop;
mod tidy;
mod tls;
mod upgrade;
// The tests of the example run here, since cargo would run them after these: the last lines of a run are to be those
// about skipped tests.
#[allow(dead_code)] // its `main`
#[path = "../../examples/verdict_table/main.rs"]
mod verdict_table;
mod watch;
mod websockets;
