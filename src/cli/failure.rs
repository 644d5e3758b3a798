//! Says why a verb has no result, as a sentence, as JSON and as an exit code.

use std::fmt;

use serde_json::{Value, json};

use crate::api::client::ClientError;
use crate::config::Problems;

/// The release was flipped to, judged bad and rolled back.
pub(super) const ROLLED_BACK: u8 = 4;
/// Another cutover of this service is under way.
pub(super) const UNDER_WAY: u8 = 5;

/// Says why a verb has no result.
#[derive(Debug)]
pub(super) enum Failure {
    Config(Problems),
    Client(ClientError),
    Usage(String),
    Failed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Config(problems) => write!(f, "the config is not valid\n{problems}"),
            Failure::Client(error) => error.fmt(f),
            Failure::Usage(why) | Failure::Failed(why) => f.write_str(why),
        }
    }
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Client(ClientError::Strange { .. }) => 1,
            Failure::Config(_) | Failure::Usage(_) | Failure::Client(ClientError::Denied(_)) => 2,
            Failure::Client(ClientError::Refused(refusal)) => refusal.code.exit_code(),
            Failure::Client(ClientError::NoAnswer { .. }) => 6,
        }
    }

    pub(super) fn json(&self) -> Value {
        let code = match self {
            Failure::Config(problems) => return json!({ "valid": false, "problems": problems }),
            Failure::Client(ClientError::Refused(refusal)) => return json!({ "error": refusal }),
            Failure::Client(ClientError::NoAnswer { .. }) => "no_answer",
            Failure::Client(ClientError::Denied(_)) => "denied",
            Failure::Client(ClientError::Strange { .. }) | Failure::Failed(_) => "failed",
            Failure::Usage(_) => "usage",
        };
        json!({ "error": { "code": code, "message": self.to_string() } })
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Failure::Config(problems)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::Client(error)
    }
}
