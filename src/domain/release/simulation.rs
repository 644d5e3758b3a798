//! Runs releases beside an adversary, who acts between any two actions: flips and rolls back, stops the engine and the
//! proxy, fills the disk, and kills the deploy.
//!
//! What must always hold is checked as it happens: no action changes a color that has the traffic, unless it is the one
//! that the plan names; the end that is reported is true; and whatever was left is finished once the adversary rests.
//! `CUTOVER_SEEDS` is how many seeds are tried.

use super::*;
use crate::domain::Color;
use crate::domain::release::sequence::{Action, ActionError, ActionResult, DeployEnd, FlipRefusal, Sequence, Wanted};
use crate::domain::release::state::{Observed, ReleaseState, TakenBackBy};

/// A xorshift generator: the seed decides every roll.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// A release, by its number.
type Tag = u32;

#[derive(Clone, Debug, Default, PartialEq)]
struct Project {
    runs: Option<Tag>,
    env: Tag,
    candidate: Option<Tag>,
}

/// What a deploy has on the disk.
#[derive(Clone, Debug)]
struct SavedJournal {
    tag: Tag,
    tag_before: Tag,
    /// What the color ran; its env file may say something else.
    ran_before: Option<Tag>,
    state: ReleaseState,
}

/// A deploy that runs.
struct Process {
    journal: SavedJournal,
    sequence: Sequence,
}

struct World {
    dice: Dice,
    active: Color,
    epoch: u64,
    projects: [Project; 2],
    /// The adversary has flipped past the gate since the deploy last looked: nobody can protect a color from that.
    was_forced: bool,
    has_engine: bool,
    has_proxy: bool,
    has_disk: bool,
    on_disk: Option<SavedJournal>,
    process: Option<Process>,
    strategy: Strategy,
    next_tag: Tag,
    ends: std::collections::BTreeSet<&'static str>,
}

impl World {
    fn new(seed: u64, strategy: Strategy) -> Self {
        let blue = Project { runs: Some(1), env: 1, candidate: None };
        World {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            active: Color::Blue,
            epoch: 1,
            projects: [blue, Project { runs: None, env: 1, candidate: None }],
            was_forced: false,
            has_engine: true,
            has_proxy: true,
            has_disk: true,
            on_disk: None,
            process: None,
            strategy,
            next_tag: 2,
            ends: std::collections::BTreeSet::new(),
        }
    }

    fn project(&mut self, color: Color) -> &mut Project {
        &mut self.projects[color.index()]
    }

    /// The gate of a flip, as the proxy has it: a color must run, and no deploy may be at work on it.
    fn flip(&mut self, to: Color, force: bool) -> bool {
        let runs = self.project(to).runs.is_some();
        let is_alive = self.process.is_some();
        let is_blocked = self.on_disk.as_ref().is_some_and(|it| it.state.blocks(to, is_alive).is_some());
        let goes = self.has_proxy && to != self.active && (force || (runs && !is_blocked));
        if goes {
            (self.active, self.epoch) = (to, self.epoch + 1);
        }
        goes
    }

    fn disturb(&mut self) {
        let color = if self.dice.chance(50) { Color::Blue } else { Color::Green };
        match self.dice.roll(40) {
            0..3 => drop(self.flip(color, false)),
            3 => self.was_forced |= self.flip(color, true),
            4..6 => self.has_engine = !self.has_engine,
            6..8 => self.has_proxy = !self.has_proxy,
            8 => self.has_disk = !self.has_disk,
            9..11 => self.process = None,
            11..14 => (self.has_engine, self.has_proxy, self.has_disk) = (true, true, true),
            _ => {}
        }
    }

    /// Starts a deploy, which takes up what another one has left.
    fn start(&mut self) {
        if !self.has_proxy {
            return;
        }
        let observed = Observed { active: self.active, epoch: self.epoch };
        let wanted = if self.dice.chance(50) { Wanted::Same } else { Wanted::Other };
        self.was_forced = false;
        self.process = Some(match self.on_disk.clone() {
            Some(mut journal) => {
                let by = TakenBackBy::Operator;
                let sequence = Sequence::resume(&mut journal.state, observed, wanted, by, "somebody went back");
                Process { journal, sequence }
            }
            None => {
                let color = match self.strategy {
                    Strategy::BlueGreen => self.active.other(),
                    Strategy::Recreate => self.active,
                };
                let Project { runs, env, .. } = *self.project(color);
                let state = ReleaseState::begin(self.strategy, color, self.epoch);
                let sequence = Sequence::begin(&state);
                let journal = SavedJournal { tag: self.next_tag, tag_before: env, ran_before: runs, state };
                self.next_tag += 1;
                Process { journal, sequence }
            }
        });
    }

    /// Carries out the present action of the deploy.
    fn act(&mut self) -> Result<(), String> {
        let Some(Process { mut journal, mut sequence }) = self.process.take() else { return Ok(()) };
        let action = sequence.action();
        let event = match &action {
            Action::Finish(end) => return self.finish(&journal, end),
            Action::Prepare(_) => ActionResult::Done(String::new()),
            Action::Save if self.has_disk => {
                self.on_disk = Some(journal.clone());
                ActionResult::Done(String::new())
            }
            Action::Save => ActionResult::Failed(ActionError::Failed("no space".into())),
            Action::Observe if self.has_proxy => {
                self.was_forced = false;
                ActionResult::Observed(Observed { active: self.active, epoch: self.epoch })
            }
            Action::RollBack if self.has_proxy && self.flip(journal.state.color.other(), false) => {
                ActionResult::Done("rolled back by hand".into())
            }
            Action::Drain if self.has_proxy => ActionResult::Done(String::new()),
            Action::Observe | Action::RollBack | Action::Drain => ActionResult::Failed(ActionError::ProxyLost),
            Action::Perform(step) => self.perform(&journal, *step)?,
            Action::Undo(undo) => self.undo(&journal, *undo)?,
        };
        sequence.on(&mut journal.state, event);
        self.process = Some(Process { journal, sequence });
        Ok(())
    }

    /// Nothing may change a color that has the traffic, unless that is what the strategy is about.
    fn check_idle(&self, color: Color, what: &dyn std::fmt::Display) -> Result<(), String> {
        if color == self.active && self.strategy == Strategy::BlueGreen && !self.was_forced {
            return Err(format!("{what} changes {color}, which has the traffic in epoch {}", self.epoch));
        }
        Ok(())
    }

    fn perform(&mut self, journal: &SavedJournal, step: Step) -> Result<ActionResult, String> {
        let (color, old, tag) = (journal.state.color, journal.state.color.other(), journal.tag);
        let failed = |why: &str| Ok(ActionResult::Failed(ActionError::Failed(why.into())));
        if self.dice.chance(3) {
            return Ok(ActionResult::Failed(ActionError::Stopped("SIGTERM")));
        }
        match step {
            Step::Candidate => self.project(color).candidate = Some(tag),
            Step::Up | Step::Migrate | Step::Retire | Step::Image if !self.has_engine => return failed("no engine"),
            Step::Up => {
                self.check_idle(color, &step)?;
                self.project(color).runs = Some(tag);
            }
            Step::Migrate => self.check_idle(color, &step)?,
            Step::EnvFile if self.has_disk => self.project(color).env = tag,
            Step::EnvFile => return failed("no space"),
            Step::Healthy | Step::Smoke | Step::Rehearse | Step::OldColor if self.dice.chance(8) => {
                return failed("it is bad");
            }
            Step::Flip if self.epoch != journal.state.epoch || !self.has_proxy => {
                return Ok(ActionResult::Failed(ActionError::Refused(FlipRefusal::Other, "stale".into())));
            }
            Step::Flip => {
                return Ok(match self.flip(color, false) {
                    true => ActionResult::Flipped(self.epoch),
                    false => ActionResult::Failed(ActionError::Refused(FlipRefusal::Gate, "not ready".into())),
                });
            }
            Step::Watch => return Ok(self.watch(journal)),
            Step::Retire => {
                self.check_idle(old, &step)?;
                self.project(old).runs = None;
            }
            Step::Image
            | Step::Healthy
            | Step::Backup
            | Step::OldColor
            | Step::Smoke
            | Step::Rehearse
            | Step::Drain => {}
        }
        Ok(ActionResult::Done(String::new()))
    }

    fn watch(&mut self, journal: &SavedJournal) -> ActionResult {
        let SavedJournal { state: ReleaseState { color, flipped, .. }, .. } = journal;
        if !self.has_proxy {
            return ActionResult::Failed(ActionError::ProxyLost);
        }
        if self.active != *color {
            return ActionResult::Failed(ActionError::TakenBack(TakenBackBy::Operator, "somebody went back".into()));
        }
        if *flipped != Some(self.epoch) {
            return ActionResult::Failed(ActionError::Overtaken("another epoch".into()));
        }
        match self.dice.roll(10) {
            0..3 if self.project(color.other()).runs.is_some() => {
                (self.active, self.epoch) = (color.other(), self.epoch + 1);
                ActionResult::Failed(ActionError::TakenBack(TakenBackBy::Verdict, "it is bad".into()))
            }
            3 => ActionResult::Failed(ActionError::NowhereToGo("it is bad".into())),
            4 => ActionResult::Failed(ActionError::RollbackWanted),
            _ => ActionResult::Done("kept".into()),
        }
    }

    fn undo(&mut self, journal: &SavedJournal, undo: Undo) -> Result<ActionResult, String> {
        let SavedJournal { tag_before, ran_before, .. } = *journal;
        let color = journal.state.color;
        let failed = |why: &str| Ok(ActionResult::Failed(ActionError::Failed(why.into())));
        match undo {
            Undo::Candidate => self.project(color).candidate = None,
            Undo::EnvFile if !self.has_disk => return failed("no space"),
            Undo::EnvFile => self.project(color).env = tag_before,
            Undo::Project if !self.has_engine => return failed("no engine"),
            Undo::Project => {
                self.check_idle(color, &"the undo")?;
                let runs = self.project(color).env;
                self.project(color).runs = ran_before.map(|_| runs);
            }
        }
        Ok(ActionResult::Done(String::new()))
    }

    /// What is reported must be true, and what is left must stay in the journal.
    fn finish(&mut self, journal: &SavedJournal, end: &DeployEnd) -> Result<(), String> {
        let (color, old) = (journal.state.color, journal.state.color.other());
        let Project { runs, env, .. } = *self.project(color);
        let is_untouched = runs == journal.ran_before;
        let is_back = runs == journal.ran_before.map(|_| journal.tag_before);
        let is_restored = env == journal.tag_before && (is_untouched || is_back);
        let (name, is_true) = match end {
            DeployEnd::Kept(_) if self.strategy == Strategy::Recreate => ("recreated", runs == Some(journal.tag)),
            DeployEnd::Kept(_) => {
                let is_retired = self.project(old).runs.is_none();
                let has_traffic = self.active == color && journal.state.flipped == Some(self.epoch);
                ("kept", runs == Some(journal.tag) && env == journal.tag && is_retired && has_traffic)
            }
            DeployEnd::Undone(_, _, left) if left.is_empty() => ("undone", is_restored),
            DeployEnd::TakenBack(_, _, left) if left.is_empty() => ("taken back", is_restored),
            DeployEnd::Undone(..) | DeployEnd::TakenBack(..) => {
                ("left", self.on_disk.is_some() || self.strategy == Strategy::Recreate)
            }
            DeployEnd::Unfinished(..) => ("unfinished", self.on_disk.is_some()),
            DeployEnd::FlippedByOthers(_) => ("flipped by others", true),
            DeployEnd::NowhereToGo(..) => ("nowhere to go", true),
            DeployEnd::Overtaken(_) => ("overtaken", true),
            DeployEnd::ProxyLost => ("proxy lost", true),
            DeployEnd::Stopped(_) => ("stopped", true),
            DeployEnd::Stuck(_) => ("stuck", true),
        };
        self.ends.insert(name);
        if !end.keeps_journal(self.strategy) {
            // A journal that cannot be removed stays, and so does what it says.
            self.on_disk = None;
            self.project(color).candidate = None;
        }
        if is_true || self.was_forced { Ok(()) } else { Err(format!("{end:?} is not true of {:?}", self.projects)) }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..400 {
            if self.dice.chance(40) {
                self.disturb();
            }
            if self.process.is_none() && self.dice.chance(30) {
                self.start();
            }
            self.act()?;
        }
        // The adversary rests.
        (self.has_engine, self.has_proxy, self.has_disk) = (true, true, true);
        for _ in 0..400 {
            if self.process.is_none() {
                if self.on_disk.is_none() {
                    return Ok(());
                }
                self.start();
            }
            self.act()?;
        }
        Err(format!("it never comes to an end: {:?}", self.on_disk))
    }
}

#[test]
fn no_adversary_makes_a_deploy_change_what_has_the_traffic_or_say_what_is_not_so() {
    let seeds = std::env::var("CUTOVER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(4_000);
    for strategy in [Strategy::BlueGreen, Strategy::Recreate] {
        let mut ends = std::collections::BTreeSet::new();
        for seed in 1..=seeds {
            let mut world = World::new(seed, strategy);
            if let Err(broken) = world.run() {
                panic!("{strategy}, seed {seed}: {broken}");
            }
            ends.append(&mut world.ends);
        }
        let wanted: &[_] = match strategy {
            Strategy::BlueGreen => &[
                "flipped by others",
                "kept",
                "left",
                "nowhere to go",
                "overtaken",
                "proxy lost",
                "stopped",
                "stuck",
                "taken back",
                "undone",
                "unfinished",
            ],
            Strategy::Recreate => &["left", "recreated", "stuck", "undone"],
        };
        let ends: Vec<_> = ends.into_iter().collect();
        assert_eq!(ends, wanted, "the adversary reaches every end of {strategy}");
    }
}
