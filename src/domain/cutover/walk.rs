//! Walks the machine at random, beside a disk that answers late or not at all, and checks what must always hold.
//!
//! A failure names its seed and step; `CUTOVER_SEED=n cargo test walk` replays that walk alone.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::domain::verdict::Rule;
use crate::domain::watch::Phase as SeenIn;

const WINDOW: Duration = Duration::from_secs(60);
const TIMING: Timing = Timing {
    watch: Knobs { rule: Rule { window: WINDOW, ..Rule::DEFAULT }, ..Knobs::DEFAULT },
    drain: Duration::from_secs(5),
};

fn ask(gate: Result<(), Closed>) -> Ask {
    Ask { by: "test".into(), if_epoch: None, force: false, gate }
}

fn ready() -> Ask {
    ask(Ok(()))
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn fresh() -> Cutover {
    let record = Record {
        active: Color::Blue,
        epoch: 1,
        previous: None,
        config_active: Color::Blue,
        watch_until: None,
        rolled_back: None,
    };
    Cutover::restore(record, TIMING, secs(0))
}

/// Flips to green, with a disk that works at once.
fn flipped() -> Cutover {
    let mut machine = fresh();
    machine.on(Event::Flip { to: Color::Green, ask: ready() }, secs(1));
    machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
    machine
}

/// Failures are refused connections, for which the new color alone can answer.
fn sample(good: u64, bad: u64, old_is_up: bool) -> Box<Sample> {
    let mut sample = Sample { old_is_up, ..Sample::default() };
    sample.seen.phases[SeenIn::Calm as usize] = Ended { good, bad };
    sample.seen.refused = bad;
    Box::new(sample)
}

fn refusal(effects: &[Effect]) -> Option<&Refused> {
    effects.iter().find_map(|effect| match effect {
        Effect::Tell(Told::Refused { why, .. }) => Some(why),
        Effect::Tell(_) | Effect::Save { .. } | Effect::Publish { .. } | Effect::Cut { .. } => None,
    })
}

mod flip {
    use super::*;

    #[test]
    fn is_saved_before_it_is_published() {
        let mut machine = fresh();
        let asked = machine.on(Event::Flip { to: Color::Green, ask: ready() }, secs(1));
        assert!(matches!(&asked[..], [Effect::Save { serial: 1, record }] if record.active == Color::Green));
        assert_eq!((machine.active(), machine.epoch()), (Color::Blue, 1));
        let saved = machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
        assert!(matches!(
            &saved[..],
            [Effect::Publish { color: Color::Green, epoch: 2 }, Effect::Tell(Told::Flipped { forced: false, .. })]
        ));
        assert!(machine.is_watching());
    }

    #[test]
    fn changes_nothing_when_the_disk_says_no() {
        let mut machine = fresh();
        let before = machine.record();
        machine.on(Event::Flip { to: Color::Green, ask: ready() }, secs(1));
        let effects = machine.on(Event::Saved { serial: 1, outcome: Err("no space".into()) }, secs(1));
        assert_eq!(refusal(&effects), Some(&Refused::Unsaved { why: "no space".into() }));
        assert!(matches!(&effects[0], Effect::Save { record, .. } if *record == before), "it may be on the disk");
        assert_eq!((effects.len(), machine.record()), (2, before));
    }

    #[test]
    fn gives_up_on_a_disk_that_hangs() {
        let mut machine = fresh();
        machine.on(Event::Flip { to: Color::Green, ask: ready() }, secs(1));
        assert_eq!(machine.deadline(), Some(secs(11)));
        let effects = machine.on(Event::Tick, secs(11));
        assert!(matches!(&effects[0], Effect::Save { record, .. } if record.active == Color::Blue));
        assert!(matches!(refusal(&effects), Some(Refused::Unsaved { .. })));
        assert_eq!(machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(12)), []);
        assert_eq!(machine.active(), Color::Blue);
    }

    #[test]
    fn is_refused_for_each_reason() {
        let not_ready = || ask(Err(Closed::NotReady("127.0.0.1:8001: connection refused".into())));
        let stale = Ask { if_epoch: Some(7), ..ready() };
        for (case, mut machine, to, ask, want) in [
            (
                "the gate",
                fresh(),
                Color::Green,
                not_ready(),
                Refused::NotReady { color: Color::Green, why: "127.0.0.1:8001: connection refused".into() },
            ),
            (
                "the rehearsal",
                fresh(),
                Color::Green,
                ask(Err(Closed::RehearsalFailed("9 of 20 differ".into()))),
                Refused::RehearsalFailed { color: Color::Green, why: "9 of 20 differ".into() },
            ),
            ("already there", fresh(), Color::Blue, ready(), Refused::AlreadyActive { color: Color::Blue }),
            ("stale", fresh(), Color::Green, stale, Refused::StaleEpoch { asked: 7, epoch: 1 }),
            (
                "the same flip again",
                flipped(),
                Color::Green,
                ready(),
                Refused::UnderWay { what: UnderWay::Watching(Color::Green) },
            ),
        ] {
            let before = machine.record();
            let effects = machine.on(Event::Flip { to, ask }, secs(2));
            assert_eq!((effects.len(), refusal(&effects)), (1, Some(&want)), "{case}");
            assert_eq!(machine.record(), before, "{case}");
        }
        let mut forced = fresh();
        forced.on(Event::Flip { to: Color::Green, ask: Ask { force: true, ..not_ready() } }, secs(1));
        let effects = forced.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
        assert!(matches!(effects.last(), Some(Effect::Tell(Told::Flipped { forced: true, .. }))));
    }

    #[test]
    fn one_of_two_at_once_wins() {
        let mut machine = fresh();
        machine.on(Event::Flip { to: Color::Green, ask: ready() }, secs(1));
        let second = machine.on(Event::Flip { to: Color::Green, ask: ready() }, secs(1));
        assert_eq!(refusal(&second), Some(&Refused::UnderWay { what: UnderWay::Saving(Color::Green) }));
        machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, secs(1));
        assert_eq!((machine.active(), machine.epoch()), (Color::Green, 2));
    }

    #[test]
    fn to_the_other_color_ends_the_watch() {
        let mut machine = flipped();
        machine.on(Event::Flip { to: Color::Blue, ask: ready() }, secs(2));
        let effects = machine.on(Event::Saved { serial: 2, outcome: Ok(()) }, secs(2));
        assert!(matches!(
            &effects[0],
            Effect::Tell(Told::WatchEnded { color: Color::Green, epoch: 2, end: WatchEnd::Superseded, .. })
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
        assert_eq!(refusal(&again), Some(&Refused::NothingToRollBack { active: Color::Blue }));
        let never = fresh().on(Event::RollBack(ready()), secs(3));
        assert_eq!(refusal(&never), Some(&Refused::NothingToRollBack { active: Color::Blue }));
    }

    #[test]
    fn overtakes_a_flip_that_is_being_saved() {
        let mut machine = flipped();
        machine.on(Event::Flip { to: Color::Blue, ask: ready() }, secs(2));
        let effects = machine.on(Event::RollBack(ready()), secs(3));
        assert_eq!(refusal(&effects), Some(&Refused::UnderWay { what: UnderWay::Overtaken }));
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
        assert!(matches!(refusal(&twice), Some(Refused::NothingToRollBack { .. })));
    }

    #[test]
    fn does_not_come_by_itself_when_the_old_color_is_down() {
        let mut machine = flipped();
        assert_eq!(machine.on(Event::Sample { epoch: 2, sample: sample(0, 50, false) }, secs(2)), []);
        let end = machine.on(Event::Sample { epoch: 2, sample: sample(0, 50, false) }, secs(61));
        assert!(
            end.iter()
                .any(|effect| matches!(effect, Effect::Tell(Told::WatchEnded { end: WatchEnd::NowhereToGo(_), .. })))
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
        assert_eq!(machine.on(Event::ConfigActive { active: Color::Blue, ask: ready() }, secs(2)), []);
        let effects = machine.on(Event::ConfigActive { active: Color::Green, ask: ready() }, secs(3));
        assert!(matches!(&effects[..], [Effect::Save { record, .. }] if record.config_active == Color::Green));
        assert_eq!(machine.epoch(), 2);
        let effects = machine.on(Event::ConfigActive { active: Color::Blue, ask: ready() }, secs(4));
        assert!(matches!(&effects[..], [Effect::Save { record, .. }] if record.active == Color::Blue));
    }

    #[test]
    fn does_not_come_back_later_when_it_was_refused() {
        let mut machine = fresh();
        let refused = machine
            .on(Event::ConfigActive { active: Color::Green, ask: ask(Err(Closed::NotReady("503".into()))) }, secs(1));
        assert!(matches!(refusal(&refused), Some(Refused::NotReady { .. })));
        assert!(matches!(&refused[0], Effect::Save { record, .. } if record.config_active == Color::Green));
        assert_eq!(machine.on(Event::ConfigActive { active: Color::Green, ask: ready() }, secs(2)), []);
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
                Effect::Tell(Told::WatchEnded { end, .. }) => Some(*end),
                Effect::Tell(_) | Effect::Save { .. } | Effect::Publish { .. } | Effect::Cut { .. } => None,
            });
            assert_eq!(end, Some(want), "{case}");
            assert!(matches!(machine.phase(), Phase::Steady), "{case}");
        }
    }

    #[test]
    fn survives_a_restart_with_what_is_left_of_it() {
        let record = flipped().record();
        let mut again = Cutover::restore(record, TIMING, secs(31));
        assert!(again.is_watching());
        assert_eq!(again.deadline(), Some(secs(61)));
        let effects = again.on(Event::Sample { epoch: 2, sample: sample(0, 20, true) }, secs(32));
        assert!(matches!(effects[0], Effect::Publish { color: Color::Blue, epoch: 3 }));
    }

    #[test]
    fn is_off_when_the_window_is_zero() {
        let mut machine = fresh();
        machine.set_timing(Timing {
            watch: Knobs { rule: Rule { window: secs(0), ..Rule::DEFAULT }, ..Knobs::DEFAULT },
            ..TIMING
        });
        machine.on(Event::Flip { to: Color::Green, ask: ready() }, secs(1));
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
        assert_eq!(told, [Effect::Tell(Told::Drained { color: Color::Blue, epoch: 1, took: secs(8), cut: 3 })]);
        assert_eq!(machine.on(Event::Drained { epoch: 1, cut: 3 }, secs(9)), []);
        assert_eq!(machine.deadline(), None);
    }
}

/// The machine, its disk and its data plane, driven by dice.
struct World {
    machine: Cutover,
    now: Duration,
    dice: u64,
    /// Saves on their way, oldest first.
    queue: VecDeque<(u64, Record)>,
    disk: Record,
    /// A save has failed and none has succeeded since: the shell would try again.
    dirty: bool,
    /// Serials that reached the disk.
    durable: BTreeSet<u64>,
    published: (Color, u64),
    replaced: Vec<u64>,
    good: u64,
    bad: u64,
    /// Kinds of steps and states that came up.
    visited: BTreeSet<&'static str>,
}

impl World {
    fn new(seed: u64) -> Self {
        let machine = fresh();
        World {
            disk: machine.record(),
            machine,
            now: secs(1),
            dice: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            queue: VecDeque::new(),
            dirty: false,
            durable: BTreeSet::new(),
            published: (Color::Blue, 1),
            replaced: Vec::new(),
            good: 0,
            bad: 0,
            visited: BTreeSet::new(),
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    fn ask(&mut self) -> Ask {
        let gate = if self.chance(70) { Ok(()) } else { Err(Closed::NotReady("503".into())) };
        let if_epoch = self.chance(10).then(|| self.machine.epoch() - self.roll(2));
        Ask { by: "walk".into(), if_epoch, force: self.chance(10), gate }
    }

    fn color(&mut self) -> Color {
        if self.chance(50) { Color::Blue } else { Color::Green }
    }

    /// One step; the error says which promise was broken.
    fn step(&mut self) -> Result<(), String> {
        let pause = self.roll(4_000);
        self.now += Duration::from_millis(pause);
        let event = match self.roll(12) {
            0 => Event::Flip { to: self.color(), ask: self.ask() },
            1 => Event::RollBack(self.ask()),
            2 if self.chance(30) => Event::ConfigActive { active: self.color(), ask: self.ask() },
            3..=5 => match self.queue.pop_front() {
                None => Event::Tick,
                Some((serial, record)) => {
                    let outcome = if self.chance(85) { Ok(()) } else { Err("no space".into()) };
                    self.dirty = outcome.is_err();
                    if outcome.is_ok() {
                        self.disk = record;
                        self.durable.insert(serial);
                    }
                    Event::Saved { serial, outcome }
                }
            },
            6 | 7 if !self.replaced.is_empty() => {
                let at = self.roll(self.replaced.len() as u64) as usize;
                Event::Drained { epoch: self.replaced.remove(at), cut: self.roll(3) }
            }
            8 if self.chance(4) => {
                let restored = Cutover::restore(self.disk.clone(), TIMING, self.now);
                return self.crash(restored);
            }
            9 if self.dirty => {
                let saves = self.machine.save_present();
                return self.obey(&Event::Tick, saves);
            }
            10 => Event::Tick,
            _ => {
                // Some releases are bad, and some old colors stay down; others only stumble.
                let epoch = self.machine.epoch();
                let share = if epoch.is_multiple_of(3) || self.chance(10) { 40 } else { 0 };
                let up = if epoch.is_multiple_of(4) { 2 } else { 80 };
                let many = self.roll(30);
                let bad = (0..many).filter(|_| self.chance(share)).count() as u64;
                self.good += many - bad;
                self.bad += bad;
                let stale = self.chance(10);
                let epoch = epoch - u64::from(stale);
                Event::Sample { epoch, sample: sample(self.good, self.bad, self.chance(up)) }
            }
        };
        let effects = self.machine.on(event.clone(), self.now);
        self.obey(&event, effects)
    }

    fn crash(&mut self, restored: Cutover) -> Result<(), String> {
        self.visited.insert("restart");
        // What was never saved may be lost, but only a rollback or a watch's end, never a flip.
        let lost_flip = restored.epoch() < self.machine.epoch() && self.queue.is_empty() && !self.dirty;
        self.machine = restored;
        self.queue.clear();
        self.dirty = false;
        self.replaced.clear();
        (self.good, self.bad) = (0, 0);
        self.published = (self.machine.active(), self.machine.epoch());
        if lost_flip { Err("a restart undid what was saved".into()) } else { self.invariants() }
    }

    fn obey(&mut self, event: &Event, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            match effect {
                Effect::Save { serial, record } => {
                    if !self.queue.iter().all(|(earlier, _)| *earlier < serial) {
                        return Err("a save's number does not grow".into());
                    }
                    self.queue.push_back((serial, record));
                }
                Effect::Publish { color, epoch } => {
                    self.visited.insert(match event {
                        Event::Saved { .. } => "publish after save",
                        Event::RollBack(_) => "publish at rollback",
                        Event::Sample { .. } | Event::Tick => "publish at verdict",
                        Event::Flip { .. } | Event::ConfigActive { .. } | Event::Drained { .. } => {
                            return Err("published by an event that may not".into());
                        }
                    });
                    if let Event::Saved { serial, outcome } = event
                        && (outcome.is_err() || !self.durable.contains(serial))
                    {
                        return Err("flipped without a save".into());
                    }
                    if let Event::RollBack(Ask { gate: Err(_), force: false, .. }) = event {
                        return Err("rolled back through a closed gate".into());
                    }
                    if color == self.published.0 || epoch != self.published.1 + 1 {
                        return Err(format!("published {color} epoch {epoch} over {:?}", self.published));
                    }
                    self.replaced.push(self.published.1);
                    self.published = (color, epoch);
                    (self.good, self.bad) = (0, 0);
                }
                Effect::Cut { epoch } => {
                    self.visited.insert("cut");
                    if epoch == self.published.1 {
                        return Err("cut the active color".into());
                    }
                }
                Effect::Tell(Told::Noted { .. }) => {}
                Effect::Tell(Told::Refused { .. }) => drop(self.visited.insert("refused")),
                Effect::Tell(Told::WatchEnded { end, .. }) => drop(self.visited.insert(match end {
                    WatchEnd::Kept => "kept",
                    WatchEnd::NotEnoughTraffic => "not enough traffic",
                    WatchEnd::NowhereToGo(_) => "nowhere to go",
                    WatchEnd::Superseded => "superseded",
                })),
                Effect::Tell(Told::Flipped { made, .. } | Told::RolledBack { made, .. }) => {
                    if (made.to, made.epoch) != self.published {
                        return Err("told of a change that was not made".into());
                    }
                }
                Effect::Tell(Told::Drained { .. }) => {}
            }
        }
        self.invariants()
    }

    fn invariants(&mut self) -> Result<(), String> {
        let machine = &self.machine;
        self.visited.insert(match machine.phase() {
            Phase::Steady => "steady",
            Phase::Watching(_) => "watching",
            Phase::RolledBack { .. } => "rolled back",
        });
        if (machine.active(), machine.epoch()) != self.published {
            return Err("the machine and the data plane disagree".into());
        }
        if machine.is_watching() && machine.previous() != Some(machine.active().other()) {
            return Err("a watch without a color to go back to".into());
        }
        if machine.previous() == Some(machine.active()) {
            return Err("a way back that leads nowhere".into());
        }
        if machine.drains().iter().map(|drain| drain.epoch).ne(self.replaced.iter().copied()) {
            let mut left: Vec<_> = machine.drains().iter().map(|drain| drain.epoch).collect();
            left.sort_unstable();
            let mut want = self.replaced.clone();
            want.sort_unstable();
            if left != want {
                return Err(format!("drains {left:?}, replaced {want:?}"));
            }
        }
        // The watch begins when the flip is published, a save later than the disk has it, and this disk may be slow.
        let settled = self.queue.is_empty() && !self.dirty && machine.pending.is_none();
        let mut kept = machine.record();
        if let (Some(until), Some(saved)) = (&mut kept.watch_until, self.disk.watch_until)
            && (saved..saved + 2 * WINDOW).contains(until)
        {
            *until = saved;
        }
        if machine.is_watching() && machine.pending.is_none() && self.disk.epoch < machine.epoch() {
            return Err("a published flip is not on the disk".into());
        }
        if settled && self.disk != kept {
            return Err(format!("the disk has {:?}, the machine {kept:?}", self.disk));
        }
        Ok(())
    }
}

#[test]
fn keeps_its_promises_on_every_walk() {
    let only = std::env::var("CUTOVER_SEED").ok().map(|seed| seed.parse::<u64>().expect("CUTOVER_SEED is a number"));
    let seeds = only.map_or(1..=300, |seed| seed..=seed);
    let mut visited = BTreeSet::new();
    for seed in seeds {
        let mut world = World::new(seed);
        for step in 0..1_000 {
            if let Err(broken) = world.step() {
                panic!("{broken}; replay with CUTOVER_SEED={seed}, step {step}");
            }
        }
        visited.append(&mut world.visited);
    }
    if only.is_none() {
        let all = BTreeSet::from([
            "cut",
            "kept",
            "not enough traffic",
            "nowhere to go",
            "publish after save",
            "publish at rollback",
            "publish at verdict",
            "refused",
            "restart",
            "rolled back",
            "steady",
            "superseded",
            "watching",
        ]);
        assert_eq!(visited, all, "the walks must come through every state");
    }
}
