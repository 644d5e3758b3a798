//! Defines what a machine hands to the process that takes its place: its whole state, with the running watch and all
//! its evidence. Both processes read the same clock, so no time in it has to be converted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cutover, Phase, SavedState, Timing};
use crate::domain::watch::{Baseline, Watch};

/// The state of a machine at a handover, when nothing is being saved or drained.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CutoverSnapshot {
    #[serde(rename = "record")]
    state: SavedState,
    watch: Option<Box<Watch>>,
    #[serde(rename = "before")]
    baseline: Baseline,
}

impl Cutover {
    /// Returns the state for the successor.
    pub fn snapshot(&self) -> CutoverSnapshot {
        let watch = match &self.phase {
            Phase::Watching(watch) => Some(watch.clone()),
            Phase::Steady | Phase::RolledBack { .. } => None,
        };
        CutoverSnapshot { state: self.saved_state(), watch, baseline: self.baseline }
    }

    /// Rebuilds the machine of `snapshot`. A running watch continues with its evidence, under the rules that it began
    /// with.
    pub fn inherit(snapshot: CutoverSnapshot, timing: Timing, now: Duration) -> Self {
        let CutoverSnapshot { state, watch, baseline } = snapshot;
        let mut machine = Cutover::restore(state, timing, now);
        if let Some(watch) = watch {
            machine.phase = Phase::Watching(watch);
        }
        machine.baseline = baseline;
        machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Color;
    use crate::domain::cutover::{ChangeRequest, Effect, Event, Notice};
    use crate::domain::watch::{Outcomes, Stratum as Begun, WatchConfig, WatchSample};

    /// Returns a sample after this many good and bad responses.
    fn sample(machine: &Cutover, good: u64, bad: u64) -> Event {
        let mut sample = WatchSample { old_is_up: true, ..WatchSample::default() };
        sample.seen.strata[Begun::Calm as usize] = Outcomes { good, bad };
        Event::Sample { epoch: machine.epoch(), sample: Box::new(sample) }
    }

    #[test]
    fn an_heir_decides_as_the_machine_itself_would_have() {
        let timing =
            Timing { watch: WatchConfig { split: false, ..WatchConfig::DEFAULT }, drain: Duration::from_secs(30) };
        let at = |tenths: u64| Duration::from_millis(100 * tenths);
        let record = SavedState {
            active: Color::Blue,
            epoch: 1,
            previous: None,
            config_active: Color::Blue,
            watch_until: None,
            rolled_back: None,
        };
        let mut machine = Cutover::restore(record, timing, at(0));
        let request = ChangeRequest { by: "test".into(), if_epoch: None, force: false, gate: Ok(()) };
        machine.on(Event::Flip { to: Color::Green, request }, at(0));
        machine.on(Event::Saved { serial: 1, outcome: Ok(()) }, at(0));
        machine.on(Event::Drained { epoch: 1, cut: 0 }, at(1));
        for tenths in 30..60 {
            let event = sample(&machine, 10 * (tenths - 29), 0);
            assert_eq!(machine.on(event, at(tenths)), []);
        }
        let event = sample(&machine, 300, 3);
        machine.on(event, at(60));
        let text = serde_json::to_string(&machine.snapshot()).unwrap();
        let mut heir = Cutover::inherit(serde_json::from_str(&text).unwrap(), timing, at(61));
        assert_eq!((heir.saved_state(), heir.mode()), (machine.saved_state(), machine.mode()));
        let mut is_back = false;
        for bad in 4..100 {
            let event = sample(&machine, 300, bad);
            let (ours, its) = (machine.on(event.clone(), at(57 + bad)), heir.on(event, at(57 + bad)));
            let kinds = |effects: &[Effect]| effects.iter().map(std::mem::discriminant).collect::<Vec<_>>();
            assert_eq!(kinds(&its), kinds(&ours), "after {bad} bad ones");
            is_back |= its.iter().any(|effect| matches!(effect, Effect::Report(Notice::RolledBack { .. })));
        }
        assert!(is_back, "it was bad enough");
    }
}
