//! The machine beside a disk, probes, traffic, clocks and operators that are driven by dice, with crashes between any
//! two steps; after each step what must always hold is checked, which is in `promises`.
//!
//! `CUTOVER_SEEDS` is how many seeds are tried; a failure says how its seed is replayed, and a replay says each step.

mod dice;
mod disk;
mod probes;
mod promises;

use std::collections::BTreeSet;

use super::*;
use dice::Dice;
use disk::{Clocks, Disk, SaveOutcome};
use probes::Probes;
use promises::Promises;

/// A color and its epoch.
type State = (Color, u64);

const STEPS: u32 = 1_000;

struct World {
    dice: Dice,
    clocks: Clocks,
    machine: Cutover,
    disk: Disk,
    probes: Probes,
    promises: Promises,
    /// The config file's `active`.
    config_active: Color,
    /// Counts the good and bad responses of the active color.
    answered: Outcomes,
    /// Clients are there.
    is_asked: bool,
    /// Kinds of steps and states that came up.
    visited: BTreeSet<&'static str>,
    /// Says each step.
    is_told: bool,
}

impl World {
    fn new(seed: u64, is_told: bool) -> Self {
        let (machine, clocks) = (fresh(), Clocks::new());
        World {
            dice: Dice::of(seed),
            disk: Disk::of(&machine.saved_state(), &clocks),
            promises: Promises::of(&machine),
            clocks,
            machine,
            probes: Probes::new(),
            config_active: Color::Blue,
            answered: Outcomes::default(),
            is_asked: true,
            visited: BTreeSet::new(),
            is_told,
        }
    }

    /// One step; the error says which promise was broken.
    fn step(&mut self) -> Result<(), String> {
        // Now and then the process stands still for longer than anything has to wait for.
        let pause = if self.dice.chance(1) { self.dice.roll(120_000) } else { self.dice.roll(4_000) };
        self.clocks.advance(Duration::from_millis(pause));
        self.probes.ask(&mut self.dice);
        self.probes.hear(&mut self.dice);
        match self.dice.roll(100) {
            0..8 => {
                let to = self.color();
                let request = self.request(to);
                self.handle_event(Event::Flip { to, request })
            }
            8..14 => {
                let request = self.request(self.machine.active().other());
                self.handle_event(Event::RollBack(request))
            }
            14..18 => self.reload(),
            18..43 => match self.disk.work(&mut self.dice) {
                None => self.wake(),
                Some(outcome) => self.save_ended(outcome),
            },
            43..55 => match self.promises.drain_ends(&mut self.dice) {
                None => self.wake(),
                Some(epoch) => {
                    let cut = self.dice.roll(3);
                    self.handle_event(Event::Drained { epoch, cut })
                }
            },
            55 => self.crash(),
            56..62 if self.disk.dirty => {
                let saves = self.machine.save_present();
                self.apply_effects(&Event::Tick, saves)
            }
            62 => self.set_clock(),
            63..65 => self.stir(),
            65 => self.upgrade(),
            66..72 => self.wake(),
            _ => self.sample(),
        }
    }

    fn color(&mut self) -> Color {
        if self.dice.chance(50) { Color::Blue } else { Color::Green }
    }

    fn request(&mut self, to: Color) -> ChangeRequest {
        let if_epoch = self.dice.chance(10).then(|| self.machine.epoch() - self.dice.roll(2));
        ChangeRequest { by: "dice".into(), if_epoch, force: self.dice.chance(10), gate: self.probes.gate(to) }
    }

    /// The file is edited, or not, and loaded; the next flip has other times.
    fn reload(&mut self) -> Result<(), String> {
        if self.dice.chance(30) {
            self.config_active = self.color();
            self.promises.config_edited();
        }
        let window = Duration::from_secs([0, 30, 60, 60][self.dice.roll(4) as usize]);
        let rule = DetectorConfig { window, ..DetectorConfig::DEFAULT };
        let drain = Duration::from_secs([1, 5][self.dice.roll(2) as usize]);
        let timing = Timing { watch: WatchConfig { rule, ..WatchConfig::DEFAULT }, drain };
        self.machine.set_timing(timing);
        self.promises.timing = timing;
        let active = self.config_active;
        let request = ChangeRequest { if_epoch: None, force: false, ..self.request(active) };
        self.handle_event(Event::ConfigActive { active, request })
    }

    fn save_ended(&mut self, SaveOutcome { serial, state, result }: SaveOutcome) -> Result<(), String> {
        self.promises.save_ended(state, &result, &self.disk);
        self.handle_event(Event::Saved { serial, outcome: result })
    }

    /// As the shell does when its time comes: it counts, and then it ticks.
    fn wake(&mut self) -> Result<(), String> {
        self.sample()?;
        self.handle_event(Event::Tick)?;
        self.promises.after_waking(&self.machine, self.clocks.now)
    }

    fn set_clock(&mut self) -> Result<(), String> {
        self.visited.insert("clock set");
        self.clocks.set_wall(&mut self.dice);
        self.check()
    }

    fn stir(&mut self) -> Result<(), String> {
        self.probes.stir(&mut self.dice);
        self.is_asked = self.dice.chance(85);
        self.check()
    }
}

impl World {
    /// What was answered since the last look; some releases are bad, others only stumble.
    fn sample(&mut self) -> Result<(), String> {
        let (active, epoch) = (self.machine.active(), self.machine.epoch());
        let is_bad = epoch.is_multiple_of(3) || !self.probes.is_well(active) || self.dice.chance(10);
        let share = if is_bad { 40 } else { 0 };
        let many = if self.is_asked { self.dice.roll(30) } else { 0 };
        let bad = (0..many).filter(|_| self.dice.chance(share)).count() as u64;
        self.answered.good += many - bad;
        self.answered.bad += bad;
        let Outcomes { good, bad } = self.answered;
        // The old color is still finishing.
        let is_late = self.dice.chance(10);
        let epoch = epoch - u64::from(is_late);
        self.handle_event(Event::Sample { epoch, sample: sample(good, bad, self.probes.is_up(active.other())) })
    }

    /// Another process takes over, once nothing is being saved or drained.
    fn upgrade(&mut self) -> Result<(), String> {
        if self.machine.is_saving() || !self.disk.waiting.is_empty() || !self.machine.drains().is_empty() {
            return self.check();
        }
        self.visited.insert("upgrade");
        let text = serde_json::to_string(&self.machine.snapshot()).map_err(|error| error.to_string())?;
        let snapshot = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        self.machine = Cutover::inherit(snapshot, self.promises.timing, self.clocks.now);
        // What it could not save, its successor has to.
        let saves = if self.disk.dirty { self.machine.save_present() } else { Vec::new() };
        self.apply_effects(&Event::Tick, saves)
    }

    fn crash(&mut self) -> Result<(), String> {
        self.visited.insert("crash");
        self.disk.crash(&mut self.dice);
        self.clocks.restart(&mut self.dice);
        self.probes.restart();
        self.machine = Cutover::restore(self.disk.read(&self.clocks), TIMING, self.clocks.now);
        self.answered = Outcomes::default();
        if self.is_told {
            println!("crash: {:?}", self.machine.saved_state());
        }
        self.promises.after_crash(&self.machine, self.config_active, self.clocks.now)?;
        self.check()
    }

    fn handle_event(&mut self, event: Event) -> Result<(), String> {
        self.promises.before(&event);
        let effects = self.machine.on(event.clone(), self.clocks.now);
        if self.is_told {
            println!("{:?} {event:?} -> {effects:?}", self.clocks.now);
        }
        self.apply_effects(&event, effects)
    }

    fn apply_effects(&mut self, event: &Event, effects: Vec<Effect>) -> Result<(), String> {
        for effect in &effects {
            if let Effect::Save { serial, state } = effect {
                self.disk.push(*serial, state, &self.clocks)?;
            }
            if let Effect::Publish { .. } = effect {
                self.answered = Outcomes::default();
            }
            let word = self.promises.effect(event, effect, &self.probes, self.clocks.now)?;
            self.visited.extend(word);
        }
        self.promises.after(event);
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        self.visited.insert(match self.machine.phase() {
            Phase::Steady => "steady",
            Phase::Watching(_) => "watching",
            Phase::RolledBack { .. } => "rolled back",
        });
        self.promises.check(&self.machine, &self.disk)
    }
}

fn run(seed: u64, is_told: bool) -> BTreeSet<&'static str> {
    let mut world = World::new(seed, is_told);
    for step in 0..STEPS {
        if let Err(broken) = world.step() {
            panic!("seed {seed}, step {step}: {broken}; replay: CUTOVER_SEED={seed} cargo test --lib simulation");
        }
    }
    world.visited
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("CUTOVER_SEED and CUTOVER_SEEDS are numbers"))
}

#[test]
fn keeps_its_promises_whatever_happens() {
    if let Some(seed) = from_env("CUTOVER_SEED") {
        run(seed, true);
        return;
    }
    let seeds = from_env("CUTOVER_SEEDS").unwrap_or(300);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let part = |first| (first..=seeds).step_by(threads as usize).flat_map(|seed| run(seed, false)).collect();
    let visited: Vec<BTreeSet<_>> = std::thread::scope(|scope| {
        let parts: Vec<_> = (1..=threads).map(|first| scope.spawn(move || part(first))).collect();
        parts.into_iter().map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let visited: BTreeSet<_> = visited.into_iter().flatten().collect();
    let all = BTreeSet::from([
        "clock set",
        "crash",
        "cut",
        "drained",
        "kept",
        "not enough traffic",
        "nowhere to go",
        "publish after save",
        "publish at rollback",
        "publish at verdict",
        "publish from config",
        "refused",
        "rolled back",
        "steady",
        "superseded",
        "upgrade",
        "watching",
    ]);
    assert_eq!(visited, all, "the seeds must come through everything");
}
