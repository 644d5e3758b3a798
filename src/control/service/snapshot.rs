//! What is known of one service and goes over to the process that takes this one's place, beside its counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{Drained, Replays, Verdict, WatchNote};
use crate::control::service::sampler::{History, SlowRules};
use crate::domain::cutover::CutoverSnapshot;
use crate::domain::health::UpstreamHealth;
use crate::routing::Tally;

/// The names in JSON are those that every version writes and reads.
#[derive(Serialize, Deserialize)]
pub(in crate::control) struct ServiceSnapshot {
    #[serde(rename = "estate")]
    pub(in crate::control) cutover: CutoverSnapshot,
    /// What the probes know, by address: without it there would be no way back until they know it again.
    #[serde(default)]
    pub(in crate::control) health: BTreeMap<String, UpstreamHealth>,
    /// Counts under the present epoch.
    pub(in crate::control) tally: Tally,
    /// Counts of the epoch before.
    #[serde(rename = "judged")]
    pub(in crate::control) previous_epoch: Tally,
    pub(in crate::control) history: [History; 2],
    pub(in crate::control) slow: SlowRules,
    pub(in crate::control) replays_before: Replays,
    pub(in crate::control) notes: Vec<WatchNote>,
    pub(in crate::control) flipped: Option<String>,
    pub(in crate::control) last_drain: Drained,
    pub(in crate::control) last_verdict: Option<String>,
    pub(in crate::control) verdict: Option<Verdict>,
}
