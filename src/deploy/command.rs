//! Runs child programs: with a time limit, a printable command line, and the end of their output.
//!
//! A child dies with this process, even when the process is killed: a child that ran on would race the deploy that is
//! started next.

use std::fmt;
use std::fs::File;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How many bytes of each output are kept, counted from its end.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// How many lines of the output a failure shows.
const LINES_SHOWN: usize = 8;

/// Describes a child: its program, its arguments, and the variables of our environment that are hidden from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    program: String,
    args: Vec<String>,
    hidden: Vec<String>,
}

/// The output of a child that succeeded.
#[derive(Debug)]
pub struct Output {
    /// The last MiB of its standard output; empty where that went to a file.
    pub stdout: String,
}

/// Explains why a child did not succeed. Each variant begins with the command line.
#[derive(Debug)]
pub enum CommandError {
    /// It could not be started.
    Start(String, io::Error),
    /// It did not end within the limit, and was killed.
    Timeout(String, Duration),
    /// It ended with a bad exit status; the text is the end of its output.
    Status(String, ExitStatus, String),
}

impl CommandError {
    /// Returns the exit code, if the child had one.
    pub fn code(&self) -> Option<i32> {
        match self {
            CommandError::Status(_, status, _) => status.code(),
            CommandError::Start(..) | CommandError::Timeout(..) => None,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Start(command, error) => write!(f, "could not be started: {error}: {command}"),
            CommandError::Timeout(command, limit) => write!(f, "not done within {limit:?}, killed: {command}"),
            CommandError::Status(command, status, said) => match said.as_str() {
                "" => write!(f, "{status}, without output: {command}"),
                said => write!(f, "{status}: {command}\n{said}"),
            },
        }
    }
}

impl std::error::Error for CommandError {}

impl Command {
    /// Describes `program` with `args`.
    pub fn new<S: Into<String>>(program: impl Into<String>, args: impl IntoIterator<Item = S>) -> Self {
        Command { program: program.into(), args: args.into_iter().map(Into::into).collect(), hidden: Vec::new() }
    }

    /// Hides a variable of our environment from the child.
    pub fn without(mut self, variable: impl Into<String>) -> Self {
        self.hidden.push(variable.into());
        self
    }

    /// Runs the child and waits at most `limit` for its end.
    ///
    /// # Errors
    /// [`CommandError`]
    pub async fn run(&self, limit: Duration) -> Result<Output, CommandError> {
        self.run_into(Stdio::piped(), &[], limit).await
    }

    /// Runs the child with `input` on its standard input. A child that ignores its input is not at fault.
    ///
    /// # Errors
    /// [`CommandError`]
    pub async fn run_with_input(&self, input: &[u8], limit: Duration) -> Result<Output, CommandError> {
        self.run_into(Stdio::piped(), input, limit).await
    }

    /// Runs the child with its standard output redirected to `file`.
    ///
    /// # Errors
    /// [`CommandError`]
    pub async fn run_to_file(&self, file: File, limit: Duration) -> Result<Output, CommandError> {
        self.run_into(file.into(), &[], limit).await
    }

    async fn run_into(&self, stdout: Stdio, input: &[u8], limit: Duration) -> Result<Output, CommandError> {
        let start = |error| CommandError::Start(self.to_string(), error);
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).stdout(stdout).stderr(Stdio::piped()).kill_on_drop(true);
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        for variable in &self.hidden {
            command.env_remove(variable);
        }
        // The child leads a process group of its own: a Ctrl-C at the terminal reaches only this process, and the
        // child's own children can be killed together with it.
        command.process_group(0);
        die_with_us(&mut command);
        let mut child = command.spawn().map_err(start)?;
        let group = ProcessGroup(child.id());
        let (out, err, stdin) = (child.stdout.take(), child.stderr.take(), child.stdin.take());
        let told = async {
            if let Some(mut stdin) = stdin {
                // A child that ends without reading its input breaks the pipe, which is no failure.
                let _ = stdin.write_all(input).await;
            }
        };
        let whole = async { tokio::join!(end_of(out), end_of(err), child.wait(), told) };
        let Ok((stdout, stderr, status, ())) = timeout(limit, whole).await else {
            return Err(CommandError::Timeout(self.to_string(), limit));
        };
        let status = status.map_err(start)?;
        group.forget();
        if status.success() {
            return Ok(Output { stdout });
        }
        let said = if stderr.trim().is_empty() { &stdout } else { &stderr };
        Err(CommandError::Status(self.to_string(), status, last_lines(said, LINES_SHOWN)))
    }
}

/// The process group of a running child. It is killed on drop, unless the child was seen to end.
struct ProcessGroup(Option<u32>);

impl ProcessGroup {
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| libc::pid_t::try_from(id).ok()) {
            // SAFETY: kill takes two numbers. The group is ours, because its leader was not waited for yet.
            unsafe { libc::kill(-id, libc::SIGKILL) };
        }
    }
}

fn die_with_us(command: &mut tokio::process::Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only prctl and getppid are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the signal was set.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
}

/// Reads an output to its end and keeps the last MiB.
async fn end_of(reader: Option<impl AsyncRead + Unpin>) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 16 * 1024]);
    let Some(mut reader) = reader else { return String::new() };
    // A read error ends the output like its regular end.
    while let Ok(n @ 1..) = reader.read(&mut piece).await {
        kept.extend_from_slice(&piece[..n]);
        if kept.len() > 2 * OUTPUT_BYTES_MAX {
            kept.drain(..kept.len() - OUTPUT_BYTES_MAX);
        }
    }
    String::from_utf8_lossy(&kept[kept.len().saturating_sub(OUTPUT_BYTES_MAX)..]).into_owned()
}

/// Returns the last `n` lines that are not blank, indented.
pub fn last_lines(text: &str, n: usize) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last: Vec<_> = lines[lines.len().saturating_sub(n)..].iter().map(|line| format!("    {line}")).collect();
    last.join("\n")
}

/// Formats the command as it can be typed into a shell.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.program))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use crate::deploy::command::*;

    const LONG: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Command {
        Command::new("sh", ["-c", script])
    }

    #[test]
    fn is_shown_as_it_could_be_typed() {
        let command = Command::new("docker", ["compose", "-p", "recall_green", "exec", "it's", ""]);
        assert_eq!(command.to_string(), r"docker compose -p recall_green exec 'it'\''s' ''");
    }

    #[tokio::test]
    async fn that_ends_well_gives_its_output() {
        let output = sh("echo out; echo err >&2").run(LONG).await.unwrap();
        assert_eq!(output.stdout, "out\n", "standard error stays apart");
    }

    #[tokio::test]
    async fn that_is_told_something_may_read_it_or_not() {
        let said = "x".repeat(200_000);
        let output = sh("wc -c").run_with_input(said.as_bytes(), LONG).await.unwrap();
        assert_eq!(output.stdout.trim(), "200000");
        assert_eq!(sh("echo deaf").run_with_input(said.as_bytes(), LONG).await.unwrap().stdout, "deaf\n");
    }

    #[tokio::test]
    async fn that_fails_says_how_and_what_it_said_last() {
        let failure = sh("seq 1 20 >&2; exit 3").run(LONG).await.unwrap_err();
        assert_eq!(failure.code(), Some(3));
        let said = failure.to_string();
        assert!(said.contains("exit status: 3") && said.contains("    20") && !said.contains("\n    12\n"), "{said}");
        let failure = Command::new("no-such-program-here", [""; 0]).run(LONG).await.unwrap_err();
        assert!(failure.to_string().contains("could not be started"), "{failure}");
    }

    #[tokio::test]
    async fn that_is_late_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("late");
        let script = format!("(sleep 1; touch {0}) & sleep 1; touch {0}", file.display());
        let failure = sh(&script).run(Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(failure, CommandError::Timeout(..)), "{failure}");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!file.exists(), "nothing of it went on");
    }

    #[tokio::test]
    async fn that_talks_without_end_costs_no_memory_for_it() {
        let output = sh("yes | head -c 9000000; echo end").run(LONG).await.unwrap();
        assert!(output.stdout.len() <= OUTPUT_BYTES_MAX && output.stdout.ends_with("end\n"));
    }
}
