//! Keeps what of a release survives a crash, and says which flips it forbids meanwhile.

use serde::{Deserialize, Serialize};

use super::{Decision, Step, Strategy, Undo};
use crate::domain::Color;

/// What of a release survives a crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseState {
    /// The strategy of the deploy.
    pub strategy: Strategy,
    /// The color in which the release is brought up.
    pub color: Color,
    /// The service's epoch when the deploy began, or was resumed before the flip.
    pub epoch: u64,
    /// The last step that was begun.
    pub reached: Step,
    /// The steps that were finished.
    pub done: Vec<Step>,
    /// The epoch that the flip began.
    pub flipped: Option<u64>,
    /// The decision about the release, and its reason.
    pub decided: Option<Decided>,
    /// What was undone, once the decision is to undo.
    #[serde(default)]
    pub undone: Vec<Undo>,
    /// Who took the traffic back.
    #[serde(default)]
    pub taken_back_by: Option<TakenBackBy>,
}

/// A decision about a release, with its reason. The file has the two as a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Decision, String)", into = "(Decision, String)")]
pub struct Decided {
    /// The decision.
    pub decision: Decision,
    /// The reason, for people.
    pub why: String,
}

impl From<(Decision, String)> for Decided {
    fn from((decision, why): (Decision, String)) -> Self {
        Decided { decision, why }
    }
}

impl From<Decided> for (Decision, String) {
    fn from(Decided { decision, why }: Decided) -> Self {
        (decision, why)
    }
}

/// Who moved the traffic back to the old color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TakenBackBy {
    /// The proxy's watch, because the release is bad.
    Verdict,
    /// An operator.
    Operator,
}

/// Where the traffic of the service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The color that takes new requests.
    pub active: Color,
    /// The service's epoch.
    pub epoch: u64,
}

/// Why a color takes no traffic because of a deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// It runs a release that has not passed its gates.
    Unproven,
    /// It runs, or may run, a release that failed or was taken back.
    NotUndone,
    /// It is being stopped.
    Retiring,
}

impl ReleaseState {
    /// Returns the state of a release of which nothing is done.
    pub fn begin(strategy: Strategy, color: Color, epoch: u64) -> Self {
        ReleaseState {
            strategy,
            color,
            epoch,
            reached: strategy.steps()[0],
            done: Vec::new(),
            flipped: None,
            decided: None,
            undone: Vec::new(),
            taken_back_by: None,
        }
    }

    /// Returns the color that has the traffic before the flip.
    pub fn old(&self) -> Color {
        match self.strategy {
            Strategy::BlueGreen => self.color.other(),
            Strategy::Recreate => self.color,
        }
    }

    /// Says why nothing may be flipped to `to`, because the deploy is at work on that color or has left it unproven.
    /// `is_alive` tells whether the deploy runs; a killed one does not keep anybody from the color that it left whole.
    pub fn blocks(&self, to: Color, is_alive: bool) -> Option<Block> {
        if self.strategy == Strategy::Recreate {
            return None;
        }
        let has_begun = |step| self.strategy.has_begun(self.reached, step);
        let is_unproven = match self.decided.as_ref().map(|decided| decided.decision) {
            // The last step before the flip comes after every gate.
            None => !self.done.contains(&Step::EnvFile),
            Some(Decision::Undo | Decision::TakenBack) => !self.undone.contains(&Undo::Project),
            Some(Decision::Keep) => false,
        };
        let is_retiring = self.reached == Step::Retire && !self.done.contains(&Step::Retire) && is_alive;
        match self.decided {
            _ if to == self.color && has_begun(Step::Up) && is_unproven => {
                Some(if self.decided.is_some() { Block::NotUndone } else { Block::Unproven })
            }
            Some(_) if to == self.old() && is_retiring => Some(Block::Retiring),
            Some(_) | None => None,
        }
    }

    /// Returns the reason of the decision; it is empty where there is none.
    pub fn why(&self) -> String {
        self.decided.as_ref().map_or_else(String::new, |decided| decided.why.clone())
    }
}
