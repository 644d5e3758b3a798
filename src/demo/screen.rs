//! What the demo shows: sentences, and one live line under them on a terminal.
//!
//! The live line is the last five seconds of traffic, a cell for each tenth of a second in the color that answered, and
//! the counters beside it. Without a terminal only whole lines are printed; with `--json` nothing but the object.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::app::WORK;
use super::figures::{Figures, Record};
use super::load::Load;
use super::verdict::Verdict;
use crate::domain::Color;

/// The live line's cells; with the counters beside them it stays within 80 columns.
const CELLS: usize = 48;
const CELL: Duration = Duration::from_millis(100);

/// Prints the story.
pub struct Screen {
    /// Sentences are printed.
    speaks: bool,
    /// A line may be drawn over.
    live: bool,
    colored: bool,
}

/// The content of the live line for a tenth of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Silent,
    Answered(Color),
    Failed,
}

impl Screen {
    /// A screen on standard output, as capable as the terminal is and `NO_COLOR` allows.
    pub fn new(json: bool) -> Screen {
        let terminal = std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Screen { speaks: !json, live: terminal && !json, colored: terminal && !no_color }
    }

    /// Prints a line.
    pub fn say(&self, line: &str) {
        if self.speaks {
            self.print(&format!("{}{line}\n", self.erase()));
        }
    }

    /// Prints the heading of an act.
    pub fn head(&self, line: &str) {
        self.say("");
        self.say(&self.paint("1", line));
    }

    /// The name of a color, in that color.
    pub fn color(&self, color: Color) -> String {
        self.paint(sgr(color), color.as_str())
    }

    /// Waits for `event`, keeping the live line moving meanwhile.
    pub async fn during<T>(&self, load: &Load, event: impl Future<Output = T>) -> T {
        let mut event = std::pin::pin!(event);
        let mut tick = tokio::time::interval(CELL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                value = &mut event => return value,
                _ = tick.tick(), if self.live => self.print(&format!("{}{}", self.erase(), self.line(load))),
            }
        }
    }

    /// Ends an act: its traffic stays on the screen.
    pub fn close(&self, load: &Load) {
        self.say(&self.line(load));
    }

    /// The last five seconds, and all requests so far.
    fn line(&self, load: &Load) -> String {
        let records = load.records();
        let failed = records.iter().filter(|record| record.end.is_failure()).count();
        let cells = cells(&records, load.now());
        let count = records.len();
        drop(records);
        let mut line = String::from("  ");
        for cell in cells {
            match (cell, self.colored) {
                (Cell::Silent, _) => line.push('.'),
                (Cell::Answered(color), true) => line += &self.paint(sgr(color), "█"),
                (Cell::Answered(color), false) => line += &color.as_str()[..1],
                (Cell::Failed, true) => line += &self.paint("31", "█"),
                (Cell::Failed, false) => line.push('X'),
            }
        }
        let failed = format!("{failed} failed");
        let failed = if failed.starts_with("0 ") { failed } else { self.paint("31", &failed) };
        format!("{line}  {} requests, {failed}", thousands(count))
    }

    /// Prints what users saw, and whether the promise held.
    pub fn verdict(&self, verdict: &Verdict) {
        if !self.speaks {
            self.print(&format!("{}\n", serde_json::to_string(verdict).expect("numbers and text have a JSON form")));
            return;
        }
        self.head("What users saw");
        self.say(&format!("  {:<36}{:>9}{:>8}{:>9}{:>9}{:>9}", "", "requests", "failed", "p50", "p99", "slowest"));
        for act in &verdict.acts {
            self.say(&row(act.name, &act.figures));
        }
        self.say(&row("all together", &verdict.total));
        let work = WORK.as_millis();
        self.say(&format!(
            "  in milliseconds, from outside, through the proxy; each response takes the app {work} ms of that"
        ));
        self.head("What was promised");
        for check in &verdict.checks {
            let mark = if check.held { self.paint("32", "kept  ") } else { self.paint("31", "BROKEN") };
            self.say(&format!("  {mark}  {}", check.promise));
            self.say(&format!("          {}", check.seen));
        }
        self.say("");
        let bad = verdict.bad_release;
        self.say(&self.paint(
            "1",
            &match verdict.held {
                true => format!(
                    "The promise held: the good release cost no request, the bad one cost {} (and {} more that v2 \
                     answered in its place), and nobody had to do anything.",
                    bad.failed, bad.replayed
                ),
                false => "The promise did NOT hold; see above for what was seen instead.".into(),
            },
        ));
    }

    fn paint(&self, sgr: &str, text: &str) -> String {
        if self.colored { format!("\x1b[{sgr}m{text}\x1b[0m") } else { text.into() }
    }

    /// Takes the live line away, so that something else can take its place.
    fn erase(&self) -> &'static str {
        if self.live { "\r\x1b[2K" } else { "" }
    }

    fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A reader that went away is no reason to end the story: it is still judged by the exit code.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// The terminal's own number for a color.
fn sgr(color: Color) -> &'static str {
    match color {
        Color::Blue => "34",
        Color::Green => "32",
    }
}

/// The color that a release of the story runs in: v1 and v3 in blue, v2 in green.
fn color_of(release: u8) -> Color {
    if release % 2 == 1 { Color::Blue } else { Color::Green }
}

/// One cell for each tenth of a second before `now`, oldest first. `records` are in the order of their ends.
fn cells(records: &VecDeque<Record>, now: Duration) -> [Cell; CELLS] {
    let mut cells = [Cell::Silent; CELLS];
    // Whole tenths of the load's clock, so that a cell does not change while it moves to the left.
    let last = now.as_millis() / CELL.as_millis();
    for record in records.iter().rev() {
        let age = last.saturating_sub(record.ended.as_millis() / CELL.as_millis()) as usize;
        if age >= CELLS {
            break;
        }
        let cell = &mut cells[CELLS - 1 - age];
        *cell = match (record.end.is_failure(), record.release) {
            (true, _) => Cell::Failed,
            (false, Some(release)) if *cell == Cell::Silent => Cell::Answered(color_of(release)),
            (false, Some(_) | None) => *cell,
        };
    }
    cells
}

fn row(name: &str, figures: &Figures) -> String {
    let number = |of: fn(&super::figures::Latency) -> f64| {
        figures.latency.as_ref().map_or("-".into(), |latency| format!("{:.1}", of(latency)))
    };
    format!(
        "  {name:<36}{:>9}{:>8}{:>9}{:>9}{:>9}",
        thousands(figures.requests),
        figures.failed,
        number(|l| l.p50_ms),
        number(|l| l.p99_ms),
        number(|l| l.slowest_ms)
    )
}

/// `12345` as `12,345`.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::figures::End;
    use super::*;

    fn at(ms: u64, release: u8, status: u16) -> Record {
        let ended = Duration::from_millis(ms);
        Record { begun: ended, ended, release: Some(release), replayed: false, end: End::Answered(status) }
    }

    mod the_live_line {
        use super::*;

        #[test]
        fn shows_who_answered_and_where_it_failed() {
            let records = [at(110, 1, 200), at(120, 1, 200), at(210, 2, 200), at(310, 3, 500), at(320, 3, 200)];
            let cells = cells(&records.into(), Duration::from_millis(500));
            let (before, seen) = cells.split_at(CELLS - 5);
            assert!(before.iter().all(|&cell| cell == Cell::Silent));
            let (blue, green) = (Cell::Answered(Color::Blue), Cell::Answered(Color::Green));
            assert_eq!(seen, [blue, green, Cell::Failed, Cell::Silent, Cell::Silent]);
        }

        #[test]
        fn forgets_what_is_older_than_it_is_wide() {
            let late = Duration::from_secs(60);
            assert_eq!(cells(&[at(110, 1, 500)].into(), late), [Cell::Silent; CELLS]);
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(thousands(n), text);
        }
    }
}
