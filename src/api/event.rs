//! Defines the events of `GET /v1/events`.

use serde::{Deserialize, Serialize};

/// Something that happened, as `GET /v1/events` reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The time in UTC, RFC 3339 to the second.
    pub at: String,
    /// The kind of the event; it is also the SSE event name.
    pub kind: EventKind,
    /// The service, where the event is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The message is one sentence for people.
    pub message: String,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Traffic went to the other color, on behalf of an operator or the config.
    Flip,
    /// Traffic went back.
    Rollback,
    /// A flip or rollback was refused.
    Refused,
    /// The old color holds no lease any more.
    Drained,
    /// A watch ended.
    Verdict,
    /// The service began to hold requests.
    Freeze,
    /// The service released the held requests.
    Thaw,
    /// An upstream became ready, or stopped being ready.
    Health,
    /// The config was read again, or it was refused.
    Reload,
    /// The binary was upgraded in place, or the new one does not serve.
    Upgrade,
}

impl EventKind {
    /// Returns the word that the API uses.
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
