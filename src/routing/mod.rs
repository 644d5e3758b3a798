//! What both planes share: the published [`Route`] of each service, the [`Lease`] of each request, and the counters.
//!
//! The data plane only reads routes and writes its own worker's counters; the control plane only publishes routes and
//! reads counters. Nothing here waits. `service.rs` has the one atomic store that a flip is, and says why no request
//! can fall between a flip and a drain.

mod counter;
mod epoch_counts;
mod failed_requests;
mod freeze_queue;
mod graceful_close;
mod host_table;
mod latency;
mod lease;
mod lease_tracker;
mod preview;
pub mod preview_token;
mod refusals;
mod rehearsal;
mod route;
mod service;
mod skew_shield;
mod standby;
mod stats;
#[cfg(test)]
mod tests;
mod upstream;
mod watch_counters;
mod worker_route;

/// The labels of [`Shard::requests`].
pub use crate::http1::method::Method;
pub use counter::Counter;
pub use epoch_counts::{Outcome, Tally};
pub use failed_requests::{FAILED_MAX, FailedRequest, FailedRequests, Symptom, TARGET_BYTES_MAX};
pub use freeze_queue::{Access, FreezeQueue, QueueFull, QueueOutcome, QueueSlot, QueueStats};
pub use graceful_close::{KindCounts, LeaseKind, close_at};
pub use host_table::HostTable;
pub use latency::{ANSWER_BUCKETS, answer_bucket, bucket_end};
pub use lease::Lease;
pub use lease_tracker::{Draining, LeaseTracker, TrackerHandle};
pub use preview::{PreviewAction, PreviewGate};
pub use refusals::{ClientTerminations, Refusal, RefusalCounts};
pub use rehearsal::{RehearsalResult, RehearsalTap, RequestCopy};
pub use route::{Route, RouteHandle};
pub use service::{RouteSpec, Service, WatchSetup};
pub use skew_shield::SkewShield;
pub use standby::Standby;
pub use stats::{CodeClass, ColorStats, DURATION_BOUNDS_US, ReplayResult, Shard};
pub use upstream::Upstream;
pub use watch_counters::{COHORT, COHORTS, CohortCount, ModeCell, RequestSource, SLOW_MAX, Side, SlowLimits};
pub use worker_route::{ServiceInfo, WorkerRoute};
