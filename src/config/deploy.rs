//! Holds `[service.NAME.deploy]`, which says how `cutover deploy` brings a release into a color.

use std::path::PathBuf;
use std::time::Duration;

use super::color::ColorConfig;
use super::hooks::{Hooks, hooks};
use super::section::Section;
use super::values::{path, seconds, words_of};
use crate::domain::release::Strategy;

/// The section `[service.NAME.deploy]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    /// The Compose file. Default `deploy/docker-compose.yml`.
    pub compose_file: PathBuf,
    /// The strategy. Default blue-green where both colors have an env file, otherwise recreate.
    pub strategy: Strategy,
    /// The version that `/version` must report. Default: the image tag.
    pub version: ExpectedVersion,
    /// Whether writes are held from the snapshot to the flip. Default false.
    pub freeze: bool,
    /// Decides what happens to the old color after the watch. Default: it is stopped.
    pub retire: Retire,
    /// Limits pulling the image, and `up`. Default 5 min.
    pub up_timeout: Duration,
    /// Limits the time from `up` until the color is healthy and ready. Default 2 min.
    pub ready_timeout: Duration,
    /// The old color is observed for this long after a migration. Default 3 s.
    pub settle: Duration,
    /// Limits the time that a rehearsal takes to compare enough responses, where `rehearse.share` is above 0. Default
    /// 30 s.
    pub rehearse: Duration,
    /// The section `[service.NAME.deploy.migrate]`.
    pub migrate: Migrate,
    /// The section `[service.NAME.deploy.backup]`.
    pub backup: Backup,
    /// The section `[service.NAME.deploy.hooks]`.
    pub hooks: Hooks,
}

/// The version that `/version` of a release must report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// `/version` must report the image tag.
    Tag,
    /// `/version` may report anything.
    Any,
}

/// Says what happens to the old color once the new one is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retire {
    /// `docker compose stop` stops it.
    Stop,
    /// It keeps running, so that one flip leads back.
    Keep,
}

/// The section `[service.NAME.deploy.migrate]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Migrate {
    /// The command that runs inside `api` of the new color; an empty one runs nothing. Default `flask db upgrade`.
    pub command: Vec<String>,
    /// Whether its failure stops the deploy. Default false.
    pub required: bool,
    /// Limits the migration. Default 10 min.
    pub timeout: Duration,
}

/// The section `[service.NAME.deploy.backup]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// The command that runs on this machine; its standard output is the snapshot. It is empty by default, and then
    /// nothing runs.
    pub command: Vec<String>,
    /// The folder of the snapshots. Default `backups`.
    pub folder: PathBuf,
    /// The number of snapshots of a service that are kept, at least 1. Default 7.
    pub keep: usize,
    /// Limits the command. Default 30 min.
    pub timeout: Duration,
}

impl Default for Deploy {
    fn default() -> Self {
        Deploy {
            compose_file: "deploy/docker-compose.yml".into(),
            strategy: Strategy::BlueGreen,
            version: ExpectedVersion::Tag,
            freeze: false,
            retire: Retire::Stop,
            up_timeout: seconds(300),
            ready_timeout: seconds(120),
            settle: seconds(3),
            rehearse: seconds(30),
            migrate: Migrate {
                command: ["flask", "db", "upgrade"].map(str::to_owned).into(),
                required: false,
                timeout: seconds(600),
            },
            backup: Backup { command: Vec::new(), folder: "backups".into(), keep: 7, timeout: seconds(1800) },
            hooks: Hooks::default(),
        }
    }
}

/// Reads the section. `colors` decides whether the strategy is possible.
pub(super) fn deploy(section: &Section<'_, '_>, colors: &[ColorConfig; 2]) -> Deploy {
    let default = Deploy::default();
    let migrate = section.section("migrate");
    let backup = section.section("backup");
    let keep = backup.integer("keep", 1..=10_000, 7);
    let deploy = Deploy {
        compose_file: path(section, "compose_file", "\"deploy/docker-compose.yml\"").unwrap_or(default.compose_file),
        strategy: strategy(section, colors),
        version: section.word("version", [("tag", ExpectedVersion::Tag), ("any", ExpectedVersion::Any)]),
        freeze: section.boolean("freeze", default.freeze),
        retire: section.word("retire", [("stop", Retire::Stop), ("keep", Retire::Keep)]),
        up_timeout: section.duration("up_timeout", default.up_timeout),
        ready_timeout: section.duration("ready_timeout", default.ready_timeout),
        settle: section.duration_or_zero("settle", default.settle).unwrap_or(default.settle),
        rehearse: section.duration_or_zero("rehearse", default.rehearse).unwrap_or(default.rehearse),
        migrate: Migrate {
            command: command(&migrate, "[\"flask\", \"db\", \"upgrade\"]").unwrap_or(default.migrate.command),
            required: migrate.boolean("required", default.migrate.required),
            timeout: migrate.duration("timeout", default.migrate.timeout),
        },
        backup: Backup {
            command: command(&backup, "[\"pg_dump\", \"recall\"]").unwrap_or(default.backup.command),
            folder: path(&backup, "folder", "\"backups\"").unwrap_or(default.backup.folder),
            keep: usize::try_from(keep).unwrap_or(default.backup.keep),
            timeout: backup.duration("timeout", default.backup.timeout),
        },
        hooks: hooks(&section.section("hooks")),
    };
    for section in [section, &migrate, &backup] {
        section.refuse_unknown();
    }
    deploy
}

fn strategy(section: &Section<'_, '_>, colors: &[ColorConfig; 2]) -> Strategy {
    let is_bare = colors.iter().any(|color| color.env_file.is_none());
    let words = [("blue-green", Strategy::BlueGreen), ("recreate", Strategy::Recreate)];
    let strategy = section.word("strategy", words);
    if !is_bare {
        return strategy;
    }
    if let Some(value) = section.get("strategy")
        && value.get_ref().as_str() == Some("blue-green")
    {
        let help = "write blue = { env_file = \"deploy/.env.blue\" }, and the same for green";
        section.problem("strategy", value, "needs both colors to have an env_file", help);
    }
    Strategy::Recreate
}

fn command(section: &Section<'_, '_>, example: &str) -> Option<Vec<String>> {
    words_of(section, "command", example)
}
