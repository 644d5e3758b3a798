//! Passes to idle colors: the key they are made with, and making one.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;

use crate::api::{Pass, Refusal, RefusalCode};
use crate::config::Config;
use crate::control::saved_state::StateFolder;
use crate::control::service::ServiceState;
use crate::os::clock;
use crate::routing::preview_token::PreviewKey;

/// The key that is kept in the state folder. If it cannot be kept, one for this run.
///
/// # Errors
/// There is no randomness for a key.
pub(in crate::control) fn key(
    config: &Config,
    store: &StateFolder,
    problems: &mut Vec<String>,
) -> Result<Arc<PreviewKey>, Unspecified> {
    let fresh = PreviewKey::random_bytes()?;
    let bytes = store.preview_key(fresh).unwrap_or_else(|error| {
        if config.services.iter().any(|service| service.preview.enabled) {
            let folder = config.state.dir.display();
            let problem =
                format!("{folder}: the key of preview passes cannot be kept: {error}; a restart makes passes void");
            tracing::warn!("{problem}");
            problems.push(problem);
        }
        fresh
    });
    Ok(Arc::new(PreviewKey::new(&bytes)))
}

/// Makes a pass to the idle color of a service that is good for `lasting`; `by` says who wants it, for the log.
///
/// # Errors
/// The service has no preview.
pub(in crate::control) fn pass(
    name: &str,
    service: &ServiceState,
    lasting: Duration,
    by: &str,
) -> Result<Pass, Refusal> {
    let Some(gate) = &service.route.service().info.preview else {
        let message = format!(
            "{name} has no preview: set enabled = true in [service.{name}.preview], and reload (HUP, or `cutover reload`)"
        );
        return Err(Refusal { code: RefusalCode::PreviewOff, message });
    };
    let until = clock::unix_now().saturating_add(lasting.as_secs());
    tracing::info!(service = name, by, until = clock::utc_of(until), "a preview pass was made");
    Ok(Pass {
        service: name.to_owned(),
        color: service.machine.active().other(),
        token: gate.sign(until),
        expires: clock::utc_of(until),
        door: gate.entry_path(),
    })
}
