//! Verbs, flags and exit codes.

mod change;
mod screen;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::admin::client::{Client, ClientError};
use crate::config::{self, Config, Problems};
use crate::domain::Color;
use crate::status::{Reloaded, Status};
use crate::{demo, ledger, serve};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage or config
  3  a gate said no: nothing changed
  4  it was flipped, judged bad and rolled back
  5  another cutover of this service is under way
  6  no answer from the proxy's admin address";

/// Blue/green reverse proxy for Docker Compose: flips in one atomic store, watches the new color, takes traffic back.
#[derive(Parser)]
#[command(name = "cutover", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// The config file [default: $CUTOVER_CONFIG, ./cutover.toml, ./config/cutover.toml, /etc/cutover/cutover.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the proxy
    Serve,
    /// Check the config and say everything that is wrong with it
    Check,
    /// Show colors, health, traffic and the last releases
    Status {
        /// Only this service
        service: Option<String>,
        /// Refresh every second until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Make a color active: cutover flip green
    Flip {
        /// The service (may be left out when there is one) and the color
        #[arg(required = true, num_args = 1..=2, value_names = ["SERVICE", "COLOR"])]
        target: Vec<String>,
        /// Flip although the color is not ready; the ledger says so
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        how: How,
    },
    /// Go back to the color before this one
    Rollback {
        /// The service; may be left out when there is one
        service: Option<String>,
        /// Go back although that color is not ready; the ledger says so
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        how: How,
    },
    /// Wait until the idle color holds no request
    Drain {
        /// The service; may be left out when there is one
        service: Option<String>,
        /// Say what would be waited for
        #[arg(long)]
        dry_run: bool,
    },
    /// Read the config again, as HUP does
    Reload {
        /// Only check the file
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the last lines of the ledger
    Ledger {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "LINES")]
        lines: usize,
    },
    /// Show it all on two sample apps: a good release, and a bad one that is taken back
    Demo {
        /// Leave everything up to play with
        #[arg(long)]
        stay: bool,
    },
}

#[derive(Args)]
struct How {
    /// Return at once instead of when the old color is drained
    #[arg(long)]
    no_wait: bool,
    /// Check the gate, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs one verb.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with code 0, the rest to standard error with code 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let json = cli.json;
    match perform(cli) {
        Ok(code) => code,
        Err(failure) => {
            if json {
                print(&failure.json());
            } else {
                eprintln!("cutover: {failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Why a verb has no result.
enum Failure {
    Config(Problems),
    Client(ClientError),
    Usage(String),
    Io(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Config(problems) => write!(f, "the config is not valid\n{problems}"),
            Failure::Client(error) => error.fmt(f),
            Failure::Usage(why) | Failure::Io(why) => f.write_str(why),
        }
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) | Failure::Usage(_) => 2,
            Failure::Client(error) => error.exit_code(),
            Failure::Io(_) => 1,
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Failure::Config(problems) => json!({"valid": false, "problems": problems}),
            Failure::Client(ClientError::Refused(refusal)) => json!({"error": refusal}),
            Failure::Client(ClientError::NoAnswer { .. }) => {
                json!({"error": {"code": "no_answer", "message": self.to_string()}})
            }
            Failure::Client(ClientError::NotUnderstood { .. }) | Failure::Io(_) => {
                json!({"error": {"code": "failed", "message": self.to_string()}})
            }
            Failure::Usage(why) => json!({"error": {"code": "usage", "message": why}}),
        }
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

fn perform(cli: Cli) -> Result<ExitCode, Failure> {
    let json = cli.json;
    let path = || config::find(cli.config.as_deref());
    match cli.verb {
        Verb::Demo { stay } => Ok(demo::run(demo::Options { stay, json })),
        Verb::Serve => Ok(serve::run(Config::load(&path()?)?)),
        Verb::Check | Verb::Reload { dry_run: true } => {
            check(&Config::load(&path()?)?, json);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Ledger { lines } => show_ledger(&reach(&path()?)?, lines, json),
        Verb::Status { service, watch } => in_runtime(status(client(&path()?)?, service, watch, json)),
        Verb::Flip { target, force, how } => {
            let (service, color) = flip_target(&target)?;
            let request = how.request(Some(color), force);
            in_runtime(change::run(client(&path()?)?, change::Kind::Flip, service, request, json))
        }
        Verb::Rollback { service, force, how } => {
            let request = how.request(None, force);
            in_runtime(change::run(client(&path()?)?, change::Kind::Rollback, service, request, json))
        }
        Verb::Drain { service, dry_run } => in_runtime(change::drain(client(&path()?)?, service, dry_run, json)),
        Verb::Reload { dry_run: false } => in_runtime(reload(client(&path()?)?, json)),
    }
}

/// What a client needs of the config. A file that was broken since the proxy started must not keep anybody from
/// rolling back.
fn reach(path: &Path) -> Result<Config, Failure> {
    let (config, problems) = Config::load_for_client(path)?;
    if let Some(problems) = problems {
        eprintln!(
            "cutover: the config is not valid, going on with its [admin] and [state]; see `cutover check`\n{problems}"
        );
    }
    Ok(config)
}

fn client(path: &Path) -> Result<Client, Failure> {
    Ok(Client::new(&reach(path)?.admin))
}

impl How {
    fn request(&self, to: Option<Color>, force: bool) -> crate::status::ChangeRequest {
        crate::status::ChangeRequest { to, force, wait: Some(!self.no_wait), dry_run: self.dry_run, by: Some(who()) }
    }
}

/// Who asks, for the ledger: the user behind `sudo` where there is one.
fn who() -> String {
    let user = ["SUDO_USER", "USER"].iter().filter_map(|name| std::env::var(name).ok()).find(|user| !user.is_empty());
    user.map_or_else(|| "cli".to_owned(), |user| format!("cli:{user}"))
}

fn flip_target(target: &[String]) -> Result<(Option<String>, Color), Failure> {
    let (service, color) = match target {
        [color] => (None, color),
        [service, color, ..] => (Some(service.clone()), color),
        [] => return Err(Failure::Usage("flip where? cutover flip green".into())),
    };
    match color.parse() {
        Ok(color) => Ok((service, color)),
        Err(_) => Err(Failure::Usage(format!("{color:?} is not a color: cutover flip [SERVICE] blue|green"))),
    }
}

fn in_runtime(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(Failure::Io(format!("cannot start: {error}"))),
    }
}

/// The service that is meant: the one named, or the only one that the proxy has.
async fn service_name(client: &Client, named: Option<String>) -> Result<String, Failure> {
    if let Some(name) = named {
        return Ok(name);
    }
    let status: Status = client.get("/v1/status").await?;
    let names: Vec<_> = status.services.keys().map(String::as_str).collect();
    match names[..] {
        [only] => Ok(only.to_owned()),
        _ => Err(Failure::Usage(format!("which service? one of {}", names.join(", ")))),
    }
}

/// One JSON document on standard output.
fn print(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    // A reader that has left (`| head`) is no failure of the verb.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn check(config: &Config, json: bool) {
    if json {
        let services: Vec<_> = config.services.iter().map(|service| &service.name).collect();
        return print(&json!({"valid": true, "config": config.path, "services": services}));
    }
    println!("{} is valid", config.path.display());
    let listen: Vec<_> = config.proxy.listen.iter().map(ToString::to_string).collect();
    println!("proxy listens on {}, admin on {}", listen.join(", "), config.admin.listen);
    for service in &config.services {
        let hosts = if service.hosts.is_empty() { "every other host".to_owned() } else { service.hosts.join(", ") };
        println!("{}: {hosts} {}", service.name, service.path_prefix);
        for color in Color::BOTH {
            let upstreams: Vec<_> = service.colors[color.index()].upstreams.iter().map(ToString::to_string).collect();
            println!("  {color:<5} {}", upstreams.join(", "));
        }
    }
}

async fn status(client: Client, service: Option<String>, watch: bool, json: bool) -> Result<ExitCode, Failure> {
    loop {
        let mut status: Status = client.get("/v1/status").await?;
        if let Some(name) = &service {
            let known: Vec<_> = status.services.keys().cloned().collect();
            status.services.retain(|known, _| known == name);
            if status.services.is_empty() {
                return Err(Failure::Usage(format!("there is no service {name}; one of {}", known.join(", "))));
            }
        }
        if json {
            print(&status);
        } else {
            screen::show(&status, watch);
        }
        if !watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn reload(client: Client, json: bool) -> Result<ExitCode, Failure> {
    let reloaded: Reloaded = client.post("/v1/reload", &json!({}), None).await?;
    if json {
        print(&reloaded);
    } else if reloaded.changes.is_empty() {
        println!("reloaded: nothing has changed");
    } else {
        println!("reloaded");
        reloaded.changes.iter().for_each(|change| println!("  {change}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn show_ledger(config: &Config, lines: usize, json: bool) -> Result<ExitCode, Failure> {
    let path = &config.state.ledger;
    let lines = match ledger::tail(path, lines) {
        Ok(lines) => lines,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::Io(format!("the ledger {}: {error}", path.display()))),
    };
    if json {
        print(&json!({"ledger": path, "lines": lines}));
    } else {
        lines.iter().for_each(|line| println!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_service_may_be_left_out_of_a_flip() {
        let target = |args: &[&str]| flip_target(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
        assert!(matches!(target(&["green"]), Ok((None, Color::Green))));
        assert!(matches!(target(&["recall", "blue"]), Ok((Some(name), Color::Blue)) if name == "recall"));
        assert!(matches!(target(&["recall"]), Err(Failure::Usage(_))));
    }

    #[test]
    fn json_may_stand_anywhere() {
        for args in [["cutover", "--json", "status"], ["cutover", "status", "--json"]] {
            assert!(Cli::try_parse_from(args).is_ok_and(|cli| cli.json));
        }
    }
}
