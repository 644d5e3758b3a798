//! What the machine tells, in words: refusals for the API, lines for the ledger, sentences for people.

use std::path::Path;
use std::time::Duration;

use crate::api::{EventKind, Refusal, RefusalCode, Verdict};
use crate::domain::Color;
use crate::domain::cutover::{Change, ChangeError, Notice, Reason, Requested, RollbackEvidence, UnderWay, WatchEnd};
use crate::domain::freeze::{self, Freeze};
use crate::domain::watch::WatchEvent;
use crate::ledger::Line;
use crate::routing::QueueOutcome;

/// Puts a refused change into the words of the API.
pub(super) fn refusal(service: &str, why: &ChangeError) -> Refusal {
    let (code, message) = match why {
        ChangeError::NotReady { color, why } => (
            RefusalCode::NotReady,
            format!("{service}: {color} is not ready: {why}. Nothing was changed; fix it, or use --force"),
        ),
        ChangeError::UnderDeploy { color, why } => (
            RefusalCode::CutoverUnderWay,
            format!(
                "{service}: no flip to {color}: {why}. Nothing was changed; wait for the deploy. If it was killed, the next \
                 `cutover deploy` finishes or undoes it; or use --force"
            ),
        ),
        ChangeError::RehearsalFailed { color, why } => (
            RefusalCode::RehearsalFailed,
            format!(
                "{service}: {color} responds differently from the active color: {why}. Nothing \
                 was changed; see `cutover rehearsal`, deploy a better release, or use --force"
            ),
        ),
        ChangeError::AlreadyActive { color } => {
            (RefusalCode::AlreadyActive, format!("{service}: {color} is active already, nothing was changed"))
        }
        ChangeError::UnderWay { what } => {
            let (what, now) = match what {
                UnderWay::Saving(color) => (format!("a flip to {color} is being saved"), "try again in a moment"),
                UnderWay::Watching(color) => (format!("{color} is active and being watched"), "see `cutover status`"),
                UnderWay::Draining(color) => (format!("{color} still finishes requests"), "see `cutover status`"),
                UnderWay::Overtaken => ("a rollback overtook this flip".into(), "see `cutover ledger`"),
            };
            (RefusalCode::CutoverUnderWay, format!("{service}: another cutover is under way: {what}; {now}"))
        }
        ChangeError::NothingToRollBack { active } => (
            RefusalCode::NothingToRollBack,
            format!(
                "{service}: nothing to roll back: no flip since the start or the last rollback; {active} \
                 stays. To change color anyway, flip"
            ),
        ),
        ChangeError::StaleEpoch { asked, epoch } => (
            RefusalCode::StaleEpoch,
            format!("{service}: the epoch is {epoch}, not {asked}: somebody else made a change; look again"),
        ),
        ChangeError::Unsaved { why } => (
            RefusalCode::StateUnwritable,
            format!("{service}: the flip could not be saved, so a restart would undo it: {why}. Nothing was changed"),
        ),
    };
    Refusal { code, message }
}

/// Puts a refused freeze into the words of the API.
pub(super) fn not_frozen(service: &str, why: &freeze::FreezeError, now: Duration) -> Refusal {
    match why {
        freeze::FreezeError::HeldByAnother(Freeze { what, by, why, until, .. }) => {
            let why = why.as_ref().map_or(String::new(), |why| format!(" ({why})"));
            let left = span(until.saturating_sub(now));
            let message = format!(
                "{service}: frozen already ({what}) by {by}{why}, for {left} more unless it is renewed. Nothing was \
                 changed; wait for its end, or end it with `cutover thaw {service}`"
            );
            Refusal { code: RefusalCode::AlreadyFrozen, message }
        }
        freeze::FreezeError::NotFrozen => Refusal {
            code: RefusalCode::NotFrozen,
            message: format!(
                "{service}: not frozen any more: it was thawed, not renewed in time, reached freeze.max, or the \
                 proxy was restarted"
            ),
        },
    }
}

/// Tells that a freeze began, or holds other requests now.
pub(super) fn frozen(service: &str, freeze: &Freeze, now: Duration) -> Announcement {
    let Freeze { what, by, why, until, .. } = freeze;
    let lasts = until.saturating_sub(now);
    let line = Line::new(&format!("freeze {service}: {what}")).with("for", span(lasts)).with("by", by);
    let (line, why) = match why {
        Some(why) => (line.with("why", why), format!(": {why}")),
        None => (line, String::new()),
    };
    let requests = match what {
        freeze::What::Writes => "writes are held",
        freeze::What::All => "all requests are held",
    };
    Announcement {
        kind: EventKind::Freeze,
        sentence: format!("{requests}, for {} at first, by {by}{why}", span(lasts)),
        line,
    }
}

/// Tells that a freeze ended; `held` requests are let go, and `ends` is how others' waits have ended since it began.
pub(super) fn thawed(
    service: &str,
    over: &Freeze,
    end: &freeze::FreezeEnd,
    held: u64,
    ends: [u64; QueueOutcome::ALL.len()],
    now: Duration,
) -> Announcement {
    let took = now.saturating_sub(over.since);
    let line = Line::new(&format!("thaw {service}: {}", over.what)).with("reason", end.as_str());
    let (line, why) = match end {
        freeze::FreezeEnd::Thawed { by } => (line.with("by", by), format!("by {by}")),
        freeze::FreezeEnd::Expired => (line.with("of", &over.by), format!("{} has not renewed it", over.by)),
        freeze::FreezeEnd::Limit => (line.with("of", &over.by), "freeze.max has passed".into()),
        freeze::FreezeEnd::Stopped => (line.with("of", &over.by), "it goes away".into()),
    };
    let mut line = line.with("seconds", seconds(took)).with("held", held);
    let mut others = String::new();
    for (end, count) in QueueOutcome::ALL.into_iter().zip(ends) {
        line = line.with(end.as_str(), count);
        if end != QueueOutcome::Released && count > 0 {
            others += &format!(", {count} {}", end.as_str().replace('_', " "));
        }
    }
    let sentence = format!("thawed after {}, {why}: {held} let go{others}", span(took));
    Announcement { kind: EventKind::Thaw, sentence, line }
}

/// The code of a refusal as ledger and API spell it.
fn code(refusal: &Refusal) -> String {
    let json = serde_json::to_value(refusal.code).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

/// Seconds, rounded to a millisecond.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A duration for people: `850ms`, `12s`, `14m 3s`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60.. => format!("{}m {}s", seconds / 60, seconds % 60),
    }
}

/// Something that happened, as it is told: the kind of its event, a sentence for people, a line for the ledger.
pub(super) struct Announcement {
    pub(super) kind: EventKind,
    pub(super) sentence: String,
    pub(super) line: Line,
}

impl Announcement {
    /// Adds where everything else that is known can be found.
    pub(super) fn with_evidence(mut self, file: &Path) -> Self {
        self.line = self.line.with("evidence", file.display());
        self.sentence += &format!("; details are in {}", file.display());
        self
    }
}

/// Puts a notice into announcement.
pub(super) fn announcement(service: &str, notice: &Notice) -> Announcement {
    match notice {
        Notice::Flipped { change, forced } => moved(service, change, *forced, EventKind::Flip),
        Notice::RolledBack { change, forced, evidence } => {
            let mut announcement = moved(service, change, *forced, EventKind::Rollback);
            if let Some(RollbackEvidence { fault, summary }) = evidence.as_deref() {
                announcement.line =
                    announcement.line.with("answered", summary.counts.all()).with("failed", summary.counts.bad);
                announcement.line = announcement.line.with("why", fault);
                announcement.sentence += &format!(": {fault}");
            }
            announcement
        }
        Notice::Refused { requested, reason, by, error } => {
            let refusal = refusal(service, error);
            let what = match requested {
                Requested::Flip(color) => format!("flip to {color}"),
                Requested::Rollback => "rollback".into(),
            };
            let line = Line::new(&format!("refused {service}: {what}")).with("code", code(&refusal));
            let line = line.with("reason", reason.as_str()).with("by", by).with("why", &refusal.message);
            Announcement { kind: EventKind::Refused, sentence: format!("{what} refused: {}", refusal.message), line }
        }
        Notice::WatchEnded { color, epoch, end, counts } => {
            let (word, sentence) = (end.kind().as_str(), verdict(end));
            let line = Line::new(&format!("verdict {service}: {color} {word}")).with("epoch", epoch);
            let line = line.with("answered", counts.all()).with("failed", counts.bad);
            let of = format!("{} of {} requests failed", counts.bad, counts.all());
            Announcement { kind: EventKind::Verdict, sentence: format!("{color}: {sentence} ({of})"), line }
        }
        Notice::Noted { color, epoch, note } => {
            let (word, sentence) = noted(*color, note);
            let line =
                Line::new(&format!("watch {service}: {color} {word}")).with("epoch", epoch).with("why", &sentence);
            Announcement { kind: EventKind::Verdict, sentence: format!("{color}: {sentence}"), line }
        }
        Notice::Drained { color, epoch, took, cut } => {
            let took = seconds(*took);
            let line = Line::new(&format!("drained {service}: {color}")).with("epoch", epoch);
            // The change itself is on the disk.
            let line = line.with("seconds", took).with("cut", cut).unhurried();
            let cut = if *cut == 0 { "nothing was cut".into() } else { format!("{cut} cut at the deadline") };
            Announcement {
                kind: EventKind::Drained,
                sentence: format!("{color} is drained after {took} s, {cut}"),
                line,
            }
        }
    }
}

fn moved(service: &str, change: &Change, forced: bool, kind: EventKind) -> Announcement {
    let Change { from, to, epoch, reason, by } = change;
    let line = Line::new(&format!("{} {service}: {from} -> {to}", kind.as_str())).with("epoch", epoch);
    let mut line = line.with("reason", reason.as_str()).with("by", by);
    if forced {
        line = line.with("forced", true);
    }
    let whose = match reason {
        Reason::Operator => format!("by {by}"),
        Reason::Config => format!("because the config's `active` changed ({by})"),
        Reason::Verdict => "by the watch".into(),
    };
    let forced = if forced { ", forced past its gate" } else { "" };
    Announcement { kind, sentence: format!("{} {from} -> {to}, epoch {epoch}, {whose}{forced}", kind.as_str()), line }
}

/// One word for the ledger, and a sentence.
pub(super) fn noted(color: Color, note: &WatchEvent) -> (&'static str, String) {
    let other = color.other();
    match note {
        WatchEvent::Doubted(finding) => {
            ("doubted", format!("{finding}; {other} has most of the traffic back until this is settled"))
        }
        WatchEvent::Settled => {
            ("settled", "nothing speaks against it any more, and it has all the traffic again".into())
        }
        WatchEvent::Shared(finding) => {
            ("shared-fault", format!("{finding}, and {other} suffers as well: going back would help nobody"))
        }
        WatchEvent::ClientExcluded(finding) => (
            "client-set-aside",
            format!("{finding}, all from one client, and others are served well: that client no longer counts"),
        ),
        WatchEvent::RouteExcluded(finding) => (
            "route-set-aside",
            format!("{finding}, all on one rare route, and others are served well: that route no longer counts"),
        ),
    }
}

/// The end of a watch as the API says it.
pub(super) fn api_verdict(end: &WatchEnd) -> Verdict {
    match end {
        WatchEnd::Kept => Verdict::Keep,
        WatchEnd::NotEnoughTraffic => Verdict::NotEnoughTraffic,
        WatchEnd::NowhereToGo(_) => Verdict::NowhereToGo,
        WatchEnd::Superseded => Verdict::Superseded,
    }
}

/// The end of a watch for people.
fn verdict(end: &WatchEnd) -> String {
    match end {
        WatchEnd::Kept => "kept: the watch found nothing against it".into(),
        WatchEnd::NotEnoughTraffic => "not enough traffic to tell: it stays".into(),
        WatchEnd::NowhereToGo(fault) => format!("bad, but the other color was not up to go back to: {fault}"),
        WatchEnd::Superseded => "the watch was ended by a change of color".into(),
    }
}

/// The refusal of what is asked about a service that there is not.
pub(super) fn unknown(name: &str) -> Refusal {
    Refusal {
        code: RefusalCode::UnknownService,
        message: format!("no service is called {name:?}; see `cutover status`"),
    }
}
