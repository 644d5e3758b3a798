//! Decides whether the story held, by comparing what the load saw with the times of the story's actions. The code is
//! pure.

use std::time::Duration;

use serde::Serialize;

use super::figures::{End, Figures, Record, ms};

/// Records what the story did and when, on the load's clock.
#[derive(Clone, Debug)]
pub struct Told {
    /// The acts, in order: each lasts until the next one begins.
    pub acts: Vec<Act>,
    /// The time at which the proxy reported that v1 was drained.
    pub v1_drained: Duration,
    /// Whether a flip to a color that was down was refused.
    pub gate_held: bool,
    /// The time at which the proxy reported that it had rolled v3 back by itself; `None` when it never did.
    pub rolled_back: Option<Duration>,
}

/// One act.
#[derive(Clone, Debug)]
pub struct Act {
    /// The name has a few words.
    pub name: &'static str,
    /// The time at which the act began.
    pub began: Duration,
}

/// Reports what users saw, and whether that matches the promise. `--json` prints this object.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether all checks held.
    pub held: bool,
    /// Figures of each act.
    pub acts: Vec<ActFigures>,
    /// Figures of all acts together.
    pub total: Figures,
    /// Tells how the bad release affected users.
    pub bad_release: Exposure,
    /// Lists the promises, and whether each was kept.
    pub checks: Vec<Check>,
}

/// The figures of one act.
#[derive(Clone, Debug, Serialize)]
pub struct ActFigures {
    pub name: &'static str,
    /// Figures of the requests that began in the act.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Tells what users saw of one release.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Exposure {
    /// Counts the requests to which it responded.
    pub answered: usize,
    /// Counts the failures among them.
    pub failed: usize,
    /// Counts the requests that it failed and the earlier release then served, so that users saw no failure.
    pub replayed: usize,
    /// The time from the first request that it served until its last response, in milliseconds.
    pub exposed_ms: f64,
}

/// One promise.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The text of the promise.
    pub promise: &'static str,
    /// Whether it was kept.
    pub held: bool,
    /// Says what was seen.
    pub seen: String,
}

/// Judges the whole story. `records` are all records of the load, in any order.
pub fn judge(records: &[Record], told: &Told) -> Verdict {
    let acts = told.acts.iter().enumerate().map(|(n, act)| {
        let until = told.acts.get(n + 1).map_or(Duration::MAX, |next| next.began);
        let within = records.iter().filter(|r| (act.began..until).contains(&r.begun));
        ActFigures { name: act.name, figures: Figures::of(within) }
    });
    let checks = vec![
        only_the_bad_release_failed(records),
        the_flip_was_real(records, told),
        Check {
            promise: "a flip to a color that is down is refused",
            held: told.gate_held,
            seen: if told.gate_held { "refused, nothing changed" } else { "not refused" }.into(),
        },
        the_bad_release_was_taken_back(records, told),
    ];
    Verdict {
        held: checks.iter().all(|check| check.held),
        acts: acts.collect(),
        total: Figures::of(records),
        bad_release: exposure(records, 3),
        checks,
    }
}

fn only_the_bad_release_failed(records: &[Record]) -> Check {
    let of_v3 = |r: &&Record| r.release == Some(3) && matches!(r.end, End::Answered(500));
    let failures = || records.iter().filter(|r| r.end.is_failure());
    let others = failures().filter(|r| !of_v3(r)).count();
    let first = failures().find(|r| !of_v3(r)).map(|r| format!(", the first at {:.1?}: {}", r.begun, r.end));
    Check {
        promise: "no request fails, except by the bad release's own responses",
        held: others == 0 && !records.is_empty(),
        seen: format!("{others} of {} failed otherwise{}", records.len(), first.unwrap_or_default()),
    }
}

fn the_flip_was_real(records: &[Record], told: &Told) -> Check {
    let before = answers(records, 1, Duration::ZERO..told.v1_drained);
    let after = answers(records, 2, told.v1_drained..Duration::MAX);
    let late = answers(records, 1, told.v1_drained..Duration::MAX);
    Check {
        promise: "after the flip v2 answers, and v1 no longer",
        held: before > 0 && after > 0 && late == 0,
        seen: format!("v1 answered {before} requests before its drain and {late} after; v2 answered {after} after"),
    }
}

fn the_bad_release_was_taken_back(records: &[Record], told: &Told) -> Check {
    let promise = "the bad release is taken back by the proxy itself";
    let Some(back) = told.rolled_back else {
        return Check { promise, held: false, seen: "it was not".into() };
    };
    let Exposure { answered, failed, replayed, .. } = exposure(records, 3);
    let late = answers(records, 3, back..Duration::MAX);
    let good = answers(records, 2, back..Duration::MAX);
    Check {
        promise,
        held: answered > 0 && failed + replayed > 0 && late == 0 && good > 0,
        seen: format!(
            "v3 answered {answered} requests, {failed} of them with a 500; v2 answered {replayed} more that v3 had \
             failed; after the rollback v3 answered {late}, and v2 {good}"
        ),
    }
}

/// Counts the requests that began in `span` and were served by `release`.
fn answers(records: &[Record], release: u8, span: std::ops::Range<Duration>) -> usize {
    records.iter().filter(|r| r.release == Some(release) && span.contains(&r.begun)).count()
}

fn exposure(records: &[Record], release: u8) -> Exposure {
    let seen = || records.iter().filter(|r| r.release == Some(release));
    let first = seen().map(|r| r.begun).min().unwrap_or_default();
    let last = seen().map(|r| r.ended).max().unwrap_or_default();
    Exposure {
        answered: seen().count(),
        failed: seen().filter(|r| r.end.is_failure()).count(),
        replayed: records.iter().filter(|r| r.replayed).count(),
        exposed_ms: ms(last - first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64, release: Option<u8>, end: End) -> Record {
        let begun = Duration::from_millis(ms);
        Record { begun, ended: begun + Duration::from_millis(10), release, replayed: false, end }
    }

    /// v1 until 100, v2 until 200, v3 until 220, v2 again; one failure, of v3.
    fn good_story() -> (Vec<Record>, Told) {
        let ok = End::Answered(200);
        let records = vec![
            at(50, Some(1), ok),
            at(150, Some(2), ok),
            at(205, Some(3), ok),
            at(215, Some(3), End::Answered(500)),
            at(250, Some(2), ok),
        ];
        let act = |name, ms| Act { name, began: Duration::from_millis(ms) };
        let told = Told {
            acts: vec![act("one", 0), act("two", 90), act("three", 190)],
            v1_drained: Duration::from_millis(110),
            gate_held: true,
            rolled_back: Some(Duration::from_millis(225)),
        };
        (records, told)
    }

    mod the_story {
        use super::*;

        #[test]
        fn holds_when_only_the_bad_release_failed_and_was_taken_back() {
            let (records, told) = good_story();
            let verdict = judge(&records, &told);
            assert!(verdict.held, "{verdict:#?}");
            let by_act: Vec<_> = verdict.acts.iter().map(|a| (a.figures.requests, a.figures.failed)).collect();
            assert_eq!(by_act, [(1, 0), (1, 0), (3, 1)]);
            let Exposure { answered, failed, exposed_ms, .. } = verdict.bad_release;
            assert_eq!((answered, failed, exposed_ms), (2, 1, 20.0));
        }

        #[test]
        fn does_not_hold_after_any_broken_promise() {
            type Break = fn(&mut Vec<Record>, &mut Told);
            let rows: [(&str, Break); 9] = [
                ("there was no traffic", |records, _| records.clear()),
                ("a request failed before the bad release", |records, _| records[0].end = End::Answered(502)),
                ("v2 failed", |records, _| records[4].end = End::Answered(500)),
                ("a request got lost beside the bad release", |records, _| {
                    records.push(at(210, None, End::Broken));
                }),
                ("v1 answered after its drain", |records, _| records.push(at(120, Some(1), End::Answered(200)))),
                ("v2 never came", |records, _| records.retain(|r| r.release != Some(2))),
                ("the gate let a dead color through", |_, told| told.gate_held = false),
                ("nothing was taken back", |_, told| told.rolled_back = None),
                ("v3 went on answering", |records, _| records.push(at(240, Some(3), End::Answered(200)))),
            ];
            for (case, breaks) in rows {
                let (mut records, mut told) = good_story();
                breaks(&mut records, &mut told);
                assert!(!judge(&records, &told).held, "{case}");
            }
        }
    }
}
