//! What a deploy shows: a line per step with its time, every command as it could be typed, and on a terminal a live
//! line with what is waited for. `--json`: an event per line instead.
//!
//! It ends in the log of a CI, which many read: what looks like a secret is `***`, as it is in the ledger.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deploy::command::Command;
use crate::domain::release::Step;
use crate::ledger::without_secrets;
use crate::os::clock;

/// Between two lines about a wait where they cannot be drawn over.
const LINE: Duration = Duration::from_secs(15);
/// Between two events about a wait.
const EVENT: Duration = Duration::from_secs(1);

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Live,
    Json,
}

/// Where a deploy is shown: standard output.
pub struct Show {
    form: Form,
    began: Instant,
    step_began: Instant,
    waited: Option<Instant>,
    is_drawn: bool,
}

impl Show {
    /// Events if `json`; otherwise lines, with a live one on a terminal.
    pub fn new(json: bool) -> Self {
        let form = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Live,
            (false, false) => Form::Plain,
        };
        let now = Instant::now();
        Show { form, began: now, step_began: now, waited: None, is_drawn: false }
    }

    /// A sentence about the whole.
    pub fn say(&mut self, text: &str) {
        self.put(text, || json!({ "event": "said", "text": text }));
    }

    /// A line that belongs to the step under way, such as of the smoke test's transcript.
    pub fn note(&mut self, text: &str) {
        self.put(&format!("    {text}"), || json!({ "event": "note", "text": text }));
    }

    /// What is run now.
    pub fn command(&mut self, command: &Command) {
        self.put(&format!("  $ {command}"), || json!({ "event": "command", "command": command.to_string() }));
    }

    /// A step begins.
    pub fn begin(&mut self, step: Step) {
        (self.step_began, self.waited) = (Instant::now(), None);
        match self.form {
            Form::Json => self.event(json!({ "event": "begin", "step": step })),
            Form::Live => self.draw(&format!("  {step:<10} …")),
            Form::Plain => {}
        }
    }

    /// The step under way waits for something.
    pub fn wait(&mut self, step: Step, what: &str) {
        let elapsed = self.step_began.elapsed();
        let is_due = |every| self.waited.is_none_or(|last: Instant| last.elapsed() >= every);
        match self.form {
            Form::Live => return self.draw(&format!("  {step:<10} {}  {what}", seconds(elapsed))),
            Form::Json if is_due(EVENT) => self.event(json!({ "event": "wait", "step": step, "for": what })),
            // The first line of a wait comes after its first while.
            Form::Plain if self.waited.is_some() && is_due(LINE) => self.print(&format!("    {what}")),
            Form::Plain if self.waited.is_none() => {}
            Form::Json | Form::Plain => return,
        }
        self.waited = Some(Instant::now());
    }

    /// The step ended; `well` or not.
    pub fn end(&mut self, step: Step, well: bool, detail: &str) {
        let elapsed = self.step_began.elapsed();
        let mark = if well { "" } else { "FAILED: " };
        self.put(&format!("  {step:<10} {}  {mark}{detail}", seconds(elapsed)), || {
            let state = if well { "done" } else { "failed" };
            json!({ "event": state, "step": step, "seconds": elapsed.as_secs_f64(), "detail": detail })
        });
    }

    /// The end of it all, with the word for programs.
    pub fn outcome(&mut self, word: &str, sentence: &str) {
        let elapsed = self.began.elapsed();
        self.put(
            &format!("{sentence} (after {})", seconds(elapsed).trim_start()),
            || json!({ "event": "outcome", "outcome": word, "seconds": elapsed.as_secs_f64(), "detail": sentence }),
        );
    }

    /// Takes the live line away, for what is said elsewhere than here.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            write("\r\x1b[K");
        }
    }

    /// Whether somebody can be asked something.
    pub fn can_ask(&self) -> bool {
        self.form == Form::Live && std::io::stdin().is_terminal()
    }

    fn put(&mut self, line: &str, event: impl FnOnce() -> Value) {
        match self.form {
            Form::Json => self.event(event()),
            Form::Plain | Form::Live => self.print(line),
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
        // No longer than any terminal: a line that wraps cannot be drawn over.
        let line: String = without_secrets(line).chars().take(100).collect();
        write(&format!("\r\x1b[K{line}"));
        self.is_drawn = true;
    }
}

/// A reader that has left (`| head`) is no failure of the deploy.
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
    use crate::deploy::show::*;

    #[test]
    fn times_are_of_one_width() {
        for (ms, want) in [(50, "  0.1s"), (2_340, "  2.3s"), (99_000, " 99.0s"), (754_000, "12m34s")] {
            assert_eq!(seconds(Duration::from_millis(ms)), want);
        }
    }
}
