//! Moves the singleton services to the color that has won.

use crate::deploy::run::{DeployRun, StepError};
use crate::domain::Color;

impl DeployRun<'_> {
    /// Stops the singletons in `from`, waits until they have ended, and starts them in the color of the release.
    pub(super) async fn move_singletons(&mut self, from: Option<Color>) -> Result<(), StepError> {
        let to = self.target.compose(self.journal.release.color)?;
        let services = to.singletons().await?;
        if services.is_empty() {
            return Ok(());
        }
        let limit = self.target.deploy().up_timeout;
        if let Some(from) = from {
            let stop = self.target.compose(from)?.only(&["stop"], &services);
            self.progress.command(&stop);
            stop.run(limit).await?;
        }
        let start = to.only(&["up", "--detach", "--no-deps"], &services);
        self.progress.command(&start);
        start.run(limit).await?;
        self.progress.note(&format!(
            "{} run in {} now, and nowhere else",
            services.join(", "),
            self.journal.release.color
        ));
        Ok(())
    }
}
