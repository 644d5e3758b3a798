//! Lines written by a thread of their own, so that whoever has something to say never waits for a disk or a pipe.
//!
//! When the thread falls behind by 16,384 lines, or cannot write, further ones are dropped and counted. A log file that
//! was renamed or removed is opened anew: at once when [`Lines::reopen`] says so, and otherwise within a second.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::os::batch_thread;

/// Lines that wait to be written at most.
const WAITING_MAX: usize = 16 * 1024;
/// How soon a failed write is tried again, and how often the name of a log file is looked up.
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
    Reopen,
    End,
}

/// Where lines are written to.
pub trait LineTarget: Write {
    /// Opens the target anew. What has no name, such as standard output, stays as it is.
    ///
    /// # Errors
    /// It cannot be opened; lines go on to the one before.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Whether the name leads elsewhere by now, or nowhere.
    fn has_moved(&mut self) -> bool {
        false
    }
}

impl LineTarget for io::Stdout {}
impl LineTarget for io::Stderr {}

/// A log file that follows its name.
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// The device and inode of `file`.
    identity: (u64, u64),
    looked: Instant,
}

impl LogFile {
    /// Opens `path` for appending, and makes it where it is not there.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let identity = identity(&file.metadata()?);
        Ok(LogFile { path: path.to_owned(), file, identity, looked: Instant::now() })
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl LineTarget for LogFile {
    fn reopen(&mut self) -> io::Result<()> {
        *self = LogFile::open(&self.path)?;
        Ok(())
    }

    fn has_moved(&mut self) -> bool {
        if self.looked.elapsed() < AGAIN {
            return false;
        }
        self.looked = Instant::now();
        !std::fs::metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity)
    }
}

impl Lines {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn to(out: impl LineTarget + Send + 'static, name: &str) -> io::Result<Self> {
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

    /// Opens the target anew once the lines handed over so far are written. Never waits.
    pub fn reopen(&self) {
        // A queue that is full drops the request: the writer looks at the name by itself within a second.
        let _ = self.waiting.try_send(WriterMessage::Reopen);
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

fn write_all(inbox: &Receiver<WriterMessage>, out: impl LineTarget, fate: &Fate) {
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
                if out.get_mut().has_moved() {
                    reopen(&mut out, fate);
                }
                if let Err(error) = out.write_all(&line) {
                    fate.dropped.fetch_add(1, Relaxed);
                    fate.set_problem(Some(error));
                }
            }
            Ok(WriterMessage::Reopen) => reopen(&mut out, fate),
            Ok(WriterMessage::End) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    let _ = out.flush();
}

/// Writes what waits to where it was meant to go, then opens the target anew.
///
/// What cannot be written goes to the new target. A full disk must not keep a removed log open, because its space is
/// free only once it is closed.
fn reopen(out: &mut BufWriter<impl LineTarget>, fate: &Fate) {
    // A failure is seen again at the next flush, if the new target has it as well.
    let _ = flush(out, fate);
    fate.set_problem(out.get_mut().reopen().err());
}

/// Writes what waits, and how many lines are missing from it.
fn flush(out: &mut BufWriter<impl LineTarget>, fate: &Fate) -> io::Result<()> {
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

    impl LineTarget for File {}

    /// A disk that is full until the log is opened anew.
    struct FullDisk {
        is_full: bool,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for FullDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LineTarget for FullDisk {
        fn reopen(&mut self) -> io::Result<()> {
            self.is_full = false;
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_does_not_keep_the_old_log_open() {
        let written = Arc::default();
        let lines = Lines::to(FullDisk { is_full: true, written: Arc::clone(&written) }, "test").expect("a thread");
        lines.send(b"waits\n".to_vec());
        lines.reopen();
        lines.finish();
        assert_eq!(*written.lock().unwrap(), b"waits\n");
    }

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
