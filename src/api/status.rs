//! What the admin API says: the words of `GET /v1/status`, of its answers and of its refusals.
//!
//! The control plane fills these in, the admin server writes them as JSON, the CLI and the dashboard read them.

use std::collections::BTreeMap;
use std::fmt;

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

/// `GET /v1/services/{name}/rehearsal`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsalReport {
    /// The service.
    pub service: String,
    /// The color whose answers are the yardstick.
    pub active: Color,
    /// The color that is rehearsed.
    pub idle: Color,
    /// Whether copies are being made.
    pub running: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// Requests that both colors have answered, since this rehearsal began.
    pub compared: u64,
    /// Those answered differently, without noise.
    pub different: u64,
    /// Those that differ only in what differs on the active color as well.
    pub noise: u64,
    /// Copies without anything to compare: the active color failed too, or a color could not be connected to.
    pub failed: u64,
    /// Copies that found no room.
    pub dropped: u64,
    /// `rehearse.max_differences`
    pub max_differences: f64,
    /// `rehearse.min_requests`
    pub min_requests: u64,
    /// Why a flip would be refused now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<String>,
    /// Over the last 500 comparisons; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Routes with differences, those with the most first.
    pub findings: Vec<RehearsalFinding>,
    /// What is not counted, because it differs on the active color as well.
    pub noise_fields: Vec<Noise>,
}

/// How long answers take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median of the active color.
    pub active_seconds: f64,
    /// Median of the idle color.
    pub idle_seconds: f64,
    /// The second over the first.
    pub ratio: f64,
}

/// A route that the colors answer differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsalFinding {
    /// Method and path, with `*` for what looks like an id.
    pub route: String,
    /// Requests compared on it.
    pub compared: u64,
    /// Those answered differently.
    pub different: u64,
    /// One of them, without the values of its query.
    pub example: String,
    /// In what it differs.
    pub differences: Vec<RehearsedDifference>,
}

/// One thing in which two answers differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsedDifference {
    /// `status`, `header location`, `body`, or a path in the JSON: `$.items[].price`.
    pub field: String,
    /// What the active color said; of JSON, the types.
    pub was: String,
    /// What the idle color says.
    pub is: String,
}

/// What is no difference on a route, because the active color shows it in turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Method and path.
    pub route: String,
    /// As in [`RehearsedDifference::field`].
    pub field: String,
    /// `missing or object`
    pub seen: String,
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

/// Body of `POST /v1/services/{name}/flip`, `/rollback` and `/drain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// The color to flip to; needed for a flip, refused elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Color>,
    /// Flip although the target is not ready.
    #[serde(default)]
    pub force: bool,
    /// Answer only when the old color is drained, or cut at the deadline. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// Say what would happen and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Who asks, for the ledger; default "api".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Body of `POST /v1/services/{name}/freeze`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FreezeRequest {
    /// Which requests. Default writes.
    pub what: What,
    /// A duration such as "60s", at most `freeze.max`, which is also the default.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<String>,
    /// Only go on with the freeze that is in force; refused where there is none.
    pub renew: bool,
    /// Answer only when what is in flight and would be held has ended, or `freeze.finish` has passed. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// Say whether it could be and change nothing.
    pub dry_run: bool,
    /// Who asks; nobody else may renew or change it. Default "api".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, for the ledger and the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Default for FreezeRequest {
    fn default() -> Self {
        FreezeRequest { what: What::Writes, lasts: None, renew: false, wait: None, dry_run: false, by: None, why: None }
    }
}

/// A freeze that was made, renewed or changed (or, in a dry run, would be).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// The service.
    pub service: String,
    /// Which requests are held.
    pub what: What,
    /// For so long from now, unless it is renewed.
    pub for_seconds: f64,
    /// Whether what was in flight and would be held has ended; `None` when the caller did not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<bool>,
    /// Nothing was changed, this is what would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Body of `POST /v1/services/{name}/thaw`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThawRequest {
    /// Only if it is this one's freeze; without it, whose ever it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Say what would happen and change nothing.
    pub dry_run: bool,
    /// Who asks, for the ledger; default "api".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The end of a freeze.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thawed {
    /// The service.
    pub service: String,
    /// Whether there was a freeze to end.
    pub was_frozen: bool,
    /// Requests that were held and are let go.
    pub held: u64,
    /// Nothing was changed, this is what would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A flip or rollback that was made (or, in a dry run, would be).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The service.
    pub service: String,
    /// The color before.
    pub from: Color,
    /// The color that takes new requests now.
    pub to: Color,
    /// The new epoch.
    pub epoch: u64,
    /// Nothing was changed, this is what would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// How the drain of `from` ended; `None` when the caller did not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drained>,
}

/// A pass to the idle color of a service: whoever shows it is answered there.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// The service it is for.
    pub service: String,
    /// The color that is idle now; a pass leads to whichever is.
    pub color: Color,
    /// What is shown: in the header `X-Cutover-Preview` or the cookie `cutover_preview`.
    pub token: String,
    /// UTC, RFC 3339: the last second it is good in.
    pub expires: String,
    /// The path that puts it into a browser's cookie (`?token=`), and takes it away again (`/leave`).
    pub door: String,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Pass { service, color, expires, .. } = self;
        f.debug_struct("Pass").field("service", service).field("color", color).field("expires", expires).finish()
    }
}

/// The end of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// Seconds from the flip to the last lease.
    pub seconds: f64,
    /// Requests and tunnels that were cut at the deadline.
    pub cut: u64,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Plain sentences: what changed, what needs a restart.
    pub changes: Vec<String>,
}

/// An upgrade in place that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The process that served before, and finishes what it has in flight.
    pub from_pid: u32,
    /// The process that serves now.
    pub to_pid: u32,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what, why, what now.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// The codes of refusals; each has one HTTP status and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The body or the query was not understood.
    BadRequest,
    /// No service of that name.
    UnknownService,
    /// The target color is not ready.
    NotReady,
    /// The target color answered copied requests otherwise than the active one.
    RehearsalFailed,
    /// The target color is active already, and nothing is under way.
    AlreadyActive,
    /// Another cutover of this service is under way.
    CutoverUnderWay,
    /// There is no color before this one.
    NothingToRollBack,
    /// `preview.enabled` is false.
    PreviewOff,
    /// Somebody else holds its requests.
    AlreadyFrozen,
    /// There is no freeze to be renewed.
    NotFrozen,
    /// `If-Match` named another epoch.
    StaleEpoch,
    /// The new color could not be saved, so a restart would undo the flip.
    StateUnwritable,
    /// The config on disk is not valid; the one in force stays.
    BadConfig,
    /// The new binary does not serve; the old one goes on.
    UpgradeFailed,
    /// The proxy is stopping.
    Stopping,
}

impl RefusalCode {
    /// The HTTP status of the API's answer.
    pub fn http_status(self) -> u16 {
        match self {
            RefusalCode::BadRequest => 400,
            RefusalCode::UnknownService => 404,
            RefusalCode::StaleEpoch => 412,
            RefusalCode::BadConfig => 422,
            RefusalCode::UpgradeFailed => 500,
            RefusalCode::StateUnwritable | RefusalCode::Stopping => 503,
            RefusalCode::NotReady
            | RefusalCode::RehearsalFailed
            | RefusalCode::AlreadyActive
            | RefusalCode::CutoverUnderWay
            | RefusalCode::AlreadyFrozen
            | RefusalCode::NotFrozen
            | RefusalCode::NothingToRollBack
            | RefusalCode::PreviewOff => 409,
        }
    }

    /// The exit code of the verb that asked.
    pub fn exit_code(self) -> u8 {
        match self {
            RefusalCode::BadRequest
            | RefusalCode::UnknownService
            | RefusalCode::BadConfig
            | RefusalCode::PreviewOff => 2,
            RefusalCode::NotReady
            | RefusalCode::RehearsalFailed
            | RefusalCode::AlreadyActive
            | RefusalCode::NothingToRollBack
            | RefusalCode::AlreadyFrozen
            | RefusalCode::NotFrozen
            | RefusalCode::StaleEpoch => 3,
            RefusalCode::CutoverUnderWay => 5,
            RefusalCode::StateUnwritable | RefusalCode::UpgradeFailed | RefusalCode::Stopping => 1,
        }
    }
}

/// Something that happened, as `GET /v1/events` tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// UTC, RFC 3339 to the second.
    pub at: String,
    /// What it was; also the SSE event name.
    pub kind: EventKind,
    /// The service, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// One sentence.
    pub message: String,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Traffic went to the other color, by an operator or the config.
    Flip,
    /// Traffic went back.
    Rollback,
    /// A flip or rollback was refused.
    Refused,
    /// The old color holds no lease any more.
    Drained,
    /// A watch ended.
    Verdict,
    /// Requests are held from now on.
    Freeze,
    /// They are let go.
    Thaw,
    /// An upstream became ready or stopped being it.
    Health,
    /// The config was read again, or refused.
    Reload,
    /// The binary was upgraded in place, or the new one does not serve.
    Upgrade,
}

impl EventKind {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Flip => "flip",
            EventKind::Rollback => "rollback",
            EventKind::Refused => "refused",
            EventKind::Drained => "drained",
            EventKind::Verdict => "verdict",
            EventKind::Freeze => "freeze",
            EventKind::Thaw => "thaw",
            EventKind::Health => "health",
            EventKind::Reload => "reload",
            EventKind::Upgrade => "upgrade",
        }
    }
}
