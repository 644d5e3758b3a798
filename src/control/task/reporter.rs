//! Tells the world: lines for the ledger, events for whoever listens, and answers that follow their lines.

use std::time::Duration;

use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

use crate::api::{Event, EventKind};
use crate::control::messages::Announcement;
use crate::ledger::{Ledger, Line};
use crate::os::clock;

/// An answer waits so long for its line to be in the ledger; a hanging disk must not keep a caller for ever.
const LEDGER_WAIT: Duration = Duration::from_secs(2);

/// The way to the ledger, the event stream, the log, and those who ask.
pub(in crate::control) struct Reporter {
    ledger: Ledger,
    events: broadcast::Sender<Event>,
}

impl Reporter {
    pub(in crate::control) fn new(ledger: Ledger, events: broadcast::Sender<Event>) -> Self {
        Reporter { ledger, events }
    }

    pub(in crate::control) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Writes what happened to a service into the ledger, and emits it.
    pub(in crate::control) fn announce(&self, service: &str, Announcement { kind, sentence, line }: Announcement) {
        self.ledger.write(line);
        self.emit(kind, Some(service), sentence);
    }

    /// Writes a line into the ledger.
    pub(in crate::control) fn write(&self, line: Line) {
        self.ledger.write(line);
    }

    /// Sends an event to whoever listens, and to the log.
    pub(in crate::control) fn emit(&self, kind: EventKind, service: Option<&str>, message: String) {
        match kind {
            EventKind::Rollback | EventKind::Refused => tracing::warn!(service, kind = kind.as_str(), "{message}"),
            EventKind::Flip
            | EventKind::Drained
            | EventKind::Verdict
            | EventKind::Freeze
            | EventKind::Thaw
            | EventKind::Health
            | EventKind::Reload
            | EventKind::Upgrade => {
                tracing::info!(service, kind = kind.as_str(), "{message}");
            }
        }
        let event = Event { at: clock::utc(), kind, service: service.map(str::to_owned), message };
        // Nobody may be listening.
        drop(self.events.send(event));
    }

    /// Answers once the ledger has the lines that led to the answer.
    pub(in crate::control) fn reply<T: Send + 'static>(&self, answer: oneshot::Sender<T>, value: T) {
        self.reply_after(answer, async { value });
    }

    /// As [`Reporter::reply`], with a value that is waited for first.
    pub(in crate::control) fn reply_after<T: Send + 'static>(
        &self,
        answer: oneshot::Sender<T>,
        value: impl Future<Output = T> + Send + 'static,
    ) {
        let reached = self.ledger.reached();
        tokio::spawn(async move {
            let value = value.await;
            drop(timeout(LEDGER_WAIT, reached).await);
            // An asker that has left does not care any more.
            drop(answer.send(value));
        });
    }

    /// Waits until the ledger has every line so far, or `limit` has passed.
    pub(in crate::control) async fn flush(&self, limit: Duration) {
        drop(timeout(limit, self.ledger.reached()).await);
    }
}
