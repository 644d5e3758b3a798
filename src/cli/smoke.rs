//! Runs `cutover smoke`: tests a color, prints the transcript, and appends the outcome to the ledger.
//!
//! The verb needs neither a proxy nor a config. Without a config it inspects only containers that are named, and writes
//! to the default ledger.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{SmokeArgs, who};
use super::connect::reach;
use super::failure::Failure;
use super::output::{Form, complain, print, print_json};
use crate::config::{self, ColorConfig, Config, EnvFile, Service};
use crate::deploy::base_url::{BaseUrl, ProbeScheme};
use crate::deploy::smoke::{ReadyCheck, SmokeFailure, SmokePassed, SmokeTest, line, run};
use crate::docker::ContainerSelector;
use crate::ledger::redact::Secrets;
use crate::ledger::{self, Place};

/// Tests a color.
pub(super) async fn smoke(args: SmokeArgs, config: Option<&Path>, form: Form) -> Result<ExitCode, Failure> {
    if args.url.scheme() == ProbeScheme::Grpc && (args.expect_version.is_some() || args.expect_service.is_some()) {
        let why = format!("{}: gRPC has no /version; leave out --expect-version and --expect-service", args.url);
        return Err(Failure::Usage(why));
    }
    let config = match (config, config::find(config)) {
        (_, Ok(path)) => Some(reach(&path)?),
        // No config was named or found, so the defaults apply.
        (None, Err(_)) => None,
        (Some(_), Err(problems)) => return Err(problems.into()),
    };
    let known = config.as_ref().and_then(|config| color_at(config, &args.url));
    let containers = match (args.container, args.project) {
        (Some(name), _) => Some(ContainerSelector::Named(name)),
        (None, Some(project)) => Some(ContainerSelector::Project(project)),
        (None, None) if args.no_container => None,
        (None, None) => known.and_then(|(_, color)| color.project.clone()).map(ContainerSelector::Project),
    };
    let test = SmokeTest {
        base: args.url.announced(known.and_then(|(service, _)| service.upstream.proxy_protocol)),
        ready: ReadyCheck::Readyz,
        expect_version: args.expect_version,
        expect_service: args.expect_service,
        timeout: args.timeout,
        containers,
        error_lines_max: args.max_errors,
        secrets: known.map_or_else(Secrets::default, |(_, color)| secrets(color)),
    };
    let outcome = run(&test, &mut |line| {
        if form == Form::Text {
            print(&format!("{line}\n"));
        }
    })
    .await;
    // Without a config, the head of the ledger's chain is not known.
    let alone = || Place { path: PathBuf::from(config::LEDGER), head: None };
    let place = config.map_or_else(alone, |config| Place::new(&config.state.ledger, &config.state.dir));
    if let Err(error) = ledger::append(&place, &line(&test.base, &outcome, &who())) {
        let path = place.path.display();
        complain(&format!(
            "cutover: cannot write the outcome to the ledger {path}: {error}; may this user write there?\n"
        ));
    }
    if form == Form::Json {
        print_json(&summary(&test.base, &outcome));
    }
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Returns the secrets of a color's env file, which are hidden in its logs; none where the file cannot be read.
fn secrets(color: &ColorConfig) -> Secrets {
    let file = color.env_file.as_deref().and_then(|path| EnvFile::load(path).ok());
    file.as_ref().map(Secrets::of).unwrap_or_default()
}

/// Finds the color that listens at `base`.
fn color_at<'c>(config: &'c Config, base: &BaseUrl) -> Option<(&'c Service, &'c ColorConfig)> {
    let is_local = |host: &str| host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let same_host = |host: &str| host == base.host() || is_local(host) && is_local(base.host());
    let colors_of = |service: &'c Service| service.colors.iter().map(move |color| (service, color));
    let mut colors = config.services.iter().flat_map(colors_of);
    colors.find(|(_, color)| color.upstreams.iter().any(|at| at.port == base.port() && same_host(&at.host)))
}

fn summary(base: &BaseUrl, outcome: &Result<SmokePassed, SmokeFailure>) -> Value {
    match outcome {
        Ok(SmokePassed { version, service, containers }) => json!({
            "url": base.to_string(), "passed": true, "service": service, "version": version, "containers": containers,
        }),
        Err(SmokeFailure { check, cause }) => {
            json!({ "url": base.to_string(), "passed": false, "check": check, "why": cause.to_string() })
        }
    }
}
