//! Reads `[service.NAME.deploy.hooks]`: the operator's programs and the points of a deploy at which they run.

use std::time::Duration;

use super::section::Section;
use super::values::{seconds, words_of};
use crate::domain::release::HookPoint;

/// The section `[service.NAME.deploy.hooks]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Hooks {
    /// The program of each point with its arguments, in the order of [`HookPoint::ALL`]; empty where there is none.
    pub commands: [Vec<String>; HookPoint::ALL.len()],
    /// The points whose failure stops the deploy; a failure at any other point is only reported. Default:
    /// `confirm_backup` and `freeze`.
    pub required: Vec<HookPoint>,
    /// Limits the time of each program. Default 1 min.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Hooks {
            commands: Default::default(),
            required: vec![HookPoint::ConfirmBackup, HookPoint::Freeze],
            timeout: seconds(60),
        }
    }
}

impl Hooks {
    /// Returns the program that runs at `point`, with its arguments; it is empty where there is none.
    pub fn at(&self, point: HookPoint) -> &[String] {
        &self.commands[point as usize]
    }
}

pub(super) fn hooks(section: &Section<'_, '_>) -> Hooks {
    let default = Hooks::default();
    let hooks = Hooks {
        commands: HookPoint::ALL
            .map(|point| words_of(section, point.as_str(), "[\"/etc/cutover/announce\"]").unwrap_or_default()),
        required: required(section).unwrap_or(default.required),
        timeout: section.duration("timeout", default.timeout),
    };
    section.refuse_unknown();
    hooks
}

fn required(section: &Section<'_, '_>) -> Option<Vec<HookPoint>> {
    let words = section.strings("required", "[\"confirm_backup\", \"freeze\"]")?;
    // Only hooks that come before the first change can stop a deploy.
    let known = [HookPoint::Announce, HookPoint::ConfirmBackup, HookPoint::Freeze];
    let point = |(word, value)| {
        let found = known.into_iter().find(|point| point.as_str() == word);
        if found.is_none() {
            let help = "announce, confirm_backup and freeze run before anything is changed, and can stop a deploy";
            section.problem("required", value, "is none of the hooks that can stop a deploy", help);
        }
        found
    };
    Some(words.into_iter().filter_map(point).collect())
}
