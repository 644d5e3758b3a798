//! Says which color a step changes.

use super::{Step, Strategy};

/// The color that a step changes, by its role when the step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It changes none.
    Nothing,
    /// The color of the release, which must be idle.
    Idle,
    /// The only color, which has the traffic.
    Active,
    /// The old color, which must have lost the traffic.
    Old,
}

/// Returns the color that `step` changes.
pub fn touch(strategy: Strategy, step: Step) -> Touch {
    match (strategy, step) {
        (Strategy::BlueGreen, Step::Up | Step::Migrate | Step::EnvFile | Step::Flip) => Touch::Idle,
        (Strategy::Recreate, Step::Up | Step::Migrate | Step::EnvFile) => Touch::Active,
        (Strategy::BlueGreen, Step::Retire) => Touch::Old,
        (
            _,
            Step::Candidate
            | Step::Image
            | Step::Healthy
            | Step::Backup
            | Step::OldColor
            | Step::Smoke
            | Step::Rehearse
            | Step::Watch
            | Step::Drain,
        )
        | (Strategy::Recreate, Step::Flip | Step::Retire) => Touch::Nothing,
    }
}
