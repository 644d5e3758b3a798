//! Models a freeze: it says which requests of a service are held, by whom, and until when.
//!
//! The code is pure: it knows deadlines and no requests. A freeze that nobody renews ends by itself, so a deploy that
//! was killed releases the requests that it held.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Says which requests are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Requests that may change something are held: every method but GET, HEAD, OPTIONS and TRACE (RFC 9110 9.2.1), and
    /// upgrades, since the proxy cannot see what is sent in a tunnel.
    Writes,
    /// All requests are held.
    All,
}

impl What {
    /// Returns the word in the API, on the command line and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            What::Writes => "writes",
            What::All => "all",
        }
    }

    /// Whether a request is held, given whether it is a write.
    pub fn holds(self, is_write: bool) -> bool {
        match self {
            What::Writes => is_write,
            What::All => true,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request for a freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFreeze {
    /// Says which requests are to be held.
    pub what: What,
    /// The owner: only they may renew or change it.
    pub by: String,
    /// The reason, for people.
    pub why: Option<String>,
    /// The time from now until its end.
    pub lasts: Duration,
    /// Whether it may begin, or only continue.
    pub intent: Intent,
}

/// Says whether the freeze that is asked for may be a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// The freeze begins, or continues where the same owner has one.
    Begin,
    /// The freeze continues. If it has ended this is an error, so that the owner learns of its end.
    Renew,
}

/// A freeze in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// Says which requests are held.
    pub what: What,
    /// The owner of the freeze.
    pub by: String,
    /// The reason, for people.
    pub why: Option<String>,
    /// The time at which it began.
    pub since: Duration,
    /// The time at which it ends unless it is renewed.
    pub until: Duration,
    /// The time at which it ends even if it is renewed.
    pub latest: Duration,
}

/// The outcome of a [`NewFreeze`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeOutcome {
    /// There was no freeze before; now there is one.
    Begun,
    /// The same freeze has another end.
    Renewed,
    /// The same freeze holds other requests.
    Changed,
}

/// Says why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FreezeError {
    /// Somebody else's freeze is in force.
    HeldByAnother(Freeze),
    /// There is no freeze that could be renewed.
    NotFrozen,
}

/// Says why a freeze ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FreezeEnd {
    /// Somebody thawed it.
    Thawed {
        /// The name of the caller.
        by: String,
    },
    /// Nobody renewed it in time.
    Expired,
    /// It has lasted for as long as any may.
    Limit,
    /// The service, or the proxy, goes away.
    Stopped,
}

impl FreezeEnd {
    /// One word for the ledger.
    pub fn as_str(&self) -> &'static str {
        match self {
            FreezeEnd::Thawed { .. } => "thawed",
            FreezeEnd::Expired => "expired",
            FreezeEnd::Limit => "limit",
            FreezeEnd::Stopped => "stopped",
        }
    }
}

/// The freeze of one service, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freezer(Option<Freeze>);

impl Freezer {
    /// What is in force.
    pub fn freeze(&self) -> Option<&Freeze> {
        self.0.as_ref()
    }

    /// When [`Freezer::on_time`] has something to end.
    pub fn deadline(&self) -> Option<Duration> {
        self.0.as_ref().map(|freeze| freeze.until)
    }

    /// Whether [`Freezer::take`] would succeed now.
    ///
    /// # Errors
    /// [`FreezeError`]: why it would not.
    pub fn check(&self, by: &str, intent: Intent) -> Result<(), FreezeError> {
        match (&self.0, intent) {
            (Some(freeze), Intent::Begin | Intent::Renew) if freeze.by != by => {
                Err(FreezeError::HeldByAnother(freeze.clone()))
            }
            (None, Intent::Renew) => Err(FreezeError::NotFrozen),
            (Some(_), Intent::Begin | Intent::Renew) | (None, Intent::Begin) => Ok(()),
        }
    }

    /// Begins a freeze, or renews and changes the one that the same `by` has. `max` bounds the whole of it, from its
    /// beginning.
    ///
    /// # Errors
    /// [`FreezeError`]: nothing was changed.
    pub fn take(&mut self, new: NewFreeze, max: Duration, now: Duration) -> Result<FreezeOutcome, FreezeError> {
        self.check(&new.by, new.intent)?;
        let NewFreeze { what, by, why, lasts, intent: _ } = new;
        let (taken, since, latest) = match &self.0 {
            None => (FreezeOutcome::Begun, now, now + max),
            Some(before) if before.what == what => (FreezeOutcome::Renewed, before.since, before.latest),
            Some(before) => (FreezeOutcome::Changed, before.since, before.latest),
        };
        let why = why.or_else(|| self.0.take().and_then(|before| before.why));
        self.0 = Some(Freeze { what, by, why, since, until: (now + lasts).min(latest), latest });
        Ok(taken)
    }

    /// Ends the freeze, whose ever it is; with `of`, only if it is theirs. `None`: there was none to end.
    pub fn thaw(&mut self, of: Option<&str>) -> Option<Freeze> {
        self.0.take_if(|freeze| of.is_none_or(|of| of == freeze.by))
    }

    /// Ends what has had its time.
    pub fn on_time(&mut self, now: Duration) -> Option<(Freeze, FreezeEnd)> {
        let over = self.0.take_if(|freeze| freeze.until <= now)?;
        let end = if over.until == over.latest { FreezeEnd::Limit } else { FreezeEnd::Expired };
        Some((over, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(300);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ask(by: &str, what: What, lasts: u64) -> NewFreeze {
        NewFreeze { what, by: by.into(), why: Some("a migration".into()), lasts: s(lasts), intent: Intent::Begin }
    }

    fn renewal(by: &str, what: What, lasts: u64) -> NewFreeze {
        NewFreeze { intent: Intent::Renew, ..ask(by, what, lasts) }
    }

    fn frozen(by: &str, lasts: u64) -> Freezer {
        let mut freezer = Freezer::default();
        assert_eq!(freezer.take(ask(by, What::Writes, lasts), MAX, s(100)), Ok(FreezeOutcome::Begun));
        freezer
    }

    #[test]
    fn writes_are_what_may_change_something() {
        for (what, is_write, want) in [
            (What::Writes, true, true),
            (What::Writes, false, false),
            (What::All, true, true),
            (What::All, false, true),
        ] {
            assert_eq!(what.holds(is_write), want, "{what} {is_write}");
        }
    }

    #[test]
    fn ends_when_nobody_renews_it() {
        let mut freezer = frozen("deploy", 5);
        assert_eq!((freezer.deadline(), freezer.on_time(s(104))), (Some(s(105)), None));
        assert_eq!(freezer.take(renewal("deploy", What::Writes, 5), MAX, s(104)), Ok(FreezeOutcome::Renewed));
        assert_eq!((freezer.deadline(), freezer.on_time(s(105))), (Some(s(109)), None));
        let (over, end) = freezer.on_time(s(109)).unwrap();
        assert_eq!((over.since, end), (s(100), FreezeEnd::Expired));
        assert_eq!((freezer.freeze(), freezer.deadline()), (None, None));
        let late = freezer.take(renewal("deploy", What::Writes, 5), MAX, s(110));
        assert_eq!(late, Err(FreezeError::NotFrozen), "whoever renews too late hears it");
    }

    #[test]
    fn no_renewal_goes_past_the_limit() {
        let mut freezer = frozen("deploy", 5);
        for now in (101..400).step_by(3) {
            assert_eq!(freezer.on_time(s(now)), None, "{now}");
            assert_eq!(freezer.take(renewal("deploy", What::Writes, 5), MAX, s(now)), Ok(FreezeOutcome::Renewed));
        }
        assert_eq!(freezer.deadline(), Some(s(400)));
        assert_eq!(freezer.on_time(s(400)).unwrap().1, FreezeEnd::Limit);
        let mut long = frozen("ann", 10_000);
        assert_eq!(long.on_time(s(400)).unwrap().1, FreezeEnd::Limit, "nor does a long one");
    }

    #[test]
    fn is_its_owner_s() {
        let mut freezer = frozen("deploy", 60);
        let Err(FreezeError::HeldByAnother(theirs)) = freezer.take(ask("ann", What::All, 5), MAX, s(101)) else {
            panic!("it is not ann's")
        };
        assert_eq!((theirs.by.as_str(), theirs.until), ("deploy", s(160)));
        assert_eq!(freezer.thaw(Some("ann")), None);
        assert_eq!(freezer.take(ask("deploy", What::All, 5), MAX, s(102)), Ok(FreezeOutcome::Changed));
        assert_eq!(freezer.freeze().unwrap().what, What::All);
        assert!(freezer.thaw(None).is_some_and(|over| over.by == "deploy"), "an operator may end anybody's");
        assert_eq!(freezer.thaw(None), None, "there is none");
    }

    #[test]
    fn keeps_its_reason_when_a_renewal_gives_none() {
        let mut freezer = frozen("deploy", 60);
        let renewal = NewFreeze { why: None, ..renewal("deploy", What::Writes, 60) };
        freezer.take(renewal, MAX, s(101)).unwrap();
        assert_eq!(freezer.freeze().unwrap().why.as_deref(), Some("a migration"));
    }
}
