//! The watch after a flip: is the new color worse than the old one?
//!
//! It turns the counters of the data plane into the batches that two detectors weigh (`verdict`), one for failures and
//! one for slowness, and what they find into what can be done about it: share the traffic with the old color, leave a
//! source out, hold, go back. What the old color answers in the same seconds settles whose fault it is.
//!
//! It knows nothing of epochs or colors; `cutover` does.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::verdict::{
    self, Batch, Corroboration, Detector, DetectorConfig, FailureBaseline, Observation, SLOWER_THAN_QUANTILE,
    failure_detector, kept_share, slowness_detector,
};

mod sample;
mod source;
mod summary;
#[cfg(test)]
mod tests;

pub use sample::{
    AgedCohorts, Excluded, Outcomes, SOURCES, SourceCounts, Stratum, WatchCounts, WatchMode, WatchSample,
};
use source::{Isolation, batch};
pub use summary::{DetectorSummary, WatchState, WatchSummary};

/// A watch that could not have found this share of failures, or twice the tolerated one where that is more, ends as
/// "not enough traffic to tell".
const FINDABLE: f64 = 0.2;
/// No more than this part of the window is a warm-up.
const WARM_UP_PART: u32 = 4;
/// A source that is alone with its failures is given so long to be told from the release.
const ALONE_WAIT: Duration = Duration::from_secs(1);
/// A watch that stays open without traffic looks again after this.
const STAY_OPEN: Duration = Duration::from_secs(1);
/// A fault of both colors is told again where the last one is so long ago.
const SHARED_AGAIN: Duration = Duration::from_secs(10);

/// What an operator may tune about a watch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchConfig {
    /// The rule, and the window.
    pub rule: DetectorConfig,
    /// A doubted color keeps only a part of the traffic, and is compared with the old one. Without, it is judged
    /// against the old color's past alone.
    pub split: bool,
    /// Without enough traffic, the watch stays open past its window.
    pub stay_open: bool,
    /// The share of requests below which a route alone takes nothing back. Default 0.02.
    pub rare_route: f64,
}

impl WatchConfig {
    /// What holds where nothing is configured.
    pub const DEFAULT: WatchConfig =
        WatchConfig { rule: DetectorConfig::DEFAULT, split: true, stay_open: false, rare_route: 0.02 };
}

/// What the old color was like before the flip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Its failures.
    pub yardstick: FailureBaseline,
    /// By quantile, from when on an answer is slow and what its evidence is divided by; `None` where too little is
    /// known.
    pub slow: [Option<(Duration, f64)>; 3],
}

/// What a step says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is decided yet.
    Hold,
    /// The new color is bad, and there is no better place to go.
    NowhereToGo(FaultReport),
    /// The new color is bad: take the traffic back.
    RollBack(FaultReport),
    /// The window is over, and the new color is good.
    Keep,
    /// The window is over, and too little was answered to know.
    NotEnoughTraffic,
}

/// Something an operator wants to know while nothing is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchEvent {
    /// Something speaks against the new color; the old one has most of the traffic back until it is settled.
    Doubted(FaultReport),
    /// It was nothing; the new color has all the traffic again.
    Settled,
    /// Both colors suffer, and going back would help nobody.
    Shared(FaultReport),
    /// One client alone fails, and is judged no more.
    ClientExcluded(FaultReport),
    /// One rare route alone fails, and is judged no more.
    RouteExcluded(FaultReport),
}

/// What is wrong with the new color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrong {
    /// Requests fail.
    Failing,
    /// Requests take longer than this.
    Slow(Duration),
}

/// What was found against the new color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// What it does.
    pub wrong: Wrong,
    /// Bad ones among `requests`.
    pub bad: u64,
    /// Requests since there was last nothing against it.
    pub requests: u64,
    /// How long that is.
    pub within: Duration,
    /// Share that was excused, in hundredths of a percent.
    pub tolerated_bp: u32,
    /// The evidence, as a hundredth of its natural logarithm.
    pub ln_evidence_centi: i32,
    /// Likewise, how much the comparison with the old color says.
    pub ln_worse_centi: i32,
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FaultReport { bad, requests, within, tolerated_bp, .. } = self;
        let (seconds, percent) = (within.as_secs_f64(), f64::from(*tolerated_bp) / 100.0);
        let what = match self.wrong {
            Wrong::Failing => "failed".to_owned(),
            Wrong::Slow(limit) => format!("took longer than {} ms", limit.as_millis()),
        };
        write!(f, "{bad} of {requests} requests {what} within {seconds:.3} s, {percent:.2} % are tolerated")
    }
}

/// A running watch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watch {
    since: Duration,
    until: Duration,
    config: WatchConfig,
    baseline: Baseline,
    tolerated: f64,
    failures: Detector<1>,
    slowness: Detector<3>,
    last: WatchSample,
    last_step: Duration,
    /// Answers that came after the warm-up: what the window's end is judged by.
    judged: u64,
    /// When nothing spoke against the new color: who had asked for what until then.
    calm: SourceCounts,
    calm_refused: u64,
    excluded: Excluded,
    stuck: Option<Stuck>,
    shared_told: Option<Duration>,
    note: Option<WatchEvent>,
}

/// The new color is bad, there was no better place to go, and it is not known to be over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Stuck {
    finding: FaultReport,
    /// Answered when it was last found.
    answered: u64,
}

impl Watch {
    /// A watch from `now` until `until`, against what the old color showed before the flip.
    pub fn new(now: Duration, until: Duration, config: WatchConfig, baseline: Baseline) -> Self {
        let window = until.saturating_sub(now);
        let rule = DetectorConfig { window, warm_up: config.rule.warm_up.min(window / WARM_UP_PART), ..config.rule };
        let config = WatchConfig { rule, ..config };
        let FailureBaseline { rate, dispersion, .. } = baseline.yardstick;
        let tolerated = baseline.yardstick.tolerated(&rule);
        Watch {
            since: now,
            until,
            config,
            baseline,
            tolerated,
            failures: failure_detector(tolerated, rate, dispersion, rule),
            slowness: slowness_detector(
                rate,
                baseline.slow.map(|slow| slow.map_or(1.0, |(_, dispersion)| dispersion)),
                rule,
            ),
            last: WatchSample::default(),
            last_step: now,
            judged: 0,
            calm: SourceCounts::default(),
            calm_refused: 0,
            excluded: Excluded::default(),
            stuck: None,
            shared_told: None,
            note: None,
        }
    }

    /// Takes a sample in and judges.
    pub fn step(&mut self, now: Duration, sample: WatchSample) -> Decision {
        let was_split = self.is_split();
        let failing = self.look_at_failures(now, &sample);
        let slow = self.look_at_slowness(now, &sample);
        (self.last, self.last_step) = (sample, now);
        let failing = self.leave_sources_out(now, failing);
        let guilty = match (failing, slow) {
            (verdict::Detection::Guilty, _) => Some(self.failing(now)),
            (_, verdict::Detection::Guilty) => Some(self.slow(now)),
            (verdict::Detection::Shared, _) => self.note_shared(now, self.failing(now)),
            (_, verdict::Detection::Shared) => self.note_shared(now, self.slow(now)),
            (
                verdict::Detection::Calm | verdict::Detection::Doubt,
                verdict::Detection::Calm | verdict::Detection::Doubt,
            ) => None,
        };
        match guilty {
            Some(finding) if sample.old_is_up => return Decision::RollBack(finding),
            Some(finding) => self.stick(finding),
            None => self.come_loose(),
        }
        if self.note.is_none() && self.is_split() != was_split {
            self.note = Some(if was_split { WatchEvent::Settled } else { WatchEvent::Doubted(self.suspicion(now)) });
        }
        if self.failures.is_calm() {
            (self.calm, self.calm_refused) = (sample.seen.spread, sample.seen.refused);
        }
        match self.stuck {
            Some(stuck) => Decision::NowhereToGo(stuck.finding),
            None if now < self.until => Decision::Hold,
            None if self.finds_in(self.judged) => Decision::Keep,
            None if self.config.stay_open => {
                self.until = now + STAY_OPEN;
                Decision::Hold
            }
            None => Decision::NotEnoughTraffic,
        }
    }

    /// How requests are to be sent and counted until the next step.
    pub fn mode(&self) -> WatchMode {
        // Never none, which would be all of the traffic.
        let one_in = (1.0 / kept_share(self.baseline.yardstick.rate)).round() as u8;
        WatchMode {
            warm_up: self.is_warming_up(self.last_step),
            keep_one_in: if self.is_split() { one_in.max(2) } else { 0 },
            excluded: self.excluded,
        }
    }

    /// What has to be told since this was last asked.
    pub fn take_note(&mut self) -> Option<WatchEvent> {
        self.note.take()
    }

    /// How much speaks against the new color: 0.0 nothing, 1.0 enough for a rollback; equal faults are equal steps.
    pub fn evidence(&self) -> f64 {
        if self.stuck.is_some() { 1.0 } else { self.failures.progress().max(self.slowness.progress()) }
    }

    /// When the window ends.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// How the new color's requests have ended.
    pub fn counts(&self) -> Outcomes {
        self.last.seen.new_color()
    }

    /// What the last step was told, where nobody counts any more.
    pub fn last_without_a_way_back(&self) -> WatchSample {
        WatchSample { old_is_up: false, aged: AgedCohorts::default(), ..self.last }
    }

    /// Whether the old color has a part of the traffic.
    pub fn is_split(&self) -> bool {
        let doubted = self.failures.is_in_doubt() || self.slowness.is_in_doubt();
        doubted && self.config.split && self.last.old_is_up
    }

    /// The share of failures that is excused.
    pub fn tolerated(&self) -> f64 {
        self.tolerated
    }

    fn is_warming_up(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) < self.config.rule.warm_up
    }

    fn look_at_failures(&mut self, now: Duration, sample: &WatchSample) -> verdict::Detection {
        let ended = |strata: [Stratum; 2]| {
            let mut sum = Outcomes::default();
            strata.into_iter().for_each(|phase| sum += sample.seen.of(phase) - self.last.seen.of(phase));
            sum
        };
        let (warm, calm) = (ended([Stratum::WarmUp, Stratum::WarmUpSplit]), ended([Stratum::Calm, Stratum::Split]));
        let mut both = warm;
        both += calm;
        let compared = ended([Stratum::Split, Stratum::WarmUpSplit]);
        let old = sample.seen.of(Stratum::Old) - self.last.seen.of(Stratum::Old);
        let warms_up = self.is_warming_up(self.last_step);
        if !warms_up {
            self.failures.hear_late([batch(warm)]);
            self.judged += calm.all();
        }
        self.failures.look(Observation {
            now: now.saturating_sub(self.since),
            since: self.last_step.saturating_sub(self.since),
            // The first requests after the warm-up may be here before its last look.
            new: [if warms_up { batch(both) } else { batch(calm) }],
            old: [batch(old)],
            compared: [batch(compared)],
            is_split: self.is_split(),
            in_flight: sample.in_flight as f64,
            corroboration: if self.is_refusing(sample) { Corroboration::NewColor } else { self.corroboration(sample) },
        })
    }

    fn look_at_slowness(&mut self, now: Duration, sample: &WatchSample) -> verdict::Detection {
        let AgedCohorts { new, old, is_split, in_warm_up } = sample.aged;
        let new = new.map(batch);
        // A detector hears of the warm-up's end by what began after it.
        let since = if in_warm_up { Duration::ZERO } else { self.last_step.saturating_sub(self.since) };
        self.slowness.look(Observation {
            now: now.saturating_sub(self.since),
            since,
            new,
            old: old.map(batch),
            compared: if is_split { new } else { [Batch::default(); 3] },
            is_split: self.is_split(),
            in_flight: 0.0,
            corroboration: self.corroboration(sample),
        })
    }

    fn corroboration(&self, sample: &WatchSample) -> Corroboration {
        if self.config.split && sample.old_is_up { Corroboration::BothColors } else { Corroboration::NewColor }
    }

    /// Most failures are connections that were not taken: no fault that both colors could share.
    fn is_refusing(&self, sample: &WatchSample) -> bool {
        let refused = sample.seen.refused.saturating_sub(self.calm_refused);
        refused as f64 * 2.0 > self.failures.episode().seen.bad && refused > 0
    }

    /// A source that is alone with its failures is not the release.
    fn leave_sources_out(&mut self, now: Duration, found: verdict::Detection) -> verdict::Detection {
        if found != verdict::Detection::Guilty {
            return found;
        }
        let finding = self.failing(now);
        let episode = source::since(&self.last.seen.spread, &self.calm);
        match source::alone(
            &episode,
            &self.last.seen.spread,
            self.excluded,
            self.config.rare_route,
            self.failures.bets(),
        ) {
            Isolation::No => found,
            Isolation::TooEarly if finding.within < ALONE_WAIT => verdict::Detection::Doubt,
            Isolation::TooEarly => found,
            Isolation::Yes(excluded) => {
                let is_client = excluded.client != self.excluded.client;
                self.note = Some(if is_client {
                    WatchEvent::ClientExcluded(finding)
                } else {
                    WatchEvent::RouteExcluded(finding)
                });
                self.excluded = excluded;
                self.failures.forget();
                (self.calm, self.calm_refused) = (self.last.seen.spread, self.last.seen.refused);
                verdict::Detection::Calm
            }
        }
    }

    /// Tells a fault of both colors once, however long it lasts.
    fn note_shared(&mut self, now: Duration, finding: FaultReport) -> Option<FaultReport> {
        if self.shared_told.is_none_or(|told| told + SHARED_AGAIN <= now) {
            self.note = Some(WatchEvent::Shared(finding));
        }
        self.shared_told = Some(now);
        None
    }

    fn stick(&mut self, finding: FaultReport) {
        let answered = self.counts().all();
        self.stuck = Some(Stuck { finding, answered });
        self.failures.forget();
        self.slowness.forget();
    }

    /// What was found counts until there is a way back, or until enough answers since then would have shown it again.
    fn come_loose(&mut self) {
        let answered = self.counts().all();
        if let Some(stuck) = self.stuck
            && (self.last.old_is_up || self.finds_in(answered.saturating_sub(stuck.answered)))
        {
            self.stuck = None;
        }
    }

    /// What the doubt is about.
    fn suspicion(&self, now: Duration) -> FaultReport {
        if self.failures.is_in_doubt() { self.failing(now) } else { self.slow(now) }
    }

    fn failing(&self, now: Duration) -> FaultReport {
        self.finding(now, &self.failures, Wrong::Failing, self.tolerated)
    }

    fn slow(&self, now: Duration) -> FaultReport {
        let criterion = self.slowness.episode().criterion;
        let limit = self.baseline.slow[criterion].map_or(Duration::ZERO, |(limit, _)| limit);
        self.finding(now, &self.slowness, Wrong::Slow(limit), SLOWER_THAN_QUANTILE[criterion])
    }

    fn finding<const CRITERIA: usize>(
        &self,
        now: Duration,
        detector: &Detector<CRITERIA>,
        wrong: Wrong,
        tolerated: f64,
    ) -> FaultReport {
        let episode = detector.episode();
        let centi = |ln: f64| (ln.clamp(-1e6, 1e6) * 100.0).round() as i32;
        FaultReport {
            wrong,
            // Whole numbers all the way from the counters: below 2^53 the sums are exact.
            bad: episode.seen.bad as u64,
            requests: episode.seen.requests as u64,
            within: now.saturating_sub(self.since + episode.began),
            tolerated_bp: (tolerated * 10_000.0).round() as u32,
            ln_evidence_centi: centi(detector.ln_evidence()),
            ln_worse_centi: centi(detector.ln_worse()),
        }
    }

    /// Whether a fault worth finding would have been found in that many answers.
    fn finds_in(&self, answers: u64) -> bool {
        self.failures.would_find(FINDABLE.max(2.0 * self.tolerated).min(1.0), answers as f64)
    }
}
