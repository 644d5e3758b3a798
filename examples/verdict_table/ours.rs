//! Our rule: the very code that the proxy runs, fed as the proxy feeds it.

use std::time::Duration;

use cutover::domain::verdict::{DetectorConfig, FailureBaseline};
use cutover::domain::watch::{
    Baseline, Decision, Outcomes, SOURCES, Stratum, Watch, WatchConfig, WatchMode, WatchSample,
};

use super::stream::{Stream, WINDOW};

/// How often the watch looks when no failure wakes it.
const TICK: Duration = Duration::from_millis(100);
/// Routes that the requests are for.
const ROUTES: usize = 8;

/// A watch on a stream, request by request.
pub struct Trial<'a> {
    stream: &'a Stream,
    watch: Watch,
    dice: fastrand::Rng,
    sample: WatchSample,
    next_tick: Duration,
    at: usize,
}

impl<'a> Trial<'a> {
    pub fn new(stream: &'a Stream, rule: DetectorConfig) -> Self {
        let yardstick = FailureBaseline::new(stream.history.clone(), &rule);
        let before = Baseline { yardstick, ..Baseline::default() };
        let watch = Watch::new(
            Duration::ZERO,
            Duration::from_secs(WINDOW as u64),
            WatchConfig { rule, ..WatchConfig::DEFAULT },
            before,
        );
        Trial {
            stream,
            watch,
            dice: fastrand::Rng::with_seed(!stream.seed),
            sample: WatchSample { old_is_up: true, ..WatchSample::default() },
            next_tick: TICK,
            at: 0,
        }
    }

    /// The next request, which goes where the watch sends it; a failure wakes the judge. `None` at the end.
    pub fn ask(&mut self) -> Option<Decision> {
        let now = Duration::from_secs_f64(self.at as f64 / self.stream.recipe.rate as f64);
        while self.next_tick <= now {
            let verdict = self.watch.step(self.next_tick, self.sample);
            self.next_tick += TICK;
            if verdict != Decision::Hold {
                return Some(verdict);
            }
        }
        let (new, old) = (*self.stream.new.get(self.at)?, self.stream.old[self.at]);
        self.at += 1;
        let is_new_and_bad = self.count(new, old);
        Some(if is_new_and_bad { self.watch.step(now, self.sample) } else { Decision::Hold })
    }

    /// Whether it failed on the new color.
    fn count(&mut self, new: bool, old: bool) -> bool {
        let mode = self.watch.mode();
        let one_in = mode.keep_one_in;
        let is_old = one_in > 0 && self.dice.u8(..one_in) > 0;
        let is_bad = if is_old { old } else { new };
        let one = Outcomes { good: u64::from(!is_bad), bad: u64::from(is_bad) };
        let (client, route) = (self.dice.usize(..SOURCES), self.dice.usize(..ROUTES));
        let is_excluded = |mode: WatchMode| {
            mode.excluded.client.map(usize::from) == Some(client) || mode.excluded.route.map(usize::from) == Some(route)
        };
        let phase = if is_old {
            Stratum::Old
        } else if is_excluded(mode) {
            Stratum::Excluded
        } else {
            mode.phase()
        };
        self.sample.seen.strata[phase as usize] += one;
        if !is_old && phase != Stratum::Excluded {
            self.sample.seen.spread.clients[client] += one;
            self.sample.seen.spread.routes[route] += one;
        }
        is_bad && !is_old
    }

    /// Requests so far, of either color.
    pub fn asked(&self) -> usize {
        self.at
    }

    /// Those that failed on the new color.
    pub fn failed(&self) -> u64 {
        self.sample.seen.new_color().bad
    }

    /// How much speaks against the new color, as a natural logarithm.
    pub fn ln_evidence(&self) -> f64 {
        self.watch.account(self.next_tick).failures.ln_evidence
    }
}
