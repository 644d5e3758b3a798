//! Models the cutover of one service as a machine: events go in, effects come out, and one deadline wakes it.
//!
//! The machine decides *whether* and *in which order*; the control plane carries its effects out and reports back. A
//! flip is saved before it is published, so that a restart cannot undo it; a rollback is published before it is saved,
//! so that no disk can delay it. The machine never flips by itself: the only change that it makes unasked is a
//! rollback.

use std::time::Duration;

use crate::domain::Color;
use crate::domain::watch::{Baseline, Decision, Watch, WatchConfig, WatchMode, WatchSample};

mod effect;
mod event;
mod snapshot;
#[cfg(test)]
mod tests;

pub use effect::{Change, ChangeError, Effect, Notice, Requested, RollbackEvidence, UnderWay, WatchEnd, WatchEndKind};
pub use event::{ChangeRequest, Event, GateError, Reason, SaveError, SavedState, Timing};
pub use snapshot::CutoverSnapshot;

/// The save before a flip may take this long; after it the flip is given up.
const SAVE_LIMIT: Duration = Duration::from_secs(10);

/// The phase of the cutover, apart from the colors that still drain.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Nothing is being judged.
    Steady,
    /// The active color is being judged.
    Watching(Box<Watch>),
    /// The last watch took traffic back, and nobody has flipped since.
    RolledBack {
        /// Describes the fault that the watch found.
        why: String,
    },
}

/// A color that was replaced and still holds leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainingColor {
    pub color: Color,
    /// The epoch that ended when the color was left.
    pub epoch: u64,
    /// The time at which it was replaced.
    pub since: Duration,
    /// The time at which its leases are cut; `None` once they are cut.
    pub deadline: Option<Duration>,
}

/// A flip that waits for its save.
#[derive(Clone, Debug)]
struct PendingFlip {
    to: Color,
    serial: u64,
    reason: Reason,
    by: String,
    forced: bool,
    /// The watch settings of the state that is being saved, whatever config is loaded meanwhile.
    watch: WatchConfig,
    deadline: Duration,
}

/// The cause of a rollback.
enum RollbackTrigger {
    /// Somebody asked for it.
    Operator { by: String, forced: bool },
    /// The watch found the active color bad.
    Verdict(Box<RollbackEvidence>),
}

/// The cutover machine of one service.
#[derive(Clone, Debug)]
pub struct Cutover {
    active: Color,
    epoch: u64,
    previous: Option<Color>,
    config_active: Color,
    timing: Timing,
    phase: Phase,
    pending: Option<PendingFlip>,
    drains: Vec<DrainingColor>,
    /// Describes how the active color has behaved lately; the control plane keeps it up to date.
    baseline: Baseline,
    serial: u64,
    /// Whether something changed while a flip was being saved.
    unsaved: bool,
}

impl Cutover {
    /// Restores a machine from the saved state; a watch that was running continues, and its counts begin anew.
    pub fn restore(saved: SavedState, timing: Timing, now: Duration) -> Self {
        let SavedState { active, epoch, previous, config_active, watch_until, rolled_back } = saved;
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

    /// Handles an event and returns what is to be done.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        match event {
            Event::Flip { to, request } => self.flip(to, Reason::Operator, request, now),
            Event::RollBack(request) => match self.check_rollback(&request) {
                Ok(to) => {
                    let forced = request.is_forced();
                    self.roll_back(to, RollbackTrigger::Operator { by: request.by, forced }, now)
                }
                Err(error) => refuse(Requested::Rollback, Reason::Operator, request.by, error),
            },
            Event::ConfigActive { active, request } => self.load_config(active, request, now),
            Event::Saved { serial, outcome } => self.saved(serial, outcome, now),
            // The old color still finishes requests of its own epoch, which are no evidence about the new one.
            Event::Sample { epoch, .. } if epoch != self.epoch => Vec::new(),
            Event::Sample { sample, .. } => self.judge(*sample, now),
            Event::Drained { epoch, cut } => self.drained(epoch, cut, now),
            Event::Tick => self.tick(now),
        }
    }

    /// Returns the time at which [`Event::Tick`] is due; `None` while nothing waits for time.
    pub fn deadline(&self) -> Option<Duration> {
        let watch = match &self.phase {
            Phase::Watching(watch) => Some(watch.until()),
            Phase::Steady | Phase::RolledBack { .. } => None,
        };
        let drains = self.drains.iter().filter_map(|drain| drain.deadline);
        drains.chain(watch).chain(self.pending.as_ref().map(|pending| pending.deadline)).min()
    }

    /// Checks whether a flip to `to` would be made now. The flip itself makes the same check.
    ///
    /// # Errors
    /// Returns the reason for which it would not be made.
    pub fn check_flip(&self, to: Color, request: &ChangeRequest) -> Result<(), ChangeError> {
        self.check_epoch(request)?;
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
        check_gate(to, request)
    }

    /// Returns the color to which a rollback would go now. The rollback itself makes the same check.
    ///
    /// A flip that is still being saved does not stop it: the way back is open even when the disk hangs.
    ///
    /// # Errors
    /// Returns the reason for which it would not be made.
    pub fn check_rollback(&self, request: &ChangeRequest) -> Result<Color, ChangeError> {
        self.check_epoch(request)?;
        let to = self.previous.ok_or(ChangeError::NothingToRollBack { active: self.active })?;
        check_gate(to, request)?;
        Ok(to)
    }

    fn check_epoch(&self, request: &ChangeRequest) -> Result<(), ChangeError> {
        match request.if_epoch {
            Some(asked) if asked != self.epoch => Err(ChangeError::StaleEpoch { asked, epoch: self.epoch }),
            Some(_) | None => Ok(()),
        }
    }

    /// Begins a flip by saving the state after it. The data plane hears of it in [`Cutover::saved`], once that state is
    /// on the disk: were it published first, a crash in between would bring a restarted proxy back to the old color,
    /// behind the back of everybody who was told that the flip is made.
    fn flip(&mut self, to: Color, reason: Reason, request: ChangeRequest, now: Duration) -> Vec<Effect> {
        if let Err(error) = self.check_flip(to, &request) {
            return refuse(Requested::Flip(to), reason, request.by, error);
        }
        let watch = self.timing.watch;
        let window = watch.rule.window;
        let state = SavedState {
            active: to,
            epoch: self.epoch + 1,
            previous: Some(self.active),
            config_active: self.config_active,
            watch_until: (!window.is_zero()).then(|| now + window),
            rolled_back: None,
        };
        let save = self.save(state);
        let (serial, forced, deadline) = (self.serial, request.is_forced(), now + SAVE_LIMIT);
        self.pending = Some(PendingFlip { to, serial, reason, by: request.by, forced, watch, deadline });
        vec![save]
    }

    /// Makes the flip whose state is now on the disk, or gives it up.
    fn saved(&mut self, serial: u64, outcome: Result<(), SaveError>, now: Duration) -> Vec<Effect> {
        let Some(pending) = self.pending.take_if(|pending| pending.serial == serial) else { return Vec::new() };
        let PendingFlip { to, reason, by, forced, watch, .. } = pending;
        if let Err(why) = outcome {
            // A save that failed at its last fsync may have reached the disk all the same, so the present state is
            // written over it.
            let mut effects = self.save_present();
            effects.extend(refuse(Requested::Flip(to), reason, by, ChangeError::Unsaved { why }));
            return effects;
        }
        let mut effects = Vec::new();
        self.end_watch(WatchEnd::Superseded, &mut effects);
        let from = self.active;
        self.move_to(to, now, &mut effects);
        self.previous = Some(from);
        if !watch.rule.window.is_zero() {
            self.phase = Phase::Watching(Box::new(Watch::new(now, now + watch.rule.window, watch, self.baseline)));
        }
        let change = Change { from, to, epoch: self.epoch, reason, by };
        if std::mem::take(&mut self.unsaved) {
            effects.extend(self.save_present());
        }
        effects.push(Effect::Report(Notice::Flipped { change, forced }));
        effects
    }

    /// Moves the traffic back at once, and saves after that: users of a bad release must not wait for a disk. If a
    /// crash comes before the save, the restarted proxy is on the bad release again, and its watch goes on.
    fn roll_back(&mut self, to: Color, trigger: RollbackTrigger, now: Duration) -> Vec<Effect> {
        let (reason, by, forced, evidence) = match trigger {
            RollbackTrigger::Operator { by, forced } => (Reason::Operator, by, forced, None),
            RollbackTrigger::Verdict(evidence) => (Reason::Verdict, "cutover".into(), false, Some(evidence)),
        };
        let (from, epoch_before, mut effects) = (self.active, self.epoch, Vec::new());
        let ended = std::mem::replace(&mut self.phase, Phase::Steady);
        self.move_to(to, now, &mut effects);
        self.previous = None;
        match (&evidence, ended) {
            (Some(found), _) => self.phase = Phase::RolledBack { why: found.fault.to_string() },
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
            let error = ChangeError::UnderWay { what: UnderWay::Overtaken };
            effects.extend(refuse(Requested::Flip(overtaken.to), overtaken.reason, overtaken.by, error));
        }
        let change = Change { from, to, epoch: self.epoch, reason, by };
        effects.push(Effect::Report(Notice::RolledBack { change, forced, evidence }));
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

    fn load_config(&mut self, active: Color, request: ChangeRequest, now: Duration) -> Vec<Effect> {
        if active == self.config_active {
            return Vec::new();
        }
        // The value counts as seen whatever comes of it: a refused flip must not happen at some later reload, when
        // nobody expects it any more.
        self.config_active = active;
        if active == self.active && self.pending.is_none() {
            if matches!(self.phase, Phase::RolledBack { .. }) {
                self.phase = Phase::Steady;
            }
            return self.save_present();
        }
        let mut effects = self.flip(active, Reason::Config, request, now);
        if matches!(effects[..], [Effect::Report(_)]) {
            effects = [self.save_present(), effects].concat();
        }
        effects
    }

    fn judge(&mut self, sample: WatchSample, now: Duration) -> Vec<Effect> {
        let Phase::Watching(watch) = &mut self.phase else { return Vec::new() };
        let decision = watch.step(now, sample);
        let (over, note) = (now >= watch.until(), watch.take_note());
        let (color, epoch) = (self.active, self.epoch);
        match decision {
            Decision::NowhereToGo(fault) if over => self.conclude(WatchEnd::NowhereToGo(fault)),
            Decision::Hold | Decision::NowhereToGo(_) => {
                note.into_iter().map(|note| Effect::Report(Notice::Noted { color, epoch, note })).collect()
            }
            Decision::RollBack(fault) => {
                let evidence = Box::new(RollbackEvidence { fault, summary: watch.account(now) });
                self.roll_back(self.active.other(), RollbackTrigger::Verdict(evidence), now)
            }
            Decision::Keep => self.conclude(WatchEnd::Kept),
            Decision::NotEnoughTraffic => self.conclude(WatchEnd::NotEnoughTraffic),
        }
    }

    fn conclude(&mut self, end: WatchEnd) -> Vec<Effect> {
        let mut ended = Vec::new();
        self.end_watch(end, &mut ended);
        [self.save_present(), ended].concat()
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
            // The late save may still reach the disk, so the present state is sent after it.
            effects.extend(self.save_present());
            let error = ChangeError::Unsaved { why: SaveError::TooSlow(SAVE_LIMIT) };
            effects.extend(refuse(Requested::Flip(late.to), late.reason, late.by, error));
        }
        if let Phase::Watching(watch) = &self.phase
            && watch.until() <= now
        {
            // The control plane samples before it ticks; if the watch is still open now, nobody counts for it.
            let sample = watch.last_without_a_way_back();
            effects.extend(self.judge(sample, now));
        }
        effects
    }

    fn save(&mut self, state: SavedState) -> Effect {
        self.serial += 1;
        Effect::Save { serial: self.serial, state }
    }

    /// Saves the present state. While a flip is being saved this waits for it, so that a state with the color before
    /// the flip never follows it to the disk.
    pub fn save_present(&mut self) -> Vec<Effect> {
        self.unsaved = self.pending.is_some();
        if self.unsaved {
            return Vec::new();
        }
        let state = self.saved_state();
        vec![self.save(state)]
    }

    /// Returns the state that a restart needs.
    pub fn saved_state(&self) -> SavedState {
        let (watch_until, rolled_back) = match &self.phase {
            Phase::Steady => (None, None),
            Phase::Watching(watch) => (Some(watch.until()), None),
            Phase::RolledBack { why } => (None, Some(why.clone())),
        };
        let Cutover { active, epoch, previous, config_active, .. } = *self;
        SavedState { active, epoch, previous, config_active, watch_until, rolled_back }
    }

    /// Returns the color that takes new requests.
    pub fn active(&self) -> Color {
        self.active
    }

    /// Returns the epoch of the active color; it grows by one at every flip or rollback.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the color to which a rollback would go.
    pub fn previous(&self) -> Option<Color> {
        self.previous
    }

    /// Returns the phase of the cutover.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Returns the colors that were replaced and still hold leases, oldest first.
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

    /// Returns how requests are sent and counted while a color is judged; `None` while none is.
    pub fn mode(&self) -> Option<WatchMode> {
        match &self.phase {
            Phase::Watching(watch) => Some(watch.mode()),
            Phase::Steady | Phase::RolledBack { .. } => None,
        }
    }

    /// Updates how the active color has behaved lately; the next flip is judged against it.
    pub fn set_baseline(&mut self, baseline: Baseline) {
        self.baseline = baseline;
    }

    /// Returns the baseline against which the next flip, or the one just made, is judged.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Updates the settings; they apply from the next flip on.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }
}

fn check_gate(to: Color, request: &ChangeRequest) -> Result<(), ChangeError> {
    match &request.gate {
        Err(GateError::UnderDeploy(why)) if !request.force => {
            Err(ChangeError::UnderDeploy { color: to, why: why.clone() })
        }
        Err(GateError::NotReady(why)) if !request.force => Err(ChangeError::NotReady { color: to, why: why.clone() }),
        Err(GateError::RehearsalFailed(why)) if !request.force => {
            Err(ChangeError::RehearsalFailed { color: to, why: why.clone() })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn refuse(requested: Requested, reason: Reason, by: String, error: ChangeError) -> Vec<Effect> {
    vec![Effect::Report(Notice::Refused { requested, reason, by, error })]
}
