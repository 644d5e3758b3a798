//! The report of a rehearsal: the body of `GET /v1/services/{name}/rehearsal`.

use serde::{Deserialize, Serialize};

use crate::domain::Color;

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
