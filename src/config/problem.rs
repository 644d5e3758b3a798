//! Describes the problems of a configuration, all at once: each has its place, its message and a remedy.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One problem of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file that contains the problem.
    pub file: PathBuf,
    /// The line, from 1; it is 0 where the problem concerns the whole file.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The text of the line.
    pub source: String,
    /// Says what is wrong.
    pub message: String,
    /// Says how to fix it.
    pub help: String,
}

impl Problem {
    /// Describes a problem with a whole file.
    pub fn with_file(file: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Problem {
            file: file.to_owned(),
            line: 0,
            column: 0,
            source: String::new(),
            message: message.into(),
            help: help.into(),
        }
    }

    /// Describes a problem with a span of bytes of `text`, the content of `file`.
    pub fn at(
        file: &Path,
        text: &str,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let start = (0..=span.start.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Problem {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            source: text[line_start..].lines().next().unwrap_or("").to_owned(),
            ..Problem::with_file(file, message, help)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, source, message, help } = self;
        if *line == 0 {
            writeln!(f, "{}: {message}", file.display())?;
        } else {
            writeln!(f, "{}:{line}:{column}: {message}", file.display())?;
            writeln!(f, "{line:>5} | {}", source.trim_end())?;
        }
        writeln!(f, "      | help: {help}")
    }
}

/// Every problem, in the order of the file; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            write!(f, "{problem}")?;
        }
        match self.0.len() {
            1 => f.write_str("1 problem"),
            n => write!(f, "{n} problems"),
        }
    }
}

impl std::error::Error for Problems {}
