//! Runs `cutover deploy` and `cutover rollback --to-tag`: finds the service, deploys, and shows the outcome.

use std::path::Path;
use std::process::ExitCode;

use super::args::{pick, who};
use super::connect::in_runtime;
use super::failure::Failure;
use super::output::{Form, complain};
use crate::api::client::{Client, ClientError};
use crate::api::{Refusal, RefusalCode};
use crate::config::{Config, Service};
use crate::deploy::journal::Intent;
use crate::deploy::outcome::Outcome;
use crate::deploy::progress::Progress;
use crate::deploy::request::{DeployRequest, Mode};
use crate::deploy::start;
use crate::deploy::target::DeployTarget;
use crate::domain::Color;
use crate::domain::release::Strategy;
use crate::ledger::without_secrets;

/// The arguments of `deploy` or `rollback --to-tag`.
pub(super) struct DeployArgs<'a> {
    pub(super) service: Option<&'a str>,
    pub(super) intent: Intent,
    /// The strategy of the config applies where this is `None`.
    pub(super) strategy: Option<Strategy>,
    pub(super) tag: String,
    pub(super) mode: Mode,
}

/// Brings a tag into production.
pub(super) fn deploy(path: &Path, args: DeployArgs<'_>, form: Form) -> Result<ExitCode, Failure> {
    let DeployArgs { service, intent, strategy, tag, mode } = args;
    let config = Config::load(path)?;
    let service = find_service(&config, service)?;
    let strategy = strategy.unwrap_or(service.deploy.strategy);
    let request = DeployRequest { intent, strategy, tag, mode, by: who() };
    let mut progress = match form {
        Form::Json => Progress::events(),
        Form::Text => Progress::text(),
    };
    let report = in_runtime(async { Ok(start::run(&config, service, &request, &mut progress).await) })?;
    progress.clear();
    match (report.outcome, form) {
        (Outcome::Kept, _) | (_, Form::Json) => progress.outcome(report.outcome.as_str(), &report.sentence),
        (_, Form::Text) => complain(&format!("cutover: {}\n", without_secrets(&report.sentence))),
    }
    Ok(ExitCode::from(report.outcome.exit_code()))
}

fn find_service<'c>(config: &'c Config, named: Option<&str>) -> Result<&'c Service, Failure> {
    let known: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    let name = pick(named, &known).map_err(Failure::Usage)?;
    Ok(config.services.iter().find(|service| service.name == name).expect("it was picked from them"))
}

/// Handles a refused rollback. Where the proxy refused because the earlier release does not run, this brings that
/// release up again; otherwise the refusal stands.
pub(super) fn bring_back(
    path: &Path,
    service: Option<&str>,
    refusal: Refusal,
    mode: Mode,
    form: Form,
) -> Result<ExitCode, Failure> {
    let refused = |refusal| Err(Failure::Client(ClientError::Refused(refusal)));
    let has_way_back = match refusal.code {
        RefusalCode::NotReady => true,
        RefusalCode::NothingToRollBack => false,
        RefusalCode::BadRequest
        | RefusalCode::UnknownService
        | RefusalCode::AlreadyActive
        | RefusalCode::RehearsalFailed
        | RefusalCode::CutoverUnderWay
        | RefusalCode::StaleEpoch
        | RefusalCode::AlreadyFrozen
        | RefusalCode::NotFrozen
        | RefusalCode::StateUnwritable
        | RefusalCode::BadConfig
        | RefusalCode::PreviewOff
        | RefusalCode::UpgradeFailed
        | RefusalCode::Stopping => return refused(refusal),
    };
    let config = Config::load(path)?;
    let service = find_service(&config, service)?;
    let name = &service.name;
    let status = in_runtime(async { Ok(Client::new(&config.admin).status().await?) })?;
    let Some(active) = status.services.get(name).map(|service| service.active) else { return refused(refusal) };
    let strategy = service.deploy.strategy;
    let Ok(target) = DeployTarget::new(&config, service, strategy) else { return refused(refusal) };
    let tag = match strategy {
        // The other color holds an older release, or one that was never flipped to, so no traffic goes there unless an
        // operator asks for it.
        Strategy::BlueGreen if !has_way_back => {
            let help = "; to bring back an older release, use `cutover rollback --to-tag`";
            return refused(Refusal { message: refusal.message + help, ..refusal });
        }
        Strategy::BlueGreen => match stopped_tag(&target, active.other()) {
            Ok(tag) => tag,
            Err(why) => return refused(Refusal { message: format!("{}; {why}", refusal.message), ..refusal }),
        },
        // A service with one color is never flipped, but the ledger records which tag was replaced.
        Strategy::Recreate => target.check_env_file(active).ok().and_then(|()| target.tag_before(active)),
    };
    let Some(tag) = tag else { return refused(refusal) };
    complain(&format!("{name}: the previous release is not running; bringing it up again: {tag}\n"));
    let args = DeployArgs { service: Some(name), intent: Intent::Rollback, strategy: Some(strategy), tag, mode };
    deploy(path, args, form)
}

/// Returns the tag of a stopped color from its env file, which a deploy that failed has restored. A running color has
/// none.
fn stopped_tag(target: &DeployTarget<'_>, color: Color) -> Result<Option<String>, String> {
    match in_runtime(async { Ok(target.runs(color).await) }) {
        Ok(Ok(true)) => Ok(None),
        Ok(Ok(false)) => Ok(target.tag(color).ok().flatten()),
        Ok(Err(error)) => Err(format!("cannot tell whether it runs at all: {error}")),
        Err(failure) => Err(failure.to_string()),
    }
}
