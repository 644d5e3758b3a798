//! One line in the making, and what must never be in it.
//!
//! `[2026-11-23T05:28:11Z] plain words key=value`. Whatever is put into it stays one line, and what looks like a secret
//! is left out, also where it stands in the middle of what a program said.

use std::fmt::Write as _;

/// This text replaces a secret.
pub const HIDDEN: &str = "***";

/// A line in the making: plain words, then `key=value`.
#[derive(Clone, Debug)]
pub struct Line {
    pub(super) text: String,
    pub(super) awaits_disk: bool,
}

impl Line {
    /// Begins with `words`, stamped with the present time.
    pub fn new(words: &str) -> Self {
        let mut text = format!("[{}] ", crate::os::clock::utc());
        push_escaped(&mut text, &without_secrets(words));
        Line { text, awaits_disk: true }
    }

    /// Has nothing wait for the disk: a crash of the process does not lose it, a power cut may, until the next line.
    pub fn unhurried(self) -> Self {
        Line { awaits_disk: false, ..self }
    }

    /// Adds ` key=value`. Values with spaces, quotes or nothing in them are quoted; control characters are escaped. The
    /// value of a key that looks like a secret's is left out, and so are such values within `value`.
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        let value = if is_secret(key) { HIDDEN.into() } else { without_secrets(&value.to_string()) };
        let quoted = value.is_empty() || value.contains([' ', '"', '=']);
        self.text.push(' ');
        self.text.push_str(key);
        self.text.push_str(if quoted { "=\"" } else { "=" });
        push_escaped(&mut self.text, &if quoted { value.replace('\\', "\\\\").replace('"', "\\\"") } else { value });
        self.text.push_str(if quoted { "\"" } else { "" });
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

/// Whether a key is one whose value nobody writes down: `SECRET_KEY`, `db-password`, `Authorization`.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let parts: Vec<_> = key.split(['_', '-', '.']).filter(|part| !part.is_empty()).collect();
    let is_word = |part: &&str| {
        ["secret", "token", "auth", "pass", "pwd", "pw", "cookie", "authorization", "bearer"].contains(part)
    };
    ["password", "passwd", "passphrase", "secret", "apikey", "credential"].iter().any(|word| key.contains(word))
        || parts.iter().any(is_word)
        // A key alone may be that of any table; a STRIPE_KEY or a private-key is not.
        || parts.len() > 1 && parts.last().is_some_and(|last| ["key", "dsn"].contains(last))
}

/// Whether a key that looks like a secret's is one in front of a colon in plain text: `token: …` is, and `auth: …` or
/// `token-service: …` may be the name of a service.
fn is_label(key: &str) -> bool {
    let last = key.rsplit(['_', '-']).next().unwrap_or_default().to_ascii_lowercase();
    last != "auth" && (is_secret(&last) || ["key", "dsn"].contains(&&*last))
}

/// `text` without the values of `KEY=value`, `"key": "value"`, `--key value` and `scheme://user:password@` where they
/// look like secrets.
pub fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(user) = rest.strip_prefix("://") {
            let (said, taken) = userinfo(user);
            out.push_str("://");
            out.push_str(&said);
            rest = &user[taken..];
            continue;
        }
        if !is_of_key(c) {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let key = &rest[..rest.find(|c| !is_of_key(c)).unwrap_or(rest.len())];
        let behind = &rest[key.len()..];
        // The name of an image, in front of its tag.
        let is_image = out.ends_with('/') && behind.starts_with(':');
        out.push_str(key);
        rest = behind;
        let is_labelled = behind.trim_start_matches(' ').starts_with(':');
        if is_secret(key.trim_start_matches('-')) && !is_image && (!is_labelled || is_label(key)) {
            let between = separator(behind, key.starts_with("--"));
            if between > 0 {
                let taken = between + value(&behind[between..], behind[..between].ends_with(['"', '\'']));
                out.push_str(&behind[..between]);
                out.push_str(HIDDEN);
                rest = &behind[taken..];
            }
        }
    }
    out
}

fn is_of_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// What is said of `user:password@…`, and how much of it that is about.
fn userinfo(text: &str) -> (String, usize) {
    let end = text.find(|c: char| c.is_whitespace() || "/\"'`,;".contains(c)).unwrap_or(text.len());
    match text[..end].rfind('@').and_then(|at| text[..at].find(':').map(|colon| (colon, at))) {
        Some((colon, at)) => (format!("{}:{HIDDEN}@", &text[..colon]), at + 1),
        None => (String::new(), 0),
    }
}

/// Returns the number of bytes between a key and its value; none where there is no value.
fn separator(text: &str, is_flag: bool) -> usize {
    let quote = text.len() - text.trim_start_matches(['"', '\'', '\\']).len();
    let behind = &text[quote..];
    let spaces = |text: &str| text.len() - text.trim_start_matches(' ').len();
    let sign = match behind.trim_start_matches(' ').chars().next() {
        Some('=' | ':') => spaces(behind) + 1,
        Some(_) if is_flag && quote == 0 && behind.starts_with(' ') => spaces(behind),
        Some(_) | None => return 0,
    };
    let after = &behind[sign..];
    let gap = spaces(after);
    let scheme = ["Bearer ", "Basic ", "bearer ", "basic "].into_iter().find(|word| after[gap..].starts_with(word));
    let opening = &after[gap + scheme.map_or(0, str::len)..];
    let quotes = opening.len() - opening.trim_start_matches(['"', '\'', '\\']).len();
    quote + sign + gap + scheme.map_or(0, str::len) + quotes
}

/// Returns the length of a value in bytes.
fn value(text: &str, is_quoted: bool) -> usize {
    let ends = |c: char| if is_quoted { "\"'\n".contains(c) } else { c.is_whitespace() || "\"',;&}".contains(c) };
    text.find(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_one_line_whatever_is_in_a_value() {
        let line =
            Line::new("refused x").with("by", "a b").with("why", "\"no\"\nflip \u{1b}[2J").with("n", 3).with("e", "");
        let text = line.text.split_once("] ").unwrap().1;
        assert_eq!(text, r#"refused x by="a b" why="\"no\"\nflip \u{1b}[2J" n=3 e="""#);
    }

    #[test]
    fn has_no_secret_in_it_wherever_it_was() {
        for said in [
            "SECRET_KEY=hush",
            "exit status: 1: env DB_PASSWORD='hu sh hush' flask db upgrade",
            r#"{"api_key": "hush", "n": 1}"#,
            "Authorization: Bearer hush",
            "could not connect to postgresql://recall:hush@postgres:5432/recall?a=b",
            "redis://:hush@redis:6379",
            "curl --token hush https://example.com",
            "token: hush; retry",
            "SECRET_KEY: hush",
            "AUTH=hush",
            "https://example.com/?access_token=hush&page=2",
            "STRIPE_KEY = hush",
            r#"why=\"PGPASSWORD=hush\""#,
        ] {
            let line = Line::new("deploy recall: failed").with("why", said).with("DB_PASSWD", "hush");
            assert!(!line.text.contains("hush") && line.text.contains(HIDDEN), "{said}: {}", line.text);
        }
        assert_eq!(
            without_secrets("postgres://recall:hush@db/x failed, PASSWORD=a b"),
            "postgres://recall:***@db/x failed, PASSWORD=*** b"
        );
    }

    #[test]
    fn what_is_no_secret_is_left_as_it_is() {
        for said in [
            "http://127.0.0.1:8001/readyz answers 503",
            "duplicate key value violates unique constraint: Key (id)=(5)",
            "image ghcr.io/ann/recall/api:sha-1f2e3d4@sha256:ab",
            "passed 3 of 5 tokens=7 max-errors=5",
            "the keyboard: broken; monkey=1 authors=2",
            "ein Schlüssel: ✓ 16 KiB",
            "deploy auth: kept tag=sha-1",
            "token-service: green is not ready",
            "ghcr.io/acme/user-auth:sha-1f2e3d4 is on this machine",
        ] {
            assert_eq!(without_secrets(said), said);
        }
    }
}
