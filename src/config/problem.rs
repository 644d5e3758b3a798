//! What is wrong with a configuration: where, what, and a way out. All of it at once.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file it is in.
    pub file: PathBuf,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line itself.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// A way out.
    pub help: String,
}

impl Problem {
    /// A problem with a whole file.
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

    /// A problem with a span of bytes of `text`, the content of `file`.
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

/// Everything that is wrong, in the order of the file. At least one.
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
