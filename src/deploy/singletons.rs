//! Services of which there must be one: schedulers and queue workers, marked in the Compose file by the label
//! `cutover.singleton: "true"`. They run in the color that has won, and in no other, not even for a moment.

use serde_json::Value;

use crate::deploy::command::{Command, Output};
use crate::deploy::compose::{ANSWER_TIMEOUT, Compose};
use crate::deploy::steps::{Halt, Run};
use crate::domain::Color;

/// What marks a service.
const LABEL: &str = "cutover.singleton";

impl Compose {
    /// The services that are marked.
    ///
    /// # Errors
    /// The file is not valid; a sentence.
    pub async fn singletons(&self) -> Result<Vec<String>, String> {
        let Output { stdout, .. } = self.config().run(ANSWER_TIMEOUT).await.map_err(|failure| failure.to_string())?;
        let config: Value = serde_json::from_str(&stdout)
            .map_err(|error| format!("docker compose config says what is not understood: {error}"))?;
        let services = config["services"].as_object().into_iter().flatten();
        let is_marked = |service: &Value| service["labels"][LABEL].as_str() == Some("true");
        Ok(services.filter(|(_, service)| is_marked(service)).map(|(name, _)| name.clone()).collect())
    }

    /// As [`Compose::up`], with none of `services`.
    pub fn up_without(&self, services: &[String]) -> Command {
        let none: Vec<_> = services.iter().flat_map(|name| ["--scale".to_owned(), format!("{name}=0")]).collect();
        let args: Vec<_> = ["up", "--detach"].into_iter().chain(none.iter().map(String::as_str)).collect();
        self.command(&args)
    }

    fn only(&self, args: &[&str], services: &[String]) -> Command {
        self.command(&[args, &services.iter().map(String::as_str).collect::<Vec<_>>()].concat())
    }
}

impl Run<'_> {
    /// Stops them in `from`, waits until they are, and starts them where the release is.
    pub(super) async fn move_singletons(&mut self, from: Option<Color>) -> Result<(), Halt> {
        let to = self.site.compose(self.journal.color)?;
        let services = to.singletons().await?;
        if services.is_empty() {
            return Ok(());
        }
        let limit = self.site.deploy().up_timeout;
        if let Some(from) = from {
            let stop = self.site.compose(from)?.only(&["stop"], &services);
            self.show.command(&stop);
            stop.run(limit).await?;
        }
        let start = to.only(&["up", "--detach", "--no-deps"], &services);
        self.show.command(&start);
        start.run(limit).await?;
        self.show.note(&format!("{} run in {} now, and nowhere else", services.join(", "), self.journal.color));
        Ok(())
    }
}
