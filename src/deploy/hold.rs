//! What a deploy has the proxy hold: writes around a migration, everything while containers are replaced.
//!
//! The proxy lets go by itself when it is not asked again: a deploy that is killed holds nobody for long.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::api::client::{Client, ClientError};
use crate::api::status::{FreezeRequest, ThawRequest};
use crate::deploy::journal::Intent;
use crate::deploy::site::Site;
use crate::deploy::steps::{Halt, Run};
use crate::domain::freeze::What;
use crate::domain::release::{Step, Strategy};

/// For how long the proxy is asked to hold.
const LEASE: &str = "5s";
/// How often it is asked again.
const RENEWAL: Duration = Duration::from_secs(1);
/// Who holds. The next run goes on with what a killed one held, whoever runs it: the lock lets no two run at once.
const BY: &str = "deploy";
/// The proxy takes no longer ones.
const WHY_CHARS_MAX: usize = 99;

/// A freeze that is renewed while this lives.
pub struct Kept {
    what: What,
    renewing: JoinHandle<()>,
    /// Why it could not be renewed any more.
    lost: Arc<OnceLock<String>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Whether writes are to be held around the data: a rollback leaves the data alone.
pub fn freezes(site: &Site<'_>, intent: Intent) -> bool {
    let deploy = site.deploy();
    let has_data = !deploy.backup.command.is_empty() || !deploy.migrate.command.is_empty();
    deploy.freeze && has_data && intent == Intent::Deploy
}

fn request(what: What) -> FreezeRequest {
    FreezeRequest { what, lasts: Some(LEASE.into()), by: Some(BY.into()), ..FreezeRequest::default() }
}

/// Renews until it is refused. A proxy that does not answer may do so again in time; one that was restarted refuses.
async fn renew(client: Client, service: String, what: What, lost: Arc<OnceLock<String>>) {
    let request = FreezeRequest { renew: true, wait: Some(false), ..request(what) };
    loop {
        sleep(RENEWAL).await;
        if let Err(ClientError::Refused(refusal)) = client.freeze(&service, &request).await {
            let _ = lost.set(refusal.message); // nobody else sets it
            return;
        }
    }
}

impl Run<'_> {
    /// Has the proxy hold what `step` needs held, and let the rest go.
    ///
    /// # Errors
    /// [`Halt`]: it cannot be held, or is not any more.
    pub(super) async fn hold_for(&mut self, step: Step) -> Result<(), Halt> {
        let wanted = self.journal.strategy.holds(step, freezes(self.site, self.journal.intent));
        // A release that was flipped to before this run is only followed.
        let is_late = matches!(step, Step::EnvFile | Step::Flip) && self.kept.is_none();
        match wanted.filter(|_| !is_late) {
            Some(what) => self.hold(what).await,
            None => {
                self.let_go().await;
                Ok(())
            }
        }
    }

    async fn hold(&mut self, what: What) -> Result<(), Halt> {
        match &self.kept {
            Some(kept) if kept.what == what => {
                return match (what, kept.lost.get()) {
                    (What::Writes, Some(why)) => Err(format!("writes are not held any more: {why}").into()),
                    // The containers are being replaced already: there is only forward.
                    (What::All, Some(_)) | (_, None) => Ok(()),
                };
            }
            Some(_) | None => {}
        }
        let (client, service) = (&self.site.client, self.journal.service.clone());
        let why = format!("{} of {} by {}", self.journal.intent.as_str(), self.journal.tag, self.journal.by);
        let why = Some(why.chars().take(WHY_CHARS_MAX).collect());
        let begin = FreezeRequest { wait: Some(false), why, ..request(what) };
        client.freeze(&service, &begin).await.map_err(halt)?;
        let lost = Arc::<OnceLock<String>>::default();
        let renewing = renew(Client::new(&self.site.config.admin), service.clone(), what, Arc::clone(&lost));
        self.kept = Some(Kept { what, renewing: tokio::spawn(renewing), lost });
        let frozen = client.freeze(&service, &FreezeRequest { renew: true, ..request(what) }).await.map_err(halt)?;
        let finish = self.site.service.freeze.finish;
        match (what, frozen.quiet) {
            (What::Writes, Some(false)) => {
                return Err(
                    format!("writes that were in flight have not ended within freeze.finish ({finish:?})").into()
                );
            }
            (What::All, Some(false)) => {
                self.show.note(&format!("requests that were in flight have not ended within {finish:?}; going on"));
            }
            (What::Writes | What::All, Some(true) | None) => {}
        }
        self.show.note(match what {
            What::Writes => "the proxy holds writes",
            What::All => "the proxy holds all requests",
        });
        Ok(())
    }

    /// Lets go what this run had held. Where the proxy does not hear it, it does so by itself.
    pub(super) async fn let_go(&mut self) {
        if self.kept.take().is_none() {
            return;
        }
        let request = ThawRequest { of: Some(BY.into()), by: Some(self.journal.by.clone()), dry_run: false };
        let said = match self.site.client.thaw(&self.journal.service, &request).await {
            Ok(thawed) if thawed.was_frozen => format!("the proxy lets {} held requests go", thawed.held),
            Ok(_) => "the proxy had let the held requests go already".into(),
            Err(error) => format!("the proxy lets the held requests go within {LEASE}: {error}"),
        };
        self.show.note(&said);
    }

    /// Puts the project as it was before: running what it ran, or stopped. What has no other color waits meanwhile.
    ///
    /// # Errors
    /// It may be neither; a sentence.
    pub(super) async fn put_back(&mut self) -> Result<String, String> {
        if self.journal.strategy == Strategy::Recreate
            && let Err(halt) = self.hold(What::All).await
        {
            self.show.note(&format!("requests are not held meanwhile: {halt}"));
        }
        let put_back = self.bring_back().await;
        self.let_go().await;
        put_back
    }
}

fn halt(error: ClientError) -> Halt {
    match error {
        ClientError::Refused(refusal) => Halt::Refused(refusal.code.exit_code(), refusal.message),
        ClientError::NoAnswer { .. } | ClientError::Denied(_) | ClientError::Strange { .. } => Halt::Lost(error),
    }
}
