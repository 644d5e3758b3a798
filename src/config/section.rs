//! Reads one table of the file: each key is asked for once, and a key that is never asked for is unknown.
//!
//! A wrong value becomes a problem and its default is used, so that reading continues and finds the other problems.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::units;

/// A value with its place in the file.
pub type Value<'i> = Spanned<DeValue<'i>>;

/// Says for whom a config is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The proxy reads it, or a check of what the proxy would report.
    Proxy,
    /// A client of a running proxy reads it. It needs no certificates, and often has no permission to read their keys.
    Client,
}

/// The file that is being read, and the problems found in it.
pub struct Source<'a> {
    /// The path, for the problems.
    pub path: &'a Path,
    /// The content of the file.
    pub text: &'a str,
    /// The reader of the file.
    pub reader: Reader,
    /// The problems found so far.
    pub problems: RefCell<Vec<Problem>>,
}

impl Source<'_> {
    /// Records a problem.
    pub fn problem(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::at(self.path, self.text, span, message, help));
    }
}

/// One table of the file.
pub struct Section<'a, 'i> {
    /// The file of the table.
    pub source: &'a Source<'a>,
    /// The dotted name, empty for the top level.
    pub name: String,
    /// The place of the table.
    pub span: Range<usize>,
    table: Option<&'a DeTable<'i>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a, 'i> Section<'a, 'i> {
    /// Returns the top level of the file.
    pub fn top(source: &'a Source<'a>, table: &'a Spanned<DeTable<'i>>) -> Self {
        Section::new(source, String::new(), table.span(), Some(table.get_ref()))
    }

    fn new(source: &'a Source<'a>, name: String, span: Range<usize>, table: Option<&'a DeTable<'i>>) -> Self {
        Section { source, name, span, table, asked: RefCell::default() }
    }

    /// Returns a table inside this one; it is empty if it is absent.
    pub fn section(&self, key: &'static str) -> Section<'a, 'i> {
        let name = self.dotted(key);
        match self.get(key) {
            None => Section::new(self.source, name, self.span.clone(), None),
            Some(value) => self.table_of(name, value),
        }
    }

    /// Returns `value` as a table called `name`.
    pub fn table_of(&self, name: String, value: &'a Value<'i>) -> Section<'a, 'i> {
        let table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let message = format!("{name} is {}, but must be a table", kind(other));
                self.source.problem(value.span(), message, format!("write [{name}] and its keys below it"));
                None
            }
        };
        Section::new(self.source, name, value.span(), table)
    }

    /// Returns every entry, for tables whose keys are names. No key is unknown then.
    pub fn entries(&self) -> Vec<(&'a str, Range<usize>, &'a Value<'i>)> {
        let entries = self.table.into_iter().flat_map(|table| table.iter());
        entries.map(|(key, value)| (key.get_ref().as_ref(), key.span(), value)).collect()
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &'static str) -> Option<&'a Value<'i>> {
        self.asked.borrow_mut().push(key);
        self.table?.get(key)
    }

    /// Returns the name `section.key`.
    pub fn dotted(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Records a problem with `value`, the value of `key`.
    pub fn problem(&self, key: &str, value: &Value<'_>, message: &str, help: impl Into<String>) {
        self.source.problem(value.span(), format!("{} {message}", self.dotted(key)), help);
    }

    fn wrong_kind(&self, key: &str, value: &Value<'_>, wanted: &str, example: &str) {
        let message = format!("is {}, but must be {wanted}", kind(value.get_ref()));
        self.problem(key, value, &message, format!("for example `{key} = {example}`"));
    }

    /// Reads one of a few words; the first is the default.
    pub fn word<T: Copy, const N: usize>(&self, key: &'static str, words: [(&str, T); N]) -> T {
        let (default, meaning) = words[0];
        let Some((text, value)) = self.string(key, &format!("{default:?}")) else { return meaning };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return *meaning;
        }
        let message = format!("is none of {}", words.map(|(word, _)| word).join(", "));
        self.problem(key, value, &message, format!("the default is {default:?}"));
        meaning
    }

    /// Reads a string.
    pub fn string(&self, key: &'static str, example: &str) -> Option<(&'a str, &'a Value<'i>)> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text, value)),
            _ => {
                self.wrong_kind(key, value, "a string", example);
                None
            }
        }
    }

    /// Reads a list of strings; a single string is a list of one.
    pub fn strings(&self, key: &'static str, example: &str) -> Option<Vec<(&'a str, &'a Value<'i>)>> {
        let value = self.get(key)?;
        let members = match value.get_ref() {
            DeValue::String(text) => return Some(vec![(text, value)]),
            DeValue::Array(members) => members,
            _ => {
                self.wrong_kind(key, value, "a list of strings", example);
                return None;
            }
        };
        let text = |member: &'a Value<'i>| match member.get_ref() {
            DeValue::String(text) => Some((text.as_ref(), member)),
            _ => {
                self.wrong_kind(key, member, "a list of strings", example);
                None
            }
        };
        Some(members.iter().filter_map(text).collect())
    }

    /// Reads a whole number within `range`.
    pub fn integer(&self, key: &'static str, range: std::ops::RangeInclusive<u64>, default: u64) -> u64 {
        let Some(value) = self.get(key) else { return default };
        let number = match value.get_ref() {
            DeValue::Integer(number) => integer(number.as_str(), number.radix()),
            _ => {
                self.wrong_kind(key, value, "a whole number", &default.to_string());
                return default;
            }
        };
        match number.and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n)) {
            Some(number) => number,
            None => {
                let message = format!("must be from {} to {}", range.start(), range.end());
                self.problem(key, value, &message, format!("the default is {default}"));
                default
            }
        }
    }

    /// Reads a number within `range`, with or without a fraction.
    pub fn fraction(&self, key: &'static str, range: std::ops::RangeInclusive<f64>, default: f64) -> f64 {
        let Some(value) = self.get(key) else { return default };
        let number = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => integer(number.as_str(), number.radix()).map(|number| number as f64),
            _ => {
                self.wrong_kind(key, value, "a number", &default.to_string());
                return default;
            }
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let message = format!("must be from {} to {}", range.start(), range.end());
                self.problem(key, value, &message, format!("the default is {default}"));
                default
            }
        }
    }

    /// Reads `true` or `false`.
    pub fn boolean(&self, key: &'static str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some(value) => match value.get_ref() {
                DeValue::Boolean(boolean) => *boolean,
                _ => {
                    self.wrong_kind(key, value, "true or false", &default.to_string());
                    default
                }
            },
        }
    }

    /// Reads a duration above zero.
    pub fn duration(&self, key: &'static str, default: Duration) -> Duration {
        match (self.duration_or_zero(key, default), self.get(key)) {
            (Some(Duration::ZERO), Some(value)) => {
                let help = format!("the default is \"{}\"", units::show(default));
                self.problem(key, value, "must be more than zero", help);
                default
            }
            (duration, _) => duration.unwrap_or(default),
        }
    }

    /// Reads a duration that may be zero; `None` where it is malformed, which is recorded as a problem.
    pub fn duration_or_zero(&self, key: &'static str, default: Duration) -> Option<Duration> {
        let Some(value) = self.get(key) else { return Some(default) };
        match value.get_ref() {
            DeValue::String(text) => {
                let duration = units::duration(text);
                if duration.is_none() {
                    let help = format!("a number with ms, s, m, h or d: \"{}\", \"1h30m\"", units::show(default));
                    self.problem(key, value, "is not a duration", help);
                }
                duration
            }
            DeValue::Integer(number) => {
                let help = format!("write \"{}s\" for seconds, \"{0}ms\" for milliseconds", number.as_str());
                self.problem(key, value, "has no unit", help);
                None
            }
            _ => {
                self.wrong_kind(key, value, "a duration", &format!("\"{}\"", units::show(default)));
                None
            }
        }
    }

    /// Reads a number of bytes: an integer, or a string with KiB, MiB or GiB (or kB, MB, GB).
    pub fn bytes(&self, key: &'static str, default: u64) -> u64 {
        let Some(value) = self.get(key) else { return default };
        let bytes = match value.get_ref() {
            DeValue::String(text) => units::bytes(text),
            DeValue::Integer(number) => integer(number.as_str(), number.radix()).and_then(|n| u64::try_from(n).ok()),
            _ => None,
        };
        bytes.unwrap_or_else(|| {
            self.problem(key, value, "is not a size", "bytes as a number, or \"64KiB\", \"10MB\", \"2GiB\"");
            default
        })
    }

    /// Records a problem for every key that was never asked for.
    pub fn refuse_unknown(&self) {
        let asked = self.asked.borrow();
        for (key, span, _) in self.entries() {
            if asked.contains(&key) {
                continue;
            }
            let closest = asked.iter().max_by(|a, b| similarity(a, key).total_cmp(&similarity(b, key)));
            let help = match closest.filter(|known| similarity(known, key) > 0.75) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    let mut known = asked.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("known here: {}", known.join(", "))
                }
            };
            self.source.problem(span, format!("unknown key {}", self.dotted(key)), help);
        }
    }
}

fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b)
}

/// Parses an integer, where it fits; in TOML it may have another radix.
pub fn integer(digits: &str, radix: u32) -> Option<i64> {
    i64::from_str_radix(digits, radix).ok()
}

/// Names the type of a value.
pub fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
