//! Lists why the API changed nothing: codes, each with its HTTP status and exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Says why nothing was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code is for programs.
    pub code: RefusalCode,
    /// The message tells people what failed, why, and what they can do.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// The codes of refusals; each has one HTTP status and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The body or the query was not understood.
    BadRequest,
    /// There is no service of that name.
    UnknownService,
    /// The target color is not ready.
    NotReady,
    /// The target color responded to copied requests differently from the active one.
    RehearsalFailed,
    /// The target color is active already, and nothing is under way.
    AlreadyActive,
    /// Another cutover of this service is under way.
    CutoverUnderWay,
    /// There is no color before this one.
    NothingToRollBack,
    /// `preview.enabled` is false.
    PreviewOff,
    /// Another operator's freeze holds the requests of this service.
    AlreadyFrozen,
    /// There is no freeze that could be renewed.
    NotFrozen,
    /// `If-Match` named another epoch.
    StaleEpoch,
    /// The new color could not be saved, so a restart would undo the flip.
    StateUnwritable,
    /// The config on disk is not valid; the one in force stays.
    BadConfig,
    /// The new binary does not serve; the old one goes on.
    UpgradeFailed,
    /// The proxy is stopping.
    Stopping,
}

impl RefusalCode {
    /// Returns the HTTP status of the API's response.
    pub fn http_status(self) -> u16 {
        match self {
            RefusalCode::BadRequest => 400,
            RefusalCode::UnknownService => 404,
            RefusalCode::StaleEpoch => 412,
            RefusalCode::BadConfig => 422,
            RefusalCode::UpgradeFailed => 500,
            RefusalCode::StateUnwritable | RefusalCode::Stopping => 503,
            RefusalCode::NotReady
            | RefusalCode::RehearsalFailed
            | RefusalCode::AlreadyActive
            | RefusalCode::CutoverUnderWay
            | RefusalCode::AlreadyFrozen
            | RefusalCode::NotFrozen
            | RefusalCode::NothingToRollBack
            | RefusalCode::PreviewOff => 409,
        }
    }

    /// Returns the exit code of the verb that asked.
    pub fn exit_code(self) -> u8 {
        match self {
            RefusalCode::BadRequest
            | RefusalCode::UnknownService
            | RefusalCode::BadConfig
            | RefusalCode::PreviewOff => 2,
            RefusalCode::NotReady
            | RefusalCode::RehearsalFailed
            | RefusalCode::AlreadyActive
            | RefusalCode::NothingToRollBack
            | RefusalCode::AlreadyFrozen
            | RefusalCode::NotFrozen
            | RefusalCode::StaleEpoch => 3,
            RefusalCode::CutoverUnderWay => 5,
            RefusalCode::StateUnwritable | RefusalCode::UpgradeFailed | RefusalCode::Stopping => 1,
        }
    }
}
