//! `[service.NAME.deploy.hooks]`: programs that are run at the moments of a cutover.

use std::time::Duration;

use super::section::Section;
use super::values::{seconds, words_of};
use crate::domain::release::Moment;

/// `[service.NAME.deploy.hooks]`
#[derive(Clone, Debug, PartialEq)]
pub struct Hooks {
    /// Indexed like [`Moment::ALL`]: a program with its arguments, or nothing.
    pub commands: [Vec<String>; Moment::ALL.len()],
    /// Whose failure stops the deploy; that of others is only told. Default: `confirm_backup` and `freeze`.
    pub required: Vec<Moment>,
    /// For each. Default 1 min.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Hooks {
            commands: Default::default(),
            required: vec![Moment::ConfirmBackup, Moment::Freeze],
            timeout: seconds(60),
        }
    }
}

impl Hooks {
    /// What is run at `moment`; nothing where it is empty.
    pub fn at(&self, moment: Moment) -> &[String] {
        &self.commands[moment as usize]
    }
}

pub(super) fn hooks(section: &Section<'_, '_>) -> Hooks {
    let default = Hooks::default();
    let hooks = Hooks {
        commands: Moment::ALL
            .map(|moment| words_of(section, moment.as_str(), "[\"/etc/cutover/announce\"]").unwrap_or_default()),
        required: required(section).unwrap_or(default.required),
        timeout: section.duration("timeout", default.timeout),
    };
    section.refuse_unknown();
    hooks
}

fn required(section: &Section<'_, '_>) -> Option<Vec<Moment>> {
    let words = section.strings("required", "[\"confirm_backup\", \"freeze\"]")?;
    // Before it is too late to stop anything.
    let known = [Moment::Announce, Moment::ConfirmBackup, Moment::Freeze];
    let moment = |(word, value)| {
        let found = known.into_iter().find(|moment| moment.as_str() == word);
        if found.is_none() {
            let help = "announce, confirm_backup and freeze run before anything is changed, and can stop a deploy";
            section.problem("required", value, "is none of the hooks that can stop a deploy", help);
        }
        found
    };
    Some(words.into_iter().filter_map(moment).collect())
}
