//! The streams of a session, each in a slot that outlives it.
//!
//! A task that serves a slot waits in it for the next stream, so that a stream costs no task of its own.

use super::stream_slot::{SlotOwner, StreamSlot};

/// The slots of one session.
#[derive(Default)]
pub struct StreamTable {
    pub slots: Vec<StreamSlot>,
    /// The stream in each slot, 0 for none. They stand apart from the slots so that they are searched quickly.
    ids: Vec<u32>,
    /// How many slots are served.
    active: usize,
    /// Slots with a stream that no task serves yet.
    unserved: Vec<usize>,
    /// The slot that is woken first the next time, so that each has its turn.
    first_woken: usize,
}

impl StreamTable {
    /// The stream in a slot, 0 for none.
    pub fn id(&self, at: usize) -> u32 {
        self.ids[at]
    }

    /// Puts a stream into a slot, or takes it out with 0.
    pub fn set_id(&mut self, at: usize, stream: u32) {
        self.ids[at] = stream;
    }

    /// The slot of a stream that is open.
    pub fn find(&self, stream: u32) -> Option<usize> {
        if stream == 0 { None } else { self.ids.iter().position(|&id| id == stream) }
    }

    /// How many slots a task serves a stream in, or is about to.
    pub fn active(&self) -> usize {
        self.active
    }

    /// How many slots have a task, be it that it serves a stream or that it waits for one.
    pub fn owned(&self) -> usize {
        self.slots.iter().filter(|slot| slot.owner != SlotOwner::Nobody).count()
    }

    /// Whether the peer may not open one more of `streams_max` streams (RFC 9113 5.1.2). One that it has reset is none
    /// of them, though the task that serves it may not know yet; of such there may be as many again.
    pub fn is_full(&self, streams_max: u32) -> bool {
        let streams = streams_max as usize;
        let open = || self.ids.iter().filter(|&&id| id != 0).count();
        self.active >= streams && (self.active >= 2 * streams || open() >= streams)
    }

    /// A slot for a new stream: one with a task that waits if there is one, or else an empty one.
    pub fn free_slot(&mut self) -> usize {
        let with = |owner| move |slot: &StreamSlot| slot.owner == owner && !slot.is_dismissed;
        let waiting = self.slots.iter().position(with(SlotOwner::Waiting));
        let found = waiting.or_else(|| self.slots.iter().position(with(SlotOwner::Nobody)));
        found.unwrap_or_else(|| {
            self.slots.push(StreamSlot::default());
            self.ids.push(0);
            self.slots.len() - 1
        })
    }

    /// Whether a task serves a stream in the slot, or is about to.
    pub fn is_serving(&self, at: usize) -> bool {
        self.slots[at].owner == SlotOwner::Serving
    }

    /// Has a slot served: by the task that waits in it, or by one that [`StreamTable::next_unserved`] finds it for.
    pub fn serve(&mut self, at: usize) {
        match std::mem::replace(&mut self.slots[at].owner, SlotOwner::Serving) {
            SlotOwner::Nobody => self.unserved.push(at),
            SlotOwner::Waiting => self.slots[at].wake(),
            SlotOwner::Serving => unreachable!("a slot in use is not free"),
        }
        self.active += 1;
    }

    /// Has a slot served by the task that asks for it.
    pub fn serve_by_caller(&mut self, at: usize) {
        self.slots[at].owner = SlotOwner::Serving;
        self.active += 1;
    }

    /// A slot with a stream that no task serves yet.
    pub fn next_unserved(&mut self) -> Option<usize> {
        self.unserved.pop()
    }

    /// The task of a slot serves no stream any more: it waits for the next one, or is gone.
    pub fn end_serving(&mut self, at: usize, owner: SlotOwner) {
        self.active -= usize::from(self.is_serving(at));
        self.slots[at].owner = owner;
    }

    /// Wakes the streams that could not write, another one first each time.
    pub fn wake_blocked(&mut self) {
        let len = self.slots.len();
        if len == 0 {
            return;
        }
        self.first_woken = (self.first_woken + 1) % len;
        for step in 0..len {
            let slot = &mut self.slots[(self.first_woken + step) % len];
            if slot.is_blocked {
                slot.wake();
            }
        }
    }

    /// Gives back what idle slots hold. Their tasks get no other stream, and end.
    pub fn shrink(&mut self) {
        for slot in &mut self.slots {
            if slot.owner == SlotOwner::Waiting {
                slot.is_dismissed = true;
                slot.wake();
            }
            if slot.owner != SlotOwner::Serving {
                slot.input = Vec::new();
            }
        }
    }
}
