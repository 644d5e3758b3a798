//! Defines the changes that a client may ask of the API, and the results that it gets back.

use serde::{Deserialize, Serialize};

use crate::domain::Color;
use crate::domain::freeze::What;

/// The body of `POST /v1/services/{name}/flip`, `/rollback` and `/drain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// The color to flip to. A flip needs it; the other verbs refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Color>,
    /// Flips although the target is not ready.
    #[serde(default)]
    pub force: bool,
    /// Responds only when the old color is drained, or cut at the deadline. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// Reports what would happen and changes nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Names the caller in the ledger; default "api".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The body of `POST /v1/services/{name}/freeze`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FreezeRequest {
    /// Selects the requests that are held; default writes.
    pub what: What,
    /// A duration such as "60s", at most `freeze.max`, which is also the default.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<String>,
    /// Renews the freeze that is in force, and is refused where there is none.
    pub renew: bool,
    /// Responds only when the requests in flight that the freeze would hold have ended, or `freeze.finish` has passed.
    /// Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// Reports whether the freeze would be accepted, and changes nothing.
    pub dry_run: bool,
    /// Names the caller; nobody else may renew or change the freeze. Default "api".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The reason, for the ledger and the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Default for FreezeRequest {
    fn default() -> Self {
        FreezeRequest { what: What::Writes, lasts: None, renew: false, wait: None, dry_run: false, by: None, why: None }
    }
}

/// A freeze that was made, renewed or changed, or in a dry run would be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    pub service: String,
    /// Says which requests are held.
    pub what: What,
    /// The freeze ends after this many seconds, unless it is renewed.
    pub for_seconds: f64,
    /// Whether the requests in flight that the freeze would hold have ended; `None` when the caller did not wait for
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<bool>,
    /// Whether nothing was changed, and this is only what would change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The body of `POST /v1/services/{name}/thaw`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThawRequest {
    /// Ends only a freeze of this owner; without it, the freeze of any owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Reports what would happen and changes nothing.
    pub dry_run: bool,
    /// Names the caller in the ledger; default "api".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The result of a thaw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thawed {
    pub service: String,
    /// Whether there was a freeze to end.
    pub was_frozen: bool,
    /// Counts the held requests that are released.
    pub held: u64,
    /// Whether nothing was changed, and this is only what would change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A flip or rollback that was made, or in a dry run would be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    pub service: String,
    /// The color that was active before.
    pub from: Color,
    /// The color that takes new requests now.
    pub to: Color,
    /// The new epoch.
    pub epoch: u64,
    /// Whether nothing was changed, and this is only what would change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Tells how the drain of `from` ended; `None` when the caller did not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drained>,
}

/// A pass to the idle color of a service: the idle color serves every request that carries it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// The service that the pass is for.
    pub service: String,
    /// The color that is idle now; a pass always leads to the color that is idle when it is used.
    pub color: Color,
    /// The token that a client sends in the header `X-Cutover-Preview` or the cookie `cutover_preview`.
    pub token: String,
    /// The last second in which the pass is valid, RFC 3339 in UTC.
    pub expires: String,
    /// The path that sets the browser's cookie (`?token=`), and removes it again (`/leave`).
    pub door: String,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Pass { service, color, expires, .. } = self;
        f.debug_struct("Pass").field("service", service).field("color", color).field("expires", expires).finish()
    }
}

/// The result of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// Seconds from the flip to the end of the last lease.
    pub seconds: f64,
    /// Counts the requests and tunnels that were cut at the deadline.
    pub cut: u64,
}

/// The result of a reload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Plain sentences that say what changed and what needs a restart.
    pub changes: Vec<String>,
}

/// The result of an upgrade in place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The process that served before and finishes its requests in flight.
    pub from_pid: u32,
    /// The process that serves now.
    pub to_pid: u32,
}
