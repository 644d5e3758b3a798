//! `deploy`, and `rollback --to-tag`: finds the service, runs the runbook, shows how it ended.

use std::path::Path;
use std::process::ExitCode;

use super::args::{pick, who};
use super::failure::Failure;
use super::{Form, complain, in_runtime};
use crate::api::client::{Client, ClientError};
use crate::api::status::{Refusal, RefusalCode};
use crate::config::Config;
use crate::deploy::deploy::{self, Ended, Order};
use crate::deploy::journal::Intent;
use crate::deploy::show::Show;
use crate::deploy::site::Site;
use crate::domain::release::Strategy;
use crate::ledger::without_secrets;

/// Brings `tag` into production.
pub(super) fn deploy(
    path: &Path,
    service: Option<&str>,
    intent: Intent,
    strategy: Option<Strategy>,
    tag: String,
    dry_run: bool,
    form: Form,
) -> Result<ExitCode, Failure> {
    let config = Config::load(path)?;
    let known: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    let name = pick(service, &known).map_err(Failure::Usage)?;
    let service = config.services.iter().find(|service| service.name == name).expect("it was picked from them");
    let strategy = strategy.unwrap_or(service.deploy.strategy);
    let order = Order { intent, strategy, tag, dry_run, by: who() };
    let mut show = Show::new(form == Form::Json);
    let (ended, sentence) = in_runtime(async { Ok(deploy::run(&config, service, &order, &mut show).await) })?;
    show.clear();
    match (ended, form) {
        (Ended::Kept, _) | (_, Form::Json) => show.outcome(ended.as_str(), &sentence),
        (_, Form::Text) => complain(&format!("cutover: {}\n", without_secrets(&sentence))),
    }
    Ok(ExitCode::from(ended.exit_code()))
}

/// A rollback was refused: if that is because the release before does not run, and it can be brought up, it is.
pub(super) fn bring_back(
    path: &Path,
    service: Option<&str>,
    refusal: Refusal,
    dry_run: bool,
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
    let known: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    let name = pick(service, &known).map_err(Failure::Usage)?.to_owned();
    let status = in_runtime(async { Ok(Client::new(&config.admin).status().await?) })?;
    let active = status.services.get(&name).map(|service| service.active);
    let service = config.services.iter().find(|service| service.name == name);
    let (Some(active), Some(service)) = (active, service) else { return refused(refusal) };
    let strategy = service.deploy.strategy;
    let Ok(site) = Site::new(&config, service, strategy) else { return refused(refusal) };
    let tag = match strategy {
        // What lies in the other color is what was left, or was never flipped to: nobody is sent there unasked.
        Strategy::BlueGreen if !has_way_back => {
            let help = "; to bring back an older release, use `cutover rollback --to-tag`";
            return refused(Refusal { message: refusal.message + help, ..refusal });
        }
        Strategy::BlueGreen => match in_runtime(async { Ok(site.runs(active.other()).await) })? {
            Ok(true) => None,
            // What ran in it last is what its env file says: a deploy that was not kept has put that back.
            Ok(false) => site.tag(active.other()).ok().flatten(),
            Err(why) => {
                let message = format!("{}; cannot tell whether it runs at all: {why}", refusal.message);
                return refused(Refusal { message, ..refusal });
            }
        },
        // It is never flipped; the ledger knows what was replaced.
        Strategy::Recreate => site.check_env_file(active).ok().and_then(|()| site.tag_before(active)),
    };
    let Some(tag) = tag else { return refused(refusal) };
    complain(&format!("{name}: the previous release is not running; bringing it up again: {tag}\n"));
    deploy(path, Some(&name), Intent::Rollback, Some(strategy), tag, dry_run, form)
}

/// A strategy, as it is typed.
pub(super) fn strategy(text: &str) -> Result<Strategy, &'static str> {
    [Strategy::BlueGreen, Strategy::Recreate]
        .into_iter()
        .find(|strategy| strategy.as_str() == text)
        .ok_or("blue-green or recreate")
}

/// An image tag, as Docker has them.
pub(super) fn tag(text: &str) -> Result<String, &'static str> {
    let is_first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_tag = text.len() <= 128
        && text.bytes().next().is_some_and(is_first)
        && text.bytes().all(|b| is_first(b) || b == b'.' || b == b'-');
    if is_tag { Ok(text.to_owned()) } else { Err("letters, digits, _ . and -, at most 128, such as sha-1f2e3d4") }
}
