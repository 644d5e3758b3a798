//! A disk that answers late, says no, or says no to what it has kept all the same; and the clocks.
//!
//! As in the shell, what is kept has wall time, and a process has a clock of its own that begins anew with it.

use std::collections::VecDeque;

use super::*;

/// Since 1970 when a simulation begins.
const WALL_BEGINS: Duration = Duration::from_secs(1_800_000_000);

pub(super) struct Clocks {
    /// The clock of the process; it never goes back while the process lives.
    pub(super) now: Duration,
    /// The clock of the machine; somebody may set it at any time.
    wall: Duration,
}

impl Clocks {
    pub(super) fn new() -> Self {
        Clocks { now: Duration::from_secs(1), wall: WALL_BEGINS }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.wall += by;
    }

    /// By up to an hour, forward or back.
    pub(super) fn set_wall(&mut self, dice: &mut Dice) {
        let by = Duration::from_secs(dice.roll(3_600));
        self.wall = if dice.chance(50) { self.wall + by } else { self.wall.saturating_sub(by) };
    }

    /// Another process: its clock has an origin of its own.
    pub(super) fn restart(&mut self, dice: &mut Dice) {
        self.advance(Duration::from_secs(dice.roll(90)));
        self.now = Duration::from_millis(dice.roll(1_000));
    }
}

pub(super) struct Disk {
    file: SavedState,
    /// Saves on their way, oldest first, with wall time.
    pub(super) waiting: VecDeque<(u64, SavedState)>,
    /// The last save failed: the shell tries again.
    pub(super) dirty: bool,
}

/// The outcome of a save.
pub(super) struct SaveOutcome {
    pub(super) serial: u64,
    pub(super) state: State,
    pub(super) result: Result<(), SaveError>,
}

impl Disk {
    pub(super) fn of(record: &SavedState, clocks: &Clocks) -> Self {
        Disk { file: to_wall(record, clocks), waiting: VecDeque::new(), dirty: false }
    }

    pub(super) fn push(&mut self, serial: u64, record: &SavedState, clocks: &Clocks) -> Result<(), String> {
        if self.waiting.back().is_some_and(|(earlier, _)| *earlier >= serial) {
            return Err("a save's number does not grow".into());
        }
        self.waiting.push_back((serial, to_wall(record, clocks)));
        Ok(())
    }

    /// Whether a save of it is on its way.
    pub(super) fn is_waiting(&self, state: State) -> bool {
        self.waiting.iter().any(|(_, record)| (record.active, record.epoch) == state)
    }

    /// Comes to an end with the oldest save.
    pub(super) fn work(&mut self, dice: &mut Dice) -> Option<SaveOutcome> {
        let (serial, record) = self.waiting.pop_front()?;
        let state = (record.active, record.epoch);
        let result = if dice.chance(85) { Ok(()) } else { Err(SaveError::Disk("no space".to_owned())) };
        // One that failed at its last fsync is there, and nobody knows.
        if result.is_ok() || dice.chance(30) {
            self.file = record;
        }
        self.dirty = result.is_err();
        Some(SaveOutcome { serial, state, result })
    }

    /// The process is gone; of what it had handed over, some more may have been written.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        let written = dice.roll(self.waiting.len() as u64 + 1) as usize;
        if let Some((_, record)) = self.waiting.drain(..written).next_back() {
            self.file = record;
        }
        self.waiting.clear();
        self.dirty = false;
    }

    /// Returns the state that the next process reads.
    pub(super) fn read(&self, clocks: &Clocks) -> SavedState {
        let left = |until: Duration| clocks.now + until.saturating_sub(clocks.wall);
        SavedState { watch_until: self.file.watch_until.map(left), ..self.file.clone() }
    }

    /// Without the times.
    pub(super) fn file(&self) -> SavedState {
        timeless(&self.file)
    }
}

/// With a watch that ends at zero, where there is one.
pub(super) fn timeless(record: &SavedState) -> SavedState {
    SavedState { watch_until: record.watch_until.map(|_| Duration::ZERO), ..record.clone() }
}

fn to_wall(record: &SavedState, clocks: &Clocks) -> SavedState {
    let at = |until: Duration| clocks.wall + until.saturating_sub(clocks.now);
    SavedState { watch_until: record.watch_until.map(at), ..record.clone() }
}
