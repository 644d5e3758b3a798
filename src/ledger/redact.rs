//! What must not be written down for others to read: the values of a query, and the secrets that an env file names.

use std::borrow::Cow;

use crate::config::EnvFile;
use crate::ledger::is_secret;

/// A target with `*` in place of each value of its query.
pub fn without_values(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let hidden = query.split('&').map(|pair| pair.split_once('=').map_or("*".into(), |(name, _)| format!("{name}=*")));
    format!("{path}?{}", hidden.collect::<Vec<_>>().join("&"))
}

/// Of a line that is kept.
const LINE_CHARS_MAX: usize = 2_000;
/// A shorter value would be found everywhere.
const SECRET_BYTES_MIN: usize = 4;
/// Beside what [`is_secret`] knows: an env file's names are few, and what has one of these anywhere in it is hidden.
const SECRET_PARTS: [&str; 4] = ["TOKEN", "KEY", "DSN", "AUTH"];

/// The values that an application must not have said in its log.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Those of an env file: variables whose names say so, and addresses with a password in them.
    pub fn of(file: &EnvFile) -> Self {
        let is_secret = |key: &str, value: &str| {
            let by_name = is_secret(key) || SECRET_PARTS.iter().any(|part| key.to_ascii_uppercase().contains(part));
            value.len() >= SECRET_BYTES_MIN && (by_name || (value.contains("://") && value.contains('@')))
        };
        let values = file.keys().filter_map(|key| file.get(key).map(|(value, _)| (key, value)));
        let mut secrets: Vec<_> =
            values.filter(|(key, value)| is_secret(key, value)).map(|(_, v)| v.to_owned()).collect();
        // One may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Secrets(secrets)
    }

    /// A log line of the application without them, and without the values of queries in it.
    pub fn hide(&self, line: &str) -> String {
        let line: String = line.chars().take(LINE_CHARS_MAX).collect();
        let hidden = self.0.iter().fold(line, |line, secret| line.replace(secret, "***"));
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ')' | ']');
        hidden.split_inclusive(is_end).map(without_query_values).collect()
    }
}

/// A word of a log line; what follows it stays.
fn without_query_values(word: &str) -> Cow<'_, str> {
    let end = word.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '=').len();
    match word[..end].split_once('?') {
        Some((_, query)) if query.contains('=') => Cow::Owned(without_values(&word[..end]) + &word[end..]),
        Some(_) | None => Cow::Borrowed(word),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::ledger::redact::*;

    #[test]
    fn a_target_keeps_the_names_of_its_query_and_no_value() {
        for (target, want) in [
            ("/a/42", "/a/42"),
            ("/a?token=s3cret&page=2", "/a?token=*&page=*"),
            ("/a?s3cret", "/a?*"),
            ("/a?x=1#part", "/a?x=*"),
            ("*", "*"),
        ] {
            assert_eq!(without_values(target), want);
        }
    }

    #[test]
    fn a_log_line_keeps_its_words_and_no_secret() {
        let text = "SECRET_KEY=abcd-1234\nDATABASE_URL=postgres://u:pw@db/x\nIMAGE_TAG=sha-1\nAPI_TOKEN=abc\nLOG=info\n\
             DB_PASS=hush-1\nSMTP_PWD=hush-2\nCOOKIE=hush-3\n";
        let secrets = Secrets::of(&EnvFile::parse(text.into(), Path::new(".env")).unwrap());
        for (line, want) in [
            ("info sha-1 starts", "info sha-1 starts"),
            ("key is abcd-1234!", "key is ***!"),
            ("cannot reach postgres://u:pw@db/x: refused", "cannot reach ***: refused"),
            ("\"GET /a?token=x7&b=2 HTTP/1.1\" 500", "\"GET /a?token=*&b=* HTTP/1.1\" 500"),
            ("why? a=b", "why? a=b"),
            ("hush-1, hush-2 and hush-3", "***, *** and ***"),
            ("abc is too short to be one", "abc is too short to be one"),
        ] {
            assert_eq!(secrets.hide(line), want);
        }
        assert_eq!(secrets.hide(&"é".repeat(3_000)).chars().count(), LINE_CHARS_MAX);
    }
}
