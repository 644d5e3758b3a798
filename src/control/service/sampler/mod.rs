//! Reads the data plane's counters of one service: for the watch, and for the history that the next flip is judged
//! against.
//!
//! The counters of a route only grow, and a route is replaced at every flip, reload and freeze. So what was seen under
//! the present epoch has two parts: what routes replaced within it have left (`carried`), and what the route in force
//! shows (`seen`).

mod cohorts;
mod history;

use std::time::{Duration, Instant};

pub(in crate::control) use history::History;

use crate::domain::Color;
use crate::domain::verdict::{DetectorConfig, FailureBaseline};
use crate::domain::watch::{Baseline, Outcomes, Stratum, WatchCounts, WatchSample};
use crate::routing::{ColorStats, RouteHandle, SlowLimits, Tally};
use cohorts::CohortReader;

/// Between two samples of a service that is watched.
pub(in crate::control) const WATCH_TICK: Duration = Duration::from_millis(100);
/// Between two samples of any service, for the history.
pub(in crate::control) const HISTORY_TICK: Duration = Duration::from_secs(1);
/// A failure is looked at as soon as it is counted, but no more often than this.
pub(in crate::control) const BELL_TICK: Duration = Duration::from_millis(1);

/// From when on a response is slow, and what that evidence is divided by; by quantile.
pub(in crate::control) type SlowRules = [Option<(Duration, f64)>; 3];

/// How synthetic requests were answered under the present epoch: the route does not know them.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::control) struct SyntheticSample {
    pub(in crate::control) seen: WatchCounts,
    /// Requests in flight to the new color.
    pub(in crate::control) in_flight: u64,
}

/// The counts of one service under its present epoch, and the histories of its colors.
#[derive(Default)]
pub(in crate::control) struct Sampler {
    /// What routes that were replaced under the present epoch have counted.
    carried: Tally,
    /// What the route in force had counted when it was last read.
    seen: Tally,
    /// The last tally of the epoch before this one.
    previous_epoch: Tally,
    cohorts: CohortReader,
    /// Indexed by [`Color::index`].
    history: [History; 2],
    /// In force for the watched color.
    slow: SlowRules,
}

/// The sampler's state as it goes to the process that takes this one's place.
pub(in crate::control) struct SamplerSnapshot {
    pub(in crate::control) tally: Tally,
    pub(in crate::control) previous_epoch: Tally,
    pub(in crate::control) history: [History; 2],
    pub(in crate::control) slow: SlowRules,
}

impl Sampler {
    /// Reads the counters of the route in force: adds to the history, and returns what the watch wants to know.
    pub(in crate::control) fn read(
        &mut self,
        route: &RouteHandle,
        active: Color,
        warm_up: Duration,
        synthetic: &SyntheticSample,
        now: Duration,
    ) -> WatchSample {
        let tally = route.tally();
        for color in Color::BOTH {
            let ended = outcomes_of(&tally, color, active) - outcomes_of(&self.seen, color, active);
            self.history[color.index()].add(now, ended.good, ended.bad);
        }
        self.seen = tally;
        let mut seen = self.carried.seen;
        seen += &tally.seen;
        seen += &synthetic.seen;
        let aged = self.cohorts.come_of_age(route, warm_up);
        let in_flight = tally.in_flight_on_new() + synthetic.in_flight;
        WatchSample { seen, in_flight, aged, old_is_up: false }
    }

    /// Adds how long the responses of both colors took since this was last called; once a second.
    pub(in crate::control) fn note_latency(&mut self, stats: [&ColorStats; 2], now: Duration) {
        for (history, stats) in self.history.iter_mut().zip(stats) {
            history.add_answers(now, |bucket| stats.sum(|shard| shard.answers[bucket].get()));
        }
    }

    /// What `active` has shown lately. Takes milliseconds for a service with bursts.
    pub(in crate::control) fn baseline(
        &mut self,
        active: Color,
        rule: &DetectorConfig,
        slow_factor: f64,
        now: Duration,
    ) -> Baseline {
        let history = &mut self.history[active.index()];
        let slow = history.slow(now, slow_factor);
        Baseline { yardstick: FailureBaseline::new(history.seconds(now), rule), slow }
    }

    /// Begins another epoch: the counts begin anew. Call it before its route is published.
    pub(in crate::control) fn begin_epoch(&mut self) {
        self.previous_epoch = self.tally();
        self.carried = Tally::default();
        self.seen = Tally::default();
    }

    /// Keeps what was seen for a route that replaces the present one under the same epoch. What is in flight on the
    /// present route is counted no more.
    pub(in crate::control) fn carry(&mut self) {
        self.carried = self.tally().without_in_flight();
    }

    /// Another route is in force, whose counters begin at zero.
    pub(in crate::control) fn on_route_replaced(&mut self) {
        self.seen = Tally::default();
        self.cohorts = CohortReader::default();
    }

    /// The watch that begins now calls responses slow by `rules`.
    pub(in crate::control) fn set_slow_rules(&mut self, rules: SlowRules) {
        self.slow = rules;
    }

    /// By which limits the data plane counts slow responses from now on; `None` where nothing is known.
    pub(in crate::control) fn slow_limits(&self) -> Option<SlowLimits> {
        let limits = self.slow.map(|slow| slow.map(|(limit, _)| limit));
        limits.iter().any(Option::is_some).then(|| SlowLimits { limits, since: Instant::now() })
    }

    /// The traffic is split between the colors from now on, or no more.
    pub(in crate::control) fn note_split(&mut self, route: &RouteHandle, is_split: bool) {
        self.cohorts.note_split(route, is_split);
    }

    /// Forgets what `color` has shown: a release that was taken back is no yardstick for the next one.
    pub(in crate::control) fn forget_history(&mut self, color: Color) {
        self.history[color.index()] = History::default();
    }

    /// Counts of the present epoch, as they were read last.
    pub(in crate::control) fn tally(&self) -> Tally {
        let mut tally = self.carried;
        tally += &self.seen;
        tally
    }

    /// Counts of the epoch before this one.
    pub(in crate::control) fn previous_epoch(&self) -> Tally {
        self.previous_epoch
    }

    /// What another process needs to go on where this one stands. Synthetic requests go over among the counts.
    pub(in crate::control) fn snapshot(&self, synthetic: &WatchCounts) -> SamplerSnapshot {
        // What is in flight here is no evidence there.
        let mut tally = self.tally().without_in_flight();
        let old_begun = synthetic.of(Stratum::Old).all();
        let begun = synthetic.new_color().all() + old_begun;
        tally += &Tally { begun, old_begun, seen: *synthetic, ..Tally::default() };
        SamplerSnapshot { tally, previous_epoch: self.previous_epoch, history: self.history.clone(), slow: self.slow }
    }

    /// Goes on with the histories of the process before this one. Its tallies follow in
    /// [`Sampler::inherit_tallies`], once a route is published that counts by its rules.
    pub(in crate::control) fn inherit_history(&mut self, history: [History; 2], slow: SlowRules) {
        (self.history, self.slow) = (history, slow);
    }

    /// Goes on with the counts of the process before this one.
    pub(in crate::control) fn inherit_tallies(&mut self, tally: Tally, previous_epoch: Tally) {
        (self.carried, self.previous_epoch) = (tally, previous_epoch);
    }
}

/// How requests of `color` have ended while `active` is the active color.
fn outcomes_of(tally: &Tally, color: Color, active: Color) -> Outcomes {
    if color == active { tally.seen.new_color() } else { tally.seen.of(Stratum::Old) }
}
