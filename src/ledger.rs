//! The append-only record of releases: one line per flip, rollback, refusal, drain, verdict and smoke test.
//!
//! `[2026-11-23T05:28:11Z] flip recall: blue -> green epoch=2 reason=operator by=cli chain=57:9f3a1b2c3d4e5f60`. Lines
//! are written and fsynced by a thread of their own, in order, so that a slow disk never delays a rollback. The file is
//! opened anew for each line: it may be rotated, and others may append to it.

mod chain;
mod line;
pub mod redact;
mod verify;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::os::batch_thread;
use crate::os::group_files::{folder_of, share};

pub use chain::{Link, read_head};
pub use line::{HIDDEN, Line, is_secret, without_secrets};
pub use verify::{Finding, Verified, verify};

/// Lines that may wait for the disk, and as many that may wait for it to be well again; more are lost, and a line says
/// so.
const WAITING_MAX: usize = 1024;
/// After a line that did not get there it is tried again this often.
const AGAIN: Duration = Duration::from_secs(5);
/// [`tail`] reads this much of the end of the file.
const TAIL_BYTES_MAX: u64 = 64 * 1024;
/// The last link is first looked for in this much of the end of the file, which holds some lines.
const TAIL_BYTES: u64 = 2 * 1024;
/// Lines kept in memory for the status.
const RECENT_MAX: usize = 100;

/// The place of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The file beside it that holds the last link written, so that lines cut off its end are missed; `None`: no such
    /// file.
    pub head: Option<PathBuf>,
}

impl Place {
    /// The ledger at `path`, with its head in `state_dir`.
    pub fn new(path: &Path, state_dir: &Path) -> Self {
        Place { path: path.to_owned(), head: Some(state_dir.join("ledger.head")) }
    }
}

/// The ledger of this process.
pub struct Ledger {
    queue: SyncSender<Order>,
    shared: Arc<Mutex<LedgerState>>,
}

#[derive(Default)]
struct LedgerState {
    recent: VecDeque<String>,
    problem: Option<String>,
    /// Lines that nobody waited for any more, and that no line has told of yet.
    lost: u64,
}

enum Order {
    Write(Line),
    Reached(oneshot::Sender<()>),
}

impl Ledger {
    /// The ledger at `place`. The folder and the file are created with the first line; what the file holds is read.
    ///
    /// # Errors
    /// Fails when the writing thread cannot be started.
    pub fn open(place: Place) -> io::Result<Self> {
        let recent = tail(&place.path, RECENT_MAX).unwrap_or_default().into();
        let shared = Arc::new(Mutex::new(LedgerState { recent, ..LedgerState::default() }));
        let (queue, orders) = sync_channel(WAITING_MAX);
        let theirs = Arc::clone(&shared);
        batch_thread::spawn("ledger", move || write_all(&place, &orders, &theirs))?;
        Ok(Ledger { queue, shared })
    }

    /// Hands a line to the writing thread; never waits.
    pub fn write(&self, line: Line) {
        if self.queue.try_send(Order::Write(line)).is_err() {
            let mut shared = lock(&self.shared);
            shared.lost += 1;
            shared.problem = Some(format!("ledger: {WAITING_MAX} lines wait for the disk, {} were lost", shared.lost));
        }
    }

    /// Hears when every line written so far is on the disk, or has failed to get there; an unhurried one is in the
    /// file.
    pub fn reached(&self) -> oneshot::Receiver<()> {
        let (reached, hear) = oneshot::channel();
        // A full queue drops the sender, which the receiver hears at once: its line was lost as well.
        let _ = self.queue.try_send(Order::Reached(reached));
        hear
    }

    /// The last `n` lines (at most 100), oldest first, as of our own last write.
    pub fn tail(&self, n: usize) -> Vec<String> {
        let shared = lock(&self.shared);
        shared.recent.iter().skip(shared.recent.len().saturating_sub(n)).cloned().collect()
    }

    /// Returns the problem with the last line.
    pub fn problem(&self) -> Option<String> {
        lock(&self.shared).problem.clone()
    }
}

fn lock(shared: &Mutex<LedgerState>) -> MutexGuard<'_, LedgerState> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_all(place: &Place, orders: &Receiver<Order>, shared: &Mutex<LedgerState>) {
    let mut waiting = VecDeque::new();
    let mut again = Instant::now();
    loop {
        let patience = if waiting.is_empty() { Duration::MAX } else { again.saturating_duration_since(Instant::now()) };
        match orders.recv_timeout(patience) {
            Ok(Order::Reached(reached)) => drop(reached.send(())),
            Ok(Order::Write(line)) if waiting.len() < WAITING_MAX => {
                waiting.push_back(line);
                write_waiting(place, &mut waiting, shared);
                again = Instant::now() + AGAIN;
            }
            Ok(Order::Write(_)) => lock(shared).lost += 1,
            Err(RecvTimeoutError::Timeout) => {
                write_waiting(place, &mut waiting, shared);
                again = Instant::now() + AGAIN;
            }
            Err(RecvTimeoutError::Disconnected) => return write_waiting(place, &mut waiting, shared),
        }
    }
}

/// Writes what waits, in order, up to the first line that does not get there.
fn write_waiting(place: &Place, waiting: &mut VecDeque<Line>, shared: &Mutex<LedgerState>) {
    while let Some(line) = waiting.front() {
        let appended = append(place, line);
        let mut shared = lock(shared);
        let path = place.path.display();
        match appended {
            Ok(Appended { lines, unsynced }) => {
                shared.recent.extend(lines);
                let surplus = shared.recent.len().saturating_sub(RECENT_MAX);
                shared.recent.drain(..surplus);
                // It is in the file once: what may be missing is not the line.
                shared.problem =
                    unsynced.map(|error| format!("ledger {path}: {error}; nobody knows what is on the disk"));
                waiting.pop_front();
                if waiting.is_empty() && shared.lost > 0 {
                    waiting.push_back(Line::new("ledger: lines were lost before this one").with("lines", shared.lost));
                    shared.lost = 0;
                }
            }
            Err(error) => {
                let (text, more, lost) = (&line.text, waiting.len() - 1, shared.lost);
                let problem =
                    format!("ledger {path}: {error}; {more} more lines wait ({lost} were lost) after {text:?}");
                tracing::error!("{problem}");
                shared.problem = Some(problem);
                return;
            }
        }
    }
}

/// The result of an append.
pub struct Appended {
    /// The line with its link, and before it what had to be said about the end of the file.
    pub lines: Vec<String>,
    /// The reason for which the line may not be on the disk, although it is in the file.
    pub unsynced: Option<io::Error>,
}

/// Appends one line and waits until it is on the disk, unless it is [unhurried](Line::unhurried); the folder and the
/// file are created with the first one.
///
/// Any process may do so at any time: the line is one write at the end of the file, and no two of ours come between
/// each other's look at that end and that write.
///
/// # Errors
/// The line did not get there. A head that cannot be kept is no error: the one before is still a line of this ledger.
pub fn append(place: &Place, line: &Line) -> io::Result<Appended> {
    let Place { path, head } = place;
    let mut file = open_to_append(path)?;
    file.lock()?;
    give_to_others(path, &file)?;
    let known = head.as_deref().and_then(|head| chain::read_head(head).ok().flatten());
    let (lines, bytes, last) = chained(&mut file, known, line)?;
    file.write_all(&bytes)?;
    let unsynced = if line.awaits_disk { file.sync_data().err() } else { None };
    if let Some(head) = head {
        // Under the lock as well, so that it never goes back.
        let _ = chain::write_head(head, &last);
    }
    file.unlock()?;
    Ok(Appended { lines, unsynced })
}

fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    match (options.open(path), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder)?;
            options.open(path)
        }
        (opened, _) => opened,
    }
}

/// What is to be appended to `file` for `line`: as lines, as bytes, and the last link of it.
fn chained(file: &mut File, known: Option<Link>, line: &Line) -> io::Result<(Vec<String>, Vec<u8>, Link)> {
    let (end, lacks_newline) = end_of(file)?;
    let written = end.link.as_ref().map_or(0, |link| link.number);
    let is_new = end.link.is_none() && end.between.is_empty();
    let mut lines = Vec::new();
    if end.is_torn {
        lines.push(Line::new("ledger: the line before this one is torn, whoever wrote it did not end it"));
    }
    let ahead = known.filter(|known| known.number > written);
    if let Some(known) = ahead.as_ref().filter(|_| !is_new) {
        let words = "ledger: lines are missing before this one";
        lines.push(Line::new(words).with("last", written).with("known", known.number));
    }
    lines.push(line.clone());
    // What was written once keeps its number: that of a new file goes on, and a gap stays to be seen.
    let (mut before, mut between) = (ahead.or(end.link), end.between);
    let mut bytes = Vec::new();
    if lacks_newline {
        bytes.push(b'\n');
        if end.is_torn {
            between.push(b'\n');
        }
    }
    let mut joined = Vec::new();
    for Line { text, .. } in lines {
        let link = Link::after(before.as_ref(), &std::mem::take(&mut between), text.as_bytes());
        let line = chain::join(&text, &link);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        joined.push(line);
        before = Some(link);
    }
    Ok((joined, bytes, before.expect("one line at least was joined")))
}

/// Returns how the file ends, and whether its newline is missing.
fn end_of(file: &mut File) -> io::Result<(chain::End, bool)> {
    // A device has no end to look at, and may be without end to read.
    if !file.metadata()?.is_file() {
        return Ok((chain::end(b""), false));
    }
    let bytes = file.seek(SeekFrom::End(0))?;
    let mut content = Vec::new();
    let mut tail = TAIL_BYTES;
    loop {
        let from = bytes.saturating_sub(tail);
        file.seek(SeekFrom::Start(from))?;
        content.clear();
        file.read_to_end(&mut content)?;
        let end = chain::end(&content);
        // A line that begins before what was read may only look like one with a link; it is followed by a whole one.
        if from == 0 || end.link.is_some() {
            return Ok((end, !content.is_empty() && !content.ends_with(b"\n")));
        }
        tail *= 16;
    }
}

/// A new ledger must be open to everybody who writes it, the proxy and whoever deploys: it belongs to the group of a
/// folder that is shared, and one that root begins to whom its folder does.
fn give_to_others(path: &Path, file: &File) -> io::Result<()> {
    let made = file.metadata()?;
    if made.len() > 0 || !made.is_file() {
        return Ok(());
    }
    if made.uid() == 0 {
        let owner = std::fs::metadata(folder_of(path))?;
        // A folder of root's own, or a user namespace that does not know the owner: it stays as it is.
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
    share(file, path);
    Ok(())
}

/// Looks at every line of the ledger at `place`, while nobody writes.
///
/// # Errors
/// The file cannot be read; a missing one is an empty one.
pub fn verify_file(place: &Place) -> io::Result<Verified> {
    let mut content = Vec::new();
    match File::open(&place.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => {
            let mut file = opened?;
            file.lock_shared()?;
            if file.metadata()?.is_file() {
                file.read_to_end(&mut content)?;
            }
        }
    }
    let head = place.head.as_deref().map_or(Ok(None), read_head)?;
    Ok(verify(&content, head.as_ref()))
}

/// A line as people read it.
pub fn without_chain(line: &str) -> &str {
    let (text, _) = chain::split(line.as_bytes());
    &line[..text.len()]
}

/// The service that a line is about: `[…] flip recall: …`.
pub fn service_of(line: &str) -> Option<&str> {
    let (_, words) = line.split_once("] ")?;
    let (subject, _) = words.split_once(':')?;
    subject.split(' ').nth(1).filter(|name| !name.is_empty() && subject.split(' ').count() == 2)
}

/// The last `n` lines of the ledger at `path`, oldest first; looks at its last 64 KiB.
///
/// # Errors
/// Fails when the file cannot be read; a missing one counts as empty.
pub fn tail(path: &Path, n: usize) -> io::Result<Vec<String>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let skipped = file.seek(SeekFrom::End(0))?.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.lines().skip(usize::from(skipped > 0)).collect::<Vec<_>>();
    Ok(whole[whole.len().saturating_sub(n)..].iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(path: &Path) -> Place {
        Place { path: path.into(), head: None }
    }

    fn written(path: &Path, lines: Vec<Line>) -> Ledger {
        let ledger = Ledger::open(alone(path)).unwrap();
        lines.into_iter().for_each(|line| ledger.write(line));
        ledger.reached().blocking_recv().unwrap();
        ledger
    }

    #[test]
    fn creates_its_folder_and_keeps_lines_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy/releases.log");
        let ledger =
            written(&path, (0..20).map(|n| Line::new("flip recall: blue -> green").with("epoch", n)).collect());
        let lines = tail(&path, 100).unwrap();
        assert_eq!(lines.len(), 20);
        assert!(
            lines
                .iter()
                .enumerate()
                .all(|(n, line)| without_chain(line).ends_with(&format!("] flip recall: blue -> green epoch={n}")))
        );
        assert!(lines[0].starts_with("[20") && lines[0].as_bytes()[21] == b']', "{}", lines[0]);
        assert_eq!(ledger.tail(5), lines[15..]);
    }

    #[test]
    fn completes_a_torn_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("releases.log");
        std::fs::write(&path, "[2026-01-01T00:00:00Z] flip recall: blue -> gre").unwrap();
        written(&path, vec![Line::new("flip recall: green -> blue")]);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(without_chain).collect();
        assert_eq!((lines.len(), lines[0]), (3, "[2026-01-01T00:00:00Z] flip recall: blue -> gre"));
        assert!(lines[1].contains("the line before this one is torn"), "{text}");
        assert!(lines[2].ends_with("] flip recall: green -> blue") && text.ends_with('\n'));
    }

    #[test]
    fn takes_lines_of_many_writers_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("releases.log");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                let line =
                    move |n| Line::new("smoke").with("writer", writer).with("n", n).with("pad", "x".repeat(5000));
                scope.spawn(move || (0..25).for_each(|n| drop(append(&alone(path), &line(n)).unwrap())));
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert_eq!(verify(text.as_bytes(), None).faults, []);
        assert!(
            text.lines().all(|line| line.starts_with('[') && without_chain(line).ends_with("xxx")),
            "no line is torn or empty"
        );
    }

    #[test]
    fn a_line_that_did_not_get_there_waits_and_one_that_cannot_wait_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy/releases.log");
        std::fs::write(folder.path().join("deploy"), "a file, not a folder").unwrap();
        let ledger = written(&path, vec![Line::new("flip")]);
        let problem = ledger.problem().expect("it did not get there");
        assert!(problem.contains("releases.log") && problem.contains("flip"), "{problem}");
        for _ in 0..WAITING_MAX + 2 {
            ledger.write(Line::new("smoke"));
            ledger.reached().blocking_recv().unwrap();
        }
        std::fs::remove_file(folder.path().join("deploy")).unwrap();
        std::thread::sleep(AGAIN + Duration::from_secs(1)); // nobody has to write another one
        ledger.reached().blocking_recv().unwrap();
        assert_eq!(ledger.problem(), None);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(without_chain).collect();
        assert_eq!(lines.len(), WAITING_MAX + 1);
        assert!(lines[0].ends_with("] flip") && lines[1].ends_with("] smoke"), "{}", lines[0]);
        assert!(
            lines[WAITING_MAX].ends_with("ledger: lines were lost before this one lines=3"),
            "{}",
            lines[WAITING_MAX]
        );
        assert_eq!(verify(text.as_bytes(), None).faults, []);
    }

    #[test]
    fn a_line_is_written_once_where_the_disk_knows_no_sync() {
        let ledger = written(Path::new("/dev/null"), vec![Line::new("flip"), Line::new("smoke")]);
        let lines = ledger.tail(10);
        assert!(lines.len() == 2 && lines[1].contains("] smoke"), "{lines:?}");
        assert!(ledger.problem().is_some_and(|problem| problem.contains("nobody knows what is on the disk")));
    }

    #[test]
    fn reads_only_the_end_of_a_long_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("releases.log");
        let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        assert_eq!(tail(&path, 2).unwrap(), ["line 19998", "line 19999"]);
        let most = tail(&path, usize::MAX).unwrap();
        assert!(most.len() < 20_000 && most.iter().all(|line| line.starts_with("line ")));
    }
}
