//! Defines the report of a rehearsal, the body of `GET /v1/services/{name}/rehearsal`.

use serde::{Deserialize, Serialize};

use crate::domain::Color;

/// The body of `GET /v1/services/{name}/rehearsal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsalReport {
    pub service: String,
    /// The color whose responses are the reference.
    pub active: Color,
    /// The color that is rehearsed.
    pub idle: Color,
    /// Whether requests are being copied.
    pub running: bool,
    /// The reason, while no requests are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// Counts the requests that both colors have answered since this rehearsal began.
    pub compared: u64,
    /// Counts the compared requests whose responses differ by more than noise.
    pub different: u64,
    /// Counts the compared requests that differ only in fields that vary on the active color as well.
    pub noise: u64,
    /// Counts the copies that could not be compared, because the active color failed too or a color was unreachable.
    pub failed: u64,
    /// Counts the copies that were dropped because the queue was full.
    pub dropped: u64,
    /// The value of `rehearse.max_differences`.
    pub max_differences: f64,
    /// The value of `rehearse.min_requests`.
    pub min_requests: u64,
    /// The reason for which a flip would be refused now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<String>,
    /// Latency over the last 500 comparisons; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Lists the routes with differences, those with the most first.
    pub findings: Vec<RehearsalFinding>,
    /// Lists the fields that are not counted, because they vary on the active color as well.
    pub noise_fields: Vec<Noise>,
}

/// Compares the response times of the two colors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median of the active color.
    pub active_seconds: f64,
    /// The median of the idle color.
    pub idle_seconds: f64,
    /// The median of the idle color divided by that of the active one.
    pub ratio: f64,
}

/// A route on which the responses of the colors differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsalFinding {
    /// The method and path, with `*` for a segment that looks like an id.
    pub route: String,
    /// Counts the compared requests of this route.
    pub compared: u64,
    /// Counts those whose responses differ.
    pub different: u64,
    /// One of the differing requests, without the values of its query.
    pub example: String,
    /// Lists the fields that differ.
    pub differences: Vec<RehearsedDifference>,
}

/// One field in which two responses differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsedDifference {
    /// `status`, `header location`, `body`, or a path in the JSON: `$.items[].price`.
    pub field: String,
    /// The value in the active color's response; for JSON, its types.
    pub was: String,
    /// The value in the idle color's response.
    pub is: String,
}

/// A field that does not count as a difference on a route, because it varies on the active color itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// The method and path.
    pub route: String,
    /// The field, written as in [`RehearsedDifference::field`].
    pub field: String,
    /// The values that were seen, for example `missing or object`.
    pub seen: String,
}
