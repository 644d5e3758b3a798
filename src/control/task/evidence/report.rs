//! Everything that is known of a release that was taken back, and its form in a file.
//!
//! JSON with one fact a line: a script reads it whole, a person scrolls it, and `grep` finds a request in one line.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::api::{Replays, SyntheticStatus, WatchNote};
use crate::config::ColorConfig;
use crate::control::messages::seconds;
use crate::docker::DockerError;
use crate::domain::Color;
use crate::domain::verdict::CORROBORATED;
use crate::domain::watch::{DetectorSummary, FaultReport, Outcomes, Stratum, WatchSummary, Wrong};
use crate::ledger::redact::without_values;
use crate::routing::{FailedRequest, ReplayResult, Tally};

/// Everything that goes into one file.
#[derive(Debug)]
pub(super) struct EvidenceReport {
    /// The rollback, in one sentence.
    pub(super) what: String,
    pub(super) service: String,
    /// The color that was taken back.
    pub(super) color: Color,
    /// The epoch under which it was watched.
    pub(super) epoch: u64,
    pub(super) config: ColorConfig,
    /// When the flip was made, in UTC; `None` where that was before the proxy's start.
    pub(super) flipped: Option<String>,
    /// When the traffic went back, in UTC.
    pub(super) taken_back: String,
    pub(super) fault: FaultReport,
    pub(super) summary: WatchSummary,
    pub(super) tally: Tally,
    pub(super) replays: Replays,
    pub(super) synthetic: Option<SyntheticStatus>,
    pub(super) notes: Vec<WatchNote>,
    /// The first requests that failed or were slow, indexed by [`crate::routing::Symptom`].
    pub(super) requests: [Vec<FailedRequest>; 2],
    pub(super) log: ContainerLog,
}

/// The end of what the color's containers wrote.
#[derive(Debug)]
pub(super) enum ContainerLog {
    /// The file is written for the first time.
    NotAsked,
    Lines(Vec<String>),
    Missing(NoLog),
}

/// Why a container's log is not known.
#[derive(Debug)]
pub(super) enum NoLog {
    /// The color is given by address.
    NoProject,
    /// Without it, its secrets cannot be hidden in the log.
    EnvFileUnreadable,
    Docker(DockerError),
    TooSlow(Duration),
}

impl fmt::Display for NoLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no log: ")?;
        match self {
            NoLog::NoProject => f.write_str("the color has no env_file with a COMPOSE_PROJECT_NAME"),
            NoLog::EnvFileUnreadable => f.write_str("the env_file cannot be read, so its secrets could not be hidden"),
            NoLog::Docker(error) => write!(f, "{error}"),
            NoLog::TooSlow(limit) => write!(f, "Docker did not respond within {limit:?}"),
        }
    }
}

/// A failed request as it is written down.
#[derive(Serialize)]
struct DescribedRequest<'a> {
    time: String,
    method: &'a str,
    /// The values of its query are hidden.
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    milliseconds: f64,
    upstream: &'a str,
    request_id: &'a str,
    replay: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    synthetic: bool,
}

impl EvidenceReport {
    /// The text of the file.
    pub(super) fn text(&self) -> String {
        let EvidenceReport { fault, summary, tally, .. } = self;
        let mut page = JsonWriter::default();
        page.one("what", &self.what);
        page.one("service", &self.service);
        page.one("color", &self.color);
        page.one("epoch", &self.epoch);
        page.one("image_tag", &self.config.image_tag);
        page.one("project", &self.config.project);
        page.one("flipped", &self.flipped);
        page.one("taken_back", &self.taken_back);
        page.one("watched_seconds", &seconds(summary.elapsed));
        let slower_than = match fault.wrong {
            Wrong::Failing => None,
            Wrong::Slow(limit) => Some(seconds(limit)),
        };
        page.one(
            "finding",
            &json!({
                "wrong": if slower_than.is_none() { "failing" } else { "slow" }, "slower_than_seconds": slower_than,
                "bad": fault.bad, "requests": fault.requests, "within_seconds": seconds(fault.within),
                "tolerated_share": f64::from(fault.tolerated_bp) / 10_000.0,
            }),
        );
        page.one("failures", &weighed(&summary.failures));
        page.one("slowness", &weighed(&summary.slowness));
        let yardstick = summary.baseline.yardstick;
        page.one(
            "old_color_before",
            &json!({
                "requests": yardstick.answered.requests, "bad": yardstick.answered.bad,
                "per_second": thousandths(yardstick.rate), "evidence_divided_by": yardstick.dispersion,
                "slow_from_seconds": summary.baseline.slow.map(|slow| slow.map(|(limit, _)| seconds(limit))),
            }),
        );
        page.one(
            "doubt",
            &json!({
                "new_color_keeps_one_in": summary.mode.keep_one_in, "warm_up": summary.mode.warm_up,
                "client_set_aside": summary.mode.excluded.client.is_some(),
                "route_set_aside": summary.mode.excluded.route.is_some(),
            }),
        );
        page.one("new_color", &sides(tally)[0]);
        page.one("old_color", &sides(tally)[1]);
        page.one("replays", &self.replays);
        page.one("synthetic", &self.synthetic);
        page.list("notes", &self.notes);
        let [failed, slow] = &self.requests;
        page.list("first_failed_requests", &failed.iter().map(described).collect::<Vec<_>>());
        if let Wrong::Slow(limit) = fault.wrong {
            // Those within it were slow by another limit.
            let slow = slow.iter().filter(|request| request.took > limit);
            page.list("first_slow_requests", &slow.map(described).collect::<Vec<_>>());
        }
        let (lines, why_not) = match &self.log {
            ContainerLog::Lines(lines) => (&lines[..], None),
            ContainerLog::NotAsked => {
                (&[][..], Some("Docker was not asked yet; this file is written again with the log".to_owned()))
            }
            ContainerLog::Missing(why) => (&[][..], Some(why.to_string())),
        };
        if let Some(why) = why_not {
            page.one("no_log", &why);
        }
        page.list("log", lines);
        page.end()
    }
}

fn described(failed: &FailedRequest) -> DescribedRequest<'_> {
    let at = i64::try_from(failed.at_unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    DescribedRequest {
        time: at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        method: failed.method,
        target: without_values(&failed.target),
        status: failed.status,
        fault: failed.fault,
        milliseconds: seconds(failed.took * 1000),
        upstream: &failed.upstream,
        request_id: &failed.request_id,
        replay: failed.replay.map_or("none", ReplayResult::as_str),
        synthetic: failed.synthetic,
    }
}

fn weighed(weight: &DetectorSummary) -> serde_json::Value {
    json!({
        "ln_evidence": thousandths(weight.ln_evidence), "ln_needed": thousandths(weight.ln_needed),
        "ln_worse_than_old": thousandths(weight.ln_worse), "ln_worse_needed": thousandths(CORROBORATED.ln()),
        "bad": weight.bad, "requests": weight.requests, "in_doubt": weight.in_doubt,
    })
}

/// JSON knows no infinity, which is the logarithm of no evidence at all.
fn thousandths(number: f64) -> Option<f64> {
    number.is_finite().then(|| (number * 1000.0).round() / 1000.0)
}

/// What the new color got under the watched epoch, and what the old one did while traffic was split.
fn sides(tally: &Tally) -> [serde_json::Value; 2] {
    let (new, old, aside) = (tally.seen.new_color(), tally.seen.of(Stratum::Old), tally.seen.of(Stratum::Excluded));
    let side = |begun: u64, void: u64, Outcomes { good, bad }: Outcomes| {
        json!({
            "begun": begun, "good": good, "bad": bad, "void": void,
            "in_flight": begun.saturating_sub(good + bad + void),
        })
    };
    let (old_begun, old_void) = (tally.old_begun, tally.old_void);
    let mut first = side(tally.begun.saturating_sub(old_begun), tally.void.saturating_sub(old_void), new);
    first["refused"] = tally.seen.refused.into();
    first["set_aside"] = aside.all().into();
    [first, side(old_begun, old_void, old)]
}

/// A JSON object in the making: a line for each entry, and for each member of a list.
#[derive(Default)]
struct JsonWriter(String);

impl JsonWriter {
    fn key(&mut self, key: &str) {
        let before = if self.0.is_empty() { "{\n" } else { ",\n" };
        write!(self.0, "{before}  \"{key}\": ").expect("writing to a String");
    }

    fn one(&mut self, key: &str, value: &impl Serialize) {
        self.key(key);
        self.0 += &line_of(value);
    }

    fn list(&mut self, key: &str, values: &[impl Serialize]) {
        self.key(key);
        let lines: Vec<_> = values.iter().map(|value| format!("\n    {}", line_of(value))).collect();
        let end = if lines.is_empty() { "" } else { "\n  " };
        write!(self.0, "[{}{end}]", lines.join(",")).expect("writing to a String");
    }

    fn end(self) -> String {
        self.0 + "\n}\n"
    }
}

fn line_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own types have a JSON form")
}

#[cfg(test)]
mod tests {
    use crate::control::task::evidence::report::*;

    #[test]
    fn a_page_is_json_with_one_fact_a_line() {
        let mut page = JsonWriter::default();
        page.one("what", &"a \"b\"\nc");
        page.list("none", &[0; 0]);
        page.list("some", &[json!({"a": 1}), json!(null)]);
        let text = page.end();
        assert_eq!(
            text,
            "{\n  \"what\": \"a \\\"b\\\"\\nc\",\n  \"none\": [],\n  \"some\": [\n    {\"a\":1},\n    null\n  ]\n}\n"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn a_request_is_told_without_what_it_asked_for() {
        let failed = FailedRequest {
            at_unix_ms: 1_700_000_000_123,
            method: "GET",
            target: "/reset/42?token=s3cret".into(),
            status: None,
            fault: Some("upstream_reset"),
            took: Duration::from_micros(1_500),
            request_id: "id".into(),
            upstream: "127.0.0.1:8001".into(),
            replay: Some(ReplayResult::Answered),
            synthetic: false,
        };
        assert_eq!(
            line_of(&described(&failed)),
            r#"{"time":"2023-11-14T22:13:20.123Z","method":"GET","target":"/reset/42?token=*","fault":"upstream_reset","milliseconds":1.5,"upstream":"127.0.0.1:8001","request_id":"id","replay":"answered"}"#
        );
    }
}
