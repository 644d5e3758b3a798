//! Time-outs without timers: each connection writes the moment it waits for into a cell, and one sweep per worker
//! looks at all cells every [`SWEEP`] and wakes what is late.
//!
//! Setting a time-out is one store, so a request may do it at every step. A time-out fires up to one sweep late.
//! The same list of wakers ends connections at a drain deadline and at a stop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Time between two sweeps, and so the resolution of every time-out of the data plane.
pub const SWEEP: Duration = Duration::from_millis(50);

/// One connection's time-out.
#[derive(Default)]
pub struct Alarm {
    at: Cell<Option<Instant>>,
    late: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Alarm {
    /// Wakes the task at `at`, instead of any moment set before.
    pub fn set(&self, at: Instant) {
        self.at.set(Some(at));
        self.late.set(false);
    }

    /// Wakes the task at `at` at the latest.
    pub fn set_at_most(&self, at: Instant) {
        if self.at.get().is_none_or(|set| set > at) {
            self.set(at);
        }
    }

    /// Wakes the task for no time-out any more.
    pub fn clear(&self) {
        self.at.set(None);
        self.late.set(false);
    }

    /// Whether the moment has passed.
    pub fn is_late(&self) -> bool {
        self.late.get()
    }

    /// Remembers the task to wake. A task keeps its waker, so once is enough.
    pub fn watch(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }

    /// Wakes the task now.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// All alarms of a worker.
#[derive(Default)]
pub struct Alarms {
    all: RefCell<Vec<Rc<Alarm>>>,
}

impl Alarms {
    /// A new alarm; it leaves the list at the first sweep after its connection has dropped it.
    pub fn add(&self) -> Rc<Alarm> {
        let alarm = Rc::new(Alarm::default());
        self.all.borrow_mut().push(Rc::clone(&alarm));
        alarm
    }

    /// Wakes every task whose moment has passed.
    pub fn sweep(&self, now: Instant) {
        self.all.borrow_mut().retain(|alarm| {
            if Rc::strong_count(alarm) == 1 {
                return false;
            }
            if !alarm.late.get() && alarm.at.get().is_some_and(|at| at <= now) {
                alarm.late.set(true);
                alarm.wake();
            }
            true
        });
    }

    /// Wakes every task, so that each looks at the flags that end it.
    pub fn wake_all(&self) {
        self.all.borrow().iter().for_each(|alarm| alarm.wake());
    }
}
