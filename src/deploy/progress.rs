//! Shows the progress of a deploy: a line per step with its time, and every command as it can be typed.
//!
//! On a terminal a live line says what is waited for; with `--json` there is an event per line instead. The output ends
//! up in CI logs, which many people read, so whatever looks like a secret is replaced by `***`, as in the ledger.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deploy::command::Command;
use crate::domain::release::Step;
use crate::ledger::without_secrets;
use crate::os::clock;

/// The pause between two lines about a wait where lines cannot be drawn over.
const LINE: Duration = Duration::from_secs(15);
/// The pause between two events about a wait.
const EVENT: Duration = Duration::from_secs(1);

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProgressForm {
    Plain,
    Live,
    Json,
}

/// Writes the progress of a deploy to standard output.
pub struct Progress {
    form: ProgressForm,
    began: Instant,
    step_began: Instant,
    waited: Option<Instant>,
    is_drawn: bool,
}

impl Progress {
    /// Writes one JSON event per line.
    pub fn events() -> Self {
        Self::of(ProgressForm::Json)
    }

    /// Writes lines of text, with a live line where standard output is a terminal.
    pub fn text() -> Self {
        Self::of(if std::io::stdout().is_terminal() { ProgressForm::Live } else { ProgressForm::Plain })
    }

    fn of(form: ProgressForm) -> Self {
        let now = Instant::now();
        Progress { form, began: now, step_began: now, waited: None, is_drawn: false }
    }

    /// Writes a sentence about the deploy as a whole.
    pub fn say(&mut self, text: &str) {
        self.put(text, || json!({ "event": "said", "text": text }));
    }

    /// Writes a line that belongs to the present step, such as one of the smoke test's transcript.
    pub fn note(&mut self, text: &str) {
        self.put(&format!("    {text}"), || json!({ "event": "note", "text": text }));
    }

    /// Writes the command that is run now.
    pub fn command(&mut self, command: &Command) {
        self.put(&format!("  $ {command}"), || json!({ "event": "command", "command": command.to_string() }));
    }

    /// Writes that a step begins.
    pub fn begin(&mut self, step: Step) {
        (self.step_began, self.waited) = (Instant::now(), None);
        match self.form {
            ProgressForm::Json => self.event(json!({ "event": "begin", "step": step })),
            ProgressForm::Live => self.draw(&format!("  {step:<10} …")),
            ProgressForm::Plain => {}
        }
    }

    /// Writes what the present step waits for.
    pub fn wait(&mut self, step: Step, what: &str) {
        let elapsed = self.step_began.elapsed();
        let is_due = |every| self.waited.is_none_or(|last: Instant| last.elapsed() >= every);
        match self.form {
            ProgressForm::Live => return self.draw(&format!("  {step:<10} {}  {what}", seconds(elapsed))),
            ProgressForm::Json if is_due(EVENT) => self.event(json!({ "event": "wait", "step": step, "for": what })),
            // A short wait is not worth a line, so the first call only starts the pause.
            ProgressForm::Plain if self.waited.is_some() && is_due(LINE) => self.print(&format!("    {what}")),
            ProgressForm::Plain if self.waited.is_none() => {}
            ProgressForm::Json | ProgressForm::Plain => return,
        }
        self.waited = Some(Instant::now());
    }

    /// Writes that the present step is done.
    pub fn done(&mut self, step: Step, detail: &str) {
        self.end(step, "done", "", detail);
    }

    /// Writes that the present step has failed.
    pub fn failed(&mut self, step: Step, detail: &str) {
        self.end(step, "failed", "FAILED: ", detail);
    }

    fn end(&mut self, step: Step, state: &str, mark: &str, detail: &str) {
        let elapsed = self.step_began.elapsed();
        self.put(
            &format!("  {step:<10} {}  {mark}{detail}", seconds(elapsed)),
            || json!({ "event": state, "step": step, "seconds": elapsed.as_secs_f64(), "detail": detail }),
        );
    }

    /// Writes the outcome, as a word for programs and a sentence for people.
    pub fn outcome(&mut self, word: &str, sentence: &str) {
        let elapsed = self.began.elapsed();
        self.put(
            &format!("{sentence} (after {})", seconds(elapsed).trim_start()),
            || json!({ "event": "outcome", "outcome": word, "seconds": elapsed.as_secs_f64(), "detail": sentence }),
        );
    }

    /// Erases the live line, before something is written to another output.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            write("\r\x1b[K");
        }
    }

    /// Returns whether an operator sits at a terminal and can be asked.
    pub fn can_ask(&self) -> bool {
        self.form == ProgressForm::Live && std::io::stdin().is_terminal()
    }

    fn put(&mut self, line: &str, event: impl FnOnce() -> Value) {
        match self.form {
            ProgressForm::Json => self.event(event()),
            ProgressForm::Plain | ProgressForm::Live => self.print(line),
        }
    }

    fn event(&self, mut event: Value) {
        for value in event.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
            if let Value::String(text) = value {
                *text = without_secrets(text);
            }
        }
        event["at"] = json!(clock::utc());
        write(&format!("{event}\n"));
    }

    fn print(&mut self, line: &str) {
        let erase = if std::mem::take(&mut self.is_drawn) { "\r\x1b[K" } else { "" };
        write(&format!("{erase}{}\n", without_secrets(line)));
    }

    fn draw(&mut self, line: &str) {
        // A line that wraps cannot be drawn over, so it is kept shorter than any terminal is wide.
        let line: String = without_secrets(line).chars().take(100).collect();
        write(&format!("\r\x1b[K{line}"));
        self.is_drawn = true;
    }
}

/// Writes to standard output. A reader that has left, such as `| head`, does not fail the deploy.
fn write(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn seconds(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        s @ 0..100 => format!("{:>5.1}s", s as f64 + f64::from(elapsed.subsec_millis()) / 1000.0),
        s => format!("{:>2}m{:02}s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use crate::deploy::progress::*;

    #[test]
    fn times_are_of_one_width() {
        for (ms, want) in [(50, "  0.1s"), (2_340, "  2.3s"), (99_000, " 99.0s"), (754_000, "12m34s")] {
            assert_eq!(seconds(Duration::from_millis(ms)), want);
        }
    }
}
