//! Orders the steps that bring a release into production, and says what undoes each of them.
//!
//! The module is pure. It decides what follows a step, a failure or a crash, from what the journal and the proxy say,
//! and `deploy::run` carries that out; the order of the actions is in `sequence`.

pub mod resume;
pub mod sequence;
#[cfg(test)]
mod simulation;
pub mod state;
mod touch;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::freeze::What;

/// Tells what a deploy freezes around its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freezing {
    /// Requests are not held.
    Nothing,
    /// Nobody writes from the snapshot until the new release has the traffic.
    Writes,
}

/// Says how a release replaces the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The release comes up in the idle color, is proven there, gets the traffic and is watched.
    BlueGreen,
    /// The active color's containers are replaced in place. In the gap nothing answers, so requests are held.
    Recreate,
}

impl Strategy {
    /// Returns the steps in their order.
    pub fn steps(self) -> &'static [Step] {
        match self {
            Strategy::BlueGreen => &Step::ALL,
            // The snapshot comes before `Up`, because the new release writes from then on.
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

    /// Returns whether a release that has reached the step `reached` has begun `step`.
    pub fn has_begun(self, reached: Step, step: Step) -> bool {
        let position = |wanted| self.steps().iter().position(|step| *step == wanted);
        position(step).is_some_and(|at| position(reached).is_some_and(|reached| at <= reached))
    }

    /// Returns which requests are held while `step` is made.
    pub fn holds(self, step: Step, freezing: Freezing) -> Option<What> {
        let writes = match freezing {
            Freezing::Nothing => None,
            Freezing::Writes => Some(What::Writes),
        };
        match (self, step) {
            // Nothing is there to answer.
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

    /// Returns the announcement of the phase that begins with `step`.
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

    /// Returns the hooks that run before `step`, in their order.
    pub fn hooks_before(self, step: Step) -> &'static [HookPoint] {
        let hooks: [(Step, &[HookPoint]); 3] = [
            (Step::Candidate, &[HookPoint::Announce, HookPoint::ConfirmBackup]),
            // Data that is written after the snapshot would be lost by a restore.
            (Step::Backup, &[HookPoint::Freeze]),
            (Step::Watch, &[HookPoint::Unfreeze]),
        ];
        hooks.into_iter().find(|(before, _)| *before == step).map_or(&[], |(_, points)| points)
    }

    /// Returns the word in the config, on the command line and in the ledger.
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

/// A step of a release. The variants are in the order in which blue-green makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Write the env file with the new tag beside the one in force.
    Candidate,
    /// Pull the image, unless it is on this machine.
    Image,
    /// Start the Compose project with it.
    Up,
    /// Wait until the containers are healthy and the proxy finds the color ready.
    Healthy,
    /// Take a snapshot of the data.
    Backup,
    /// Migrate the data to the form that the release needs.
    Migrate,
    /// Check that the active color, which is the way back, lives with the migrated data.
    OldColor,
    /// Check that the color is ready and is this release.
    Smoke,
    /// Compare responses to copies of live requests with those of the active color.
    Rehearse,
    /// Put the env file with the new tag in force.
    EnvFile,
    /// Have the proxy send traffic to it.
    Flip,
    /// Wait for the verdict of the proxy's watch.
    Watch,
    /// Wait until the old color has finished its requests.
    Drain,
    /// Stop the old color, or keep it.
    Retire,
}

/// A point of a deploy at which the operator's own programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookPoint {
    /// Before anything is done, to announce the maintenance.
    Announce,
    /// Before anything is done, to confirm that there is a backup.
    ConfirmBackup,
    /// Before the snapshot, to stop writes that do not come through the proxy.
    Freeze,
    /// Once the traffic stays where it is, or the release was given up.
    Unfreeze,
    /// At the end, whatever the outcome.
    Completion,
}

impl HookPoint {
    /// Every point, in the order of the variants.
    pub const ALL: [HookPoint; 5] =
        [HookPoint::Announce, HookPoint::ConfirmBackup, HookPoint::Freeze, HookPoint::Unfreeze, HookPoint::Completion];

    /// Returns the word in the config and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            HookPoint::Announce => "announce",
            HookPoint::ConfirmBackup => "confirm_backup",
            HookPoint::Freeze => "freeze",
            HookPoint::Unfreeze => "unfreeze",
            HookPoint::Completion => "completion",
        }
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An action that undoes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// Remove the env file beside the one in force.
    Candidate,
    /// Have the project run what it ran before, or stop it.
    Project,
    /// Restore the env file in force.
    EnvFile,
}

impl Step {
    /// Every step, in order.
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

    /// Returns the word in the journal, in events and on the screen.
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

    /// Returns what undoes the step. A migration is not undone, because the old color was seen to live with it.
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

    /// Returns whether a run that resumes after a crash makes the step again although it was done. What was proven
    /// before the crash may not hold any more; a snapshot and a migration stay made.
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

    /// Returns whether the failure of the step says something about the release, and not about the tools.
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

/// Returns what undoes everything up to the step `reached`, which may be half made, beginning with the last step.
pub fn undo_from(strategy: Strategy, reached: Step) -> impl Iterator<Item = Undo> {
    let begun = move |step: &Step| strategy.has_begun(reached, *step);
    strategy.steps().iter().rev().copied().filter(begun).filter_map(Step::undo)
}

/// A decision about a release. It is written down before it is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The release failed before the flip.
    Undo,
    /// The release was flipped to, and traffic is back on the old color.
    TakenBack,
    /// The release stays.
    Keep,
}

/// Counts the responses of a color up to some point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseCounts {
    /// Whether the color was ready then.
    pub was_ready: bool,
    /// All responses.
    pub requests: u64,
    /// Responses of 500 and above, and failures to respond.
    pub errors: u64,
}

/// Fewer errors than this after a migration may be chance.
const ERRORS_MIN: u64 = 3;

/// Explains how the active color fails more after a migration than before. `before` counts since the proxy began. The
/// result is `None` where nothing speaks against the color, or nothing was requested.
pub fn failure_rise(before: ResponseCounts, after: ResponseCounts) -> Option<String> {
    let (requests, errors) =
        (after.requests.saturating_sub(before.requests), after.errors.saturating_sub(before.errors));
    // The limit is twice the former share of errors, and one percent more.
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
        let held = |strategy: Strategy, freezing| {
            let steps = strategy.steps().iter().map(|step| strategy.holds(*step, freezing));
            let mut spans: Vec<Option<What>> = steps.collect();
            spans.dedup();
            spans
        };
        assert_eq!(held(Strategy::BlueGreen, Freezing::Nothing), [None]);
        assert_eq!(held(Strategy::BlueGreen, Freezing::Writes), [None, Some(What::Writes), None]);
        assert_eq!(held(Strategy::Recreate, Freezing::Nothing), [None, Some(What::All), None]);
        let all = [None, Some(What::Writes), Some(What::All), Some(What::Writes), None];
        assert_eq!(held(Strategy::Recreate, Freezing::Writes), all);
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
    fn a_color_is_hurt_when_it_fails_more_than_it_did() {
        let answers = |requests, errors| ResponseCounts { was_ready: true, requests, errors };
        for (case, before, after, want) in [
            ("nobody asks", answers(0, 0), answers(0, 0), false),
            ("all well", answers(1000, 0), answers(1100, 0), false),
            ("two bad ones are chance", answers(1000, 0), answers(1100, 2), false),
            ("one in ten", answers(1000, 0), answers(1100, 10), true),
            ("it always failed so", answers(1000, 100), answers(1100, 110), false),
            ("it failed before, now three times as often", answers(1000, 100), answers(1100, 130), true),
            ("first requests ever", answers(0, 0), answers(3, 3), true),
        ] {
            assert_eq!(failure_rise(before, after).is_some(), want, "{case}");
        }
    }
}
