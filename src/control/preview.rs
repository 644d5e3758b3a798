//! Passes to idle colors: the key they are made with, making one, and seeing guests off before their color is stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::error::Unspecified;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::answer::unknown;
use super::state::Store;
use super::task::Task;
use super::words::seconds;
use crate::clock;
use crate::config::Config;
use crate::preview::Key;
use crate::status::{Drained, Pass, Refusal, RefusalCode};
use crate::switch::{Guests, Tenure};

/// Between two looks at whether guests have left.
const LOOK: Duration = Duration::from_millis(20);
/// What guests that were sent away have to end in.
const FAREWELL: Duration = Duration::from_secs(1);

/// The key that is kept in the state folder. If it cannot be kept, one for this run.
///
/// # Errors
/// There is no randomness for a key.
pub(super) fn key(config: &Config, store: &Store, problems: &mut Vec<String>) -> Result<Arc<Key>, Unspecified> {
    let fresh = Key::random_bytes()?;
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
    Ok(Arc::new(Key::new(&bytes)))
}

impl Task {
    pub(super) fn pass(&self, name: &str, lasting: Duration, by: &str) -> Result<Pass, Refusal> {
        let managed = self.services.get(name).ok_or_else(|| unknown(name))?;
        let Some(gate) = &managed.service.info.preview else {
            let message = format!(
                "{name} has no preview: set enabled = true in [service.{name}.preview], and reload (HUP, or `cutover reload`)"
            );
            return Err(Refusal { code: RefusalCode::PreviewOff, message });
        };
        let until = clock::unix_now().saturating_add(lasting.as_secs());
        tracing::info!(service = name, by, until = clock::utc_of(until), "a preview pass was made");
        Ok(Pass {
            service: name.to_owned(),
            color: managed.machine.active().other(),
            token: gate.sign(until),
            expires: clock::utc_of(until),
            door: gate.door(),
        })
    }

    /// Answers once nobody is on the idle color any more; after `drain.timeout` guests are sent away.
    pub(super) fn see_guests_off(&self, name: &str, answer: oneshot::Sender<Result<Drained, Refusal>>) {
        let Some(managed) = self.services.get(name) else { return self.reply(answer, Err(unknown(name))) };
        let color = managed.machine.active().other();
        let (service, drained) = (Arc::clone(&managed.service), managed.last_drain);
        let leaving = self.leaving.iter().filter(|left| left.service == name).map(|left| &left.tenure);
        let tenures = leaving.chain([managed.tenure()]).filter(|tenure| tenure.standby.color == color);
        let guests: Arc<[Guests]> = tenures.map(Tenure::guests).collect();
        let in_flight = {
            let guests = Arc::clone(&guests);
            // Once the color takes the traffic again, whoever is there stays.
            let is_idle = move || service.route.load().active != color;
            move || if is_idle() { guests.iter().map(Guests::in_flight).sum() } else { 0_u64 }
        };
        if in_flight() == 0 {
            return self.reply(answer, Ok(drained));
        }
        let (limit, wake) = (managed.config.drain.timeout, Arc::clone(&self.wake_workers));
        let began = Instant::now();
        tokio::spawn(async move {
            let until = async |limit: Duration| {
                while in_flight() > 0 && began.elapsed() < limit {
                    sleep(LOOK).await;
                }
                in_flight()
            };
            let cut = until(limit).await;
            if cut > 0 {
                guests.iter().for_each(Guests::send_away);
                wake();
                until(limit + FAREWELL).await;
            }
            // An asker that has left does not care any more.
            drop(answer.send(Ok(Drained { seconds: seconds(began.elapsed()), cut })));
        });
    }
}
