//! Threads for work that may wait a moment, so that requests need not: whatever writes to a disk.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that lets a busy worker finish its turn of some milliseconds first, where they share a core.
///
/// An ordinary thread that was asleep takes the core at once when it wakes. A flip wakes its writers half a dozen times
/// within two milliseconds, and all requests in flight would wait for each of these. Such a thread has its fair share
/// of a busy core all the same, and a free core is taken at once (`SCHED_BATCH`, see sched(7)).
///
/// # Errors
/// The system has no thread left.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).spawn(move || {
        give_way();
        work();
    })
}

/// Where the system does not have it so, the thread is an ordinary one.
fn give_way() {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and the parameter lives until the call returns.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) };
}

#[cfg(test)]
mod tests {
    use crate::os::batch_thread::*;

    #[test]
    fn its_thread_gives_way_and_no_other_does() {
        // SAFETY: 0 is the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let (seen, see) = std::sync::mpsc::channel();
        let thread = spawn("of a test", move || seen.send(policy()).unwrap()).unwrap();
        assert_eq!(see.recv().unwrap(), libc::SCHED_BATCH);
        thread.join().unwrap();
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
