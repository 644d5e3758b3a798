//! A parser of answers that forgives nothing: what it takes, every client reads in the same way. It shares no code with
//! the product.

use super::strict::{is_token, length, lines};
use crate::harness::End;

/// One answer, as much of it as has come.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Its status line and fields.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    /// Field lines after the last chunk.
    pub trailers: Vec<u8>,
    /// Its end has come.
    pub is_whole: bool,
}

/// Reads what came on a connection in answer to requests of these methods. `end`: how the connection ended.
///
/// # Errors
/// What is not an answer.
pub fn answers(mut seen: &[u8], methods: &[&str], end: Option<&End>) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    let mut methods = methods.iter();
    let mut method = methods.next();
    while let Some(at) = memchr::memmem::find(seen, b"\r\n\r\n") {
        let asked = *method.ok_or_else(|| format!("an answer that nobody asked for: {}", shown(seen)))?;
        let (mut answer, framing) = head(&seen[..at + 2], asked)?;
        seen = answer.take(framing, &seen[at + 4..], end)?;
        if answer.status >= 200 {
            method = methods.next();
        }
        let is_whole = answer.is_whole;
        answers.push(answer);
        if !is_whole {
            return Ok(answers);
        }
    }
    let is_status_line = seen.starts_with(&b"HTTP/1.1 "[..seen.len().min(9)]);
    if is_status_line && (seen.is_empty() || end.is_none()) {
        Ok(answers)
    } else {
        Err(format!("no answer: {}", shown(seen)))
    }
}

enum Framing {
    Length(usize),
    Chunks,
    Close,
}

fn shown(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]))
}

fn head(head: &[u8], method: &str) -> Result<(Answer, Framing), String> {
    let bad = |what: &str| format!("{what} of {}", shown(head));
    let (first, fields) = lines(head)?;
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let status = match first {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a @ b'1'..=b'5', b, c, b' ', reason @ ..]
            if b.is_ascii_digit() && c.is_ascii_digit() && reason.iter().all(is_text) =>
        {
            [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(**digit - b'0'))
        }
        _ => return Err(bad("the status line")),
    };
    let (mut framing, mut dates) = (Vec::new(), 0);
    for (name, value) in fields {
        match name.as_str() {
            "content-length" => framing.push(Framing::Length(length(value)?)),
            "transfer-encoding" if value == b"chunked" => framing.push(Framing::Chunks),
            "keep-alive" | "proxy-connection" | "transfer-encoding" | "te" => {
                return Err(bad("a field that ends here"));
            }
            "upgrade" if !matches!(status, 101 | 426) => return Err(bad("the Upgrade")),
            "connection" if !["close", "keep-alive", "Upgrade"].iter().any(|known| known.as_bytes() == value) => {
                return Err(bad("the Connection"));
            }
            "date" => dates += 1,
            _ => {}
        }
    }
    // RFC 9110 6.6.1
    if dates > 1 || (dates == 0 && status >= 200) {
        return Err(bad("the Date"));
    }
    // RFC 9110 8.6, RFC 9112 6.1
    let is_bare = status < 200 || status == 204;
    if framing.len() > 1 || (is_bare && !framing.is_empty()) {
        return Err(bad("the framing"));
    }
    let framing = match framing.pop() {
        _ if is_bare || status == 304 || method == "HEAD" => Framing::Length(0),
        Some(framing) => framing,
        None => Framing::Close,
    };
    let answer = Answer { status, head: head.to_vec(), body: Vec::new(), trailers: Vec::new(), is_whole: false };
    Ok((answer, framing))
}

impl Answer {
    /// Takes its body from what follows its head, and gives what follows that.
    fn take<'s>(&mut self, framing: Framing, seen: &'s [u8], end: Option<&End>) -> Result<&'s [u8], String> {
        match framing {
            // The bytes of another protocol.
            _ if self.status == 101 => self.until_close(seen, end),
            Framing::Close => self.until_close(seen, end),
            Framing::Length(length) => {
                let (body, rest) = seen.split_at(length.min(seen.len()));
                self.body = body.to_vec();
                self.is_whole = body.len() == length;
                return Ok(rest);
            }
            Framing::Chunks => return self.chunks(seen),
        }
        Ok(&[])
    }

    fn until_close(&mut self, seen: &[u8], end: Option<&End>) {
        self.body = seen.to_vec();
        self.is_whole = end == Some(&End::Closed);
    }

    fn chunks<'s>(&mut self, mut seen: &'s [u8]) -> Result<&'s [u8], String> {
        let line = |seen: &'s [u8]| memchr::memmem::find(seen, b"\r\n").map(|end| (&seen[..end], &seen[end + 2..]));
        while let Some((digits, rest)) = line(seen) {
            let is_size = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
            let size = std::str::from_utf8(digits).ok().filter(|_| is_size);
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or_else(|| format!("the chunk size {}", shown(digits)))?;
            if size == 0 {
                return self.fields(rest);
            }
            self.body.extend_from_slice(&rest[..size.min(rest.len())]);
            match rest.get(size..) {
                Some([b'\r', b'\n', next @ ..]) => seen = next,
                Some([] | [b'\r']) | None => return Ok(&[]),
                Some(_) => return Err(format!("a chunk that does not end where it says: {}", shown(seen))),
            }
        }
        Ok(&[])
    }

    fn fields<'s>(&mut self, mut seen: &'s [u8]) -> Result<&'s [u8], String> {
        while let Some(end) = memchr::memmem::find(seen, b"\r\n") {
            let line = &seen[..end];
            seen = &seen[end + 2..];
            if line.is_empty() {
                self.is_whole = true;
                return Ok(seen);
            }
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            if !is_token(name) || line.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
                return Err(format!("the trailer {}", shown(line)));
            }
            self.trailers.extend_from_slice(line);
            self.trailers.extend_from_slice(b"\r\n");
        }
        Ok(&[])
    }
}

#[test]
fn what_is_sound_is_read_and_nothing_else() {
    const OK: &str = "HTTP/1.1 200 OK\r\nDate: now\r\n";
    let read = |text: &str, end: Option<&End>| {
        let answers = answers(text.as_bytes(), &["GET", "GET"], end)?;
        Ok::<_, String>(answers.iter().map(|answer| (answer.body.len(), answer.is_whole)).collect::<Vec<_>>())
    };
    for (case, text, end, want) in [
        ("a length", "Content-Length: 2\r\n\r\nok", None, vec![(2, true)]),
        ("a part", "Content-Length: 3\r\n\r\nok", Some(End::Closed), vec![(2, false)]),
        ("chunks", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n", None, vec![(2, true)]),
        ("a part of chunks", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", None, vec![(2, false)]),
        ("up to the close", "\r\nok", Some(End::Closed), vec![(2, true)]),
        ("up to a reset", "\r\nok", Some(End::Reset), vec![(2, false)]),
        ("two", "Content-Length: 0\r\n\r\nHTTP/1.1 204 \r\nDate: now\r\n\r\n", None, vec![(0, true), (0, true)]),
    ] {
        assert_eq!(read(&format!("{OK}{text}"), end.as_ref()), Ok(want), "{case}");
    }
    for unsound in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nDate: now\r\n\r\n",
        "HTTP/1.1 20 OK\r\nDate: now\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: now\r\nA: b\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: now\r\nKeep-Alive: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 204 No\r\nDate: now\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld",
        "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 0\r\n\r\nmore",
    ] {
        assert!(read(unsound, None).is_err(), "{unsound:?}");
    }
}
