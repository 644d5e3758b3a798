//! Lines written by a thread of their own, so that whoever has something to say never waits for a disk or a pipe.
//!
//! When the thread falls behind by 16,384 lines, or cannot write, further ones are dropped and counted.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::os::batch_thread;

/// Lines that wait to be written at most.
const WAITING_MAX: usize = 16 * 1024;
/// After a write that failed, when nobody has anything to say.
const AGAIN: Duration = Duration::from_secs(1);

/// Hands lines over to the writing thread; it is cheap to clone.
#[derive(Clone)]
pub struct Lines {
    waiting: SyncSender<WriterMessage>,
    fate: Arc<Fate>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What becomes of the lines.
#[derive(Default)]
struct Fate {
    /// Lost since it was last said in the log itself.
    dropped: AtomicU64,
    /// The reason for which the last write failed.
    problem: Mutex<Option<String>>,
}

impl Fate {
    fn set_problem(&self, error: Option<io::Error>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = error.map(|error| error.to_string());
    }
}

enum WriterMessage {
    Line(Vec<u8>),
    End,
}

impl Lines {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn to(out: impl Write + Send + 'static, name: &str) -> io::Result<Self> {
        let (waiting, inbox) = sync_channel(WAITING_MAX);
        let fate = Arc::<Fate>::default();
        let theirs = Arc::clone(&fate);
        let thread = batch_thread::spawn(name, move || write_all(&inbox, out, &theirs))?;
        Ok(Lines { waiting, fate, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Hands over one line, its end included. Never waits.
    pub fn send(&self, line: Vec<u8>) {
        if self.waiting.try_send(WriterMessage::Line(line)).is_err() {
            self.fate.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Returns the reason for which the last write failed; `None` when it succeeded.
    pub fn problem(&self) -> Option<String> {
        self.fate.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all that was handed over is written. Later lines are dropped.
    pub fn finish(&self) {
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread
            && self.waiting.send(WriterMessage::End).is_ok()
        {
            let _ = thread.join();
        }
    }
}

fn write_all(inbox: &Receiver<WriterMessage>, out: impl Write, fate: &Fate) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    loop {
        let next = match inbox.try_recv() {
            // Nothing else to do: what waits in the buffer goes out; where it cannot, again in a moment.
            Err(TryRecvError::Empty) => {
                let flushed = flush(&mut out, fate);
                let is_well = flushed.is_ok();
                fate.set_problem(flushed.err());
                if is_well { inbox.recv().map_err(RecvTimeoutError::from) } else { inbox.recv_timeout(AGAIN) }
            }
            next => next.map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            // A full disk must not end the log: this line is lost, the next one may not be.
            Ok(WriterMessage::Line(line)) => {
                if let Err(error) = out.write_all(&line) {
                    fate.dropped.fetch_add(1, Relaxed);
                    fate.set_problem(Some(error));
                }
            }
            Ok(WriterMessage::End) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    let _ = out.flush();
}

/// Writes what waits, and how many lines are missing from it.
fn flush(out: &mut BufWriter<impl Write>, fate: &Fate) -> io::Result<()> {
    out.flush()?;
    let lost = fate.dropped.load(Relaxed);
    if lost > 0 {
        writeln!(out, "{{\"dropped_lines\":{lost}}}")?;
        fate.dropped.fetch_sub(lost, Relaxed);
    }
    out.flush()
}

/// One line for [`Lines`], sent when dropped: what `tracing` writes an event into.
pub struct LineBuffer {
    lines: Lines,
    bytes: Vec<u8>,
}

impl Write for LineBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.lines.send(std::mem::take(&mut self.bytes));
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Lines {
    type Writer = LineBuffer;

    fn make_writer(&'a self) -> LineBuffer {
        LineBuffer { lines: self.clone(), bytes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use crate::os::line_writer::*;

    #[test]
    fn all_that_was_handed_over_is_written_in_order() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let lines = Lines::to(file.reopen().expect("the same file"), "test").expect("a thread");
        for i in 0..1000 {
            lines.send(format!("{i}\n").into_bytes());
        }
        lines.finish();
        let text = std::fs::read_to_string(file.path()).expect("what was written");
        assert_eq!(text, (0..1000).map(|i| format!("{i}\n")).collect::<String>());
    }
}
