//! Says how a deploy ended: the outcome for programs, the exit code, and a sentence for people.

use crate::api::Refusal;
use crate::api::client::ClientError;

/// How a deploy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The release is in production and stays, or the plan of a dry run was printed.
    Kept,
    /// The release is in production, but the old color is not as it should be.
    Unfinished,
    /// It failed before the flip, and nothing was changed.
    Failed,
    /// A gate refused it before the flip, and nothing was changed.
    GateSaidNo,
    /// It was flipped to, and traffic went back.
    TakenBack,
    /// The config lacks what is needed, or names another token than the proxy's.
    Config,
    /// Another cutover of the service is under way.
    UnderWay,
    /// The proxy does not answer. The journal has what was begun.
    NoAnswer,
    /// A signal ended the run, and the rest is left to the next one.
    Left,
}

impl Outcome {
    /// Returns the word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Kept => "kept",
            Outcome::Unfinished => "unfinished",
            Outcome::Failed => "failed",
            Outcome::GateSaidNo => "gate_said_no",
            Outcome::TakenBack => "taken_back",
            Outcome::Config => "config",
            Outcome::UnderWay => "under_way",
            Outcome::NoAnswer => "no_answer",
            Outcome::Left => "left",
        }
    }

    /// Returns the exit code of the verb.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Kept => 0,
            Outcome::Failed | Outcome::Unfinished | Outcome::Left => 1,
            Outcome::Config => 2,
            Outcome::GateSaidNo => 3,
            Outcome::TakenBack => 4,
            Outcome::UnderWay => 5,
            Outcome::NoAnswer => 6,
        }
    }
}

/// The outcome of a deploy, with a sentence about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployReport {
    pub outcome: Outcome,
    pub sentence: String,
}

impl DeployReport {
    /// Pairs an outcome with its sentence.
    pub fn new(outcome: Outcome, sentence: impl Into<String>) -> Self {
        DeployReport { outcome, sentence: sentence.into() }
    }

    /// Reports that the proxy could not be asked.
    pub fn proxy_lost(error: &ClientError) -> Self {
        let outcome = match error {
            ClientError::NoAnswer { .. } => Outcome::NoAnswer,
            // The config names another token than the proxy's.
            ClientError::Denied(_) => Outcome::Config,
            ClientError::Refused(_) | ClientError::Strange { .. } => Outcome::Failed,
        };
        DeployReport::new(outcome, error.to_string())
    }
}

/// Returns the outcome of a deploy that the proxy refused before the flip.
pub fn of_refusal(refusal: &Refusal) -> Outcome {
    match refusal.code.exit_code() {
        3 => Outcome::GateSaidNo,
        5 => Outcome::UnderWay,
        _ => Outcome::Failed,
    }
}
