//! What the API is asked to change, and what it says was changed.

use serde::{Deserialize, Serialize};

use crate::domain::Color;
use crate::domain::freeze::What;

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
