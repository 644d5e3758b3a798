//! Finds the end of a head while it arrives, and looks at its first line before the rest is there.

use crate::http1::reject::Rejection;

/// Empty lines in front of a request line that are skipped (RFC 9112 2.2).
const EMPTY_LINES_MAX: usize = 2;

/// A line of a head ends with a bare LF.
#[derive(Debug)]
pub struct BareLineFeed;

/// Finds the end of a head without reading a byte twice.
#[derive(Default)]
pub struct HeadScanner {
    /// How far it has read.
    scanned: usize,
    line_start: usize,
    first_line_end: Option<usize>,
}

impl HeadScanner {
    /// The length of the head with its empty line, or `None` while it is incomplete. `input` is all that has arrived.
    ///
    /// # Errors
    /// [`BareLineFeed`]: RFC 9112 2.2 allows a recipient to take it for a line end, and some do not.
    pub fn head_len(&mut self, input: &[u8]) -> Result<Option<usize>, BareLineFeed> {
        while let Some(found) = memchr::memchr(b'\n', &input[self.scanned..]) {
            let end = self.scanned + found;
            if end == 0 || input[end - 1] != b'\r' {
                return Err(BareLineFeed);
            }
            let is_empty = self.line_start + 1 == end;
            self.first_line_end.get_or_insert(end - 1);
            (self.scanned, self.line_start) = (end + 1, end + 1);
            if is_empty {
                return Ok(Some(end + 1));
            }
        }
        self.scanned = input.len();
        Ok(None)
    }

    /// Where the first line ends, without its line end.
    pub fn first_line_end(&self) -> Option<usize> {
        self.first_line_end
    }
}

/// How many bytes of empty lines `input` begins with, after `before` bytes of them.
///
/// # Errors
/// There are more empty lines than are skipped.
pub fn empty_lines(input: &[u8], before: usize) -> Result<usize, Rejection> {
    let mut at = 0;
    while input[at..].starts_with(b"\r\n") {
        at += 2;
        if before + at > EMPTY_LINES_MAX * 2 {
            return Err(Rejection::Malformed("too many empty lines before a request"));
        }
    }
    Ok(at)
}

/// Checks that a request line ends with a version; without one the request would be one of HTTP/0.9.
///
/// # Errors
/// [`Rejection::VersionNotSupported`], [`Rejection::Malformed`]
pub fn check_version(line: &[u8]) -> Result<(), Rejection> {
    match line {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1'] => Ok(()),
        [.., b' ', b'H', b'T', b'T', b'P', b'/', a, b'.', b] if a.is_ascii_digit() && b.is_ascii_digit() => {
            Err(Rejection::VersionNotSupported)
        }
        _ => Err(Rejection::Malformed("the request line is malformed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_however_it_arrives() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let mut scanner = HeadScanner::default();
        let ends: Vec<_> = (1..=wire.len()).map(|seen| scanner.head_len(&wire[..seen]).expect("no bare LF")).collect();
        let first = ends.iter().position(Option::is_some);
        assert_eq!(first, Some(wire.len() - 5), "found with its last byte");
        assert!(HeadScanner::default().head_len(b"GET / HTTP/1.1\nHost: a\n\n").is_err());
    }

    #[test]
    fn empty_lines_are_counted_however_they_arrive() {
        assert_eq!(empty_lines(b"\r\n\r\nGET", 0), Ok(4));
        assert_eq!(empty_lines(b"\r\nGET", 2), Ok(2));
        assert!(empty_lines(b"\r\n", 4).is_err());
    }

    #[test]
    fn a_request_line_needs_a_version() {
        assert_eq!(check_version(b"GET / HTTP/1.1"), Ok(()));
        assert_eq!(check_version(b"PRI * HTTP/2.0"), Err(Rejection::VersionNotSupported));
        assert!(matches!(check_version(b"GET /"), Err(Rejection::Malformed(_))));
        assert!(matches!(check_version(b"GET / HTTP/1.1 "), Err(Rejection::Malformed(_))));
    }
}
