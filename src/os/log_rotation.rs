//! Keeps USR1, the signal of log rotation, from ending a process that has no log to reopen.
//!
//! A rotation that sends USR1 to every `cutover` (`kill -USR1 $(pidof cutover)`) reaches a running deploy, too, and the
//! default action of that signal is to end the process.

extern "C" fn ignore(_: libc::c_int) {}

/// Lets the process survive USR1 from now on.
///
/// A handler that does nothing is installed rather than `SIG_IGN`, because programs that this process starts would
/// inherit the latter. System calls are restarted after it.
pub fn survive_usr1() {
    // SAFETY: `sigaction` gets a zeroed structure with a handler that does nothing, which is safe in a signal's
    // context.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
}
