//! Defines the verbs, flags and help texts of the command line. It parses them and decides nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::api::ChangeRequest;
use crate::config;
use crate::deploy::base_url::BaseUrl;
use crate::deploy::smoke;
use crate::domain::Color;
use crate::domain::freeze::What;
use crate::domain::release::Strategy;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage or config
  3  a gate said no: nothing changed
  4  it was flipped, judged bad and rolled back
  5  another cutover of this service is under way
  6  no answer from the proxy's admin address

Example: cutover check && cutover serve, and then: cutover flip green";

/// Blue/green reverse proxy that flips in one atomic store, watches the new color, and takes bad releases back
#[derive(Debug, Parser)]
#[command(name = "cutover", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
    /// The config file [default: $CUTOVER_CONFIG, ./cutover.toml, ./config/cutover.toml, /etc/cutover/cutover.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the proxy
    #[command(after_help = "Example: cutover serve --config /etc/cutover/cutover.toml\n\
                            HUP reloads the config, as `cutover reload` does. USR2 upgrades, as `cutover upgrade`\n\
                            does. TERM lets requests in flight finish; a second TERM stops now.")]
    Serve,
    /// Check the config, and print what it would serve or every problem in it
    #[command(after_help = "Example: cutover check && cutover reload")]
    Check,
    /// Show colors, health, traffic and the last releases
    #[command(after_help = "Example: cutover status recall --watch")]
    Status {
        /// Only this service
        service: Option<String>,
        /// Refresh every second until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Make a color active, and wait until the other one is drained
    #[command(
        override_usage = "cutover flip [OPTIONS] [SERVICE] <blue|green>",
        after_help = "Example: cutover flip green, or with several services: cutover flip recall green"
    )]
    Flip {
        /// The service (not needed if there is only one) and the color
        #[arg(required = true, num_args = 1..=2, value_name = "[SERVICE] COLOR")]
        target: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Go back to the color before this one, or to an image tag
    #[command(after_help = "Example: cutover rollback, or: cutover rollback --to-tag sha-1f2e3d4\n\
                            With --to-tag, this is one flip if the tag still runs in the idle color. Otherwise it is\n\
                            brought up there first, and passes the gates of a deploy, without a migration.")]
    Rollback {
        /// The service; not needed if there is only one
        service: Option<String>,
        /// Go back to this release
        #[arg(long, value_name = "TAG", value_parser = tag, conflicts_with_all = ["force", "no_wait"])]
        to_tag: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Bring a release into production: start it in the idle color, check it, flip, watch, keep it or take it back
    #[command(after_help = "Example: cutover deploy --image-tag sha-1f2e3d4\n\
                            The next deploy takes up one that was killed: with the same tag it continues it, with\n\
                            another tag it undoes it first.")]
    Deploy {
        /// The service; not needed if there is only one
        service: Option<String>,
        /// The release: an immutable tag of the service's image
        #[arg(long, value_name = "TAG", value_parser = tag)]
        image_tag: String,
        /// blue-green or recreate [default: deploy.strategy of the service]
        #[arg(long, value_parser = strategy)]
        strategy: Option<Strategy>,
        /// Print the plan with its exact commands, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Compare the responses of both colors to copies of live requests
    #[command(after_help = "Example: cutover rehearsal recall --json\n\
                            It runs while the idle color is ready and rehearse.share is above 0.")]
    Rehearsal {
        /// The service; not needed if there is only one
        service: Option<String>,
    },
    /// Make a pass that leads a tester to the idle color, under the real host name
    #[command(after_help = "Example: cutover preview --for 30m\n\
                            It needs enabled = true in [service.NAME.preview]. Live traffic stays where it is.")]
    Preview {
        /// The service; not needed if there is only one
        service: Option<String>,
        /// How long the pass is valid, at most 30 days
        #[arg(long = "for", default_value = "1h", value_name = "DURATION", value_parser = duration)]
        lasting: Duration,
        /// Where clients reach the service, if the config does not say so: https://shop.example.com
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Wait until the idle color has no request in flight, so that it can be stopped
    #[command(after_help = "Example: cutover flip green --no-wait && cutover drain")]
    Drain {
        /// The service; not needed if there is only one
        service: Option<String>,
        /// Say what it would wait for, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Hold requests instead of forwarding them, for a given time or until `cutover thaw`
    #[command(after_help = "Example: cutover freeze --for 60s --why 'moving the disk'\n\
                            A request waits for at most freeze.hold, and then gets 503. Run it again for a new end.")]
    Freeze {
        /// The service; not needed if there is only one
        service: Option<String>,
        /// How long, at most freeze.max [default: freeze.max]
        #[arg(long = "for", value_name = "DURATION")]
        lasts: Option<String>,
        /// What to hold: writes or all
        #[arg(long, default_value = "writes", value_parser = what)]
        what: What,
        /// The reason, for the ledger and the status
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        /// Say whether it would be accepted, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Let held requests go, in the order in which they came
    #[command(after_help = "Example: cutover thaw")]
    Thaw {
        /// The service; not needed if there is only one
        service: Option<String>,
        /// Say what would be let go, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Make the proxy read its config again, as HUP does
    #[command(after_help = "Example: cutover reload --dry-run && cutover reload\n\
                            kill -HUP $(pidof cutover) also reaches a running `cutover deploy`, which it stops; under\n\
                            systemd, `systemctl reload cutover` reaches the proxy alone.")]
    Reload {
        /// Only check the file
        #[arg(long)]
        dry_run: bool,
    },
    /// Replace the running proxy with the installed binary; no connection is refused or dropped
    #[command(after_help = "Example: cutover upgrade, after install -m 755 cutover /usr/local/bin/\n\
                            USR2 to the proxy does the same. If the new binary cannot start, the old process\n\
                            goes on and the command says why.")]
    Upgrade {
        /// Only check the config
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the last flips, refusals, drains and verdicts, or find lines that were edited, removed or inserted
    #[command(after_help = "Example: cutover ledger -n 100, cutover ledger --service recall, cutover ledger verify")]
    Ledger {
        /// How many lines, from the file's last 64 KiB
        #[arg(short = 'n', long, default_value_t = 20, value_name = "LINES")]
        lines: usize,
        /// Only lines of this service
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        #[command(subcommand)]
        job: Option<LedgerJob>,
    },
    /// Check errors, resources, dependencies and alerts; exit with 1 if anything is wrong
    #[command(after_help = "Example: cutover monitor --over 30s\n\
                            [service.NAME.monitor] says which dependencies and which Prometheus to check.")]
    Monitor {
        /// Only this service
        service: Option<String>,
        /// How long to count requests
        #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration)]
        over: Duration,
    },
    /// Check a color directly: it is ready, it is the right version, its containers are well
    #[command(after_help = "Example: cutover smoke http://127.0.0.1:8001 --expect-version sha-abcdef\n\
                            If the port is that of a color in the config, and its env_file names a\n\
                            COMPOSE_PROJECT_NAME, its containers are checked as well. The ledger gets the outcome.")]
    Smoke(SmokeArgs),
    /// Show it all with two sample apps: a good release, and a bad one that is taken back
    #[command(after_help = "Example: cutover demo --stay")]
    Demo {
        /// Leave everything running to play with, until Ctrl-C
        #[arg(long)]
        stay: bool,
    },
    /// The sample app of the tests, in a container
    #[command(hide = true, after_help = "Example: cutover sample-app probe http://127.0.0.1:8000/readyz")]
    SampleApp {
        #[command(subcommand)]
        job: Option<SampleJob>,
    },
}

/// Something to do with the ledger instead of showing it.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum LedgerJob {
    /// Find lines that were edited, removed, inserted or torn; exit with 1 if there are any
    Verify,
}

/// Something that the sample app does instead of serving.
#[derive(Debug, Subcommand)]
pub(super) enum SampleJob {
    /// Change the schema file
    Migrate,
    /// Print the schema file
    Dump,
    /// Exit code 0 if this URL answers 200
    Probe { url: String },
}

/// Says what a smoke test checks, and what it expects.
#[derive(Debug, Args)]
pub(super) struct SmokeArgs {
    /// The color's own address, such as http://127.0.0.1:8001; h2c:// uses HTTP/2, grpc:// gRPC's health check
    pub(super) url: BaseUrl,
    /// The version that /version must report
    #[arg(long, value_name = "VERSION")]
    pub(super) expect_version: Option<String>,
    /// The service name that /version must report
    #[arg(long, value_name = "NAME")]
    pub(super) expect_service: Option<String>,
    /// How long to wait for /readyz, and then for a container's health
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Duration,
    /// The container to check
    #[arg(long, value_name = "NAME", group = "which")]
    pub(super) container: Option<String>,
    /// The Compose project whose `api` to check
    #[arg(long, value_name = "PROJECT", group = "which")]
    pub(super) project: Option<String>,
    /// Check no container
    #[arg(long, group = "which")]
    pub(super) no_container: bool,
    /// How many error lines a container may have logged in the last minute
    #[arg(long, default_value_t = smoke::ERROR_LINES_MAX, value_name = "LINES")]
    pub(super) max_errors: usize,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    config::duration(text).ok_or("a number with ms, s, m or h, such as 30s")
}

fn what(text: &str) -> Result<What, &'static str> {
    [What::Writes, What::All].into_iter().find(|what| what.as_str() == text).ok_or("writes or all")
}

/// Says how a change is made.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Do it even if the color is not ready or failed its rehearsal; the ledger records it
    #[arg(long)]
    pub(super) force: bool,
    /// Return at once, without waiting for the old color to drain
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Say what would happen, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl How {
    /// Builds the request to the API. The API never waits for the drain: the verb itself follows the drain, so that it
    /// can show it.
    pub(super) fn request(&self, to: Option<Color>) -> ChangeRequest {
        ChangeRequest { to, force: self.force, wait: Some(false), dry_run: self.dry_run, by: Some(who()) }
    }
}

/// Parses a strategy as it is typed.
fn strategy(text: &str) -> Result<Strategy, &'static str> {
    [Strategy::BlueGreen, Strategy::Recreate]
        .into_iter()
        .find(|strategy| strategy.as_str() == text)
        .ok_or("blue-green or recreate")
}

/// Parses an image tag, with the characters that Docker allows.
fn tag(text: &str) -> Result<String, &'static str> {
    let is_first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_tag = text.len() <= 128
        && text.bytes().next().is_some_and(is_first)
        && text.bytes().all(|b| is_first(b) || b == b'.' || b == b'-');
    if is_tag { Ok(text.to_owned()) } else { Err("letters, digits, _ . and -, at most 128, such as sha-1f2e3d4") }
}

/// Returns the caller's name for the ledger, such as `cli:ann`; it sees through sudo.
pub(super) fn who() -> String {
    let user = ["SUDO_USER", "USER"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    user.map_or_else(|| "cli".into(), |user| format!("cli:{user}"))
}

/// Reads the arguments of `flip`: the service, if it is named, and the color. The error says what to type.
pub(super) fn flip_target(target: &[String]) -> Result<(Option<&str>, Color), String> {
    let (service, color) = match target {
        [service, color] => (Some(service.as_str()), color.as_str()),
        [color] => (None, color.as_str()),
        _ => (None, ""),
    };
    match color.parse() {
        Ok(color) => Ok((service, color)),
        Err(error) => {
            let service = service.unwrap_or("[SERVICE]");
            Err(format!("{color:?}: {error}; for example: cutover flip {service} green"))
        }
    }
}

/// Returns the service that is meant: the one named, or the only one of `known`. The error lists the known ones.
pub(super) fn pick<'a>(named: Option<&'a str>, known: &[&'a str]) -> Result<&'a str, String> {
    match (named, known) {
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("which service? There is: {}", known.join(", "))),
        (Some(name), _) if known.contains(&name) => Ok(name),
        (Some(name), _) => Err(format!("there is no service {name:?}; there is: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definitions_are_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        for line in ["cutover --json --config x status", "cutover status --json --config x"] {
            let cli = parse(line).unwrap();
            assert!(cli.json && cli.config.is_some_and(|path| path.as_os_str() == "x"), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "cutover",
            "cutover explode",
            "cutover flip",
            "cutover flip a b c",
            "cutover freeze --what reads",
            "cutover ledger -n -1",
            "cutover smoke 127.0.0.1:8001",
            "cutover deploy",
            "cutover deploy --image-tag -x",
            "cutover deploy --image-tag a:b",
            "cutover deploy --image-tag a --strategy canary",
            "cutover rollback --to-tag a --force",
            "cutover smoke http://h --timeout 30",
            "cutover smoke http://h --container a --project b",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("cutover --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn help_has_every_exit_code_and_an_example_for_each_verb() {
        use clap::CommandFactory;
        let help = Cli::command().render_help().to_string();
        assert!((0..=6).all(|code| help.contains(&format!("\n  {code}  "))), "{help}");
        for verb in Cli::command().get_subcommands_mut() {
            assert!(verb.render_help().to_string().contains("Example: cutover"), "{}", verb.get_name());
        }
    }

    #[test]
    fn the_service_of_a_flip_may_be_left_out() {
        for (line, want) in [
            ("cutover flip green", Ok((None, Color::Green))),
            ("cutover flip recall blue", Ok((Some("recall"), Color::Blue))),
            ("cutover flip recall", Err(())),
            ("cutover flip green recall", Err(())),
            ("cutover flip Green", Err(())),
        ] {
            let Verb::Flip { target, .. } = parse(line).unwrap().verb else { panic!("{line} is a flip") };
            assert_eq!(flip_target(&target).map_err(drop), want, "{line}");
        }
        let wrong = flip_target(&["recall".into(), "red".into()]).unwrap_err();
        assert_eq!(wrong, "\"red\": a color is \"blue\" or \"green\"; for example: cutover flip recall green");
    }

    #[test]
    fn the_only_service_needs_no_name() {
        assert_eq!(pick(None, &["recall"]), Ok("recall"));
        assert_eq!(pick(Some("shop"), &["recall", "shop"]), Ok("shop"));
        assert_eq!(pick(None, &["recall", "shop"]).unwrap_err(), "which service? There is: recall, shop");
        assert_eq!(pick(Some("sjop"), &["shop"]).unwrap_err(), "there is no service \"sjop\"; there is: shop");
    }
}
