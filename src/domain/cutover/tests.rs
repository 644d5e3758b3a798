//! The machine, event by event. `simulation` drives it by dice.

mod simulation;

use super::*;
use crate::domain::health::{NotReady, UpstreamNotReady};
use crate::domain::rehearsal::{TooManyDifferences, Totals};
use crate::domain::verdict::DetectorConfig;
use crate::domain::watch::{Outcomes, Stratum as SeenIn};

const WINDOW: Duration = Duration::from_secs(60);
const TIMING: Timing = Timing {
    watch: WatchConfig { rule: DetectorConfig { window: WINDOW, ..DetectorConfig::DEFAULT }, ..WatchConfig::DEFAULT },
    drain: Duration::from_secs(5),
};

fn request(gate: Result<(), GateError>) -> ChangeRequest {
    ChangeRequest { by: "test".into(), if_epoch: None, force: false, gate }
}

fn ready() -> ChangeRequest {
    request(Ok(()))
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn fresh() -> Cutover {
    let saved = SavedState {
        active: Color::Blue,
        epoch: 1,
        previous: None,
        config_active: Color::Blue,
        watch_until: None,
        rolled_back: None,
    };
    Cutover::restore(saved, TIMING, secs(0))
}

/// Flips to green, with a disk that works at once.
fn flipped() -> Cutover {
    let mut machine = fresh();
    machine.on(Event::Flip { to: Color::Green, request: ready() }, secs(1));
    machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
    machine
}

/// Failures are refused connections, for which the new color alone can answer.
fn sample(good: u64, bad: u64, old_is_up: bool) -> Box<WatchSample> {
    let mut sample = WatchSample { old_is_up, ..WatchSample::default() };
    sample.seen.strata[SeenIn::Calm as usize] = Outcomes { good, bad };
    sample.seen.refused = bad;
    Box::new(sample)
}

fn refusal(effects: &[Effect]) -> Option<&ChangeError> {
    effects.iter().find_map(|effect| match effect {
        Effect::Report(Notice::Refused { error, .. }) => Some(error),
        Effect::Report(_) | Effect::Save { .. } | Effect::Publish { .. } | Effect::Cut { .. } => None,
    })
}

mod flip {
    use super::*;

    #[test]
    fn is_saved_before_it_is_published() {
        let mut machine = fresh();
        let asked = machine.on(Event::Flip { to: Color::Green, request: ready() }, secs(1));
        assert!(matches!(&asked[..], [Effect::Save { serial: 1, state }] if state.active == Color::Green));
        assert_eq!((machine.active(), machine.epoch()), (Color::Blue, 1));
        let saved = machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
        assert!(matches!(
            &saved[..],
            [Effect::Publish { color: Color::Green, epoch: 2 }, Effect::Report(Notice::Flipped { forced: false, .. })]
        ));
        assert!(machine.is_watching());
    }

    #[test]
    fn changes_nothing_when_the_disk_says_no() {
        let mut machine = fresh();
        let before = machine.saved_state();
        machine.on(Event::Flip { to: Color::Green, request: ready() }, secs(1));
        let effects = machine.on(Event::Saved { serial: 1, outcome: Err(SaveError::Disk("no space".into())) }, secs(1));
        assert_eq!(refusal(&effects), Some(&ChangeError::Unsaved { why: SaveError::Disk("no space".into()) }));
        assert!(matches!(&effects[0], Effect::Save { state, .. } if *state == before), "it may be on the disk");
        assert_eq!((effects.len(), machine.saved_state()), (2, before));
    }

    #[test]
    fn gives_up_on_a_disk_that_hangs() {
        let mut machine = fresh();
        machine.on(Event::Flip { to: Color::Green, request: ready() }, secs(1));
        assert_eq!(machine.deadline(), Some(secs(11)));
        let effects = machine.on(Event::Tick, secs(11));
        assert!(matches!(&effects[0], Effect::Save { state, .. } if state.active == Color::Blue));
        assert!(matches!(refusal(&effects), Some(ChangeError::Unsaved { .. })));
        assert_eq!(machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(12)), []);
        assert_eq!(machine.active(), Color::Blue);
    }

    #[test]
    fn is_refused_for_each_reason() {
        let refused = UpstreamNotReady {
            address: "127.0.0.1:8001".into(),
            why: NotReady::ProbeFailed("connection refused".into()),
        };
        let not_ready = || request(Err(GateError::NotReady(refused.clone())));
        let differs = TooManyDifferences {
            totals: Totals { compared: 20, different: 9, noise: 0 },
            allowed_share: 0.0,
            first: None,
        };
        let stale = ChangeRequest { if_epoch: Some(7), ..ready() };
        for (case, mut machine, to, request, want) in [
            (
                "the gate",
                fresh(),
                Color::Green,
                not_ready(),
                ChangeError::NotReady { color: Color::Green, why: refused.clone() },
            ),
            (
                "the rehearsal",
                fresh(),
                Color::Green,
                request(Err(GateError::RehearsalFailed(differs.clone()))),
                ChangeError::RehearsalFailed { color: Color::Green, why: differs },
            ),
            ("already there", fresh(), Color::Blue, ready(), ChangeError::AlreadyActive { color: Color::Blue }),
            ("stale", fresh(), Color::Green, stale, ChangeError::StaleEpoch { asked: 7, epoch: 1 }),
            (
                "the same flip again",
                flipped(),
                Color::Green,
                ready(),
                ChangeError::UnderWay { what: UnderWay::Watching(Color::Green) },
            ),
        ] {
            let before = machine.saved_state();
            let effects = machine.on(Event::Flip { to, request }, secs(2));
            assert_eq!((effects.len(), refusal(&effects)), (1, Some(&want)), "{case}");
            assert_eq!(machine.saved_state(), before, "{case}");
        }
        let mut forced = fresh();
        forced.on(Event::Flip { to: Color::Green, request: ChangeRequest { force: true, ..not_ready() } }, secs(1));
        let effects = forced.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
        assert!(matches!(effects.last(), Some(Effect::Report(Notice::Flipped { forced: true, .. }))));
    }

    #[test]
    fn one_of_two_at_once_wins() {
        let mut machine = fresh();
        machine.on(Event::Flip { to: Color::Green, request: ready() }, secs(1));
        let second = machine.on(Event::Flip { to: Color::Green, request: ready() }, secs(1));
        assert_eq!(refusal(&second), Some(&ChangeError::UnderWay { what: UnderWay::Saving(Color::Green) }));
        machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
        assert_eq!((machine.active(), machine.epoch()), (Color::Green, 2));
    }

    #[test]
    fn to_the_other_color_ends_the_watch() {
        let mut machine = flipped();
        machine.on(Event::Flip { to: Color::Blue, request: ready() }, secs(2));
        let effects = machine.on(Event::Saved { serial: 2, outcome: Ok(()) }, secs(2));
        assert!(matches!(
            &effects[0],
            Effect::Report(Notice::WatchEnded { color: Color::Green, epoch: 2, end: WatchEnd::Superseded, .. })
        ));
        assert_eq!(machine.drains().len(), 2);
    }
}

mod rollback {
    use super::*;

    #[test]
    fn is_published_before_it_is_saved() {
        let effects = flipped().on(Event::RollBack(ready()), secs(2));
        assert!(matches!(effects[0], Effect::Publish { color: Color::Blue, epoch: 3 }));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Save { .. })));
    }

    #[test]
    fn goes_back_once() {
        let mut machine = flipped();
        machine.on(Event::RollBack(ready()), secs(2));
        let again = machine.on(Event::RollBack(ready()), secs(3));
        assert_eq!(refusal(&again), Some(&ChangeError::NothingToRollBack { active: Color::Blue }));
        let never = fresh().on(Event::RollBack(ready()), secs(3));
        assert_eq!(refusal(&never), Some(&ChangeError::NothingToRollBack { active: Color::Blue }));
    }

    #[test]
    fn overtakes_a_flip_that_is_being_saved() {
        let mut machine = flipped();
        machine.on(Event::Flip { to: Color::Blue, request: ready() }, secs(2));
        let effects = machine.on(Event::RollBack(ready()), secs(3));
        assert_eq!(refusal(&effects), Some(&ChangeError::UnderWay { what: UnderWay::Overtaken }));
        assert_eq!(machine.on(Event::Saved { serial: 2, outcome: Ok(()) }, secs(4)), []);
        assert_eq!((machine.active(), machine.epoch()), (Color::Blue, 3));
    }

    #[test]
    fn comes_by_itself_when_the_new_color_is_bad() {
        let mut machine = flipped();
        let effects = machine.on(Event::Sample { epoch: 2, sample: sample(0, 50, true) }, secs(2));
        assert!(matches!(effects[0], Effect::Publish { color: Color::Blue, epoch: 3 }));
        assert!(matches!(machine.phase(), Phase::RolledBack { why } if why.starts_with("50 of 50")));
        let twice = machine.on(Event::RollBack(ready()), secs(3));
        assert!(matches!(refusal(&twice), Some(ChangeError::NothingToRollBack { .. })));
    }

    #[test]
    fn does_not_come_by_itself_when_the_old_color_is_down() {
        let mut machine = flipped();
        assert_eq!(machine.on(Event::Sample { epoch: 2, sample: sample(0, 50, false) }, secs(2)), []);
        let end = machine.on(Event::Sample { epoch: 2, sample: sample(0, 50, false) }, secs(61));
        assert!(
            end.iter().any(|effect| matches!(
                effect,
                Effect::Report(Notice::WatchEnded { end: WatchEnd::NowhereToGo(_), .. })
            ))
        );
    }

    #[test]
    fn is_not_caused_by_the_old_color_s_late_failures() {
        let mut machine = flipped();
        assert_eq!(machine.on(Event::Sample { epoch: 1, sample: sample(0, 50, true) }, secs(2)), []);
        assert!(machine.is_watching());
    }
}

mod config_active {
    use super::*;

    #[test]
    fn flips_only_when_it_changed_since_it_was_last_loaded() {
        let mut machine = flipped();
        assert_eq!(machine.on(Event::ConfigActive { active: Color::Blue, request: ready() }, secs(2)), []);
        let effects = machine.on(Event::ConfigActive { active: Color::Green, request: ready() }, secs(3));
        assert!(matches!(&effects[..], [Effect::Save { state, .. }] if state.config_active == Color::Green));
        assert_eq!(machine.epoch(), 2);
        let effects = machine.on(Event::ConfigActive { active: Color::Blue, request: ready() }, secs(4));
        assert!(matches!(&effects[..], [Effect::Save { state, .. }] if state.active == Color::Blue));
    }

    #[test]
    fn does_not_come_back_later_when_it_was_refused() {
        let mut machine = fresh();
        let not_ready = UpstreamNotReady { address: "app:80".into(), why: NotReady::ProbeFailed("503".into()) };
        let refused = machine.on(
            Event::ConfigActive { active: Color::Green, request: request(Err(GateError::NotReady(not_ready))) },
            secs(1),
        );
        assert!(matches!(refusal(&refused), Some(ChangeError::NotReady { .. })));
        assert!(matches!(&refused[0], Effect::Save { state, .. } if state.config_active == Color::Green));
        assert_eq!(machine.on(Event::ConfigActive { active: Color::Green, request: ready() }, secs(2)), []);
        assert_eq!(machine.active(), Color::Blue);
    }
}

mod watching {
    use super::*;

    #[test]
    fn ends_with_a_word_in_every_case() {
        for (case, seen, want) in [
            ("good", sample(1000, 0, true), WatchEnd::Kept),
            ("silence", sample(0, 0, true), WatchEnd::NotEnoughTraffic),
        ] {
            let mut machine = flipped();
            // The answers after the warm-up are those that count.
            machine.on(Event::Sample { epoch: 2, sample: sample(0, 0, true) }, secs(4));
            let effects = machine.on(Event::Sample { epoch: 2, sample: seen }, secs(61));
            let end = effects.iter().find_map(|effect| match effect {
                Effect::Report(Notice::WatchEnded { end, .. }) => Some(*end),
                Effect::Report(_) | Effect::Save { .. } | Effect::Publish { .. } | Effect::Cut { .. } => None,
            });
            assert_eq!(end, Some(want), "{case}");
            assert!(matches!(machine.phase(), Phase::Steady), "{case}");
        }
    }

    #[test]
    fn survives_a_restart_with_what_is_left_of_it() {
        let saved = flipped().saved_state();
        let mut again = Cutover::restore(saved, TIMING, secs(31));
        assert!(again.is_watching());
        assert_eq!(again.deadline(), Some(secs(61)));
        let effects = again.on(Event::Sample { epoch: 2, sample: sample(0, 20, true) }, secs(32));
        assert!(matches!(effects[0], Effect::Publish { color: Color::Blue, epoch: 3 }));
    }

    #[test]
    fn is_the_one_that_was_saved_whatever_is_loaded_meanwhile() {
        let mut machine = fresh();
        machine.on(Event::Flip { to: Color::Green, request: ready() }, secs(1));
        machine.set_timing(Timing {
            watch: WatchConfig {
                rule: DetectorConfig { window: secs(0), ..DetectorConfig::DEFAULT },
                ..WatchConfig::DEFAULT
            },
            ..TIMING
        });
        machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
        assert_eq!(machine.saved_state().watch_until, Some(secs(61)));
    }

    #[test]
    fn is_off_when_the_window_is_zero() {
        let mut machine = fresh();
        machine.set_timing(Timing {
            watch: WatchConfig {
                rule: DetectorConfig { window: secs(0), ..DetectorConfig::DEFAULT },
                ..WatchConfig::DEFAULT
            },
            ..TIMING
        });
        machine.on(Event::Flip { to: Color::Green, request: ready() }, secs(1));
        machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
        assert!(matches!(machine.phase(), Phase::Steady));
    }
}

mod draining {
    use super::*;

    #[test]
    fn cuts_each_epoch_once_at_its_own_deadline() {
        let mut machine = flipped();
        machine.on(Event::RollBack(ready()), secs(3));
        assert_eq!(machine.on(Event::Tick, secs(5)), []);
        assert_eq!(machine.on(Event::Tick, secs(6)), [Effect::Cut { epoch: 1 }]);
        assert_eq!(machine.on(Event::Tick, secs(7)), []);
        assert_eq!(machine.on(Event::Tick, secs(8)), [Effect::Cut { epoch: 2 }]);
        let told = machine.on(Event::Drained { epoch: 1, cut: 3 }, secs(9));
        assert_eq!(told, [Effect::Report(Notice::Drained { color: Color::Blue, epoch: 1, took: secs(8), cut: 3 })]);
        assert_eq!(machine.on(Event::Drained { epoch: 1, cut: 3 }, secs(9)), []);
        assert_eq!(machine.deadline(), None);
    }
}
