//! Runs `cutover ledger`: shows the last lines, or checks whether any line was changed since it was written.

use std::process::ExitCode;

use serde_json::json;

use super::failure::Failure;
use super::output::{Form, complain, print, print_json};
use crate::config::Config;
use crate::ledger::{self, Place, Verified, without_chain};

/// Shows the last lines; where a service is named, only its lines.
pub fn show(config: &Config, lines: usize, service: Option<&str>, form: Form) -> Result<(), Failure> {
    let path = &config.state.ledger;
    let found = ledger::tail(path, if service.is_some() { usize::MAX } else { lines });
    let found = found.map_err(|error| {
        Failure::Failed(format!("cannot read the ledger {}: {error}; may this user read it?", path.display()))
    })?;
    let is_of = |line: &String| service.is_none_or(|service| ledger::service_of(line) == Some(service));
    let found: Vec<_> = found.into_iter().filter(is_of).collect();
    let last = &found[found.len().saturating_sub(lines)..];
    match form {
        Form::Json => print_json(&json!({ "ledger": path, "lines": last })),
        Form::Text if last.is_empty() => complain(&format!("{} has no such lines yet\n", path.display())),
        Form::Text => print(&last.iter().map(|line| format!("{}\n", without_chain(line))).collect::<String>()),
    }
    Ok(())
}

/// Reports the lines that were changed since they were written; the exit code is 1 if there are any.
pub fn verify(config: &Config, form: Form) -> Result<ExitCode, Failure> {
    let place = Place::new(&config.state.ledger, &config.state.dir);
    let path = place.path.display();
    let verified = ledger::verify_file(&place)
        .map_err(|error| Failure::Failed(format!("cannot read the ledger {path}: {error}; may this user read it?")))?;
    match form {
        Form::Json => {
            print_json(&json!({ "ledger": place.path, "whole": verified.faults.is_empty(), "found": verified }))
        }
        Form::Text => print(&said(&place, &verified)),
    }
    Ok(if verified.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn said(place: &Place, verified: &Verified) -> String {
    let path = place.path.display();
    let each = |kind: &str, findings: &[ledger::Finding]| {
        findings.iter().map(|found| format!("{path}:{}: {kind}{}\n", found.line, found.what)).collect::<String>()
    };
    let Verified { lines, chained, begins, faults, remarks } = verified;
    let chain = match begins {
        Some(begins) => format!("{chained} of {lines} lines are chained, from line {begins} on"),
        None => format!("none of {lines} lines is chained"),
    };
    let verdict = match faults.len() {
        0 => "none was changed since it was written".to_owned(),
        1 => "1 fault found".to_owned(),
        n => format!("{n} faults found"),
    };
    format!("{}{}{path}: {chain}; {verdict}\n", each("", faults), each("note: ", remarks))
}
