//! The body of `GET /v1/status`.
//!
//! The control plane fills these types in, the admin server writes them as JSON, the CLI and the dashboard read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::Color;
use crate::domain::freeze::What;

/// The whole of `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The running binary's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, RFC 3339 in UTC.
    pub started: String,
    /// The config file in force.
    pub config: String,
    /// Client connections open now.
    pub connections: u64,
    /// What is wrong right now and does not stop the serving: a refused reload, an unwritable state folder.
    pub problems: Vec<String>,
    /// By name.
    pub services: BTreeMap<String, ServiceStatus>,
    /// Of TLS listeners, in the order of the config.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// The last lines of the ledger, oldest first; at most 5.
    pub ledger: Vec<String>,
}

/// A certificate in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The file of the chain, as it was configured.
    pub file: String,
    /// The DNS names it is for.
    pub names: Vec<String>,
    /// Its last second, RFC 3339 in UTC.
    pub expires: String,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The color that takes new requests.
    pub active: Color,
    /// Grows by one at every flip or rollback; the ETag of a change.
    pub epoch: u64,
    /// Where the cutover stands.
    pub phase: Phase,
    /// The phase in one sentence, for people.
    pub summary: String,
    /// While a watch runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchStatus>,
    /// How the last watch ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verdict: Option<String>,
    /// The same in one word, where the watch left the color as it was; `None` after a rollback as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The file that says why the last watch took traffic back, until somebody flips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_file: Option<String>,
    /// While the idle color is rehearsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalStatus>,
    /// While requests are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<FreezeStatus>,
    /// `blue` and `green`.
    pub colors: BTreeMap<Color, ColorStatus>,
}

/// Where the cutover of a service stands.
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
    /// The word in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Steady => "steady",
            Phase::Draining => "draining",
            Phase::Watching => "watching",
            Phase::RolledBack => "rolled_back",
        }
    }
}

/// How a watch ended that left the color as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The color is good.
    Keep,
    /// Too little was answered to know.
    NotEnoughTraffic,
    /// The color is bad, and there was no better place to go.
    NowhereToGo,
    /// Somebody moved the traffic.
    Superseded,
}

/// A running watch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// Seconds until its end.
    pub remaining_seconds: f64,
    /// Requests of the new color that count as evidence.
    pub answered: u64,
    /// The bad ones among them.
    pub failed: u64,
    /// 0.0 (nothing speaks against the new color) to 1.0 (it is rolled back).
    pub evidence: f64,
    /// What it thinks of the new color.
    #[serde(default)]
    pub standing: WatchStanding,
    /// The share of failures that is excused, 0.0 to 1.0.
    #[serde(default)]
    pub tolerated: f64,
    /// A doubted color keeps one request in so many, and the old one has the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_one_in: Option<u8>,
    /// How the old color's part of the traffic was answered, once it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_color: Option<Answered>,
    /// "client", "route": whose requests are judged no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
    /// Failures that the old color was asked to answer, since the flip.
    #[serde(default)]
    pub replays: Replays,
    /// Requests of the proxy's own, where they are configured; they are among `answered` and `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<SyntheticStatus>,
    /// What it found worth telling since the flip, oldest first; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<WatchNote>,
}

/// What a watch thinks of the new color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchStanding {
    /// Nothing speaks against it.
    #[default]
    Calm,
    /// Likewise, and a cold start is excused.
    WarmUp,
    /// Something speaks against it.
    Doubted,
    /// The old color suffers as well: going back would help nobody.
    SharedFault,
    /// It is bad, and there is no better place to go.
    NowhereToGo,
}

impl WatchStanding {
    /// The word in the API.
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

/// Requests that ended with evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// All of them.
    pub answered: u64,
    /// Those answered 5xx, or not at all.
    pub failed: u64,
}

/// How failures were answered by the old color in place of the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// Below 500: no client saw the failure.
    pub answered: u64,
    /// The old color failed as well.
    pub failed: u64,
    /// It was not asked, for there were too many.
    pub over_budget: u64,
}

/// The requests of the proxy's own since the flip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyntheticStatus {
    /// What is asked.
    pub path: String,
    /// How the new color answered.
    pub new_color: Answered,
    /// How the old one did.
    pub old_color: Answered,
}

/// Something that a watch found worth telling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchNote {
    /// UTC, RFC 3339 to the second.
    pub at: String,
    /// The ledger's word: `doubted`, `settled`, `shared-fault`, `client-set-aside`, `route-set-aside`.
    pub note: String,
    /// One sentence.
    pub message: String,
}

/// A freeze in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FreezeStatus {
    /// Which requests.
    pub what: What,
    /// Who wanted it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Requests held now.
    pub held: u64,
    /// Seconds since its beginning.
    pub seconds: f64,
    /// Seconds until its end, unless it is renewed.
    pub remaining_seconds: f64,
}

/// A running rehearsal in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsalStatus {
    /// Requests that both colors have answered.
    pub compared: u64,
    /// Those answered differently, without noise.
    pub different: u64,
    /// Median time of the idle color over that of the active one; `None` before the first comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ratio: Option<f64>,
    /// Why a flip would be refused now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<String>,
}

/// Event streams, WebSockets or other tunnels of one color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongLived {
    /// In flight now.
    pub open: u64,
    /// Ended with a goodbye, because their color was left or the proxy stops.
    pub closed: u64,
    /// Cut at the drain deadline.
    pub cut: u64,
}

/// One color of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColorStatus {
    /// Every upstream is ready: the first thing that a flip to this color needs.
    pub ready: bool,
    /// Requests and tunnels in flight now.
    pub in_flight: u64,
    /// Of those in flight, what has no end of its own, and how the proxy has ended such: by kind, where there were any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub long_lived: BTreeMap<String, LongLived>,
    /// Requests ended since the process began.
    pub requests: u64,
    /// Those answered 5xx or not at all.
    pub errors: u64,
    /// `IMAGE_TAG` of its env file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// `COMPOSE_PROJECT_NAME` of its env file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// At least one.
    pub upstreams: Vec<UpstreamStatus>,
}

/// One address of a color.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// `host:port`
    pub address: String,
    /// What `rise` and `fall` made of its probes.
    pub ready: bool,
    /// Why the last probe failed ("connection refused", "503", "timed out after 2s"); `None` after a success, or before
    /// the first probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
