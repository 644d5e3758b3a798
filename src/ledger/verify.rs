//! Whether a ledger is whole, and if not, which line is not as it was written.
//!
//! It reads and changes nothing. What it cannot find: lines cut off the end since the head was last kept, a first part
//! that is gone (a rotated file looks the same), and a chain that was computed anew by somebody who changed the head
//! too.

use std::collections::BTreeMap;

use serde::Serialize;

use super::chain::{Link, split};

/// The result of a verification.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Lines in the file.
    pub lines: usize,
    /// Counts the chained lines among them.
    pub chained: usize,
    /// The line where the chain begins, from 1.
    pub begins: Option<usize>,
    /// What is not as it was written; none: it is whole.
    pub faults: Vec<Finding>,
    /// What is worth knowing and no fault.
    pub remarks: Vec<Finding>,
}

/// One thing about one line.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// From 1.
    pub line: usize,
    /// What is so, and what now.
    pub what: String,
}

struct Chained<'a> {
    line: usize,
    link: Link,
    text: &'a [u8],
    /// What stands between the chained line before it and this one, with the number of its first line.
    between: &'a [u8],
    between_line: usize,
}

/// Looks at a whole ledger. `head` is the last link known to be written, if any is.
pub fn verify(content: &[u8], head: Option<&Link>) -> Verified {
    let mut found = Verified { lines: content.split_inclusive(|b| *b == b'\n').count(), ..Verified::default() };
    let (chained, behind) = read(content);
    found.chained = chained.len();
    found.begins = chained.first().map(|first| first.line);
    let mut places: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, line) in chained.iter().enumerate() {
        places.entry(line.link.number).or_default().push(at);
    }
    for (at, line) in chained.iter().enumerate() {
        order(&mut found, &chained, &places, at);
        match line.link.number {
            1 => content_of(&mut found, line, &[None], at == 0),
            number => {
                let before: Vec<_> = places.get(&(number - 1)).into_iter().flatten().collect();
                let is_next = at > 0 && before.contains(&&(at - 1));
                let links: Vec<_> = before.iter().map(|at| Some(&chained[**at].link)).collect();
                // Without the line before it nobody can tell whether it was edited.
                if !links.is_empty() {
                    content_of(&mut found, line, &links, is_next);
                }
            }
        }
    }
    rest(&mut found, content, behind);
    against_head(&mut found, &chained, head);
    found.faults.sort_by_key(|fault| fault.line);
    found
}

/// The chained lines, and where what is behind the last one begins: its offset and its line.
fn read(content: &[u8]) -> (Vec<Chained<'_>>, (usize, usize)) {
    let (mut chained, mut offset) = (Vec::new(), 0);
    let mut behind = (0, 1);
    for (at, line) in content.split_inclusive(|b| *b == b'\n').enumerate() {
        let start = offset;
        offset += line.len();
        if let (text, Some(link)) = split(line.strip_suffix(b"\n").unwrap_or(line)) {
            let (from, between_line) = behind;
            chained.push(Chained { line: at + 1, link, text, between: &content[from..start], between_line });
            behind = (offset, at + 2);
        }
    }
    (chained, behind)
}

/// Whether the line at `at` stands where its number belongs.
fn order(found: &mut Verified, chained: &[Chained<'_>], places: &BTreeMap<u64, Vec<usize>>, at: usize) {
    let Chained { line, link, .. } = &chained[at];
    let number = link.number;
    let Some(before) = at.checked_sub(1).map(|before| chained[before].link.number) else {
        if number > 1 {
            let what = format!("the chain continues from number {} of an earlier file, or lines are gone", number - 1);
            found.remarks.push(Finding { line: *line, what });
        }
        return;
    };
    if number <= before {
        let twin = places[&number].iter().map(|at| chained[*at].line).find(|other| other != line);
        let what = match twin {
            Some(twin) => format!("number {number} is in line {twin} as well: one of them was inserted"),
            None => format!("number {number} comes after number {before}: the lines are out of order"),
        };
        return found.faults.push(Finding { line: *line, what });
    }
    let absent = || (before + 1..number).filter(|number| !places.contains_key(number));
    // Numbers may be anything in a file that was tampered with; counting them must end.
    let missing = if number - before > 1_000_000 { number - before } else { absent().count() as u64 };
    if missing > 0 {
        let (lines, are) = if missing == 1 { ("line", "is") } else { ("lines", "are") };
        let first = absent().next().unwrap_or(before + 1);
        let what = format!("{missing} {lines} before it {are} gone, beginning with number {first}");
        found.faults.push(Finding { line: *line, what });
    }
}

/// Whether a line is as it was written behind one of `before`. `is_next`: that one also stands right before it.
fn content_of(found: &mut Verified, line: &Chained<'_>, before: &[Option<&Link>], is_next: bool) {
    let Chained { link, text, between, between_line, .. } = line;
    let follows = |between: &[u8]| before.iter().any(|before| link.is_after(*before, between, text));
    let is_foreign = is_next && !between.is_empty();
    if is_next && follows(between) {
        if is_foreign && before != [None] {
            let what = "not chained: torn by a crash, or written by something else. It has not changed since then";
            found.remarks.push(Finding { line: *between_line, what: what.into() });
        }
    } else if follows(b"") {
        if is_foreign {
            let what = "inserted after the next line was written".into();
            found.faults.push(Finding { line: *between_line, what });
        }
    } else {
        let lines = if is_foreign { format!(", or a line from {between_line} on") } else { String::new() };
        let what = format!("edited{lines}: it is not what number {} was when it was written", link.number);
        found.faults.push(Finding { line: line.line, what });
    }
}

/// Describes the text behind the last chained line.
fn rest(found: &mut Verified, content: &[u8], (offset, line): (usize, usize)) {
    let behind = &content[offset..];
    if !content.is_empty() && !content.ends_with(b"\n") {
        let what = if behind.is_empty() {
            "its newline is missing; the next line that is written adds it"
        } else {
            "torn: it has no end. A crash does that; the next line that is written ends it, and the ledger says so"
        };
        return found.faults.push(Finding { line: found.lines, what: what.into() });
    }
    if found.begins.is_none() {
        if !content.is_empty() {
            let what = "nothing is chained yet: the chain begins with the next line, which covers all before it";
            found.remarks.push(Finding { line: found.lines, what: what.into() });
        }
    } else if !behind.is_empty() {
        let what = "not chained: inserted by something other than cutover. The next line will cover it as it is then";
        found.faults.push(Finding { line, what: what.into() });
    }
}

/// Whether the last link known to be written is there.
fn against_head(found: &mut Verified, chained: &[Chained<'_>], head: Option<&Link>) {
    let Some(head) = head else { return };
    let line = found.lines.max(1);
    let fault = match chained.iter().find(|line| line.link.number == head.number) {
        Some(known) if known.link == *head => None,
        Some(other) => {
            let what = format!("number {} is not the one that was written: the chain was recomputed", head.number);
            Some(Finding { line: other.line, what })
        }
        None => match (chained.first(), chained.last()) {
            (Some(_), Some(last)) if last.link.number < head.number => {
                let what = format!(
                    "lines after it are gone: it is number {}, and number {} was written",
                    last.link.number, head.number
                );
                Some(Finding { line: last.line, what })
            }
            // It was rotated away since, or its absence was found by the numbers.
            (Some(_), Some(_)) => None,
            _ => {
                let what = format!(
                    "number {} was written, but is not here; after a rotation the next line continues from it",
                    head.number
                );
                Some(Finding { line, what })
            }
        },
    };
    found.faults.extend(fault);
}
