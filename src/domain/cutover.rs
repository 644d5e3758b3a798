//! The cutover of one service as a machine: events in, effects out, one deadline to wake it at.
//!
//! It decides *whether* and *in which order*; the control plane does what it says and reports back. A flip is saved
//! before it is published, so that a restart cannot undo it; a rollback is published before it is saved, so that no
//! disk can delay it. It never flips by itself: the only thing it does unasked is to take traffic back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Color;
use crate::domain::watch::{
    Baseline, Decision, FaultReport, Outcomes, Watch, WatchConfig, WatchEvent, WatchMode, WatchSample, WatchSummary,
};

mod snapshot;
#[cfg(test)]
mod tests;

pub use snapshot::CutoverSnapshot;

/// How long the save before a flip may take; past it nothing is flipped.
const SAVE_LIMIT: Duration = Duration::from_secs(10);

/// What can be tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// How the new color is watched, and how long; a window of zero switches the watch off.
    pub watch: WatchConfig,
    /// Past it, what is still in flight on the color before is cut.
    pub drain: Duration,
}

/// What survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The color that takes new requests.
    pub active: Color,
    /// Grows by one at every flip or rollback.
    pub epoch: u64,
    /// Where a rollback goes; `None` before the first flip and after a rollback.
    pub previous: Option<Color>,
    /// The config's `active` when it was last loaded.
    pub config_active: Color,
    /// The end of the running watch.
    pub watch_until: Option<Duration>,
    /// Why the last watch took traffic back, until somebody flips.
    pub rolled_back: Option<String>,
}

/// Where a flip or rollback comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Somebody asked for it.
    Operator,
    /// The config's `active` changed.
    Config,
    /// The watch found the new color bad.
    Verdict,
}

impl Reason {
    /// The word in ledger and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Operator => "operator",
            Reason::Config => "config",
            Reason::Verdict => "verdict",
        }
    }
}

/// A flip or rollback as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRequest {
    /// Who asks, for the ledger.
    pub by: String,
    /// The epoch the asker has seen.
    pub if_epoch: Option<u64>,
    /// Go although the gate says no.
    pub force: bool,
    /// What the gate says of the target.
    pub gate: Result<(), GateError>,
}

/// Why a color may not be flipped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateError {
    /// An upstream is not ready: which, and why.
    NotReady(String),
    /// It answered copied requests otherwise than the active color: how many, and one of them.
    RehearsalFailed(String),
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Make `to` the active color.
    Flip {
        /// The target.
        to: Color,
        /// By whom and how; the gate is the target's.
        ask: ChangeRequest,
    },
    /// Back to the color before this one.
    RollBack(ChangeRequest),
    /// The config was loaded and says this.
    ConfigActive {
        /// The config's `active`.
        active: Color,
        /// By whom and how; the gate is that color's.
        ask: ChangeRequest,
    },
    /// The save with this number is on the disk, or is not.
    Saved {
        /// Its number.
        serial: u64,
        /// The error says why not.
        outcome: Result<(), String>,
    },
    /// Counts under `epoch` so far.
    Sample {
        /// Under which they were counted.
        epoch: u64,
        /// The counts, and whether there is a way back.
        sample: Box<WatchSample>,
    },
    /// The color that was left as `epoch` ended holds no lease any more; `cut` of them did not end by themselves.
    Drained {
        /// Under which they were taken.
        epoch: u64,
        /// Leases.
        cut: u64,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the record; [`Event::Saved`] reports how it went.
    Save {
        /// Grows with each save.
        serial: u64,
        /// What to write.
        record: SavedState,
    },
    /// Let `color` take every request from now on.
    Publish {
        /// The new active color.
        color: Color,
        /// Its epoch.
        epoch: u64,
    },
    /// End what is still in flight on the color that was left as `epoch` ended.
    Cut {
        /// Never the present one.
        epoch: u64,
    },
    /// Something an operator wants to know.
    Report(Notice),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A flip was made.
    Flipped {
        /// The change.
        made: Change,
        /// The gate had said no.
        forced: bool,
    },
    /// Traffic went back.
    RolledBack {
        /// The change.
        made: Change,
        /// The gate had said no.
        forced: bool,
        /// What the watch found, and where it stood, where it was the watch.
        finding: Option<Box<(FaultReport, WatchSummary)>>,
    },
    /// Nothing was changed.
    Refused {
        /// What was asked for.
        wanted: Requested,
        /// Where it came from.
        reason: Reason,
        /// Who asked.
        by: String,
        /// Why not.
        why: ChangeError,
    },
    /// The watch of `color` ended.
    WatchEnded {
        /// Which was judged.
        color: Color,
        /// Its epoch.
        epoch: u64,
        /// How.
        end: WatchEnd,
        /// What had been counted.
        counts: Outcomes,
    },
    /// The watch of `color` goes on, and found something worth knowing.
    Noted {
        /// Which is judged.
        color: Color,
        /// Its epoch.
        epoch: u64,
        /// What.
        note: WatchEvent,
    },
    /// `color`, which was left as `epoch` ended, holds no lease any more.
    Drained {
        /// Which was replaced.
        color: Color,
        /// Its epoch.
        epoch: u64,
        /// From the flip to the last lease.
        took: Duration,
        /// Leases that were cut.
        cut: u64,
    },
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The color before.
    pub from: Color,
    /// The color that takes new requests now.
    pub to: Color,
    /// The new epoch.
    pub epoch: u64,
    /// Where it came from.
    pub reason: Reason,
    /// Who asked.
    pub by: String,
}

/// What was asked for and refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// A flip to this color.
    Flip(Color),
    /// A rollback.
    Rollback,
}

/// How a watch ended without taking traffic back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The window is over, and the color is good.
    Kept,
    /// The window is over, and too little was answered to know.
    NotEnoughTraffic,
    /// The window is over; the color is bad, and there was no better place to go.
    NowhereToGo(FaultReport),
    /// Somebody moved the traffic.
    Superseded,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The target's gate: the upstream and why.
    NotReady {
        /// The target.
        color: Color,
        /// "127.0.0.1:8001: connection refused"
        why: String,
    },
    /// The target's rehearsal.
    RehearsalFailed {
        /// The target.
        color: Color,
        /// "3 of 120 answers differ …"
        why: String,
    },
    /// It is active, and nothing is under way.
    AlreadyActive {
        /// The target.
        color: Color,
    },
    /// Another cutover is being saved, watched or drained.
    UnderWay {
        /// Which.
        what: UnderWay,
    },
    /// There was no flip since the start or the last rollback.
    NothingToRollBack {
        /// The color that stays.
        active: Color,
    },
    /// The asker has seen another epoch.
    StaleEpoch {
        /// The epoch the asker has seen.
        asked: u64,
        /// The present one.
        epoch: u64,
    },
    /// The flip could not be saved, so a restart would undo it.
    Unsaved {
        /// The disk's error.
        why: String,
    },
}

/// What another flip has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderWay {
    /// A flip to this color is being saved.
    Saving(Color),
    /// This color is being watched.
    Watching(Color),
    /// This color still holds leases.
    Draining(Color),
    /// A rollback overtook the flip while it was being saved.
    Overtaken,
}

/// Where the cutover stands, apart from what still drains.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Nothing is being judged.
    Steady,
    /// The active color is being judged.
    Watching(Box<Watch>),
    /// The last watch took traffic back, and nobody has flipped since.
    RolledBack {
        /// What was found.
        why: String,
    },
}

/// A color that was replaced and still holds leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainingColor {
    /// The color.
    pub color: Color,
    /// The epoch that ended as it was left.
    pub epoch: u64,
    /// When it was replaced.
    pub since: Duration,
    /// When its leases are cut; `None` once they were.
    pub deadline: Option<Duration>,
}

/// A flip that waits for its save.
#[derive(Clone, Debug)]
struct Pending {
    to: Color,
    serial: u64,
    reason: Reason,
    by: String,
    forced: bool,
    /// As in the record that is being saved, whatever is loaded meanwhile.
    knobs: WatchConfig,
    deadline: Duration,
}

/// The machine of one service.
#[derive(Clone, Debug)]
pub struct Cutover {
    active: Color,
    epoch: u64,
    previous: Option<Color>,
    config_active: Color,
    timing: Timing,
    phase: Phase,
    pending: Option<Pending>,
    drains: Vec<DrainingColor>,
    /// What the active color has shown lately; the shell keeps it up to date.
    baseline: Baseline,
    serial: u64,
    /// Something changed while a flip was being saved.
    unsaved: bool,
}

impl Cutover {
    /// A machine in the state of `record`; a watch that was running goes on with counts that begin anew.
    pub fn restore(record: SavedState, timing: Timing, now: Duration) -> Self {
        let SavedState { active, epoch, previous, config_active, watch_until, rolled_back } = record;
        let phase = match (watch_until, rolled_back) {
            (Some(until), _) => {
                let until = until.min(now + timing.watch.rule.window);
                Phase::Watching(Box::new(Watch::new(now, until, timing.watch, Baseline::default())))
            }
            (None, Some(why)) => Phase::RolledBack { why },
            (None, None) => Phase::Steady,
        };
        Cutover {
            active,
            epoch,
            previous,
            config_active,
            timing,
            phase,
            pending: None,
            drains: Vec::new(),
            baseline: Baseline::default(),
            serial: 0,
            unsaved: false,
        }
    }

    /// Takes an event in and says what is to be done.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        match event {
            Event::Flip { to, ask } => self.flip(to, Reason::Operator, ask, now),
            Event::RollBack(ask) => match self.check_rollback(&ask) {
                Ok(to) => self.roll_back(to, Reason::Operator, ask.by, ask.gate.is_err(), None, now),
                Err(why) => refuse(Requested::Rollback, Reason::Operator, ask.by, why),
            },
            Event::ConfigActive { active, ask } => self.load_config(active, ask, now),
            Event::Saved { serial, outcome } => self.saved(serial, outcome, now),
            Event::Sample { epoch, .. } if epoch != self.epoch => Vec::new(), // the old color, still finishing
            Event::Sample { sample, .. } => self.judge(*sample, now),
            Event::Drained { epoch, cut } => self.drained(epoch, cut, now),
            Event::Tick => self.tick(now),
        }
    }

    /// When [`Event::Tick`] is due; `None` while nothing waits for time.
    pub fn deadline(&self) -> Option<Duration> {
        let watch = match &self.phase {
            Phase::Watching(watch) => Some(watch.until()),
            Phase::Steady | Phase::RolledBack { .. } => None,
        };
        let drains = self.drains.iter().filter_map(|drain| drain.deadline);
        drains.chain(watch).chain(self.pending.as_ref().map(|pending| pending.deadline)).min()
    }

    /// Whether a flip to `to` would be made now; the same gate as the flip itself.
    ///
    /// # Errors
    /// Why not.
    pub fn check_flip(&self, to: Color, ask: &ChangeRequest) -> Result<(), ChangeError> {
        self.check_epoch(ask)?;
        if let Some(pending) = &self.pending {
            return Err(ChangeError::UnderWay { what: UnderWay::Saving(pending.to) });
        }
        if to == self.active {
            return Err(match (&self.phase, self.drains.last()) {
                (Phase::Watching(_), _) => ChangeError::UnderWay { what: UnderWay::Watching(to) },
                (Phase::Steady | Phase::RolledBack { .. }, Some(drain)) => {
                    ChangeError::UnderWay { what: UnderWay::Draining(drain.color) }
                }
                (Phase::Steady | Phase::RolledBack { .. }, None) => ChangeError::AlreadyActive { color: to },
            });
        }
        check_gate(to, ask)
    }

    /// Where a rollback would go now; the same gate as the rollback itself.
    ///
    /// A flip that is still being saved does not stop it: the way back is open even when the disk hangs.
    ///
    /// # Errors
    /// Why not.
    pub fn check_rollback(&self, ask: &ChangeRequest) -> Result<Color, ChangeError> {
        self.check_epoch(ask)?;
        let to = self.previous.ok_or(ChangeError::NothingToRollBack { active: self.active })?;
        check_gate(to, ask)?;
        Ok(to)
    }

    fn check_epoch(&self, ask: &ChangeRequest) -> Result<(), ChangeError> {
        match ask.if_epoch {
            Some(asked) if asked != self.epoch => Err(ChangeError::StaleEpoch { asked, epoch: self.epoch }),
            Some(_) | None => Ok(()),
        }
    }

    fn flip(&mut self, to: Color, reason: Reason, ask: ChangeRequest, now: Duration) -> Vec<Effect> {
        if let Err(why) = self.check_flip(to, &ask) {
            return refuse(Requested::Flip(to), reason, ask.by, why);
        }
        let knobs = self.timing.watch;
        let window = knobs.rule.window;
        let watch_until = (!window.is_zero()).then(|| now + window);
        let (previous, epoch) = (Some(self.active), self.epoch + 1);
        let record = SavedState {
            active: to,
            epoch,
            previous,
            watch_until,
            config_active: self.config_active,
            rolled_back: None,
        };
        let save = self.save(record);
        let forced = ask.gate.is_err();
        let deadline = now + SAVE_LIMIT;
        self.pending = Some(Pending { to, serial: self.serial, reason, by: ask.by, forced, knobs, deadline });
        vec![save]
    }

    fn saved(&mut self, serial: u64, outcome: Result<(), String>, now: Duration) -> Vec<Effect> {
        let Some(pending) = self.pending.take_if(|pending| pending.serial == serial) else { return Vec::new() };
        let Pending { to, reason, by, forced, knobs, .. } = pending;
        if let Err(why) = outcome {
            // It may have reached the disk all the same, up to the last fsync.
            let mut effects = self.save_present();
            effects.extend(refuse(Requested::Flip(to), reason, by, ChangeError::Unsaved { why }));
            return effects;
        }
        let mut effects = Vec::new();
        self.end_watch(WatchEnd::Superseded, &mut effects);
        let from = self.active;
        self.move_to(to, now, &mut effects);
        self.previous = Some(from);
        if !knobs.rule.window.is_zero() {
            self.phase = Phase::Watching(Box::new(Watch::new(now, now + knobs.rule.window, knobs, self.baseline)));
        }
        let made = Change { from, to, epoch: self.epoch, reason, by };
        if std::mem::take(&mut self.unsaved) {
            effects.extend(self.save_present());
        }
        effects.push(Effect::Report(Notice::Flipped { made, forced }));
        effects
    }

    fn roll_back(
        &mut self,
        to: Color,
        reason: Reason,
        by: String,
        forced: bool,
        finding: Option<Box<(FaultReport, WatchSummary)>>,
        now: Duration,
    ) -> Vec<Effect> {
        let (from, mut effects) = (self.active, Vec::new());
        let ended = std::mem::replace(&mut self.phase, Phase::Steady);
        let epoch_before = self.epoch;
        self.move_to(to, now, &mut effects);
        self.previous = None;
        match (&finding, ended) {
            (Some(found), _) => self.phase = Phase::RolledBack { why: found.0.to_string() },
            (None, Phase::Watching(watch)) => effects.push(Effect::Report(Notice::WatchEnded {
                color: from,
                epoch: epoch_before,
                end: WatchEnd::Superseded,
                counts: watch.counts(),
            })),
            (None, Phase::Steady | Phase::RolledBack { .. }) => {}
        }
        let overtaken = self.pending.take();
        effects.extend(self.save_present());
        if let Some(overtaken) = overtaken {
            let why = ChangeError::UnderWay { what: UnderWay::Overtaken };
            effects.extend(refuse(Requested::Flip(overtaken.to), overtaken.reason, overtaken.by, why));
        }
        let made = Change { from, to, epoch: self.epoch, reason, by };
        effects.push(Effect::Report(Notice::RolledBack { made, forced, finding }));
        effects
    }

    /// Publishes `to` under the next epoch and lets the color before it drain.
    fn move_to(&mut self, to: Color, now: Duration, effects: &mut Vec<Effect>) {
        let deadline = Some(now + self.timing.drain);
        self.drains.push(DrainingColor { color: self.active, epoch: self.epoch, since: now, deadline });
        self.active = to;
        self.epoch += 1;
        effects.push(Effect::Publish { color: to, epoch: self.epoch });
    }

    fn load_config(&mut self, active: Color, ask: ChangeRequest, now: Duration) -> Vec<Effect> {
        if active == self.config_active {
            return Vec::new();
        }
        // Whatever comes of it, this value has been seen: a refused flip must not be made up for at some later reload,
        // when nobody thinks of it any more.
        self.config_active = active;
        if active == self.active && self.pending.is_none() {
            if matches!(self.phase, Phase::RolledBack { .. }) {
                self.phase = Phase::Steady;
            }
            return self.save_present();
        }
        let mut effects = self.flip(active, Reason::Config, ask, now);
        if matches!(effects[..], [Effect::Report(_)]) {
            effects = [self.save_present(), effects].concat();
        }
        effects
    }

    fn judge(&mut self, sample: WatchSample, now: Duration) -> Vec<Effect> {
        let Phase::Watching(watch) = &mut self.phase else { return Vec::new() };
        let verdict = watch.step(now, sample);
        let (over, note) = (now >= watch.until(), watch.take_note());
        let (color, epoch) = (self.active, self.epoch);
        match verdict {
            Decision::NowhereToGo(finding) if over => self.conclude(WatchEnd::NowhereToGo(finding)),
            Decision::Hold | Decision::NowhereToGo(_) => {
                note.into_iter().map(|note| Effect::Report(Notice::Noted { color, epoch, note })).collect()
            }
            Decision::RollBack(finding) => {
                let (to, found) = (self.active.other(), Box::new((finding, watch.account(now))));
                self.roll_back(to, Reason::Verdict, "cutover".into(), false, Some(found), now)
            }
            Decision::Keep => self.conclude(WatchEnd::Kept),
            Decision::NotEnoughTraffic => self.conclude(WatchEnd::NotEnoughTraffic),
        }
    }

    fn conclude(&mut self, end: WatchEnd) -> Vec<Effect> {
        let mut told = Vec::new();
        self.end_watch(end, &mut told);
        [self.save_present(), told].concat()
    }

    fn end_watch(&mut self, end: WatchEnd, effects: &mut Vec<Effect>) {
        if let Phase::Watching(watch) = std::mem::replace(&mut self.phase, Phase::Steady) {
            let (color, epoch, counts) = (self.active, self.epoch, watch.counts());
            effects.push(Effect::Report(Notice::WatchEnded { color, epoch, end, counts }));
        }
    }

    fn drained(&mut self, epoch: u64, cut: u64, now: Duration) -> Vec<Effect> {
        let Some(at) = self.drains.iter().position(|drain| drain.epoch == epoch) else { return Vec::new() };
        let DrainingColor { color, since, .. } = self.drains.remove(at);
        vec![Effect::Report(Notice::Drained { color, epoch, took: now.saturating_sub(since), cut })]
    }

    fn tick(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for drain in &mut self.drains {
            if drain.deadline.take_if(|deadline| *deadline <= now).is_some() {
                effects.push(Effect::Cut { epoch: drain.epoch });
            }
        }
        if let Some(late) = self.pending.take_if(|pending| pending.deadline <= now) {
            // It may still reach the disk; what is true now is to follow it there.
            effects.extend(self.save_present());
            let why = ChangeError::Unsaved { why: format!("the disk took longer than {} s", SAVE_LIMIT.as_secs()) };
            effects.extend(refuse(Requested::Flip(late.to), late.reason, late.by, why));
        }
        if let Phase::Watching(watch) = &self.phase
            && watch.until() <= now
        {
            // The shell samples before it ticks; a watch that is still open then has nobody to count for it.
            let sample = watch.last_without_a_way_back();
            effects.extend(self.judge(sample, now));
        }
        effects
    }

    fn save(&mut self, record: SavedState) -> Effect {
        self.serial += 1;
        Effect::Save { serial: self.serial, record }
    }

    /// Saves what is true now; while a flip is being saved, right after it, so that it never follows the flip to the
    /// disk with the color before it.
    pub fn save_present(&mut self) -> Vec<Effect> {
        self.unsaved = self.pending.is_some();
        if self.unsaved {
            return Vec::new();
        }
        let record = self.record();
        vec![self.save(record)]
    }

    /// What a restart would need.
    pub fn record(&self) -> SavedState {
        let (watch_until, rolled_back) = match &self.phase {
            Phase::Steady => (None, None),
            Phase::Watching(watch) => (Some(watch.until()), None),
            Phase::RolledBack { why } => (None, Some(why.clone())),
        };
        let Cutover { active, epoch, previous, config_active, .. } = *self;
        SavedState { active, epoch, previous, config_active, watch_until, rolled_back }
    }

    /// The color that takes new requests.
    pub fn active(&self) -> Color {
        self.active
    }

    /// Grows by one at every flip or rollback.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where a rollback would go.
    pub fn previous(&self) -> Option<Color> {
        self.previous
    }

    /// Where it stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What was replaced and still holds leases, oldest first.
    pub fn drains(&self) -> &[DrainingColor] {
        &self.drains
    }

    /// Whether a change was decided and waits for the disk.
    pub fn is_saving(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the active color is being judged.
    pub fn is_watching(&self) -> bool {
        matches!(self.phase, Phase::Watching(_))
    }

    /// How requests are sent and counted while a color is judged; `None` while none is.
    pub fn mode(&self) -> Option<WatchMode> {
        match &self.phase {
            Phase::Watching(watch) => Some(watch.mode()),
            Phase::Steady | Phase::RolledBack { .. } => None,
        }
    }

    /// What the active color has shown lately: the next flip is judged against it.
    pub fn set_baseline(&mut self, baseline: Baseline) {
        self.baseline = baseline;
    }

    /// What the next flip, or the one that was just made, is judged against.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Takes effect at the next flip that is asked for.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }
}

fn check_gate(to: Color, ask: &ChangeRequest) -> Result<(), ChangeError> {
    match &ask.gate {
        Err(GateError::NotReady(why)) if !ask.force => Err(ChangeError::NotReady { color: to, why: why.clone() }),
        Err(GateError::RehearsalFailed(why)) if !ask.force => {
            Err(ChangeError::RehearsalFailed { color: to, why: why.clone() })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn refuse(wanted: Requested, reason: Reason, by: String, why: ChangeError) -> Vec<Effect> {
    vec![Effect::Report(Notice::Refused { wanted, reason, by, why })]
}
