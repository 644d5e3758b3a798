//! The chain: each line ends with its number and a hash of itself and everything since the line before it.
//!
//! `… by=cli:ann@prod-1 chain=57:9f3a1b2c3d4e5f60`. Bytes that somebody else put between two lines are covered by the
//! second one. It shows that something was changed; it does not prove who wrote it, since whoever may write the file
//! may also number it anew. The [head](read_head), kept elsewhere, is what they would have to change as well.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

use crate::os::group_files::share;

const KEY: &str = " chain=";
/// Half of what would be needed against somebody who can compute for years; whoever can write the file has less to do.
const HASH_BYTES: usize = 8;
/// The longest link: the largest number, a colon and the hash. Every head is as long, and covers the one before.
const LINK_BYTES: usize = 20 + 1 + 2 * HASH_BYTES;

/// A line's place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// From 1; it goes on in the next file when one is rotated away.
    pub number: u64,
    /// 16 hexadecimal digits.
    pub hash: String,
}

impl Link {
    /// The link of a line with the text `line` and with the bytes `between` it and `before`.
    pub fn after(before: Option<&Link>, between: &[u8], line: &[u8]) -> Link {
        let number = before.map_or(1, |before| before.number.saturating_add(1));
        Link { number, hash: hash(before, number, between, line) }
    }

    /// Whether it is that of a line with the text `line`, with the bytes `between` it and `before`.
    pub fn is_after(&self, before: Option<&Link>, between: &[u8], line: &[u8]) -> bool {
        self.hash == hash(before, self.number, between, line)
    }

    fn parse(text: &[u8]) -> Option<Link> {
        let (number, hash) = std::str::from_utf8(text).ok()?.split_once(':')?;
        let is_hash = hash.len() == 2 * HASH_BYTES && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let link = Link { number: number.parse().ok()?, hash: hash.to_owned() };
        (is_hash && link.number > 0 && link.number.to_string() == number).then_some(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

fn hash(before: Option<&Link>, number: u64, between: &[u8], line: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(format!("{} {number} {}\n", before.map_or("", |before| &before.hash), between.len()).as_bytes());
    context.update(between);
    context.update(line);
    context.finish().as_ref()[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line without its link, and the link, if it has one.
pub fn split(line: &[u8]) -> (&[u8], Option<Link>) {
    // It is short, and stands at the end: no value with a `chain=` in it can be taken for it.
    let longest = KEY.len() + LINK_BYTES;
    let from = line.len().saturating_sub(longest);
    let found = line[from..].windows(KEY.len()).rposition(|window| window == KEY.as_bytes()).map(|at| from + at);
    let link = found.and_then(|at| Some((at, Link::parse(&line[at + KEY.len()..])?)));
    link.map_or((line, None), |(at, link)| (&line[..at], Some(link)))
}

/// `line` with its link.
pub fn join(line: &str, link: &Link) -> String {
    format!("{line}{KEY}{link}")
}

/// Tells how a file ends.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// The last line that has a link.
    pub link: Option<Link>,
    /// What stands behind it, or all there is.
    pub between: Vec<u8>,
    /// Whether the last line has no end of its own.
    pub is_torn: bool,
}

/// How `content` ends, which is the end of a file. A last line that lacks nothing but its newline is whole.
pub fn end(content: &[u8]) -> End {
    let mut at = content.len();
    for line in content.split_inclusive(|b| *b == b'\n').rev() {
        if let Some(link) = split(line.strip_suffix(b"\n").unwrap_or(line)).1 {
            let between = content[at..].to_vec();
            let is_torn = !between.is_empty() && !between.ends_with(b"\n");
            return End { link: Some(link), between, is_torn };
        }
        at -= line.len();
    }
    End { link: None, is_torn: !content.is_empty() && !content.ends_with(b"\n"), between: content.to_vec() }
}

/// The last link that was known to be written, kept in a file of its own.
///
/// # Errors
/// It cannot be read. One that is missing, or holds something else, is none.
pub fn read_head(path: &Path) -> io::Result<Option<Link>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(Link::parse(read?.trim_ascii())),
    }
}

/// Keeps `link` as the last one known. The folder has to be there.
///
/// It is written over the one before, in one piece that is smaller than a sector: a new file for each line costs as
/// much as the line itself. One that belongs to somebody else, a verb that root ran, is replaced.
///
/// # Errors
/// It is not kept; the one before is.
pub fn write_head(path: &Path, link: &Link) -> io::Result<()> {
    let text = format!("{:<LINK_BYTES$}\n", link.to_string());
    if let Ok(file) = OpenOptions::new().write(true).open(path) {
        file.write_all_at(text.as_bytes(), 0)?;
        let bytes = text.len() as u64;
        return if file.metadata()?.len() > bytes { file.set_len(bytes) } else { Ok(()) };
    }
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    let mut file = File::create(&next)?;
    file.write_all(text.as_bytes())?;
    share(&file, Path::new(&next));
    std::fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_its_link_come_apart_again() {
        let link = Link::after(None, b"", b"[2026-01-01T00:00:00Z] smoke");
        let line = join("[2026-01-01T00:00:00Z] smoke", &link);
        assert_eq!(split(line.as_bytes()), (&b"[2026-01-01T00:00:00Z] smoke"[..], Some(link)));
        for not_one in [
            "x chain=1:abc",
            "x chain=0:0123456789abcdef",
            "x chain=01:0123456789abcdef",
            "x why=\"y chain=1:0123456789abcdef\"",
            "x chain=1:0123456789ABCDEF",
            "",
        ] {
            assert_eq!(split(not_one.as_bytes()), (not_one.as_bytes(), None), "{not_one}");
        }
    }

    #[test]
    fn a_head_covers_whatever_stood_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.head");
        assert_eq!(read_head(&path).unwrap(), None);
        let long = Link { number: u64::MAX, hash: "0123456789abcdef".into() };
        let short = Link { number: 7, ..long.clone() };
        for link in [&short, &long, &short] {
            write_head(&path, link).unwrap();
            assert_eq!(read_head(&path).unwrap().as_ref(), Some(link));
        }
        std::fs::write(&path, "what somebody else put there ".repeat(10)).unwrap();
        assert_eq!(read_head(&path).unwrap(), None);
        write_head(&path, &short).unwrap();
        assert_eq!(read_head(&path).unwrap(), Some(short));
    }

    #[test]
    fn every_part_of_a_link_is_in_its_hash() {
        let first = Link::after(None, b"", b"a");
        let second = Link::after(Some(&first), b"", b"b");
        assert_eq!((first.number, second.number), (1, 2));
        assert!(second.is_after(Some(&first), b"", b"b"));
        let renumbered = Link { number: 3, ..second.clone() };
        assert!(!renumbered.is_after(Some(&first), b"", b"b"));
        assert!(!second.is_after(None, b"", b"b") && !second.is_after(Some(&first), b"", b"c"));
        assert!(!second.is_after(Some(&first), b"b", b"") && !second.is_after(Some(&second), b"", b"b"));
    }

    #[test]
    fn the_end_of_a_file_is_its_last_link_and_what_is_behind_it() {
        let link = Link::after(None, b"", b"a");
        let line = join("a", &link);
        for (case, content, has_link, between, is_torn) in [
            ("nothing", String::new(), false, "", false),
            ("before there was a chain", "old\n".into(), false, "old\n", false),
            ("whole", format!("{line}\n"), true, "", false),
            ("whole but for its newline", line.clone(), true, "", false),
            ("torn", format!("{line}\n[2026"), true, "[2026", true),
            ("by somebody else", format!("{line}\nme\n"), true, "me\n", false),
        ] {
            let want = End { link: has_link.then(|| link.clone()), between: between.into(), is_torn };
            assert_eq!(end(content.as_bytes()), want, "{case}");
        }
    }
}
