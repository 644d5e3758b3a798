//! Freezes as operators make and end them: a route that holds requests, a route that does not, and the held requests
//! let go in turn.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::{FreezeRequest, Frozen, Refusal, RefusalCode, ThawRequest, Thawed};
use crate::config;
use crate::control::messages::{self, seconds, unknown};
use crate::control::service::freeze::EndedFreeze;
use crate::control::task::Task;
use crate::domain::freeze::{FreezeEnd, FreezeOutcome, Intent, NewFreeze, What};
use crate::os::clock;
use crate::routing::FreezeQueue;

impl Task {
    /// Begins, renews or changes a freeze, and answers when what it would hold and is in flight already has ended, or
    /// `freeze.finish` has passed.
    pub(in crate::control) fn freeze(
        &mut self,
        name: &str,
        request: FreezeRequest,
        answer: oneshot::Sender<Result<Frozen, Refusal>>,
    ) {
        let now = clock::now();
        let Some(service) = self.services.get_mut(name) else {
            return self.reporter.reply(answer, Err(unknown(name)));
        };
        let limits = service.config.freeze;
        let FreezeRequest { what, lasts, renew, wait, dry_run, by, why } = request;
        let lasts = match lasts_of(lasts.as_deref(), limits.max) {
            Ok(lasts) => lasts,
            Err(error) => {
                let refusal = Refusal { code: RefusalCode::BadRequest, message: error.to_string() };
                return self.reporter.reply(answer, Err(refusal));
            }
        };
        let intent = if renew { Intent::Renew } else { Intent::Begin };
        let new = NewFreeze { what, by: by.unwrap_or_else(|| "api".into()), why, lasts, intent };
        let freezer = &mut service.freeze.freezer;
        let frozen = Frozen { service: name.to_owned(), what, for_seconds: seconds(lasts), quiet: None, dry_run };
        let outcome = match dry_run {
            true => freezer.check(&new.by, intent).map(|()| None),
            false => freezer.take(new, limits.max, now).map(Some),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(why) => return self.reporter.reply(answer, Err(messages::not_frozen(name, &why, now))),
        };
        self.schedule.invalidate();
        match outcome {
            None | Some(FreezeOutcome::Renewed) => {}
            Some(FreezeOutcome::Begun | FreezeOutcome::Changed) => self.hold_requests(name, what, now),
        }
        if outcome.is_none() || wait == Some(false) {
            return self.reporter.reply(answer, Ok(frozen));
        }
        let quiet = timeout(limits.finish, self.drains.quiet(name, what));
        self.reporter.reply_after(answer, async move { Ok(Frozen { quiet: Some(quiet.await.is_ok()), ..frozen }) });
    }

    /// Publishes a route that holds requests; those that an earlier freeze held are looked at anew.
    fn hold_requests(&mut self, name: &str, what: What, now: Duration) {
        let Some(service) = self.services.get_mut(name) else { return };
        let before = service.freeze.begin_queue(what, service.config.freeze);
        let announcement = service.freeze.freezer.freeze().map(|freeze| messages::frozen(name, freeze, now));
        self.publish_queue(name, before, now);
        if let Some(announcement) = announcement {
            self.reporter.announce(name, announcement);
        }
    }

    /// Publishes the service's present queue, or that there is none, and lets go whom the one `before` held.
    fn publish_queue(&mut self, name: &str, before: Option<Arc<FreezeQueue>>, now: Duration) {
        let Some(service) = self.services.get_mut(name) else { return };
        let replaced = service.republish(now);
        self.drains.add_route(name, replaced);
        if let Some(before) = before {
            tokio::spawn(release(before.end(), service.config.freeze.release_spread));
        }
    }

    /// Ends a freeze, whosever it is.
    pub(in crate::control) fn thaw(
        &mut self,
        name: &str,
        request: ThawRequest,
        answer: oneshot::Sender<Result<Thawed, Refusal>>,
    ) {
        let Some(state) = self.services.get_mut(name) else {
            return self.reporter.reply(answer, Err(unknown(name)));
        };
        let ThawRequest { of, dry_run, by } = request;
        let (service, held) = (name.to_owned(), state.freeze.stats.now());
        let freezer = &mut state.freeze.freezer;
        let mut scratch = freezer.clone();
        let freezer = if dry_run { &mut scratch } else { freezer };
        let ended = freezer.thaw(of.as_deref());
        let thawed = Thawed { service, was_frozen: ended.is_some(), held: ended.as_ref().map_or(0, |_| held), dry_run };
        if let (Some(freeze), false) = (ended, dry_run) {
            let end = FreezeEnd::Thawed { by: by.unwrap_or_else(|| "api".into()) };
            self.release_requests(name, &EndedFreeze { freeze, end });
        }
        self.reporter.reply(answer, Ok(thawed));
    }

    /// Ends the freezes that have had their time.
    pub(in crate::control) fn end_freezes(&mut self, now: Duration) {
        for name in self.names_where(|service| service.freeze.freezer.deadline().is_some_and(|until| until <= now)) {
            let ended = self.services.get_mut(&name).and_then(|service| service.freeze.freezer.on_time(now));
            if let Some((freeze, end)) = ended {
                self.release_requests(&name, &EndedFreeze { freeze, end });
            }
        }
    }

    /// Ends the freeze of a service that goes away, if it has one.
    pub(in crate::control) fn stop_freeze(&mut self, name: &str) {
        let ended = self.services.get_mut(name).and_then(|service| service.freeze.freezer.thaw(None));
        if let Some(freeze) = ended {
            self.release_requests(name, &EndedFreeze { freeze, end: FreezeEnd::Stopped });
        }
    }

    fn release_requests(&mut self, name: &str, ended: &EndedFreeze) {
        self.schedule.invalidate();
        let now = clock::now();
        let Some(service) = self.services.get_mut(name) else { return };
        let before = service.freeze.end_queue();
        let EndedFreeze { freeze, end } = ended;
        let (held, ends) = (service.freeze.stats.now(), service.freeze.ends());
        let announcement = messages::thawed(name, freeze, end, held, ends, now);
        self.publish_queue(name, before, now);
        self.reporter.announce(name, announcement);
    }
}

/// Why a freeze cannot last as long as it asks for.
#[derive(Debug, PartialEq, Eq)]
enum BadDuration {
    Unreadable(String),
    TooLong { asked: String, max: Duration },
}

impl fmt::Display for BadDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadDuration::Unreadable(text) => write!(f, "\"for\": {text:?} is not a duration, such as \"60s\""),
            BadDuration::TooLong { asked, max } => {
                write!(f, "\"for\": {asked:?} is more than freeze.max, which is {max:?}")
            }
        }
    }
}

/// How long a freeze lasts that asks for so much.
fn lasts_of(text: Option<&str>, max: Duration) -> Result<Duration, BadDuration> {
    let Some(text) = text else { return Ok(max) };
    match config::duration(text) {
        None | Some(Duration::ZERO) => Err(BadDuration::Unreadable(text.to_owned())),
        Some(lasts) if lasts > max => Err(BadDuration::TooLong { asked: text.to_owned(), max }),
        Some(lasts) => Ok(lasts),
    }
}

/// Lets those that wait go one after the other, evenly over `spread`.
async fn release(turns: Vec<oneshot::Sender<()>>, spread: Duration) {
    let (began, of) = (Instant::now(), u32::try_from(turns.len()).unwrap_or(u32::MAX));
    for (turn, n) in turns.into_iter().zip(0..) {
        sleep_until(began + spread * n / of).await;
        // A request that has left has no use for its turn.
        let _ = turn.send(());
    }
}

#[cfg(test)]
mod tests {
    use crate::control::task::freeze::*;

    #[test]
    fn lasts_no_longer_than_the_limit() {
        let max = Duration::from_secs(300);
        for (text, want) in [
            (None, Some(max)),
            (Some("60s"), Some(Duration::from_secs(60))),
            (Some("5m"), Some(max)),
            (Some("301s"), None),
            (Some("0s"), None),
            (Some("soon"), None),
        ] {
            assert_eq!(lasts_of(text, max).ok(), want, "{text:?}");
        }
    }

    #[tokio::test]
    async fn lets_go_in_order_and_over_a_while() {
        let (turns, heard): (Vec<_>, Vec<_>) = (0..5).map(|_| oneshot::channel::<()>()).unzip();
        let began = Instant::now();
        tokio::spawn(release(turns, Duration::from_millis(100)));
        for (n, turn) in heard.into_iter().enumerate() {
            turn.await.unwrap();
            assert!(began.elapsed() >= Duration::from_millis(20) * u32::try_from(n).unwrap(), "{n} came early");
        }
    }
}
