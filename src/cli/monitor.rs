//! Runs `cutover monitor`: prints the monitoring checklist, and exits with code 1 where an item is not well.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::args::pick;
use super::connect::{client, in_runtime};
use super::failure::Failure;
use super::output::{Form, print, print_json};
use crate::config::Config;
use crate::deploy::monitor::{self, CheckStatus, ChecklistItem, MonitorError};

/// Checks one service, or all of them.
pub fn monitor(path: &Path, service: Option<&str>, over: Duration, form: Form) -> Result<ExitCode, Failure> {
    let config = Config::load(path)?;
    let known: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    let only = service.map(|service| pick(Some(service), &known)).transpose().map_err(Failure::Usage)?;
    let client = client(path)?;
    let services = config.services.iter().filter(|service| only.as_ref().is_none_or(|only| *only == service.name));
    let mut is_well = true;
    let mut all = serde_json::Map::new();
    for service in services {
        let items = in_runtime(async { monitor::run(service, &client, over).await.map_err(failure) })?;
        is_well &= items.iter().all(|item| matches!(item.standing, CheckStatus::Ok | CheckStatus::None));
        if form == Form::Text {
            print(&text(&service.name, &items));
        }
        all.insert(service.name.clone(), json!(items));
    }
    if form == Form::Json {
        print_json(&json!({ "well": is_well, "services": all }));
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn failure(blind: MonitorError) -> Failure {
    match blind {
        MonitorError::NoStatus(error) => Failure::Client(error),
        MonitorError::NoService(_) => Failure::Failed(blind.to_string()),
    }
}

fn text(service: &str, items: &[ChecklistItem]) -> String {
    let mut out = format!("{service}\n");
    for ChecklistItem { name, standing, findings } in items {
        for (at, finding) in findings.iter().enumerate() {
            let (standing, name) = if at == 0 { (standing.to_string(), *name) } else { (String::new(), "") };
            out += &format!("  {standing:<8} {name:<13} {finding}\n");
        }
    }
    out
}
