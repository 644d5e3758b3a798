//! What must hold whatever happens, told from what goes into the machine and what comes out of it.

use super::disk::timeless;
use super::*;

pub(super) struct Promises {
    /// The state of the data plane.
    published: State,
    /// Before a rollback that is not on the disk yet.
    before: Option<State>,
    /// A flip that may be on the disk, made or not.
    asked: Option<FlipInDoubt>,
    /// The save that has just succeeded.
    saved: Option<State>,
    /// Taken back, and not flipped to since.
    taken_back: Option<Color>,
    drains: Vec<OpenDrain>,
    /// The outcomes that the running watch has seen.
    judged: Outcomes,
    watch_until: Option<Duration>,
    /// The config's `active` was written since it was last loaded.
    is_edited: bool,
    /// In force.
    pub(super) timing: Timing,
}

#[derive(Clone, Copy)]
struct FlipInDoubt {
    state: State,
    is_forced: bool,
    window: Duration,
}

struct OpenDrain {
    epoch: u64,
    cut_at: Duration,
    is_cut: bool,
}

fn broken(promise: &str) -> Result<Option<&'static str>, String> {
    Err(promise.to_owned())
}

impl Promises {
    pub(super) fn of(machine: &Cutover) -> Self {
        Promises {
            published: (machine.active(), machine.epoch()),
            before: None,
            asked: None,
            saved: None,
            taken_back: None,
            drains: Vec::new(),
            judged: Outcomes::default(),
            watch_until: None,
            is_edited: false,
            timing: TIMING,
        }
    }

    pub(super) fn config_edited(&mut self) {
        self.is_edited = true;
    }

    /// The epoch of a color whose last request ends now.
    pub(super) fn drain_ends(&mut self, dice: &mut Dice) -> Option<u64> {
        dice.draw(&mut self.drains).map(|drain| drain.epoch)
    }

    pub(super) fn save_ended(&mut self, state: State, result: &Result<(), SaveError>, disk: &Disk) {
        self.saved = result.is_ok().then_some(state);
        if self.saved == Some(self.published) {
            // An earlier save that is still on its way may undo it.
            self.before.take_if(|before| !disk.is_waiting(*before));
            self.asked.take_if(|asked| !disk.is_waiting(asked.state));
        }
    }

    pub(super) fn before(&mut self, event: &Event) {
        if let Event::Sample { epoch, sample } = event
            && *epoch == self.published.1
        {
            self.judged = sample.seen.strata[SeenIn::Calm as usize];
        }
    }

    /// The effect of `event`; returns a word for it.
    pub(super) fn effect(
        &mut self,
        event: &Event,
        effect: &Effect,
        probes: &Probes,
        now: Duration,
    ) -> Result<Option<&'static str>, String> {
        Ok(match effect {
            Effect::Save { state, .. } => return self.save(event, state),
            Effect::Publish { color, epoch } => return self.publish(event, (*color, *epoch), probes, now),
            Effect::Cut { epoch } => {
                let Some(drain) = self.drains.iter_mut().find(|drain| drain.epoch == *epoch) else {
                    return broken("cut what does not drain");
                };
                if now < drain.cut_at || std::mem::replace(&mut drain.is_cut, true) {
                    return broken("cut too early, or twice");
                }
                Some("cut")
            }
            Effect::Report(told) => return self.notice(told, now),
        })
    }

    fn save(&mut self, event: &Event, saved: &SavedState) -> Result<Option<&'static str>, String> {
        let state = (saved.active, saved.epoch);
        if state == self.published {
            return Ok(None);
        }
        let (Event::Flip { request, .. } | Event::ConfigActive { request, .. }) = event else {
            return broken("saved what nobody asked for");
        };
        if request.gate.is_err() && !request.force {
            return broken("a flip through a closed gate");
        }
        if matches!(event, Event::ConfigActive { .. }) && !self.is_edited {
            return broken("a config that nobody has edited flips");
        }
        if state != (self.published.0.other(), self.published.1 + 1) {
            return Err(format!("a flip from {:?} to {state:?}", self.published));
        }
        self.asked = Some(FlipInDoubt { state, is_forced: request.force, window: self.timing.watch.rule.window });
        Ok(None)
    }

    fn publish(
        &mut self,
        event: &Event,
        state: State,
        probes: &Probes,
        now: Duration,
    ) -> Result<Option<&'static str>, String> {
        if state != (self.published.0.other(), self.published.1 + 1) {
            return Err(format!("published {state:?} over {:?}", self.published));
        }
        let cut_at = now + self.timing.drain;
        self.drains.push(OpenDrain { epoch: self.published.1, cut_at, is_cut: false });
        let old = std::mem::replace(&mut self.published, state);
        let (judged, is_ready) = (std::mem::take(&mut self.judged), probes.was_ready(state.0));
        self.watch_until = None;
        let word = match event {
            Event::Saved { .. } => {
                let Some(asked) = self.asked.take_if(|asked| asked.state == state && self.saved == Some(state)) else {
                    return broken("flipped without a save");
                };
                if !asked.is_forced && !is_ready {
                    return broken("a flip to what was never ready");
                }
                self.watch_until = (!asked.window.is_zero()).then(|| now + asked.window);
                (self.before, self.taken_back) = (None, None);
                return Ok(Some("publish after save"));
            }
            Event::RollBack(ask) if (ask.gate.is_err() || !is_ready) && !ask.force => {
                return broken("a rollback to what is not ready");
            }
            Event::RollBack(_) => "publish at rollback",
            Event::Sample { .. } | Event::Tick if judged.bad == 0 => return broken("a verdict without a failure"),
            Event::Sample { .. } | Event::Tick if !probes.is_up(state.0) => {
                return broken("taken back to what is down");
            }
            Event::Sample { .. } | Event::Tick if self.taken_back == Some(state.0) => {
                return broken("a release that was taken back is back by itself");
            }
            Event::Sample { .. } | Event::Tick => "publish at verdict",
            Event::Flip { .. } | Event::ConfigActive { .. } | Event::Drained { .. } => {
                return broken("published by an event that may not");
            }
        };
        (self.before, self.taken_back) = (Some(old), Some(old.0));
        Ok(Some(word))
    }
}

impl Promises {
    fn notice(&mut self, told: &Notice, now: Duration) -> Result<Option<&'static str>, String> {
        Ok(match told {
            Notice::Noted { .. } => None,
            Notice::Refused { .. } => Some("refused"),
            Notice::WatchEnded { end, .. } => {
                let is_over = self.watch_until.is_some_and(|until| until <= now);
                let is_empty = self.judged.good == 0;
                match end {
                    WatchEnd::Superseded => return Ok(Some("superseded")),
                    WatchEnd::Kept | WatchEnd::NotEnoughTraffic | WatchEnd::NowhereToGo(_) if !is_over => {
                        return broken("a watch ends before its time");
                    }
                    WatchEnd::Kept if is_empty => return broken("kept without an answer"),
                    WatchEnd::NowhereToGo(_) if self.judged.bad == 0 => return broken("bad without a failure"),
                    WatchEnd::Kept => Some("kept"),
                    WatchEnd::NotEnoughTraffic => Some("not enough traffic"),
                    WatchEnd::NowhereToGo(_) => Some("nowhere to go"),
                }
            }
            Notice::Flipped { change, .. } | Notice::RolledBack { change, .. }
                if (change.to, change.epoch) != self.published =>
            {
                return broken("told of a change that was not made");
            }
            Notice::Flipped { change, .. } => (change.reason == Reason::Config).then_some("publish from config"),
            Notice::RolledBack { .. } => None,
            Notice::Drained { .. } => Some("drained"),
        })
    }

    pub(super) fn after(&mut self, event: &Event) {
        if let Event::ConfigActive { .. } = event {
            self.is_edited = false;
        }
    }

    /// The shell has woken at its time, or later.
    pub(super) fn after_waking(&self, machine: &Cutover, now: Duration) -> Result<(), String> {
        if machine.deadline().is_some_and(|deadline| deadline <= now) {
            return Err("it is late and does not know".into());
        }
        if self.drains.iter().any(|drain| drain.cut_at <= now && !drain.is_cut) {
            return Err("a drain outlives its deadline".into());
        }
        if machine.is_watching() && self.watch_until.is_none_or(|until| until <= now) {
            return Err("a watch outlives its window".into());
        }
        Ok(())
    }

    /// `machine` is what was made of the disk.
    pub(super) fn after_crash(&mut self, machine: &Cutover, config: Color, now: Duration) -> Result<(), String> {
        let state = (machine.active(), machine.epoch());
        let asked = self.asked.map(|asked| asked.state);
        if state != self.published && Some(state) != self.before && Some(state) != asked {
            return Err(format!("after a crash it is {state:?}; it was {:?}", self.published));
        }
        if machine.deadline().is_some_and(|until| until > now + WINDOW) {
            return Err("a watch is prolonged by a restart".into());
        }
        // A rollback that never reached the disk was never change.
        self.taken_back.take_if(|_| state != self.published || machine.previous().is_some());
        let is_edited = machine.saved_state().config_active != config;
        *self = Promises {
            taken_back: self.taken_back,
            is_edited,
            watch_until: machine.deadline(),
            ..Promises::of(machine)
        };
        Ok(())
    }

    /// After each step.
    pub(super) fn check(&self, machine: &Cutover, disk: &Disk) -> Result<(), String> {
        if (machine.active(), machine.epoch()) != self.published {
            return Err("the machine and the data plane disagree".into());
        }
        if machine.is_watching() && machine.previous() != Some(machine.active().other()) {
            return Err("a watch without a color to go back to".into());
        }
        if machine.previous() == Some(machine.active()) {
            return Err("a way back that leads nowhere".into());
        }
        let epochs = |all: &mut dyn Iterator<Item = u64>| all.collect::<BTreeSet<_>>();
        let known = epochs(&mut machine.drains().iter().map(|drain| drain.epoch));
        let want = epochs(&mut self.drains.iter().map(|drain| drain.epoch));
        if known != want {
            return Err(format!("drains {known:?}, replaced {want:?}"));
        }
        let (file, record) = (disk.file(), timeless(&machine.saved_state()));
        if machine.is_watching() && !machine.is_saving() && file.epoch < record.epoch {
            return Err("a published flip is not on the disk".into());
        }
        let is_settled = disk.waiting.is_empty() && !disk.dirty && !machine.is_saving();
        if is_settled && file != record {
            return Err(format!("the disk has {file:?}, the machine {record:?}"));
        }
        Ok(())
    }
}
