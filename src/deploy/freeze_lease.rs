//! Has the proxy hold requests for a deploy: writes around a migration, everything while containers are replaced.
//!
//! A freeze is a lease that is renewed every second. A deploy that is killed stops renewing, and the proxy then
//! releases the held requests by itself.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::api::client::{Client, ClientError};
use crate::api::{FreezeRequest, ThawRequest};
use crate::domain::freeze::What;

/// The length of the lease.
const LEASE: &str = "5s";
/// The pause between two renewals.
const RENEWAL: Duration = Duration::from_secs(1);
/// The holder that the proxy knows. It is the same for every run, so that the next run takes over the freeze of a
/// killed one; the deploy lock ensures that there is only one run at a time.
const BY: &str = "deploy";
/// The proxy refuses longer reasons.
const WHY_CHARS_MAX: usize = 99;

/// A freeze that is renewed for as long as this value lives.
pub struct FreezeLease {
    what: What,
    renewing: JoinHandle<()>,
    /// The refusal that ended the renewals, once there is one.
    lost: Arc<OnceLock<String>>,
}

impl Drop for FreezeLease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Tells whether the requests in flight ended before the freeze took hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    Finished,
    Unfinished,
}

/// Explains why a freeze does not hold.
#[derive(Debug)]
pub enum FreezeError {
    /// The proxy did not accept it.
    Client(ClientError),
    /// The proxy has ended it; the text is the proxy's.
    Lost(String),
    /// Writes in flight did not end within `freeze.finish`.
    WritesInFlight(Duration),
}

impl fmt::Display for FreezeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FreezeError::Client(error) => error.fmt(f),
            FreezeError::Lost(why) => write!(f, "writes are not held any more: {why}"),
            FreezeError::WritesInFlight(finish) => {
                write!(f, "writes that were in flight have not ended within freeze.finish ({finish:?})")
            }
        }
    }
}

impl std::error::Error for FreezeError {}

impl FreezeLease {
    /// Has the proxy hold `what`, and keeps renewing that with the clients that `connect` makes.
    ///
    /// # Errors
    /// [`FreezeError::Client`]
    pub async fn take(
        connect: impl Fn() -> Client,
        service: &str,
        what: What,
        why: &str,
    ) -> Result<(FreezeLease, InFlight), FreezeError> {
        let client = connect();
        let why = Some(why.chars().take(WHY_CHARS_MAX).collect());
        let begin = FreezeRequest { wait: Some(false), why, ..request(what) };
        client.freeze(service, &begin).await.map_err(FreezeError::Client)?;
        let lost = Arc::<OnceLock<String>>::default();
        let renewing = tokio::spawn(renew(connect(), service.to_owned(), what, Arc::clone(&lost)));
        let lease = FreezeLease { what, renewing, lost };
        let renewal = FreezeRequest { renew: true, ..request(what) };
        let frozen = client.freeze(service, &renewal).await.map_err(FreezeError::Client)?;
        let in_flight = if frozen.quiet == Some(false) { InFlight::Unfinished } else { InFlight::Finished };
        Ok((lease, in_flight))
    }

    /// Returns what is held.
    pub fn what(&self) -> What {
        self.what
    }

    /// Checks that the proxy still holds what it was asked to.
    ///
    /// # Errors
    /// [`FreezeError::Lost`], for writes only: while containers are being replaced there is no way but forward.
    pub fn check(&self) -> Result<(), FreezeError> {
        match (self.what, self.lost.get()) {
            (What::Writes, Some(why)) => Err(FreezeError::Lost(why.clone())),
            (What::All, Some(_)) | (_, None) => Ok(()),
        }
    }

    /// Ends the freeze, and returns a sentence about it. A proxy that does not hear it ends the freeze by itself.
    pub async fn end(self, client: &Client, service: &str, by: &str) -> String {
        drop(self);
        let request = ThawRequest { of: Some(BY.into()), by: Some(by.to_owned()), dry_run: false };
        match client.thaw(service, &request).await {
            Ok(thawed) if thawed.was_frozen => format!("the proxy lets {} held requests go", thawed.held),
            Ok(_) => "the proxy had let the held requests go already".into(),
            Err(error) => format!("the proxy lets the held requests go within {LEASE}: {error}"),
        }
    }
}

fn request(what: What) -> FreezeRequest {
    FreezeRequest { what, lasts: Some(LEASE.into()), by: Some(BY.into()), ..FreezeRequest::default() }
}

/// Renews the freeze until the proxy refuses. A proxy that does not answer may answer the next time; one that was
/// restarted has forgotten the freeze, and refuses.
async fn renew(client: Client, service: String, what: What, lost: Arc<OnceLock<String>>) {
    let request = FreezeRequest { renew: true, wait: Some(false), ..request(what) };
    loop {
        sleep(RENEWAL).await;
        if let Err(ClientError::Refused(refusal)) = client.freeze(&service, &request).await {
            let _ = lost.set(refusal.message); // this task is the only one that sets it
            return;
        }
    }
}
