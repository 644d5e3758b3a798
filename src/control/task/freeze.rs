//! Freezes as the control plane makes and ends them: a route with a hold, a route without, and the held let go in turn.
//!
//! A freeze lives in memory alone. When the proxy ends, so do the connections that wait, and there is nothing to
//! restore.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::status::{FreezeRequest, FreezeStatus, Frozen, Refusal, RefusalCode, ThawRequest, Thawed};
use crate::config;
use crate::control::messages::{self, seconds};
use crate::control::service::ReplacedRoute;
use crate::control::task::commands::unknown;
use crate::control::task::{LEDGER_WAIT, Task};
use crate::domain::freeze::{Freeze, FreezeEnd, FreezeOutcome, Freezer, NewFreeze, What};
use crate::os::clock;
use crate::routing::{FreezeQueue, QueueOutcome, QueueStats, RouteHandle};

/// What one service holds, and for whom.
#[derive(Default)]
pub(in crate::control) struct FreezeState {
    pub(in crate::control) freezer: Freezer,
    /// Over all freezes.
    pub(in crate::control) held: Arc<QueueStats>,
    /// Where requests wait now.
    pub(in crate::control) hold: Option<Arc<FreezeQueue>>,
    /// How waits had ended when this freeze began.
    ends_before: [u64; QueueOutcome::ALL.len()],
}

impl FreezeState {
    /// The freeze in force, as the API says it.
    pub(in crate::control) fn status(&self, now: Duration) -> Option<FreezeStatus> {
        let Freeze { what, by, why, since, until, .. } = self.freezer.freeze()?;
        Some(FreezeStatus {
            what: *what,
            by: by.clone(),
            why: why.clone(),
            held: self.held.now(),
            seconds: seconds(now.saturating_sub(*since)),
            remaining_seconds: seconds(until.saturating_sub(now)),
        })
    }

    /// How waits have ended since this freeze began, in the order of [`QueueOutcome::ALL`].
    pub(in crate::control) fn ends(&self) -> [u64; QueueOutcome::ALL.len()] {
        let (now, before) = (self.held.ends(), self.ends_before);
        std::array::from_fn(|at| now[at] - before[at])
    }
}

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
        let Some(managed) = self.services.get_mut(name) else { return self.reply(answer, Err(unknown(name))) };
        let limits = managed.config.freeze;
        let FreezeRequest { what, lasts, renew, wait, dry_run, by, why } = request;
        let lasts = match lasts_of(lasts.as_deref(), limits.max) {
            Ok(lasts) => lasts,
            Err(message) => return self.reply(answer, Err(Refusal { code: RefusalCode::BadRequest, message })),
        };
        let ask = NewFreeze { what, by: by.unwrap_or_else(|| "api".into()), why, lasts };
        let freezer = &mut managed.frost.freezer;
        let frozen = Frozen { service: name.to_owned(), what, for_seconds: seconds(lasts), quiet: None, dry_run };
        let taken = match dry_run {
            true => freezer.check(&ask.by, renew).map(|()| None),
            false => freezer.take(ask, renew, limits.max, now).map(Some),
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(why) => return self.reply(answer, Err(messages::not_frozen(name, &why, now))),
        };
        self.schedule.is_stale = true;
        match taken {
            None | Some(FreezeOutcome::Renewed) => {}
            Some(FreezeOutcome::Begun | FreezeOutcome::Changed) => self.hold(name, what, now),
        }
        if taken.is_none() || wait == Some(false) {
            return self.reply(answer, Ok(frozen));
        }
        let (quiet, reached) = (self.quiet(name, what, limits.finish), self.ledger.reached());
        tokio::spawn(async move {
            let quiet = Some(quiet.await);
            drop(timeout(LEDGER_WAIT, reached).await);
            // Whoever does not wait for the answer has left.
            drop(answer.send(Ok(Frozen { quiet, ..frozen })));
        });
    }

    /// Publishes a route that holds; who waited for another one is looked at anew.
    fn hold(&mut self, name: &str, what: What, now: Duration) {
        let Some(managed) = self.services.get_mut(name) else { return };
        let frost = &mut managed.frost;
        let before = frost.hold.replace(FreezeQueue::new(what, managed.config.freeze, Arc::clone(&frost.held)));
        if before.is_none() {
            frost.ends_before = frost.held.ends();
        }
        let words = frost.freezer.freeze().map(|freeze| messages::frozen(name, freeze, now));
        self.publish_hold(name, before, now);
        if let Some(words) = words {
            self.ledger.write(words.line);
            self.emit(words.kind, Some(name), words.sentence);
        }
    }

    /// Publishes the service's present hold, or that there is none, and lets go whom the one `before` held.
    fn publish_hold(&mut self, name: &str, before: Option<Arc<FreezeQueue>>, now: Duration) {
        let Some(managed) = self.services.get_mut(name) else { return };
        let route_handle = managed.republish(now);
        self.leaving.push(ReplacedRoute { service: name.to_owned(), route_handle });
        if let Some(before) = before {
            tokio::spawn(release(before.end(), managed.config.freeze.release_spread));
        }
    }

    /// Whether everything that a freeze of `what` would hold has ended within `limit`; routes replaced earlier may
    /// still have such requests as well.
    fn quiet(&self, name: &str, what: What, limit: Duration) -> impl Future<Output = bool> + use<> {
        let of_service = self.leaving.iter().filter(|left| left.service == name);
        let ends: Vec<_> = of_service
            .map(|ReplacedRoute { route_handle, .. }: &ReplacedRoute| RouteHandle::ended(route_handle, what))
            .collect();
        async move {
            let all = async {
                for end in ends {
                    end.await;
                }
            };
            timeout(limit, all).await.is_ok()
        }
    }

    /// Ends a freeze, whose ever it is.
    pub(in crate::control) fn thaw(
        &mut self,
        name: &str,
        request: ThawRequest,
        answer: oneshot::Sender<Result<Thawed, Refusal>>,
    ) {
        let Some(managed) = self.services.get_mut(name) else { return self.reply(answer, Err(unknown(name))) };
        let ThawRequest { of, dry_run, by } = request;
        let (service, held) = (name.to_owned(), managed.frost.held.now());
        let freezer = &mut managed.frost.freezer;
        let mut scratch = freezer.clone();
        let freezer = if dry_run { &mut scratch } else { freezer };
        let over = freezer.thaw(of.as_deref());
        let thawed = Thawed { service, was_frozen: over.is_some(), held: over.as_ref().map_or(0, |_| held), dry_run };
        if let (Some(over), false) = (over, dry_run) {
            self.let_go(name, &over, &FreezeEnd::Thawed { by: by.unwrap_or_else(|| "api".into()) });
        }
        self.reply(answer, Ok(thawed));
    }

    /// Ends the freezes that have had their time.
    pub(in crate::control) fn end_freezes(&mut self, now: Duration) {
        for name in self.names_where(|managed| managed.frost.freezer.deadline().is_some_and(|until| until <= now)) {
            let over = self.services.get_mut(&name).and_then(|managed| managed.frost.freezer.on_time(now));
            if let Some((over, end)) = over {
                self.let_go(&name, &over, &end);
            }
        }
    }

    /// Ends the freeze of a service that goes away, if it has one.
    pub(in crate::control) fn stop_freeze(&mut self, name: &str) {
        let over = self.services.get_mut(name).and_then(|managed| managed.frost.freezer.thaw(None));
        if let Some(over) = over {
            self.let_go(name, &over, &FreezeEnd::Stopped);
        }
    }

    fn let_go(&mut self, name: &str, over: &Freeze, end: &FreezeEnd) {
        self.schedule.is_stale = true;
        let now = clock::now();
        let Some(managed) = self.services.get_mut(name) else { return };
        let before = managed.frost.hold.take();
        let words = messages::thawed(name, over, end, managed.frost.held.now(), managed.frost.ends(), now);
        self.publish_hold(name, before, now);
        self.ledger.write(words.line);
        self.emit(words.kind, Some(name), words.sentence);
    }
}

/// How long a freeze lasts that asks for so much.
fn lasts_of(text: Option<&str>, max: Duration) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(max) };
    match config::duration(text) {
        None | Some(Duration::ZERO) => Err(format!("\"for\": {text:?} is not a duration, such as \"60s\"")),
        Some(lasts) if lasts > max => Err(format!("\"for\": {text:?} is more than freeze.max, which is {max:?}")),
        Some(lasts) => Ok(lasts),
    }
}

/// Lets those that wait go one after the other, evenly over `spread`.
async fn release(turns: Vec<oneshot::Sender<()>>, spread: Duration) {
    let (began, of) = (Instant::now(), u32::try_from(turns.len()).unwrap_or(u32::MAX));
    for (turn, n) in turns.into_iter().zip(0..) {
        sleep_until(began + spread * n / of).await;
        // Who has left has no use for it.
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
