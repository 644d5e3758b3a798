//! What a color answered in the last hour, and how long it took: the yardstick of the next flip.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::verdict::{Batch, SLOWER_THAN_QUANTILE, dispersion_at};
use crate::routing::{ANSWER_BUCKETS, SLOW_MAX, answer_bucket, bucket_end};

/// A history counts responses as slow by this factor; the one in force may be another.
const SLOW_FACTOR: f64 = 2.0;

/// A history goes back so many seconds.
const KEPT: u64 = 3_600;

/// Keeps what one color answered, second by second, in the last hour in which it took traffic; 16 bytes a second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::control) struct History {
    seconds: VecDeque<Second>,
    answers: LatencyCounts,
}

/// Counts how long responses took lately: older ones fade, by half in some forty minutes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct LatencyCounts {
    #[serde(with = "crate::domain::listed")]
    seen: [u64; ANSWER_BUCKETS],
    #[serde(with = "crate::domain::listed")]
    faded: [f64; ANSWER_BUCKETS],
}

impl Default for LatencyCounts {
    fn default() -> Self {
        LatencyCounts { seen: [0; ANSWER_BUCKETS], faded: [0.0; ANSWER_BUCKETS] }
    }
}

/// Each second leaves this share of the counts before it.
const FADING: f64 = 1.0 - 1.0 / 3_600.0;

impl LatencyCounts {
    /// Takes in counts that only grow, and returns what they grew by.
    fn add(&mut self, count: impl Fn(usize) -> u64) -> [u64; ANSWER_BUCKETS] {
        let now: [u64; ANSWER_BUCKETS] = std::array::from_fn(count);
        let grown = std::array::from_fn(|bucket| now[bucket].saturating_sub(self.seen[bucket]));
        self.seen = now;
        for (faded, grown) in self.faded.iter_mut().zip(grown) {
            *faded = *faded * FADING + grown as f64;
        }
        grown
    }

    /// The end of the bucket that only `share` of the answers are beyond; `None` with too few to say.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let all: f64 = self.faded.iter().sum();
        let mut beyond = all;
        let bucket = self.faded.iter().position(|count| {
            beyond -= count;
            beyond <= share * all
        })?;
        (all * share >= ANSWERS_MIN).then(|| bucket_end(bucket))
    }
}

/// LatencyCounts beyond a quantile without which it is not known.
const ANSWERS_MIN: f64 = 20.0;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Second {
    at: u64,
    good: u32,
    bad: u32,
    /// LatencyCounts in it, and those slower than the history then found slow.
    answers: u32,
    slow: [u32; 3],
}

impl History {
    /// Adds what was answered up to `now`.
    pub(in crate::control) fn add(&mut self, now: Duration, good: u64, bad: u64) {
        if good + bad == 0 {
            return;
        }
        if let Some(second) = self.second(now) {
            second.good = second.good.saturating_add(u32::try_from(good).unwrap_or(u32::MAX));
            second.bad = second.bad.saturating_add(u32::try_from(bad).unwrap_or(u32::MAX));
        }
    }

    /// Adds how long answers took; `count` says how many there were by bucket, and only grows.
    pub(in crate::control) fn add_answers(&mut self, now: Duration, count: impl Fn(usize) -> u64) {
        let limits = self.limits(SLOW_FACTOR);
        let grown = self.answers.add(count);
        let number = |answers: u64| u32::try_from(answers).unwrap_or(u32::MAX);
        let answers = number(grown.iter().sum());
        if answers == 0 {
            return;
        }
        let slow = limits.map(|limit| {
            let from = limit.map_or(ANSWER_BUCKETS, |limit| answer_bucket(limit) + 1);
            number(grown[from.min(ANSWER_BUCKETS)..].iter().sum())
        });
        if let Some(second) = self.second(now) {
            second.answers = second.answers.saturating_add(answers);
            second.slow.iter_mut().zip(slow).for_each(|(sum, slow)| *sum = sum.saturating_add(slow));
        }
    }

    /// From when on an answer is slow, and what that evidence is divided by; by quantile, `None` where too little is
    /// known. A `factor` of 0 judges nothing.
    pub(in crate::control) fn slow(&mut self, now: Duration, factor: f64) -> [Option<(Duration, f64)>; 3] {
        self.forget(now.as_secs());
        let limits = self.limits(factor);
        std::array::from_fn(|at| {
            let seconds = self.seconds.iter().map(|second| Batch::new(second.answers.into(), second.slow[at].into()));
            let history: Vec<Batch> = seconds.collect();
            limits[at].map(|limit| (limit, dispersion_at(&history, SLOWER_THAN_QUANTILE[at])))
        })
    }

    fn limits(&self, factor: f64) -> [Option<Duration>; 3] {
        SLOWER_THAN_QUANTILE.map(|share| {
            let quantile = self.answers.quantile(share).filter(|_| factor > 0.0)?;
            Some(quantile.mul_f64(factor).min(SLOW_MAX))
        })
    }

    /// Returns the entry of the present second, which is made where there is none.
    fn second(&mut self, now: Duration) -> Option<&mut Second> {
        let at = now.as_secs();
        if self.seconds.back().is_none_or(|second| second.at < at) {
            self.forget(at);
            self.seconds.push_back(Second { at, good: 0, bad: 0, answers: 0, slow: [0; 3] });
        }
        self.seconds.back_mut()
    }

    /// Every second since the first that is kept, silent ones included.
    pub(in crate::control) fn seconds(&mut self, now: Duration) -> Vec<Batch> {
        self.forget(now.as_secs());
        let Some(first) = self.seconds.front().map(|second| second.at) else { return Vec::new() };
        let span = usize::try_from(now.as_secs() - first).expect("an hour") + 1;
        let mut seconds = vec![Batch::default(); span];
        for Second { at, good, bad, .. } in &self.seconds {
            let answered = f64::from(*good) + f64::from(*bad);
            seconds[usize::try_from(at - first).expect("an hour")] = Batch::new(answered, f64::from(*bad));
        }
        seconds
    }

    fn forget(&mut self, now: u64) {
        while self.seconds.front().is_some_and(|second| second.at + KEPT <= now) {
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::service::sampler::history::*;

    #[test]
    fn keeps_an_hour_and_no_more() {
        let mut history = History::default();
        for second in 0..7_200 {
            history.add(Duration::from_secs(second), 99, 1);
        }
        assert_eq!(history.seconds.len(), 3_600);
        assert_eq!(history.seconds(Duration::from_secs(7_199)), vec![Batch::new(100.0, 1.0); 3_600]);
        assert_eq!(history.seconds(Duration::from_secs(20_000)), []);
    }

    #[test]
    fn knows_silent_seconds() {
        let mut history = History::default();
        history.add(Duration::from_millis(10_100), 1, 0);
        history.add(Duration::from_millis(10_900), 0, 1);
        history.add(Duration::from_millis(12_000), 3, 0);
        let none = Batch::default();
        let want = [Batch::new(2.0, 1.0), none, Batch::new(3.0, 0.0), none];
        assert_eq!(history.seconds(Duration::from_millis(13_500)), want);
    }
}
