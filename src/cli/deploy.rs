//! `deploy`, and `rollback --to-tag`: finds the service, runs the runbook, shows how it ended.

use std::path::Path;
use std::process::ExitCode;

use super::args::{pick, who};
use super::failure::Failure;
use super::{Form, complain, in_runtime};
use crate::config::Config;
use crate::runbook::deploy::{self, Ended, Order};
use crate::runbook::journal::Intent;
use crate::runbook::show::Show;

/// Brings `tag` into production.
pub(super) fn deploy(
    path: &Path,
    service: Option<&str>,
    intent: Intent,
    tag: String,
    dry_run: bool,
    form: Form,
) -> Result<ExitCode, Failure> {
    let config = Config::load(path)?;
    let known: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    let name = pick(service, &known).map_err(Failure::Usage)?;
    let service = config.services.iter().find(|service| service.name == name).expect("it was picked from them");
    let order = Order { intent, tag, dry_run, by: who() };
    let mut show = Show::new(form == Form::Json);
    let (ended, sentence) = in_runtime(async { Ok(deploy::run(&config, service, &order, &mut show).await) })?;
    match (ended, form) {
        (Ended::Kept, _) | (_, Form::Json) => show.outcome(ended.as_str(), &sentence),
        (_, Form::Text) => complain(&format!("cutover: {sentence}\n")),
    }
    Ok(ExitCode::from(ended.exit_code()))
}

/// An image tag, as Docker has them.
pub(super) fn tag(text: &str) -> Result<String, &'static str> {
    let is_first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_tag = text.len() <= 128
        && text.bytes().next().is_some_and(is_first)
        && text.bytes().all(|b| is_first(b) || b == b'.' || b == b'-');
    if is_tag { Ok(text.to_owned()) } else { Err("letters, digits, _ . and -, at most 128, such as sha-1f2e3d4") }
}
