//! Finds the services of which there must be only one, such as schedulers and queue workers.
//!
//! The Compose file marks them with the label `cutover.singleton: "true"`. They run in the color that has won and in no
//! other, not even for a moment.

use serde_json::Value;

use crate::deploy::command::Command;
use crate::deploy::compose::{Compose, ComposeError};

/// The label that marks a service.
const LABEL: &str = "cutover.singleton";

impl Compose {
    /// Returns the names of the marked services.
    ///
    /// # Errors
    /// [`ComposeError`]
    pub async fn singletons(&self) -> Result<Vec<String>, ComposeError> {
        let config = self.read_config().await?;
        let services = config["services"].as_object().into_iter().flatten();
        let is_marked = |service: &Value| service["labels"][LABEL].as_str() == Some("true");
        Ok(services.filter(|(_, service)| is_marked(service)).map(|(name, _)| name.clone()).collect())
    }

    /// Builds [`Compose::up`] that starts none of `services`.
    pub fn up_without(&self, services: &[String]) -> Command {
        let none: Vec<_> = services.iter().flat_map(|name| ["--scale".to_owned(), format!("{name}=0")]).collect();
        let args: Vec<_> = ["up", "--detach"].into_iter().chain(none.iter().map(String::as_str)).collect();
        self.command(&args)
    }

    /// Builds `args` for exactly `services`.
    pub fn only(&self, args: &[&str], services: &[String]) -> Command {
        self.command(&[args, &services.iter().map(String::as_str).collect::<Vec<_>>()].concat())
    }
}
