//! Lines written by a thread of their own, so that whoever has something to say never waits for a disk or a pipe.
//!
//! When the thread falls behind by 16,384 lines, further ones are dropped and counted.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Lines that wait to be written at most.
const WAITING_MAX: usize = 16 * 1024;

/// Where to hand lines over; cheap to clone.
#[derive(Clone)]
pub struct Lines {
    waiting: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

enum Message {
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
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || write_all(&inbox, out, &counted))?;
        Ok(Lines { waiting, dropped, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Hands over one line, its end included. Never waits.
    pub fn send(&self, line: Vec<u8>) {
        if self.waiting.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until all that was handed over is written. Later lines are dropped.
    pub fn finish(&self) {
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread
            && self.waiting.send(Message::End).is_ok()
        {
            let _ = thread.join();
        }
    }
}

fn write_all(inbox: &Receiver<Message>, out: impl Write, dropped: &AtomicU64) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    let mut next = inbox.recv().ok();
    while let Some(Message::Line(line)) = next {
        // A full disk must not end the log: this line is lost, the next one may not be.
        let _ = out.write_all(&line);
        next = match inbox.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                let lost = dropped.swap(0, Relaxed);
                if lost > 0 {
                    let _ = writeln!(out, "{{\"dropped_lines\":{lost}}}");
                }
                let _ = out.flush();
                inbox.recv().ok()
            }
        };
    }
    let _ = out.flush();
}

/// One line for [`Lines`], sent when dropped: what `tracing` writes an event into.
pub struct Line {
    lines: Lines,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.lines.send(std::mem::take(&mut self.bytes));
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { lines: self.clone(), bytes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
