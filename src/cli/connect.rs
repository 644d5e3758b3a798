//! Connects a verb to the proxy, by the admin address of the config.

use std::path::Path;

use super::failure::Failure;
use super::output::complain;
use crate::api::client::Client;
use crate::config::Config;

/// Reads the parts of the config that a client needs. A file that was broken since the proxy started must not keep an
/// operator from rolling back.
pub(super) fn reach(path: &Path) -> Result<Config, Failure> {
    let (config, problems) = Config::load_for_client(path)?;
    if let Some(problems) = problems {
        complain(&format!(
            "cutover: the config is not valid; going on with its [admin] and [state]. See `cutover check`\n{problems}\n"
        ));
    }
    Ok(config)
}

pub(super) fn client(path: &Path) -> Result<Client, Failure> {
    Ok(Client::new(&reach(path)?.admin))
}

pub(super) fn in_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(Failure::Failed(format!("cannot start the runtime: {error}; are too many files open?"))),
    }
}
