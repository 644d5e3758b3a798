//! Runs one verb: asks the proxy (or reads a file), prints, and turns the outcome into an exit code.
//!
//! No verb decides about colors, because only the control plane does. Results go to standard output, progress and
//! errors to standard error.

mod args;
mod change;
mod connect;
mod deploy;
mod failure;
mod freeze;
mod ledger;
mod monitor;
mod output;
mod preview;
mod screen;
mod smoke;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::json;

use crate::api::client::{Client, ClientError};
use crate::api::{FreezeRequest, Status};
use crate::config::{self, Config};
use crate::demo::sample;
use crate::deploy::journal::Intent;
use crate::deploy::request::Mode;
use crate::handover::Inherited;
use crate::os::log_rotation;
use crate::{demo, serve};
use args::{Cli, LedgerJob, Verb};
use connect::{client, in_runtime, reach};
use deploy::DeployArgs;
use failure::Failure;
use output::{Form, complain, print, print_json};

/// `status --watch` redraws its screen this often.
const REFRESH: Duration = Duration::from_secs(1);

/// Runs one verb.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    log_rotation::survive_usr1();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with code 0, and errors go to standard error with code 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let form = if cli.json { Form::Json } else { Form::Text };
    perform(cli, form).unwrap_or_else(|failure| {
        match form {
            Form::Json => print_json(&failure.json()),
            Form::Text => complain(&format!("cutover: {failure}\n")),
        }
        ExitCode::from(failure.exit_code())
    })
}

fn perform(cli: Cli, form: Form) -> Result<ExitCode, Failure> {
    let path = || config::find(cli.config.as_deref());
    match cli.verb {
        Verb::Demo { stay } => return Ok(demo::run(demo::Options { stay, json: form == Form::Json })),
        Verb::Serve => {
            let mut inherited = Inherited::take();
            let config = path().map_err(Failure::from).and_then(|path| Ok(Config::load(&path)?));
            if let Err(failure) = &config {
                inherited.refuse(&failure.to_string());
            }
            return Ok(serve::run(config?, inherited));
        }
        Verb::Upgrade { dry_run: false } => in_runtime(upgrade(&client(&path()?)?, form))?,
        Verb::Check | Verb::Reload { dry_run: true } | Verb::Upgrade { dry_run: true } => {
            check(&Config::load(&path()?)?, form)
        }
        Verb::Ledger { job: Some(LedgerJob::Verify), .. } => return ledger::verify(&reach(&path()?)?, form),
        Verb::Ledger { lines, service, job: None } => ledger::show(&reach(&path()?)?, lines, service.as_deref(), form)?,
        Verb::Reload { dry_run: false } => in_runtime(reload(&client(&path()?)?, form))?,
        Verb::Status { service, watch } => {
            in_runtime(status(&client(&path()?)?, service.as_deref(), watch, form))?;
        }
        Verb::Monitor { service, over } => return monitor::monitor(&path()?, service.as_deref(), over, form),
        Verb::Smoke(args) => return in_runtime(smoke::smoke(args, cli.config.as_deref(), form)),
        Verb::Flip { target, how } => {
            let (service, color) = args::flip_target(&target).map_err(Failure::Usage)?;
            let (config, what) = (reach(&path()?)?, change::ChangeOptions { to: Some(color), how });
            return in_runtime(change::change(&config, service, &what, form));
        }
        Verb::Deploy { service, image_tag, strategy, dry_run } => {
            let (service, mode) = (service.as_deref(), mode(dry_run));
            let args = DeployArgs { service, intent: Intent::Deploy, strategy, tag: image_tag, mode };
            return deploy::deploy(&path()?, args, form);
        }
        Verb::Rollback { service, to_tag: Some(tag), how } => {
            let (service, mode) = (service.as_deref(), mode(how.dry_run));
            let args = DeployArgs { service, intent: Intent::Rollback, strategy: None, tag, mode };
            return deploy::deploy(&path()?, args, form);
        }
        Verb::SampleApp { job } => {
            return Ok(sample::run(&match job {
                None => sample::Job::Serve,
                Some(args::SampleJob::Migrate) => sample::Job::Migrate,
                Some(args::SampleJob::Dump) => sample::Job::Dump,
                Some(args::SampleJob::Probe { url }) => sample::Job::Probe(url),
            }));
        }
        Verb::Rollback { service, to_tag: None, how } => {
            let (config, force, dry_run) = (reach(&path()?)?, how.force, how.dry_run);
            let what = change::ChangeOptions { to: None, how };
            let changed = in_runtime(change::change(&config, service.as_deref(), &what, form));
            // A rollback to a retired color is impossible until it is brought up again.
            return match changed {
                Err(Failure::Client(ClientError::Refused(refusal))) if !force => {
                    deploy::bring_back(&path()?, service.as_deref(), refusal, mode(dry_run), form)
                }
                changed => changed,
            };
        }
        Verb::Rehearsal { service } => in_runtime(rehearsal(&client(&path()?)?, service.as_deref(), form))?,
        Verb::Preview { service, lasting, url } => {
            let config = reach(&path()?)?;
            in_runtime(preview::preview(&config, service.as_deref(), lasting, url.as_deref(), form))?;
        }
        Verb::Freeze { service, lasts, what, why, dry_run } => {
            let request = FreezeRequest { what, lasts, why, dry_run, ..FreezeRequest::default() };
            in_runtime(freeze::freeze(&client(&path()?)?, service.as_deref(), request, form))?;
        }
        Verb::Thaw { service, dry_run } => {
            in_runtime(freeze::thaw(&client(&path()?)?, service.as_deref(), dry_run, form))?;
        }
        Verb::Drain { service, dry_run } => {
            in_runtime(change::drain(&client(&path()?)?, service.as_deref(), dry_run, form))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Converts the flag `--dry-run`.
fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Real }
}

fn check(config: &Config, form: Form) {
    match form {
        Form::Text => print(&screen::config(config)),
        Form::Json => {
            let services: Vec<_> = config.services.iter().map(|service| &service.name).collect();
            print_json(&json!({ "valid": true, "config": config.path, "services": services }));
        }
    }
}

async fn status(client: &Client, service: Option<&str>, watch: bool, form: Form) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    let paint = screen::Paint::of_terminal(is_terminal);
    loop {
        let text = match (client.status().await, form) {
            (Ok(status), Form::Text) => screen::status(&only(status, service)?, paint),
            (Ok(status), Form::Json) => {
                print_json(&only(status, service)?);
                String::new()
            }
            // A user who watches the status wants to see the proxy come back.
            (Err(error @ ClientError::NoAnswer { .. }), Form::Text) if watch && is_terminal => format!("{error}\n"),
            (Err(error), _) => return Err(error.into()),
        };
        if watch && is_terminal && form == Form::Text {
            // The text overwrites the screen, and each line is cleared to its end, so that nothing flickers.
            print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")));
        } else {
            print(&text);
        }
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// Returns the status without the services other than the one named.
fn only(mut status: Status, service: Option<&str>) -> Result<Status, Failure> {
    if let Some(name) = service {
        let known: Vec<_> = status.services.keys().map(String::as_str).collect();
        args::pick(Some(name), &known).map_err(Failure::Usage)?;
        status.services.retain(|known, _| known == name);
    }
    Ok(status)
}

async fn rehearsal(client: &Client, service: Option<&str>, form: Form) -> Result<(), Failure> {
    let status = client.status().await?;
    let known: Vec<_> = status.services.keys().map(String::as_str).collect();
    let report = client.rehearsal(args::pick(service, &known).map_err(Failure::Usage)?).await?;
    match form {
        Form::Text => print(&screen::rehearsal(&report)),
        Form::Json => print_json(&report),
    }
    Ok(())
}

async fn reload(client: &Client, form: Form) -> Result<(), Failure> {
    let reloaded = client.reload(&args::who()).await?;
    match form {
        Form::Json => print_json(&reloaded),
        Form::Text if reloaded.changes.is_empty() => print("reloaded; nothing has changed\n"),
        Form::Text => {
            let lines: String = reloaded.changes.iter().map(|change| format!("  {change}\n")).collect();
            print(&format!("reloaded\n{lines}"));
        }
    }
    Ok(())
}

async fn upgrade(client: &Client, form: Form) -> Result<(), Failure> {
    let upgraded = client.upgrade(&args::who()).await?;
    match form {
        Form::Json => print_json(&upgraded),
        Form::Text => print(&format!(
            "upgraded: process {} serves, process {} finishes what it has in flight\n",
            upgraded.to_pid, upgraded.from_pid
        )),
    }
    Ok(())
}
