//! The watch as the proxy uses it: requests go where its mode sends them.

use super::*;

const WINDOW: Duration = Duration::from_secs(900);

fn ended(good: u64, bad: u64) -> Outcomes {
    Outcomes { good, bad }
}

fn secs(n: f64) -> Duration {
    Duration::from_secs_f64(n)
}

/// An old color with that history, at 100 requests/s, whose failures come one by one.
fn before(history: Outcomes) -> Baseline {
    let yardstick = FailureBaseline { answered: batch(history), rate: 100.0, dispersion: 1.0 };
    Baseline { yardstick, slow: [None; 3] }
}

fn watch_after(history: Outcomes) -> Watch {
    Watch::new(secs(0.0), WINDOW, WatchConfig::DEFAULT, before(history))
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

/// What is counted, and where requests go.
struct World {
    dice: Dice,
    sample: WatchSample,
    turn: u64,
    /// Shares of failures.
    new: f64,
    old: f64,
}

impl World {
    fn new(seed: u64, new: f64, old: f64) -> Self {
        World { dice: Dice(seed), sample: WatchSample { old_is_up: true, ..WatchSample::default() }, turn: 0, new, old }
    }

    fn ask(&mut self, mode: WatchMode) {
        self.ask_as(mode, (0, 0), self.new);
    }

    /// One request of that client for that route, which fails on the new color with that chance.
    fn ask_as(&mut self, mode: WatchMode, (client, route): (u8, u8), new: f64) {
        self.turn += 1;
        let is_old = mode.keep_one_in > 0 && !self.turn.is_multiple_of(u64::from(mode.keep_one_in));
        let is_bad = self.dice.roll() < if is_old { self.old } else { new };
        let is_excluded = mode.excluded.client == Some(client) || mode.excluded.route == Some(route);
        let phase = match (is_old, is_excluded, mode.warm_up, mode.keep_one_in > 0) {
            (true, _, _, _) => Stratum::Old,
            (_, true, _, _) => Stratum::Excluded,
            (_, _, true, true) => Stratum::WarmUpSplit,
            (_, _, true, false) => Stratum::WarmUp,
            (_, _, false, true) => Stratum::Split,
            (_, _, false, false) => Stratum::Calm,
        };
        let one = if is_bad { ended(0, 1) } else { ended(1, 0) };
        self.sample.seen.strata[phase as usize] += one;
        if !is_old && !is_excluded {
            self.sample.seen.spread.clients[usize::from(client)] += one;
            self.sample.seen.spread.routes[usize::from(route)] += one;
        }
    }

    fn failed_on_the_new_color(&self) -> u64 {
        self.sample.seen.new_color().bad
    }
}

/// Requests one after the other, judged after each: how many it took, and how many failed on the new color.
fn until_rollback(watch: &mut Watch, world: &mut World, from: f64, per_second: f64, limit: u32) -> Option<(u32, u64)> {
    watch.step(secs(from), world.sample);
    (1..=limit).find_map(|n| {
        world.ask(watch.mode());
        let verdict = watch.step(secs(from + f64::from(n) / per_second), world.sample);
        matches!(verdict, Decision::RollBack(_)).then(|| (n, world.failed_on_the_new_color()))
    })
}

#[test]
fn gives_no_verdict_without_traffic() {
    let mut watch = watch_after(ended(1000, 0));
    let silence = WatchSample { old_is_up: true, ..WatchSample::default() };
    for second in 1..900 {
        assert_eq!(watch.step(secs(f64::from(second)), silence), Decision::Hold);
        assert_eq!(watch.evidence(), 0.0);
    }
    assert_eq!(watch.step(WINDOW, silence), Decision::NotEnoughTraffic);
}

#[test]
fn stays_open_without_traffic_where_that_is_wanted() {
    let config = WatchConfig { stay_open: true, ..WatchConfig::DEFAULT };
    let mut watch = Watch::new(secs(0.0), WINDOW, config, before(ended(10_000, 0)));
    let mut world = World::new(1, 0.0, 0.0);
    assert_eq!(watch.step(WINDOW, world.sample), Decision::Hold);
    assert!(watch.until() > WINDOW);
    (0..10_000).for_each(|_| world.ask(WatchMode::default()));
    assert_eq!(watch.step(2 * WINDOW, world.sample), Decision::Keep, "and ends as soon as it knows");
}

#[test]
fn finds_a_dead_color_within_a_dozen_failures() {
    for (case, history) in
        [("no history", ended(0, 0)), ("a clean one", ended(10_000, 0)), ("one percent", ended(9_900, 100))]
    {
        for from in [0.0, 3.0] {
            for per_second in [100.0, 0.1] {
                let found =
                    until_rollback(&mut watch_after(history), &mut World::new(1, 1.0, 0.0), from, per_second, 500);
                assert!(found.is_some_and(|(_, failed)| failed <= 12), "{case}, after {from} s: {found:?}");
            }
        }
    }
}

#[test]
fn finds_a_fifth_of_failures_within_a_few() {
    for (history, most) in [(ended(0, 0), 40), (ended(1_000, 0), 12), (ended(59_400, 600), 14)] {
        let mut failed: Vec<_> = (1..=101)
            .map(|seed| {
                let mut world = World::new(seed, 0.2, 0.0);
                until_rollback(&mut watch_after(history), &mut world, 2.0, 100.0, 5_000).expect("a fifth is found").1
            })
            .collect();
        failed.sort_unstable();
        assert!(failed[50] <= most, "median {} of {history:?}", failed[50]);
    }
}

#[test]
fn finds_a_fault_that_begins_late() {
    let mut watch = watch_after(ended(100_000, 100));
    let mut world = World::new(3, 0.0, 0.0);
    for tick in 1..=4800 {
        (0..100).for_each(|_| world.ask(watch.mode()));
        assert_eq!(watch.step(secs(f64::from(tick) / 10.0), world.sample), Decision::Hold);
    }
    world.new = 0.2;
    let found = (1..=100).find(|tick| {
        (0..100).for_each(|_| world.ask(watch.mode()));
        matches!(watch.step(secs(480.0 + f64::from(*tick) / 10.0), world.sample), Decision::RollBack(_))
    });
    assert!(found.is_some_and(|ticks| ticks <= 4), "{found:?}");
    assert!(world.failed_on_the_new_color() <= 40, "{}", world.failed_on_the_new_color());
}

#[test]
fn leaves_good_releases_alone() {
    // Two hundred whole watches, at baselines up to 5 %, 100 requests/s, judged ten times a second.
    for (share, seeds) in [(0.0, 1..=20), (0.001, 21..=80), (0.01, 81..=140), (0.05, 141..=200)] {
        for seed in seeds {
            let mut world = World::new(seed * 7919, share, share);
            (0..6_000).for_each(|_| world.ask(WatchMode::default()));
            let history = std::mem::take(&mut world.sample.seen).new_color();
            let mut watch = watch_after(history);
            for tick in 1..9_000 {
                (0..10).for_each(|_| world.ask(watch.mode()));
                let verdict = watch.step(secs(f64::from(tick) / 10.0), world.sample);
                assert_eq!(verdict, Decision::Hold, "share {share}, seed {seed}, tick {tick}");
            }
            assert_eq!(watch.step(WINDOW, world.sample), Decision::Keep);
        }
    }
}

#[test]
fn shares_the_traffic_in_doubt_and_gives_it_back() {
    let mut watch = watch_after(ended(10_000, 0));
    let mut world = World::new(1, 1.0, 0.0);
    watch.step(secs(3.0), world.sample);
    (0..3).for_each(|_| world.ask(watch.mode()));
    assert_eq!(watch.step(secs(3.1), world.sample), Decision::Hold);
    assert!(watch.is_split() && watch.mode().keep_one_in == 5, "{:?}", watch.mode());
    assert!(matches!(watch.take_note(), Some(WatchEvent::Doubted(FaultReport { bad: 3, requests: 3, .. }))));
    world.new = 0.0;
    for tick in 0..10_000 {
        world.ask(watch.mode());
        watch.step(secs(3.2 + f64::from(tick) / 100.0), world.sample);
    }
    assert!(!watch.is_split());
    assert_eq!(watch.take_note(), Some(WatchEvent::Settled));
}

#[test]
fn a_fault_of_both_colors_is_told_and_held() {
    let mut watch = watch_after(ended(60_000, 60));
    let mut world = World::new(5, 0.001, 0.001);
    let mut shared = 0;
    for tick in 0..1_200 {
        // Three seconds of outage after a minute.
        let share = if (600..630).contains(&tick) { 1.0 } else { 0.001 };
        (world.new, world.old) = (share, share);
        (0..10).for_each(|_| world.ask(watch.mode()));
        let verdict = watch.step(secs(10.0 + f64::from(tick) / 10.0), world.sample);
        assert_eq!(verdict, Decision::Hold, "tick {tick}");
        shared += u32::from(matches!(watch.take_note(), Some(WatchEvent::Shared(_))));
    }
    assert_eq!(shared, 1, "told once");
    world.new = 1.0;
    world.old = 0.001;
    assert!(until_rollback(&mut watch, &mut world, 131.0, 100.0, 200).is_some(), "its own fault is found after all");
}

#[test]
fn one_looping_client_takes_nothing_back() {
    let mut watch = watch_after(ended(60_000, 60));
    let mut world = World::new(5, 0.0, 0.0);
    let mut excluded = 0;
    for tick in 0..600 {
        let mode = watch.mode();
        (0..10).for_each(|n| world.ask_as(mode, (n, n), 0.0));
        if tick > 100 {
            (0..30).for_each(|_| world.ask_as(mode, (20, 20), 1.0));
        }
        let verdict = watch.step(secs(2.0 + f64::from(tick) / 10.0), world.sample);
        assert_eq!(verdict, Decision::Hold, "tick {tick}");
        excluded += u32::from(matches!(watch.take_note(), Some(WatchEvent::ClientExcluded(_))));
    }
    assert_eq!((excluded, watch.mode().excluded.client), (1, Some(20)));
    let found = (0..20).find(|tick| {
        let mode = watch.mode();
        (0..10).for_each(|n| world.ask_as(mode, (n, n), 1.0));
        matches!(watch.step(secs(70.0 + f64::from(*tick) / 10.0), world.sample), Decision::RollBack(_))
    });
    assert!(found.is_some(), "an outage does not hide behind it");
}

#[test]
fn a_rare_route_takes_nothing_back_and_another_one_does() {
    for (share, rolls_back) in [(0.01, false), (0.10, true)] {
        let mut watch = watch_after(ended(60_000, 0));
        let mut world = World::new(5, 0.0, 0.0);
        let rolled_back = (0..1_200).any(|tick| {
            let mode = watch.mode();
            for n in 0..10 {
                let is_broken = world.dice.roll() < share;
                world.ask_as(mode, (n, if is_broken { 9 } else { n % 3 }), if is_broken { 1.0 } else { 0.0 });
            }
            matches!(watch.step(secs(2.0 + f64::from(tick) / 10.0), world.sample), Decision::RollBack(_))
        });
        assert_eq!(rolled_back, rolls_back, "a broken route with {share} of the traffic");
    }
}

#[test]
fn a_few_failures_prove_nothing_good_where_the_old_color_was_dead() {
    let mut watch = watch_after(ended(0, 10_000));
    let mut sample = WatchSample { old_is_up: true, ..WatchSample::default() };
    watch.step(secs(3.0), sample);
    sample.seen.strata[Stratum::Calm as usize] = ended(0, 100);
    assert_eq!(watch.step(secs(10.0), sample), Decision::Hold);
    assert_eq!(watch.step(WINDOW, sample), Decision::NotEnoughTraffic);
}

#[test]
fn refused_connections_need_no_second_opinion() {
    let mut watch = watch_after(ended(10_000, 0));
    let mut sample = WatchSample { old_is_up: true, ..WatchSample::default() };
    watch.step(secs(3.0), sample);
    sample.seen.strata[Stratum::Calm as usize] = ended(0, 5);
    sample.seen.refused = 5;
    assert!(matches!(watch.step(secs(3.1), sample), Decision::RollBack(_)));
}

#[test]
fn does_not_judge_a_slow_service_by_its_quick_failures() {
    // 1 % fail at once, the rest takes a second: after 0.6 s six have failed and nothing has succeeded.
    let config = WatchConfig { split: false, ..WatchConfig::DEFAULT };
    let mut watch = Watch::new(secs(0.0), WINDOW, config, before(ended(99_000, 1_000)));
    watch.step(secs(3.0), WatchSample { old_is_up: true, ..WatchSample::default() });
    let mut hasty = WatchSample { old_is_up: true, in_flight: 594, ..WatchSample::default() };
    hasty.seen.strata[Stratum::Calm as usize] = ended(0, 6);
    assert_eq!(watch.step(secs(3.6), hasty), Decision::Hold);
}

#[test]
fn finds_a_slow_color() {
    let limits = [(20, 0.5), (40, 0.9), (100, 0.99)].map(|(ms, _)| Some((Duration::from_millis(ms), 1.0)));
    let mut watch =
        Watch::new(secs(0.0), WINDOW, WatchConfig::DEFAULT, Baseline { slow: limits, ..before(ended(10_000, 0)) });
    let sample = |aged| WatchSample { old_is_up: true, aged, ..WatchSample::default() };
    watch.step(secs(3.0), sample(AgedCohorts::default()));
    let found = (0..100).find_map(|tick| {
        let aged = if watch.is_split() {
            AgedCohorts {
                new: [ended(0, 2); 3],
                old: [ended(4, 4), ended(7, 1), ended(8, 0)],
                is_split: true,
                in_warm_up: false,
            }
        } else {
            AgedCohorts { new: [ended(0, 10); 3], ..AgedCohorts::default() }
        };
        match watch.step(secs(3.1 + f64::from(tick) / 10.0), sample(aged)) {
            Decision::RollBack(finding) => Some(finding),
            Decision::Hold | Decision::NowhereToGo(_) | Decision::Keep | Decision::NotEnoughTraffic => None,
        }
    });
    let finding = found.expect("all answers are slow");
    assert!(matches!(finding.wrong, Wrong::Slow(limit) if limit == Duration::from_millis(100)), "{finding}");
    assert!(finding.to_string().contains("took longer than 100 ms"), "{finding}");
}

mod without_a_better_place {
    use super::*;

    fn world(good: u64, bad: u64, old_is_up: bool) -> WatchSample {
        let mut sample = WatchSample { old_is_up, ..WatchSample::default() };
        sample.seen.strata[Stratum::Calm as usize] = ended(good, bad);
        sample.seen.refused = bad;
        sample
    }

    #[test]
    fn stays_until_there_is_one() {
        let mut watch = watch_after(ended(1_000, 0));
        watch.step(secs(3.0), world(0, 0, false));
        let stuck = watch.step(secs(4.0), world(0, 50, false));
        assert!(matches!(stuck, Decision::NowhereToGo(FaultReport { bad: 50, requests: 50, .. })), "{stuck:?}");
        assert_eq!(watch.step(secs(5.0), world(0, 50, true)), Decision::Hold, "it may be over");
        let verdict = watch.step(secs(6.0), world(0, 58, true));
        assert!(matches!(verdict, Decision::RollBack(_)), "goes as soon as it can: {verdict:?}");
    }

    #[test]
    fn does_not_go_back_for_a_fault_that_is_over() {
        let mut watch = watch_after(ended(10_000, 0));
        for second in 3_u32..=30 {
            let seen = world(0, 1_000 * u64::from(second), false);
            let verdict = watch.step(secs(f64::from(second)), seen);
            assert!(second == 3 || matches!(verdict, Decision::NowhereToGo(_)), "second {second}: {verdict:?}");
        }
        assert_eq!(watch.step(secs(30.1), world(10, 30_000, true)), Decision::Hold);
        assert_eq!(watch.step(secs(31.0), world(1_000, 30_000, true)), Decision::Hold);
        let verdict = watch.step(secs(32.0), world(1_000, 30_008, true));
        assert!(matches!(verdict, Decision::RollBack(_)), "but the next one is: {verdict:?}");
    }

    #[test]
    fn is_known_to_be_bad_to_the_end_where_nothing_was_known_before() {
        let config = WatchConfig {
            rule: DetectorConfig { window: secs(2.0), ..DetectorConfig::default() },
            ..WatchConfig::DEFAULT
        };
        let mut watch = Watch::new(secs(0.0), secs(2.0), config, Baseline::default());
        for tick in 1_u32..20 {
            watch.step(secs(f64::from(tick) / 10.0), world(0, 8 * u64::from(tick), false));
        }
        let end = watch.step(secs(2.0), world(0, 160, false));
        assert!(matches!(end, Decision::NowhereToGo(_)), "{end:?}");
    }

    #[test]
    fn says_at_the_end_that_it_was_bad_when_it_still_is() {
        let mut watch = watch_after(ended(10_000, 0));
        watch.step(secs(3.0), world(0, 0, false));
        watch.step(secs(5.0), world(100, 50, false));
        let busy = WatchSample { in_flight: 1_000, ..world(100, 60, false) };
        let end = watch.step(WINDOW, busy);
        assert!(matches!(end, Decision::NowhereToGo(FaultReport { bad: 50, .. })), "{end:?}");
    }
}

#[test]
fn a_cold_start_may_stumble_and_a_warm_color_may_not() {
    for (from, want_rollback) in [(0.0, false), (2.1, true)] {
        let mut watch = watch_after(ended(10_000, 10));
        let mut world = World::new(9, 0.1, 0.0);
        watch.step(secs(from), world.sample);
        let rolled_back = (1_u32..19).any(|tick| {
            (0..100).for_each(|_| world.ask(watch.mode()));
            matches!(watch.step(secs(from + f64::from(tick) / 10.0), world.sample), Decision::RollBack(_))
        });
        assert_eq!(rolled_back, want_rollback, "a tenth of failures from {from} s on");
    }
}

#[test]
fn takes_nothing_back_for_fewer_failures_than_configured() {
    let rule = DetectorConfig { min_failures: 20, ..DetectorConfig::default() };
    let config = WatchConfig { rule, ..WatchConfig::DEFAULT };
    let mut watch = Watch::new(secs(0.0), WINDOW, config, before(ended(10_000, 0)));
    let (_, failed) = until_rollback(&mut watch, &mut World::new(1, 1.0, 0.0), 3.0, 100.0, 500).expect("dead");
    assert_eq!(failed, 20);
}

#[test]
fn tolerates_what_the_old_color_did_too() {
    let rolled_back = |history, new, old| {
        until_rollback(&mut watch_after(history), &mut World::new(7, new, old), 3.0, 100.0, 2_000).is_some()
    };
    assert!(!rolled_back(ended(700, 300), 0.35, 0.3));
    assert!(!rolled_back(ended(0, 100), 1.0, 1.0), "going back would help nobody");
    assert!(rolled_back(ended(0, 1), 1.0, 0.0), "one unlucky request excuses nobody");
}

#[test]
fn evidence_is_a_share_for_every_input() {
    let many = u64::from(u32::MAX);
    for history in [ended(0, 0), ended(0, 1), ended(0, many), ended(many, 0), ended(many, many)] {
        let excused = watch_after(history).tolerated;
        assert!(excused > 0.0 && excused < 1.0, "{history:?} excuses {excused}");
        for seen in [ended(0, 0), ended(0, 1), ended(1, 0), ended(0, many), ended(many, 0), ended(many, many)] {
            let mut watch = watch_after(history);
            let mut sample = WatchSample { old_is_up: true, ..WatchSample::default() };
            sample.seen.strata[Stratum::WarmUp as usize] = seen;
            watch.step(secs(1.0), sample);
            assert!((0.0..=1.0).contains(&watch.evidence()), "{history:?} {seen:?} {}", watch.evidence());
        }
    }
}
