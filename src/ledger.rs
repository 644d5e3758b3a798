//! The append-only record of releases: one line per flip, rollback, refusal, drain, verdict and smoke test.
//!
//! `[2026-11-23T05:28:11Z] flip recall: blue -> green epoch=2 reason=operator by=cli`. Lines are written and fsynced by
//! a thread of their own, in order, so that a slow disk never delays a rollback. The file is opened anew for each line:
//! it may be rotated, and others may append to it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Lines that may wait for the disk; more are lost, and `problems` says so.
const WAITING_MAX: usize = 1024;
/// How far back [`tail`] reads.
const TAIL_BYTES_MAX: u64 = 64 * 1024;
/// Lines kept in memory for the status.
const RECENT_MAX: usize = 100;

/// A line in the making: plain words, then `key=value`.
#[derive(Clone, Debug)]
pub struct Line(String);

impl Line {
    /// Begins with `words`, stamped with the present time.
    pub fn new(words: &str) -> Self {
        let mut line = format!("[{}] ", crate::clock::utc());
        push_escaped(&mut line, words);
        Line(line)
    }

    /// Adds ` key=value`. Values with spaces, quotes or nothing in them are quoted; control characters are escaped.
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        let value = value.to_string();
        let quoted = value.is_empty() || value.contains([' ', '"', '=']);
        self.0.push(' ');
        self.0.push_str(key);
        self.0.push_str(if quoted { "=\"" } else { "=" });
        push_escaped(&mut self.0, &if quoted { value.replace('\\', "\\\\").replace('"', "\\\"") } else { value });
        self.0.push_str(if quoted { "\"" } else { "" });
        self
    }
}

fn push_escaped(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            c if c.is_control() => write!(line, "\\u{{{:x}}}", u32::from(c)).expect("writing to a String"),
            c => line.push(c),
        }
    }
}

/// The ledger of this process.
pub struct Ledger {
    queue: SyncSender<Order>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    recent: VecDeque<String>,
    problem: Option<String>,
}

enum Order {
    Write(Line),
    Reached(oneshot::Sender<()>),
}

impl Ledger {
    /// A ledger at `path`. The folder and the file are created with the first line; what the file holds is read.
    ///
    /// # Errors
    /// When the writing thread cannot be started.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let recent = tail(&path, RECENT_MAX).unwrap_or_default().into();
        let shared = Arc::new(Mutex::new(Shared { recent, problem: None }));
        let (queue, orders) = sync_channel(WAITING_MAX);
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("ledger".into()).spawn(move || write_all(&path, &orders, &theirs))?;
        Ok(Ledger { queue, shared })
    }

    /// Hands a line to the writing thread; never waits.
    pub fn write(&self, line: Line) {
        if self.queue.try_send(Order::Write(line)).is_err() {
            lock(&self.shared).problem = Some(format!("ledger: {WAITING_MAX} lines wait for the disk, one was lost"));
        }
    }

    /// Hears when every line written so far is on the disk, or has failed to get there.
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

    /// What went wrong with the last line.
    pub fn problem(&self) -> Option<String> {
        lock(&self.shared).problem.clone()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_all(path: &Path, orders: &Receiver<Order>, shared: &Mutex<Shared>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Write(line) => {
                let problem = append(path, &line)
                    .err()
                    .map(|error| format!("ledger {}: {error}; the line was {:?}", path.display(), line.0));
                if let Some(problem) = &problem {
                    tracing::error!("{problem}");
                }
                let mut shared = lock(shared);
                if problem.is_none() {
                    if shared.recent.len() == RECENT_MAX {
                        shared.recent.pop_front();
                    }
                    shared.recent.push_back(line.0);
                }
                shared.problem = problem;
            }
            Order::Reached(reached) => drop(reached.send(())),
        }
    }
}

/// Appends one line and waits until it is on the disk; the folder and the file are created with the first one.
///
/// Any process may do so at any time: the line is one write at the end of the file, and no two of ours come between each
/// other's look at that end and that write.
///
/// # Errors
/// The line did not get there, or nobody knows whether it did.
pub fn append(path: &Path, line: &Line) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    file.lock()?;
    give_to_folders_owner(path, &file)?;
    let torn = !ends_with_newline(&mut file)?;
    file.write_all(format!("{}{}\n", if torn { "\n" } else { "" }, line.0).as_bytes())?;
    // It is in its place; the disk need not keep others waiting.
    file.unlock()?;
    file.sync_data()
}

/// A ledger that root begins must be open to the proxy, which is not root: a new one belongs to whom its folder does.
fn give_to_folders_owner(path: &Path, file: &File) -> io::Result<()> {
    let made = file.metadata()?;
    if made.len() > 0 || made.uid() != 0 {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owner = std::fs::metadata(folder)?;
    // A folder of root's own, or a user namespace that does not know the owner: it stays as it is.
    let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    Ok(())
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// The last `n` lines of the ledger at `path`, oldest first; looks at its last 64 KiB.
///
/// # Errors
/// When the file cannot be read; a missing one is an empty one.
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

    fn written(path: &Path, lines: Vec<Line>) -> Ledger {
        let ledger = Ledger::open(path.into()).unwrap();
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
                .all(|(n, line)| line.ends_with(&format!("] flip recall: blue -> green epoch={n}")))
        );
        assert!(lines[0].starts_with("[20") && lines[0].as_bytes()[21] == b']', "{}", lines[0]);
        assert_eq!(ledger.tail(5), lines[15..]);
    }

    #[test]
    fn stays_one_line_whatever_is_in_a_value() {
        let line =
            Line::new("refused x").with("by", "a b").with("why", "\"no\"\nflip \u{1b}[2J").with("n", 3).with("e", "");
        let text = line.0.split_once("] ").unwrap().1;
        assert_eq!(text, r#"refused x by="a b" why="\"no\"\nflip \u{1b}[2J" n=3 e="""#);
    }

    #[test]
    fn completes_a_torn_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("releases.log");
        std::fs::write(&path, "[2026-01-01T00:00:00Z] flip recall: blue -> gre").unwrap();
        written(&path, vec![Line::new("flip recall: green -> blue")]);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, "[2026-01-01T00:00:00Z] flip recall: blue -> gre"));
        assert!(lines[1].ends_with("] flip recall: green -> blue") && text.ends_with('\n'));
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
                scope.spawn(move || (0..25).for_each(|n| append(path, &line(n)).unwrap()));
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert!(text.lines().all(|line| line.starts_with('[') && line.ends_with("xxx")), "no line is torn or empty");
    }

    #[test]
    fn begun_by_root_belongs_to_its_folder_s_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("releases.log");
        if std::os::unix::fs::chown(folder.path(), Some(12_345), Some(12_346)).is_err() {
            return eprintln!("skipped: not root");
        }
        append(&path, &Line::new("smoke")).unwrap();
        let owner = |path: &Path| std::fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
        assert_eq!(owner(&path), (12_345, 12_346));
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        append(&path, &Line::new("smoke")).unwrap();
        assert_eq!(owner(&path), (0, 0), "one that is there is left alone");
    }

    #[test]
    fn says_when_a_line_did_not_get_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("deploy"), "a file, not a folder").unwrap();
        let ledger = written(&folder.path().join("deploy/releases.log"), vec![Line::new("flip")]);
        assert!(ledger.problem().is_some_and(|problem| problem.contains("releases.log")));
        std::fs::remove_file(folder.path().join("deploy")).unwrap();
        ledger.write(Line::new("flip"));
        ledger.reached().blocking_recv().unwrap();
        assert_eq!(ledger.problem(), None);
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
