//! Defines the body of `GET /v1/status`.
//!
//! The control plane fills these types in, the admin server writes them as JSON, and the CLI and the dashboard read
//! them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::Color;
use crate::domain::freeze::What;

/// The whole body of `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the running binary.
    pub version: String,
    pub pid: u32,
    /// The time at which the process started, RFC 3339 in UTC.
    pub started: String,
    /// The path of the config file in force.
    pub config: String,
    /// Counts the client connections that are open now.
    pub connections: u64,
    /// Lists problems that do not stop the proxy from serving: a refused reload, an unwritable state folder.
    pub problems: Vec<String>,
    pub services: BTreeMap<String, ServiceStatus>,
    /// Lists the certificates of the TLS listeners, in the order of the config.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// The last lines of the ledger, oldest first; at most 5.
    pub ledger: Vec<String>,
}

/// A certificate in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The file of the chain, as it is configured.
    pub file: String,
    /// The DNS names that the certificate covers.
    pub names: Vec<String>,
    /// The last second of its validity, RFC 3339 in UTC.
    pub expires: String,
}

/// The state of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The color that takes new requests.
    pub active: Color,
    /// The epoch grows by one at every flip or rollback; it is the ETag of a change.
    pub epoch: u64,
    pub phase: Phase,
    /// Whether a flip is being saved, and may be made any moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flip_pending: bool,
    /// The phase as one sentence, for people.
    pub summary: String,
    /// Present while a watch runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchStatus>,
    /// Tells how the last watch ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verdict: Option<String>,
    /// The verdict of the last watch that left the color as it was; `None` after a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The file that records why the last watch took traffic back; it is named until the next flip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_file: Option<String>,
    /// Present while the idle color is rehearsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalStatus>,
    /// Present while requests are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<FreezeStatus>,
    /// Both colors, `blue` and `green`.
    pub colors: BTreeMap<Color, ColorStatus>,
}

/// The phase of a service's cutover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is under way.
    Steady,
    /// The color before this one still holds leases; no watch is running.
    Draining,
    /// The new color is being judged (and the old one may still be draining).
    Watching,
    /// The last watch took traffic back by itself, and no operator has acted since.
    RolledBack,
}

impl Phase {
    /// Returns the word that the API and the metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Steady => "steady",
            Phase::Draining => "draining",
            Phase::Watching => "watching",
            Phase::RolledBack => "rolled_back",
        }
    }
}

/// The verdict of a watch that left the color as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The watch found the color good.
    Keep,
    /// There was too little traffic to judge the color.
    NotEnoughTraffic,
    /// The watch found the color bad, but the other color was no better.
    NowhereToGo,
    /// Traffic was moved by somebody else before the watch ended.
    Superseded,
}

/// The state of a running watch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// Seconds until the watch ends.
    pub remaining_seconds: f64,
    /// Counts the requests of the new color that are evidence.
    pub answered: u64,
    /// Counts the failed ones among them.
    pub failed: u64,
    /// The evidence runs from 0.0 (nothing speaks against the new color) to 1.0 (the new color is rolled back).
    pub evidence: f64,
    /// The watch's opinion of the new color.
    #[serde(default)]
    pub standing: WatchStanding,
    /// The share of failures that is tolerated, 0.0 to 1.0.
    #[serde(default)]
    pub tolerated: f64,
    /// A doubted color gets one request in this many, and the old color gets the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_one_in: Option<u8>,
    /// Counts the responses of the old color, once it has a part of the traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_color: Option<Answered>,
    /// Names the clients and routes whose requests are no longer judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
    /// Counts the failed requests that were replayed to the old color since the flip.
    #[serde(default)]
    pub replays: Replays,
    /// Counts the proxy's own requests, where they are configured; `answered` and `failed` include them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<SyntheticStatus>,
    /// Notes that the watch has made since the flip, oldest first; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<WatchNote>,
}

/// The watch's opinion of the new color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchStanding {
    /// Nothing speaks against the new color.
    #[default]
    Calm,
    /// Nothing speaks against the new color, and a cold start is tolerated.
    WarmUp,
    /// Some evidence speaks against the new color.
    Doubted,
    /// The old color fails as well, so a rollback would help nobody.
    SharedFault,
    /// The new color is bad, but the old one is no better.
    NowhereToGo,
}

impl WatchStanding {
    /// Returns the word that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            WatchStanding::Calm => "calm",
            WatchStanding::WarmUp => "warm-up",
            WatchStanding::Doubted => "doubted",
            WatchStanding::SharedFault => "shared-fault",
            WatchStanding::NowhereToGo => "nowhere-to-go",
        }
    }
}

/// Counts requests that ended with evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Counts every request.
    pub answered: u64,
    /// Counts the requests that got a 5xx or no response at all.
    pub failed: u64,
}

/// Counts failed requests by how the old color responded to their replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// The old color responded below 500, so no client saw the failure.
    pub answered: u64,
    /// The old color failed as well.
    pub failed: u64,
    /// The request was not replayed, because too many had failed.
    pub over_budget: u64,
}

/// Counts the proxy's own requests since the flip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyntheticStatus {
    /// The path that is requested.
    pub path: String,
    /// Counts the responses of the new color.
    pub new_color: Answered,
    /// Counts the responses of the old color.
    pub old_color: Answered,
}

/// An event that a watch found worth a note.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchNote {
    /// The time in UTC, RFC 3339 to the second.
    pub at: String,
    /// The word in the ledger: `doubted`, `settled`, `shared-fault`, `client-set-aside`, `route-set-aside`.
    pub note: String,
    /// The message is one sentence for people.
    pub message: String,
}

/// A freeze in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FreezeStatus {
    /// Says which requests are held.
    pub what: What,
    /// The name of the operator who froze the service.
    pub by: String,
    /// The reason that the operator gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Counts the requests that are held now.
    pub held: u64,
    /// Seconds since the freeze began.
    pub seconds: f64,
    /// Seconds until the freeze ends, unless it is renewed.
    pub remaining_seconds: f64,
}

/// The summary of a running rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsalStatus {
    /// Counts the requests that both colors have answered.
    pub compared: u64,
    /// Counts those whose responses differ by more than noise.
    pub different: u64,
    /// The median time of the idle color divided by that of the active one; `None` before the first comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ratio: Option<f64>,
    /// The reason for which a flip would be refused now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<String>,
}

/// Counts the event streams, WebSockets or other tunnels of one color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongLived {
    /// Counts those in flight now.
    pub open: u64,
    /// Counts those that the proxy ended in an orderly way, because traffic left their color or the proxy stops.
    pub closed: u64,
    /// Counts those that were cut at the drain deadline.
    pub cut: u64,
}

/// The state of one color of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColorStatus {
    /// Whether every upstream is ready, which is the first thing that a flip to this color needs.
    pub ready: bool,
    /// Counts the requests and tunnels in flight now.
    pub in_flight: u64,
    /// Counts, by kind, the leases in flight that do not end by themselves and those that the proxy has ended; a kind
    /// without any is absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub long_lived: BTreeMap<String, LongLived>,
    /// Counts the requests that ended since the process began.
    pub requests: u64,
    /// Counts those that got a 5xx or no response at all.
    pub errors: u64,
    /// The `IMAGE_TAG` of the color's env file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// The `COMPOSE_PROJECT_NAME` of the color's env file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Every color has at least one upstream.
    pub upstreams: Vec<UpstreamStatus>,
}

/// The state of one address of a color.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// The address as `host:port`.
    pub address: String,
    /// Whether its probes have made it ready, by the thresholds `rise` and `fall`.
    pub ready: bool,
    /// Why the last probe failed ("connection refused", "503", "timed out after 2s"); `None` after a success, or before
    /// the first probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
