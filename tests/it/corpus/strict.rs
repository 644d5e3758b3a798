//! A parser that forgives nothing: what it takes can be read in one way only. It shares no code with the product.

/// Checks that `seen`, all that one connection carried, is a run of requests, of which the last may be incomplete.
/// Returns how many heads there are.
pub fn requests(mut seen: &[u8]) -> Result<usize, String> {
    let mut heads = 0;
    while !seen.is_empty() {
        let Some(end) = memchr::memmem::find(seen, b"\r\n\r\n") else {
            return Err("a head without its end".into());
        };
        let length = head(&seen[..end + 2])?;
        heads += 1;
        seen = &seen[end + 4..];
        seen = match length {
            Framing::Length(length) => &seen[length.min(seen.len())..],
            Framing::Chunks => chunks(seen)?,
        };
    }
    Ok(heads)
}

enum Framing {
    Length(usize),
    Chunks,
}

/// Names in lower case, and values.
pub type Fields<'h> = Vec<(String, &'h [u8])>;

/// A head without its empty line: its first line, and its fields.
pub fn lines(head: &[u8]) -> Result<(&[u8], Fields<'_>), String> {
    let shown = || String::from_utf8_lossy(head).into_owned();
    let text = head.strip_suffix(b"\r\n").ok_or_else(|| format!("no line end in {}", shown()))?;
    let mut lines = text.split(|&byte| byte == b'\n').peekable();
    let mut whole = Vec::new();
    while let Some(line) = lines.next() {
        match line {
            [line @ .., b'\r'] if lines.peek().is_some() => whole.push(line),
            line if lines.peek().is_none() => whole.push(line),
            _ => return Err(format!("a bare LF in {}", shown())),
        }
    }
    let mut fields = Vec::new();
    for line in &whole[1..] {
        let colon = line.iter().position(|&byte| byte == b':').ok_or_else(|| format!("no colon in {}", shown()))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if !is_token(name) || !value.iter().all(is_value) {
            return Err(format!("a field of {}", shown()));
        }
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value));
    }
    Ok((whole[0], fields))
}

fn head(head: &[u8]) -> Result<Framing, String> {
    let shown = || String::from_utf8_lossy(head).into_owned();
    let (first, fields) = lines(head)?;
    let parts: Vec<_> = first.split(|&byte| byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts[..] else { return Err(format!("the request line of {}", shown())) };
    let is_target = |byte: &u8| (b'!'..=b'~').contains(byte) && *byte != b'#';
    if !is_token(method) || target.is_empty() || !target.iter().all(is_target) {
        return Err(format!("the request line of {}", shown()));
    }
    let (mut hosts, mut framing) = (0, Vec::new());
    for (name, value) in fields {
        match name.as_str() {
            "host" => hosts += 1,
            "content-length" => framing.push(Framing::Length(length(value)?)),
            "transfer-encoding" if value == b"chunked" => framing.push(Framing::Chunks),
            "keep-alive" | "proxy-connection" | "transfer-encoding" | "proxy" => {
                return Err(format!("a field that must stay behind, in {}", shown()));
            }
            "connection" if value != b"Upgrade" && value != b"te" => {
                return Err(format!("the Connection of {}", shown()));
            }
            "te" if value != b"trailers" => return Err(format!("the TE of {}", shown())),
            "upgrade" if value.eq_ignore_ascii_case(b"h2c") => return Err(format!("h2c in {}", shown())),
            _ => {}
        }
    }
    match (hosts, framing.len()) {
        (1, 0) => Ok(Framing::Length(0)),
        (1, 1) => Ok(framing.remove(0)),
        _ => Err(format!("hosts or framing of {}", shown())),
    }
}

/// A length of digits only.
pub fn length(value: &[u8]) -> Result<usize, String> {
    let digits = std::str::from_utf8(value).ok().filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("the length {:?}", String::from_utf8_lossy(value)))
}

/// What follows a chunked body that begins here; nothing when it is incomplete.
fn chunks(mut seen: &[u8]) -> Result<&[u8], String> {
    loop {
        let Some(end) = memchr::memmem::find(seen, b"\r\n") else { return Ok(&[]) };
        let size = std::str::from_utf8(&seen[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| format!("the chunk size {:?}", String::from_utf8_lossy(&seen[..end])))?;
        seen = &seen[end + 2..];
        if size == 0 {
            return trailers(seen);
        }
        if seen.len() < size + 2 {
            return Ok(&[]);
        }
        if &seen[size..size + 2] != b"\r\n" {
            return Err("a chunk that does not end where it says".into());
        }
        seen = &seen[size + 2..];
    }
}

fn trailers(mut seen: &[u8]) -> Result<&[u8], String> {
    loop {
        let Some(end) = memchr::memmem::find(seen, b"\r\n") else { return Ok(&[]) };
        let line = &seen[..end];
        seen = &seen[end + 2..];
        if line.is_empty() {
            return Ok(seen);
        }
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if !is_token(name) || line.iter().any(|&byte| byte < b' ' && byte != b'\t') {
            return Err(format!("the trailer {:?}", String::from_utf8_lossy(line)));
        }
    }
}

/// RFC 9110 5.6.2
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[test]
fn takes_what_is_sound_and_nothing_else() {
    assert_eq!(requests(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(2));
    assert_eq!(requests(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), Ok(1));
    assert_eq!(
        requests(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n"),
        Ok(1)
    );
    for unsound in [
        "GET / HTTP/1.1\r\nHost: a\n\r\n\r\n",
        "GET / HTTP/1.1\r\nA: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nmore",
    ] {
        assert!(requests(unsound.as_bytes()).is_err(), "{unsound:?}");
    }
}
