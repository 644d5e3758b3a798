//! The events of `GET /v1/events`.

use serde::{Deserialize, Serialize};

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
