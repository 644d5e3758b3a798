//! The steps of bringing a release into production, in order, with what takes each back.
//!
//! Pure: what is to be done next after a step, a failure or a crash is decided here, from what the journal and the
//! proxy say. `runbook::deploy` does it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Color;
use super::freeze::What;

/// How a release replaces the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Brought up in the idle color, proven there, flipped to, watched.
    BlueGreen,
    /// The active color's containers are replaced in place, with a gap in which it does not answer.
    Recreate,
}

impl Strategy {
    /// Its steps, in the order in which they are made.
    pub fn steps(self) -> &'static [Step] {
        match self {
            Strategy::BlueGreen => &Step::ALL,
            // The snapshot comes first: from `Up` on the new release writes.
            Strategy::Recreate => &[
                Step::Candidate,
                Step::Image,
                Step::Backup,
                Step::Up,
                Step::Healthy,
                Step::Migrate,
                Step::Smoke,
                Step::EnvFile,
            ],
        }
    }

    /// Whether a release whose last step begun is `reached` has begun `step`.
    pub fn has_begun(self, reached: Step, step: Step) -> bool {
        let position = |wanted| self.steps().iter().position(|step| *step == wanted);
        position(step).is_some_and(|at| position(reached).is_some_and(|reached| at <= reached))
    }

    /// Which requests wait while `step` is made. With `freeze` none writes from the snapshot until the new release has
    /// the traffic.
    pub fn holds(self, step: Step, freeze: bool) -> Option<What> {
        let writes = freeze.then_some(What::Writes);
        match (self, step) {
            // Nobody is there to answer.
            (Strategy::Recreate, Step::Up | Step::Healthy) => Some(What::All),
            (Strategy::Recreate, Step::Backup | Step::Migrate) => writes,
            (
                Strategy::BlueGreen,
                Step::Backup
                | Step::Migrate
                | Step::OldColor
                | Step::Smoke
                | Step::Rehearse
                | Step::EnvFile
                | Step::Flip,
            ) => writes,
            (Strategy::BlueGreen, Step::Up | Step::Healthy)
            | (Strategy::Recreate, Step::OldColor | Step::Smoke | Step::Rehearse | Step::EnvFile | Step::Flip)
            | (_, Step::Candidate | Step::Image | Step::Watch | Step::Drain | Step::Retire) => None,
        }
    }

    /// The phase of the run of show that begins with `step`, as it is announced.
    pub fn phase_beginning_with(self, step: Step) -> Option<&'static str> {
        let phases: &[_] = match self {
            Strategy::BlueGreen => &[
                (Step::Candidate, "T-10  the new image comes up and is checked"),
                (Step::Flip, "T-0   traffic goes to it, and it is watched"),
                (Step::Drain, "T+15  the old color is stopped"),
            ],
            Strategy::Recreate => &[
                (Step::Candidate, "T-10  the new image is fetched, and the data is saved"),
                (Step::Up, "T-0   it replaces what is there, and is checked"),
            ],
        };
        phases.iter().find(|(first, _)| *first == step).map(|(_, phase)| *phase)
    }

    /// What is done by hooks before `step`, in this order.
    pub fn moments_before(self, step: Step) -> &'static [Moment] {
        let moments: [(Step, &[Moment]); 3] = [
            (Step::Candidate, &[Moment::Announce, Moment::ConfirmBackup]),
            // From the snapshot on nothing may be written that a way back would lose.
            (Step::Backup, &[Moment::Freeze]),
            (Step::Watch, &[Moment::Unfreeze]),
        ];
        moments.into_iter().find(|(before, _)| *before == step).map_or(&[], |(_, moments)| moments)
    }

    /// The word in the config, on the command line and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::BlueGreen => "blue-green",
            Strategy::Recreate => "recreate",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One step of a release, in the order in which blue-green makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The idle color's env file with the new tag, beside the one in force.
    Candidate,
    /// The image is on this machine, or is pulled.
    Image,
    /// The idle color's Compose project runs it.
    Up,
    /// Its containers are healthy, it says it is ready, and the proxy finds it so.
    Healthy,
    /// A snapshot of the data.
    Backup,
    /// The data takes the form that the release wants.
    Migrate,
    /// The active color can live with the migrated data: it is the way back.
    OldColor,
    /// The idle color answers as this release does.
    Smoke,
    /// The idle color answers copies of live requests as the active one does.
    Rehearse,
    /// The env file with the new tag comes into force.
    EnvFile,
    /// Traffic goes to it.
    Flip,
    /// The proxy judges it.
    Watch,
    /// The old color finishes what it began.
    Drain,
    /// The old color is stopped, or kept.
    Retire,
}

/// A moment of a cutover at which the operator's own programs are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Before anything is done: the maintenance window is announced.
    Announce,
    /// Before anything is done: is there a backup to go back to?
    ConfirmBackup,
    /// Before the snapshot: writes stop elsewhere than in the proxy.
    Freeze,
    /// The traffic is where it stays for now, or the release was given up.
    Unfreeze,
    /// All is over, well or not.
    Completion,
}

impl Moment {
    /// Each of them, in the order of their numbers.
    pub const ALL: [Moment; 5] =
        [Moment::Announce, Moment::ConfirmBackup, Moment::Freeze, Moment::Unfreeze, Moment::Completion];

    /// The word in the config and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Moment::Announce => "announce",
            Moment::ConfirmBackup => "confirm_backup",
            Moment::Freeze => "freeze",
            Moment::Unfreeze => "unfreeze",
            Moment::Completion => "completion",
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What takes a step back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// The env file beside the one in force goes.
    Candidate,
    /// The project runs what it ran before, or is stopped.
    Project,
    /// The env file is as it was.
    EnvFile,
}

impl Step {
    /// Every step in order.
    pub const ALL: [Step; 14] = [
        Step::Candidate,
        Step::Image,
        Step::Up,
        Step::Healthy,
        Step::Backup,
        Step::Migrate,
        Step::OldColor,
        Step::Smoke,
        Step::Rehearse,
        Step::EnvFile,
        Step::Flip,
        Step::Watch,
        Step::Drain,
        Step::Retire,
    ];

    /// The word in the journal, in events and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Candidate => "candidate",
            Step::Image => "image",
            Step::Up => "up",
            Step::Healthy => "healthy",
            Step::Backup => "backup",
            Step::Migrate => "migrate",
            Step::OldColor => "old-color",
            Step::Smoke => "smoke",
            Step::Rehearse => "rehearse",
            Step::EnvFile => "env-file",
            Step::Flip => "flip",
            Step::Watch => "watch",
            Step::Drain => "drain",
            Step::Retire => "retire",
        }
    }

    /// What takes it back. A migration is not taken back: the old color was seen to live with it.
    pub fn undo(self) -> Option<Undo> {
        match self {
            Step::Candidate => Some(Undo::Candidate),
            Step::Up => Some(Undo::Project),
            Step::EnvFile => Some(Undo::EnvFile),
            Step::Image
            | Step::Healthy
            | Step::Backup
            | Step::Migrate
            | Step::OldColor
            | Step::Smoke
            | Step::Rehearse
            | Step::Flip
            | Step::Watch
            | Step::Drain
            | Step::Retire => None,
        }
    }

    /// Whether a run that goes on after a crash makes it again although it was done. What was proven before the crash
    /// may not hold any more; a snapshot and a migration stay made.
    pub fn is_repeated(self) -> bool {
        match self {
            Step::Backup | Step::Migrate => false,
            Step::Candidate
            | Step::Image
            | Step::Up
            | Step::Healthy
            | Step::OldColor
            | Step::Smoke
            | Step::Rehearse
            | Step::EnvFile
            | Step::Flip
            | Step::Watch
            | Step::Drain
            | Step::Retire => true,
        }
    }

    /// Whether its failure says something about the release, not about the tools.
    pub fn is_gate(self) -> bool {
        match self {
            Step::Healthy | Step::OldColor | Step::Smoke | Step::Rehearse | Step::Flip => true,
            Step::Candidate
            | Step::Image
            | Step::Up
            | Step::Backup
            | Step::Migrate
            | Step::EnvFile
            | Step::Watch
            | Step::Drain
            | Step::Retire => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What takes back everything up to the step `reached`, which may be half made: the last step's first.
pub fn undo_from(strategy: Strategy, reached: Step) -> impl Iterator<Item = Undo> {
    let begun = move |step: &Step| strategy.has_begun(reached, *step);
    strategy.steps().iter().rev().copied().filter(begun).filter_map(Step::undo)
}

/// A release that was interrupted, as its journal tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// How it was brought up.
    pub strategy: Strategy,
    /// The color it was brought up in.
    pub color: Color,
    /// The service's epoch before it.
    pub epoch: u64,
    /// The last step that was begun.
    pub reached: Step,
    /// What had been decided about it.
    pub decided: Option<Decided>,
}

/// What was decided about a release, before it is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decided {
    /// It failed before the flip.
    Undo,
    /// It was flipped to, and traffic is back on the old color.
    TakenBack,
    /// It stays.
    Keep,
}

/// Where an interrupted release goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// From the first step; see [`Step::is_repeated`].
    Begin,
    /// Traffic is on it: follow its watch.
    Follow,
    /// Carry out what was decided, or what has happened meanwhile.
    End(Decided),
}

/// Where `release` goes on, now that the proxy says that `active` takes traffic in `epoch`.
pub fn next(release: Interrupted, active: Color, epoch: u64) -> Next {
    match release.decided {
        Some(decided) => Next::End(decided),
        // It has the traffic from the start, and no flip gives or takes it.
        None if release.strategy == Strategy::Recreate => Next::Begin,
        // Also when somebody else flipped to it: it has the traffic, and stopping it would be an outage.
        None if active == release.color => Next::Follow,
        // The flip was made, and traffic went back while nobody looked.
        None if release.reached >= Step::Flip && epoch > release.epoch => Next::End(Decided::TakenBack),
        None => Next::Begin,
    }
}

/// What the active color answered up to some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Whether it was ready then.
    pub was_ready: bool,
    /// All of them.
    pub requests: u64,
    /// 5xx, and failures to answer.
    pub errors: u64,
}

/// Errors after a migration that may be chance.
const ERRORS_MIN: u64 = 3;

/// Why the active color does not live with the migrated data, from its answers `before` the migration (since the proxy
/// began) and `after` it. `None`: nothing speaks against it, or nothing was asked.
pub fn hurt(before: Answers, after: Answers) -> Option<String> {
    let (requests, errors) =
        (after.requests.saturating_sub(before.requests), after.errors.saturating_sub(before.errors));
    // Twice the share of errors that it had before, and one of a hundred more.
    let usual = if before.requests == 0 { 0.0 } else { before.errors as f64 / before.requests as f64 };
    let is_worse = requests > 0 && errors as f64 / requests as f64 > usual * 2.0 + 0.01;
    (errors >= ERRORS_MIN && is_worse)
        .then(|| format!("{errors} of its {requests} requests since the migration failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_listed_in_their_order() {
        assert!(Step::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        let last = Step::Retire as usize;
        assert_eq!(Step::ALL.len(), last + 1, "none is missing");
    }

    #[test]
    fn a_freeze_is_one_span_of_steps_and_the_gap_holds_everything() {
        let held = |strategy: Strategy, freeze| {
            let steps = strategy.steps().iter().map(|step| strategy.holds(*step, freeze));
            let mut spans: Vec<Option<What>> = steps.collect();
            spans.dedup();
            spans
        };
        assert_eq!(held(Strategy::BlueGreen, false), [None]);
        assert_eq!(held(Strategy::BlueGreen, true), [None, Some(What::Writes), None]);
        assert_eq!(held(Strategy::Recreate, false), [None, Some(What::All), None]);
        let all = [None, Some(What::Writes), Some(What::All), Some(What::Writes), None];
        assert_eq!(held(Strategy::Recreate, true), all);
    }

    #[test]
    fn undoing_goes_backwards_and_takes_back_only_what_was_begun() {
        let undone = |reached| undo_from(Strategy::BlueGreen, reached).collect::<Vec<_>>();
        assert_eq!(undone(Step::Image), [Undo::Candidate]);
        assert_eq!(undone(Step::Up), [Undo::Project, Undo::Candidate]);
        assert_eq!(undone(Step::Smoke), [Undo::Project, Undo::Candidate]);
        assert_eq!(undone(Step::Flip), [Undo::EnvFile, Undo::Project, Undo::Candidate]);
        let undone = |reached| undo_from(Strategy::Recreate, reached).collect::<Vec<_>>();
        assert_eq!(undone(Step::Backup), [Undo::Candidate], "it comes before the project is touched");
        assert_eq!(undone(Step::Smoke), [Undo::Project, Undo::Candidate]);
    }

    #[test]
    fn an_interrupted_release_goes_on_where_the_traffic_is() {
        let strategy = Strategy::BlueGreen;
        let release = |reached, decided| Interrupted { strategy, color: Color::Green, epoch: 4, reached, decided };
        let recreate = |reached, decided| Interrupted { strategy: Strategy::Recreate, ..release(reached, decided) };
        for (case, release, active, epoch, want) in [
            ("killed early", release(Step::Up, None), Color::Blue, 4, Next::Begin),
            ("killed before the flip", release(Step::EnvFile, None), Color::Blue, 4, Next::Begin),
            ("killed at the flip, not flipped", release(Step::Flip, None), Color::Blue, 4, Next::Begin),
            ("killed at the flip, flipped", release(Step::Flip, None), Color::Green, 5, Next::Follow),
            ("killed in the watch", release(Step::Watch, None), Color::Green, 5, Next::Follow),
            ("taken back meanwhile", release(Step::Watch, None), Color::Blue, 6, Next::End(Decided::TakenBack)),
            ("flipped and back", release(Step::Flip, None), Color::Blue, 6, Next::End(Decided::TakenBack)),
            ("others flipped to it", release(Step::Up, None), Color::Green, 5, Next::Follow),
            ("others flipped twice", release(Step::Up, None), Color::Blue, 6, Next::Begin),
            ("killed while undoing", release(Step::Up, Some(Decided::Undo)), Color::Blue, 4, Next::End(Decided::Undo)),
            ("killed in the gap", recreate(Step::Up, None), Color::Green, 4, Next::Begin),
            ("killed going back", recreate(Step::Up, Some(Decided::Undo)), Color::Green, 4, Next::End(Decided::Undo)),
            (
                "killed in the drain",
                release(Step::Drain, Some(Decided::Keep)),
                Color::Green,
                5,
                Next::End(Decided::Keep),
            ),
        ] {
            assert_eq!(next(release, active, epoch), want, "{case}");
        }
    }

    #[test]
    fn a_color_is_hurt_when_it_fails_more_than_it_did() {
        let answers = |requests, errors| Answers { was_ready: true, requests, errors };
        for (case, before, after, want) in [
            ("nobody asks", answers(0, 0), answers(0, 0), false),
            ("all well", answers(1000, 0), answers(1100, 0), false),
            ("two bad ones are chance", answers(1000, 0), answers(1100, 2), false),
            ("one in ten", answers(1000, 0), answers(1100, 10), true),
            ("it always failed so", answers(1000, 100), answers(1100, 110), false),
            ("it failed before, now three times as often", answers(1000, 100), answers(1100, 130), true),
            ("first requests ever", answers(0, 0), answers(3, 3), true),
        ] {
            assert_eq!(hurt(before, after).is_some(), want, "{case}");
        }
    }
}
