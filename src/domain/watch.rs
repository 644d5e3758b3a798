//! The watch after a flip: is the new color worse than the old one was?
//!
//! First form. Two looks are taken at every step, one at the last `RECENT` and one at everything since the flip. In
//! each, `k` bad answers among `n` requests are weighed against the share `p` that the old color's own history
//! excuses: by Chernoff's bound, a color whose true share is `p` or less shows this much with probability at most
//! `exp(-n * KL(k/n, p))`. The new color is guilty when that is below `1 / BAR` with at least `FAILURES_MIN` bad ones.
//!
//! Requests still in flight count as good ones: failures often answer sooner than successes, and the first second
//! after a flip must not be judged by the quick ones alone.
//!
//! It knows nothing of epochs or colors; `cutover` does.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Bad answers without which nobody is judged.
const FAILURES_MIN: u64 = 5;
/// How far the short look goes back.
const RECENT: Duration = Duration::from_secs(10);
/// Steps closer together than this are one entry of the short look, which bounds its memory.
const GRAIN: Duration = Duration::from_millis(100);
/// Natural logarithm of the odds against chance that a verdict needs: 1 in 200,000 per look.
const BAR: f64 = 12.2;
/// Natural logarithm of the odds that the old color's true share is below the upper bound taken: 1 in 4,000.
const HISTORY_BAR: f64 = 8.3;
/// The new color may be this many times as bad as the old one could have been.
const RATIO: f64 = 1.5;
/// It may always be worse by this share of the requests.
const EFFECT_MIN: f64 = 0.005;
/// A short history excuses at most this share more than it shows.
const DOUBT_MAX: f64 = 0.05;
/// An old color that failed every time excuses everything: going back to it would help nobody.
const TOLERATED_MAX: f64 = 0.999;
/// Answers without which no old color is that hopeless: one unlucky request must not excuse every release after it.
const HOPELESS_MIN: u64 = 20;
/// A watch that could not have found this share of failures, or twice the tolerated one where that is more, ends as
/// "not enough traffic to tell".
const FINDABLE: f64 = 0.2;

/// Requests of one color, counted since some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered below 500.
    pub good: u64,
    /// Answered 5xx, or not at all.
    pub bad: u64,
    /// Begun and not ended.
    pub in_flight: u64,
}

impl Counts {
    /// Requests that have ended with evidence.
    pub fn answered(self) -> u64 {
        self.good + self.bad
    }

    fn begun(self) -> u64 {
        self.answered() + self.in_flight
    }
}

/// What a step is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The new color since the flip; `good` and `bad` only grow.
    pub counts: Counts,
    /// Whether the old color could take the traffic back.
    pub old_is_up: bool,
}

/// What a step says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is decided yet.
    Hold,
    /// The new color is bad, and there is no better place to go.
    NowhereToGo(Finding),
    /// The new color is bad: take the traffic back.
    RollBack(Finding),
    /// The window is over, and the new color is good.
    Keep,
    /// The window is over, and too little was answered to know.
    NotEnoughTraffic,
}

/// What was found against the new color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Bad ones among `requests`.
    pub failed: u64,
    /// Requests looked at.
    pub requests: u64,
    /// The look's length.
    pub within: Duration,
    /// Share that was excused, in hundredths of a percent.
    pub tolerated_bp: u32,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { failed, requests, within, tolerated_bp } = self;
        let (seconds, percent) = (within.as_secs_f64(), f64::from(*tolerated_bp) / 100.0);
        write!(f, "{failed} of {requests} requests failed within {seconds:.3} s, {percent:.2} % are tolerated")
    }
}

/// A running watch.
#[derive(Clone, Debug)]
pub struct Watch {
    since: Duration,
    until: Duration,
    tolerated: f64,
    last: Counts,
    /// Counts at moments [`GRAIN`] apart, oldest first; the first is the last one older than [`RECENT`].
    past: VecDeque<(Duration, Counts)>,
    evidence: f64,
}

impl Watch {
    /// A watch from `now` until `until`, against what the old color showed before the flip.
    pub fn new(now: Duration, until: Duration, history: Counts) -> Self {
        let past = VecDeque::from([(now, Counts::default())]);
        Watch { since: now, until, tolerated: tolerated(history), last: Counts::default(), past, evidence: 0.0 }
    }

    /// Takes a sample in and judges.
    pub fn step(&mut self, now: Duration, sample: Sample) -> Verdict {
        self.last = sample.counts;
        while self.past.len() > 1 && self.past[1].0 + RECENT <= now {
            self.past.pop_front();
        }
        let recent = self.past.front().map_or(self.since, |(at, _)| *at);
        let looks = [recent, self.since].map(|from| self.look(from, now));
        self.evidence = looks.iter().map(|(evidence, _)| *evidence).fold(0.0, f64::max);
        if self.past.back().is_none_or(|(at, _)| *at + GRAIN <= now) {
            self.past.push_back((now, sample.counts));
        }
        if let Some((_, finding)) = looks.into_iter().find(|(evidence, _)| *evidence >= 1.0) {
            return if sample.old_is_up { Verdict::RollBack(finding) } else { Verdict::NowhereToGo(finding) };
        }
        if now < self.until {
            Verdict::Hold
        } else if self.could_have_found_a_fault() {
            Verdict::Keep
        } else {
            Verdict::NotEnoughTraffic
        }
    }

    /// How much speaks against the new color: 0.0 nothing, 1.0 enough for a rollback.
    pub fn evidence(&self) -> f64 {
        self.evidence
    }

    /// When the window ends.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// The counts of the last step.
    pub fn counts(&self) -> Counts {
        self.last
    }

    /// Evidence and finding in the requests since `from`, which is the first of `past` or the flip.
    fn look(&self, from: Duration, now: Duration) -> (f64, Finding) {
        let zero = Counts::default();
        let before = if from == self.since { zero } else { self.past.front().map_or(zero, |(_, counts)| *counts) };
        let failed = self.last.bad.saturating_sub(before.bad);
        let ended = self.last.answered().saturating_sub(before.answered());
        // Ended ones may have begun before this look did; then they are what there is to see.
        let requests = self.last.begun().saturating_sub(before.begun()).max(ended);
        let weight = surprise(failed, requests, self.tolerated) / BAR;
        let evidence = weight.min(failed as f64 / FAILURES_MIN as f64).clamp(0.0, 1.0);
        let tolerated_bp = (self.tolerated * 10_000.0).round() as u32;
        (evidence, Finding { failed, requests, within: now.saturating_sub(from), tolerated_bp })
    }

    fn could_have_found_a_fault(&self) -> bool {
        let findable = FINDABLE.max(2.0 * self.tolerated);
        self.last.answered() as f64 * divergence(findable, self.tolerated) >= BAR
    }
}

/// The share of failures that the old color's history excuses: above 0, at most [`TOLERATED_MAX`].
fn tolerated(history: Counts) -> f64 {
    let answered = history.answered();
    let share = if answered == 0 { 0.0 } else { history.bad as f64 / answered as f64 };
    let most = if answered < HOPELESS_MIN { 0.5 } else { TOLERATED_MAX };
    let suspected = RATIO * upper_bound(share, answered);
    suspected.min(RATIO * share + DOUBT_MAX).max(share + EFFECT_MIN).min(most)
}

/// The largest true share that `share` of `answered` leaves credible.
fn upper_bound(share: f64, answered: u64) -> f64 {
    let (mut low, mut high) = (share, 1.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if answered as f64 * divergence(share, middle) <= HISTORY_BAR { low = middle } else { high = middle }
    }
    high
}

/// Natural logarithm of the odds against `failed` of `requests` when the true share is `p`; 0 when it is no more than `p`.
fn surprise(failed: u64, requests: u64, p: f64) -> f64 {
    if requests == 0 {
        return 0.0;
    }
    let share = failed as f64 / requests as f64;
    if share <= p { 0.0 } else { requests as f64 * divergence(share, p) }
}

/// Kullback-Leibler divergence of two coins, in nats; `0 * ln 0` is 0, so that it is never NaN.
fn divergence(a: f64, b: f64) -> f64 {
    let part = |a: f64, b: f64| if a <= 0.0 { 0.0 } else { a * (a / b.max(f64::MIN_POSITIVE)).ln() };
    part(a, b) + part(1.0 - a, 1.0 - b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(900);

    fn counts(good: u64, bad: u64) -> Counts {
        Counts { good, bad, in_flight: 0 }
    }

    fn sample(counts: Counts) -> Sample {
        Sample { counts, old_is_up: true }
    }

    fn secs(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    /// xorshift64*: seeded, so that a failure repeats.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Requests one after the other, judged after each, until a rollback or `limit`: how many it took.
    fn requests_until_rollback(history: Counts, share: f64, per_second: f64, limit: u64, seed: u64) -> Option<u64> {
        let mut dice = Dice(seed);
        let mut watch = Watch::new(secs(0.0), WINDOW, history);
        let mut seen = counts(0, 0);
        (1..=limit).find(|n| {
            if dice.roll() < share {
                seen.bad += 1
            } else {
                seen.good += 1
            }
            matches!(watch.step(secs(*n as f64 / per_second), sample(seen)), Verdict::RollBack(_))
        })
    }

    #[test]
    fn gives_no_verdict_without_traffic() {
        let mut watch = Watch::new(secs(0.0), WINDOW, counts(1000, 0));
        for second in 1..900 {
            assert_eq!(watch.step(secs(f64::from(second)), sample(counts(0, 0))), Verdict::Hold);
            assert_eq!(watch.evidence(), 0.0);
        }
        assert_eq!(watch.step(WINDOW, sample(counts(0, 0))), Verdict::NotEnoughTraffic);
    }

    #[test]
    fn finds_a_dead_color_at_the_fifth_failure() {
        for (case, history) in [
            ("no history", counts(0, 0)),
            ("a clean one", counts(10_000, 0)),
            ("one percent of errors", counts(9_900, 100)),
        ] {
            assert_eq!(requests_until_rollback(history, 1.0, 100.0, 100, 1), Some(5), "{case}");
            assert_eq!(requests_until_rollback(history, 1.0, 0.1, 100, 1), Some(5), "{case}, slowly");
        }
    }

    #[test]
    fn finds_a_fifth_of_failures_within_dozens_of_requests() {
        for (history, want) in [(counts(0, 0), 120), (counts(1_000, 0), 60), (counts(59_400, 600), 60)] {
            let mut took: Vec<_> = (1..=101)
                .map(|seed| requests_until_rollback(history, 0.2, 100.0, 2_000, seed).expect("a fifth is found"))
                .collect();
            took.sort_unstable();
            assert!(took[50] <= want, "median {} of {history:?}", took[50]);
        }
    }

    #[test]
    fn finds_a_fault_that_begins_late() {
        let mut watch = Watch::new(secs(0.0), WINDOW, counts(100_000, 100));
        let mut seen = counts(0, 0);
        for tick in 1..=4800 {
            seen.good += 100;
            assert_eq!(watch.step(secs(f64::from(tick) / 10.0), sample(seen)), Verdict::Hold);
        }
        let found = (1..=100).find(|tick| {
            seen.good += 80;
            seen.bad += 20;
            matches!(watch.step(secs(480.0 + f64::from(*tick) / 10.0), sample(seen)), Verdict::RollBack(_))
        });
        assert!(found.is_some_and(|ticks| ticks <= 20), "{found:?}");
    }

    #[test]
    fn leaves_good_releases_alone() {
        // Two hundred whole watches, at baselines up to 5 %, 100 requests/s, judged ten times a second.
        for (share, seeds) in [(0.0, 1..=20), (0.001, 21..=80), (0.01, 81..=140), (0.05, 141..=200)] {
            for seed in seeds {
                let mut dice = Dice(seed * 7919);
                let mut draw = |n: u32| u64::try_from((0..n).filter(|_| dice.roll() < share).count()).expect("small");
                let bad = draw(6_000);
                let mut watch = Watch::new(secs(0.0), WINDOW, counts(6_000 - bad, bad));
                let mut seen = counts(0, 0);
                for tick in 1..9_000 {
                    let bad = draw(10);
                    seen = counts(seen.good + 10 - bad, seen.bad + bad);
                    let verdict = watch.step(secs(f64::from(tick) / 10.0), sample(seen));
                    assert_eq!(verdict, Verdict::Hold, "share {share}, seed {seed}, tick {tick}");
                }
                assert_eq!(watch.step(WINDOW, sample(seen)), Verdict::Keep);
            }
        }
    }

    #[test]
    fn does_not_judge_a_slow_service_by_its_quick_failures() {
        // 1 % fail at once, the rest takes a second: after 0.6 s six have failed and nothing has succeeded.
        let mut watch = Watch::new(secs(0.0), WINDOW, counts(99_000, 1_000));
        let hasty = Counts { good: 0, bad: 6, in_flight: 594 };
        assert_eq!(watch.step(secs(0.6), sample(hasty)), Verdict::Hold);
    }

    #[test]
    fn stays_when_there_is_no_better_place() {
        let mut watch = Watch::new(secs(0.0), WINDOW, counts(1_000, 0));
        let bad = counts(0, 50);
        let stuck = watch.step(secs(1.0), Sample { counts: bad, old_is_up: false });
        assert!(matches!(stuck, Verdict::NowhereToGo(Finding { failed: 50, requests: 50, .. })), "{stuck:?}");
        assert!(matches!(watch.step(secs(2.0), sample(bad)), Verdict::RollBack(_)), "goes as soon as it can");
    }

    #[test]
    fn tolerates_what_the_old_color_did_too() {
        let mut watch = Watch::new(secs(0.0), WINDOW, counts(700, 300));
        assert_eq!(watch.step(secs(1.0), sample(counts(650, 350))), Verdict::Hold);
        let mut watch = Watch::new(secs(0.0), WINDOW, counts(0, 100));
        assert_eq!(watch.step(secs(1.0), sample(counts(0, 1_000))), Verdict::Hold, "going back would help nobody");
        let mut watch = Watch::new(secs(0.0), WINDOW, counts(0, 1));
        let verdict = watch.step(secs(1.0), sample(counts(0, 1_000)));
        assert!(matches!(verdict, Verdict::RollBack(_)), "one unlucky request excuses nobody: {verdict:?}");
    }

    #[test]
    fn evidence_is_a_share_for_every_input() {
        let many = u64::from(u32::MAX);
        for history in [counts(0, 0), counts(0, 1), counts(0, many), counts(many, 0), counts(many, many)] {
            let excused = tolerated(history);
            assert!(excused > 0.0 && excused <= TOLERATED_MAX, "{history:?} excuses {excused}");
            for seen in [counts(0, 0), counts(0, 1), counts(1, 0), counts(0, many), counts(many, 0), counts(many, many)]
            {
                let mut watch = Watch::new(secs(0.0), WINDOW, history);
                watch.step(secs(1.0), sample(seen));
                assert!((0.0..=1.0).contains(&watch.evidence()), "{history:?} {seen:?} {}", watch.evidence());
            }
        }
    }

    #[test]
    fn remembers_no_more_than_its_short_look_needs() {
        let mut watch = Watch::new(secs(0.0), WINDOW, counts(0, 0));
        for ms in 1..60_000 {
            watch.step(Duration::from_millis(ms), sample(counts(ms, 0)));
        }
        assert!(watch.past.len() <= 103, "{}", watch.past.len());
    }
}
