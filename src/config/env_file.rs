//! Reads a Compose `.env` file: `KEY=value` lines, as `docker compose --env-file` reads them.
//!
//! It understands `export`, single and double quotes, escapes in double quotes, `# comments`, CRLF and a byte order
//! mark. It does not expand variables inside values, because the values that the proxy reads contain none.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::problem::Problem;

/// The values of a file, each with its place.
#[derive(Debug, Default)]
pub struct EnvFile {
    /// The content of the file.
    pub text: String,
    values: HashMap<String, (String, Range<usize>)>,
}

impl EnvFile {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// Fails when the file cannot be read, and reports every line that is not `KEY=value`.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(text, path),
            Err(error) => {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                let message = format!("cannot read the env file: {error} (tried {})", absolute.display());
                Err(vec![Problem::with_file(path, message, way_out(&error, path))])
            }
        }
    }

    /// Parses the content of a file.
    ///
    /// # Errors
    /// Reports every line that is not `KEY=value`.
    pub fn parse(text: String, path: &Path) -> Result<Self, Vec<Problem>> {
        let mut file = EnvFile::default();
        let mut problems = Vec::new();
        let mut rest = text.strip_prefix('\u{feff}').unwrap_or(&text);
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let line_end = rest.find('\n').map_or(rest.len(), |end| end + 1);
            let line = &rest[..line_end];
            let start = line.len() - line.trim_start().len();
            let entry = line.trim();
            let entry = entry.strip_prefix("export ").map_or(entry, str::trim_start);
            if entry.is_empty() || entry.starts_with('#') {
                rest = &rest[line_end..];
                continue;
            }
            let key = entry.split(['=', ':']).next().unwrap_or("").trim_end();
            let value_at = line.find('=').map(|equals| equals + 1);
            let (Some(value_at), true) = (value_at, is_key(key)) else {
                problems.push(Problem::at(
                    path,
                    &text,
                    at + start..at + start,
                    "not a KEY=value line",
                    "comment it out with #",
                ));
                rest = &rest[line_end..];
                continue;
            };
            match value(&rest[value_at..]) {
                Some((value, place)) => {
                    // A quoted value may span lines, so parsing continues after the line in which it ends.
                    let ended = value_at + place.end;
                    let tail = rest[ended..].lines().next().unwrap_or("");
                    if !is_blank_or_comment(tail) {
                        let span = at + ended..at + ended + tail.len();
                        let (what, help) = if place.is_empty() {
                            // Compose would run with a value that is empty for this parser.
                            ("Compose takes this comment for the value", "give it a value, or a line of its own")
                        } else {
                            ("something follows the closing quote", "remove it, or put a space and # before it")
                        };
                        problems.push(Problem::at(path, &text, span, format!("{key}: {what}"), help));
                    }
                    let place = at + value_at + place.start..at + ended;
                    file.values.insert(key.to_owned(), (value, place));
                    rest = &rest[rest[ended..].find('\n').map_or(rest.len(), |end| ended + end + 1)..];
                }
                None => {
                    let span = at + value_at..at + line_end;
                    problems.push(Problem::at(
                        path,
                        &text,
                        span,
                        format!("{key}: a quote is not closed"),
                        "close it, or leave quotes out",
                    ));
                    rest = &rest[line_end..];
                }
            }
        }
        file.text = text;
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    /// Returns a value and where it begins; the last one counts if there are several. An empty value counts as absent.
    pub fn get(&self, key: &str) -> Option<(&str, usize)> {
        self.values.get(key).map(|(value, at)| (value.as_str(), at.start)).filter(|(value, _)| !value.is_empty())
    }

    /// Returns every key.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Returns the content with another value for `key` and every other byte unchanged; a missing key is added at the
    /// end. `value` must need no quotes.
    pub fn with(&self, key: &str, value: &str) -> String {
        let mut text = self.text.clone();
        match self.values.get(key) {
            Some((_, place)) => text.replace_range(place.clone(), value),
            None => {
                let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
                let torn = !text.is_empty() && !text.ends_with('\n');
                text += &format!("{}{key}={value}{line_end}", if torn { line_end } else { "" });
            }
        }
        text
    }
}

/// Returns the remedy for a file that cannot be read.
fn way_out(error: &std::io::Error, path: &Path) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "paths are relative to the folder cutover was started in; copy deploy/.env.deploy.example there".into()
        }
        std::io::ErrorKind::PermissionDenied => {
            let path = path.display();
            format!(
                "the proxy's user and whoever deploys must be able to read it, and nobody else. With \
                 a group for both, here cutover: chgrp cutover {path} && chmod 640 {path}"
            )
        }
        _ => "it must be a text file of KEY=value lines".into(),
    }
}

/// Whether only blanks or a comment follow a value.
fn is_blank_or_comment(tail: &str) -> bool {
    tail.trim().is_empty() || (tail.starts_with([' ', '\t']) && tail.trim_start().starts_with('#'))
}

fn is_key(key: &str) -> bool {
    !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Reads a value from the start of `input`, and returns it with its place, quotes included. `None`: a quote is not
/// closed.
fn value(input: &str) -> Option<(String, Range<usize>)> {
    let blank = input.len() - input.trim_start_matches([' ', '\t']).len();
    let body = &input[blank..];
    match body.bytes().next() {
        Some(b'\'') => {
            let end = body[1..].find('\'')?;
            Some((body[1..=end].to_owned(), blank..blank + end + 2))
        }
        Some(b'"') => {
            let mut out = String::new();
            let mut chars = body[1..].char_indices();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => return Some((out, blank..blank + at + 2)),
                    '\\' => match chars.next()?.1 {
                        'n' => out.push('\n'),
                        'r' => out.push('\r'),
                        't' => out.push('\t'),
                        other => out.push(other),
                    },
                    c => out.push(c),
                }
            }
            None
        }
        Some(_) | None => {
            let line = body.lines().next().unwrap_or("");
            // A comment needs a space before it: `a#b` is a value.
            let is_comment = |at: &usize| *at == 0 || line[..*at].ends_with([' ', '\t']);
            let comment = line.match_indices('#').map(|(at, _)| at).find(is_comment);
            let kept = line[..comment.unwrap_or(line.len())].trim_end();
            Some((kept.to_owned(), blank..blank + kept.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_compose_reads_them() {
        for (case, text, want) in [
            ("plain", "HOST_PORT=8000\n", Some("8000")),
            ("no line end", "HOST_PORT=8000", Some("8000")),
            ("CRLF", "A=b\r\nHOST_PORT=8000\r\n", Some("8000")),
            ("byte order mark", "\u{feff}HOST_PORT=8000\n", Some("8000")),
            ("export", "export HOST_PORT=8000\n", Some("8000")),
            ("spaces", "  HOST_PORT = 8000  \n", Some("8000")),
            ("double quotes", "HOST_PORT=\"8000\" # blue\n", Some("8000")),
            ("single quotes", "HOST_PORT='8000'\n", Some("8000")),
            ("comment", "HOST_PORT=8000 # blue\n", Some("8000")),
            ("a sharp without a space is no comment", "HOST_PORT=80#00\n", Some("80#00")),
            ("commented out", "# HOST_PORT=8000\n", None),
            ("empty", "HOST_PORT=\n", None),
            ("the later one wins", "HOST_PORT=1\nHOST_PORT=2\n", Some("2")),
            ("escapes", "HOST_PORT=\"a\\\"b\\n\"\n", Some("a\"b\n")),
            ("no escapes in single quotes", "HOST_PORT='a\\n'\n", Some("a\\n")),
            ("over several lines", "A=\"b\nHOST_PORT=1\n\"\nHOST_PORT=2\n", Some("2")),
            ("non-ASCII", "A=é # ü\nHOST_PORT=8000 # ß\n", Some("8000")),
        ] {
            let file = EnvFile::parse(text.to_owned(), Path::new(".env")).unwrap_or_else(|p| panic!("{case}: {p:?}"));
            assert_eq!(file.get("HOST_PORT").map(|(value, _)| value), want, "{case}");
        }
    }

    #[test]
    fn another_value_changes_nothing_else() {
        for (case, text, want) in [
            ("plain", "A=b\nIMAGE_TAG=sha-1\nC=d\n", "A=b\nIMAGE_TAG=sha-2\nC=d\n"),
            ("with a comment", "IMAGE_TAG = sha-1  # now\n", "IMAGE_TAG = sha-2  # now\n"),
            ("CRLF", "IMAGE_TAG=sha-1\r\nC=d\r\n", "IMAGE_TAG=sha-2\r\nC=d\r\n"),
            ("quotes", "export IMAGE_TAG=\"sha-1\"\nC=d", "export IMAGE_TAG=sha-2\nC=d"),
            ("empty", "IMAGE_TAG=\nC=d\n", "IMAGE_TAG=sha-2\nC=d\n"),
            ("the one that counts", "IMAGE_TAG=a\nIMAGE_TAG=b\n", "IMAGE_TAG=a\nIMAGE_TAG=sha-2\n"),
            ("missing", "A=b\n", "A=b\nIMAGE_TAG=sha-2\n"),
            ("missing after a torn line", "A=b", "A=b\nIMAGE_TAG=sha-2\n"),
            ("byte order mark", "\u{feff}IMAGE_TAG=sha-1\n", "\u{feff}IMAGE_TAG=sha-2\n"),
        ] {
            let file = EnvFile::parse(text.to_owned(), Path::new(".env")).unwrap_or_else(|p| panic!("{case}: {p:?}"));
            let changed = file.with("IMAGE_TAG", "sha-2");
            assert_eq!(changed, want, "{case}");
            let again = EnvFile::parse(changed, Path::new(".env")).expect("still well-formed");
            assert_eq!(again.get("IMAGE_TAG").map(|(value, _)| value), Some("sha-2"), "{case}");
        }
    }

    #[test]
    fn a_comment_in_place_of_a_value_is_refused_for_what_it_is() {
        for (case, text, want) in [
            ("a comment", "HOST_PORT= # blue\n", "HOST_PORT: Compose takes this comment for the value"),
            ("without a space", "HOST_PORT=# blue\n", "HOST_PORT: Compose takes this comment for the value"),
            ("behind a quote", "HOST_PORT='1'# blue\n", "HOST_PORT: something follows the closing quote"),
        ] {
            let problems = EnvFile::parse(text.to_owned(), Path::new(".env")).expect_err(case);
            assert_eq!(problems.iter().map(|problem| &*problem.message).collect::<Vec<_>>(), [want], "{case}");
        }
        assert_eq!(EnvFile::parse("A= \nB=\n".to_owned(), Path::new(".env")).expect("empty values").get("A"), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_says_what_helps() {
        for (kind, want) in [
            (std::io::ErrorKind::NotFound, "copy deploy/.env.deploy.example there"),
            (std::io::ErrorKind::PermissionDenied, "chgrp cutover .env.blue && chmod 640 .env.blue"),
            (std::io::ErrorKind::InvalidData, "a text file"),
        ] {
            let help = way_out(&kind.into(), Path::new(".env.blue"));
            assert!(help.contains(want), "{kind}: {help}");
        }
    }

    #[test]
    fn every_broken_line_is_named() {
        let problems = EnvFile::parse("A=b\nnonsense\nC=\"open\n1D=2\nE='f'g\n".to_owned(), Path::new(".env"))
            .expect_err("broken");
        assert_eq!(problems.iter().map(|p| (p.line, p.column)).collect::<Vec<_>>(), [(2, 1), (3, 3), (4, 1), (5, 6)]);
    }
}
