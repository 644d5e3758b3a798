//! A counter with one writer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread adds to and any thread reads.
///
/// With a single writer, adding is a plain load and store: no locked instruction, and no cache line that two writers
/// fight over.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it; a second writer would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets the value. The same rule holds: one writer.
    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Returns the present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
