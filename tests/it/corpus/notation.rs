//! Reads the corpora: cases as `key: value` lines, bytes as text with escapes. See `tests/corpus/README.md`.

use std::fs;
use std::path::Path;

/// One case: its name and its lines.
pub struct Case {
    pub name: String,
    lines: Vec<(String, String)>,
}

impl Case {
    /// The values of a key, in order.
    pub fn all<'c>(&'c self, key: &str) -> impl Iterator<Item = &'c str> {
        self.lines.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of a key that stands at most once.
    pub fn one(&self, key: &str) -> Option<&str> {
        let mut values = self.all(key);
        let value = values.next();
        assert!(values.next().is_none(), "{}: more than one `{key}`", self.name);
        value
    }

    /// The value of a key that must stand once.
    pub fn the(&self, key: &str) -> &str {
        self.one(key).unwrap_or_else(|| panic!("{}: no `{key}`", self.name))
    }

    /// The bytes of all values of a key, one after the other.
    pub fn bytes(&self, key: &str) -> Vec<u8> {
        self.all(key).flat_map(bytes).collect()
    }
}

/// Every case of a folder under `tests/corpus`, whose lines may have these keys. Names are unique.
pub fn cases(folder: &str, keys: &[&str]) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).expect("the corpus").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files {
        for (number, line) in fs::read_to_string(&file).expect("text").lines().enumerate() {
            let at = format!("{}:{}", file.display(), number + 1);
            if let Some(name) = line.strip_prefix("== ") {
                assert!(cases.iter().all(|case| case.name != name), "{at}: a second case of that name");
                cases.push(Case { name: name.to_owned(), lines: Vec::new() });
            } else if !line.is_empty() && !line.starts_with('#') {
                let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{at}: no `key: value`"));
                assert!(keys.contains(&key), "{at}: `{key}` is not one of {keys:?}");
                let case = cases.last_mut().unwrap_or_else(|| panic!("{at}: no `== name` yet"));
                case.lines.push((key.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()));
            }
        }
    }
    cases
}

/// The bytes that a text with escapes stands for.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (kind, after) = escape.split_at(1);
        rest = after;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits"));
                rest = &after[2..];
            }
            "{" => {
                let (repeated, after) = after.split_once('}').expect("a closing brace");
                let (what, times) = repeated.rsplit_once('*').expect("what*times");
                bytes.extend_from_slice(&self::bytes(what).repeat(times.parse().expect("a number")));
                rest = after;
            }
            other => panic!("`\\{other}` in {text:?} is no escape"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
