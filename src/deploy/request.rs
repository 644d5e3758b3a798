//! Describes what an operator asks of a deploy.

use crate::deploy::journal::Intent;
use crate::domain::release::Strategy;

/// What the operator asks for.
#[derive(Clone, Debug)]
pub struct DeployRequest {
    pub intent: Intent,
    pub strategy: Strategy,
    /// The image tag.
    pub tag: String,
    pub mode: Mode,
    /// The operator, as the ledger names them.
    pub by: String,
}

/// Whether a deploy changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Real,
    /// Print the plan and change nothing.
    DryRun,
}
