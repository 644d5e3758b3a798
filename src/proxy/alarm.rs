//! Time-outs without timers: each connection writes the moment it waits for into a cell, and one sweep per worker
//! looks at all cells every [`SWEEP`] and wakes what is late.
//!
//! Setting a time-out is one store, so a request may do it at every step. A time-out fires up to one sweep late.
//! The same list of wakers ends connections at a drain deadline and at a stop.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Time between two sweeps, and so the resolution of every time-out of the data plane.
pub const SWEEP: Duration = Duration::from_millis(50);

/// The time-out of one task.
#[derive(Default)]
pub struct Alarm {
    at: Cell<Option<Instant>>,
    late: Cell<bool>,
    /// The task's waker. A task keeps the same one for its whole life, so it is stored once.
    waker: RefCell<Option<Waker>>,
}

impl Alarm {
    /// Sets the time-out to `at`, in place of any set before.
    pub fn set(&self, at: Instant) {
        self.at.set(Some(at));
        self.late.set(false);
    }

    /// Sets the time-out to `at`, unless an earlier one is set.
    pub fn set_at_most(&self, at: Instant) {
        if self.at.get().is_none_or(|set| set > at) {
            self.set(at);
        }
    }

    /// Removes the time-out.
    pub fn clear(&self) {
        self.at.set(None);
        self.late.set(false);
    }

    /// Whether the time-out has passed.
    pub fn is_late(&self) -> bool {
        self.late.get()
    }

    /// Wakes the task now.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// Every alarm of one worker.
#[derive(Default)]
pub struct Alarms {
    all: RefCell<Vec<Rc<Alarm>>>,
}

impl Alarms {
    /// Registers an alarm that wakes the task which awaits this. It leaves the list at the first sweep after the task
    /// has dropped it.
    pub async fn register(&self) -> Rc<Alarm> {
        let alarm = Rc::new(Alarm::default());
        self.all.borrow_mut().push(Rc::clone(&alarm));
        poll_fn(|cx| {
            *alarm.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        alarm
    }

    /// Wakes every task whose time-out has passed.
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
