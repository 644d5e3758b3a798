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

fn head(head: &[u8]) -> Result<Framing, String> {
    let shown = || String::from_utf8_lossy(head).into_owned();
    let mut lines = head.strip_suffix(b"\r\n").expect("it was found").split(|&byte| byte == b'\n');
    let mut line = || match lines.next() {
        Some([line @ .., b'\r']) => Ok(Some(line)),
        Some(line) if std::ptr::eq(line.as_ptr_range().end, head[..head.len() - 2].as_ptr_range().end) => {
            Ok(Some(line))
        }
        Some(_) => Err("a bare LF"),
        None => Ok(None),
    };
    let first = line().map_err(|why| format!("{why} in {}", shown()))?.expect("a first line");
    let parts: Vec<_> = first.split(|&byte| byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts[..] else { return Err(format!("the request line of {}", shown())) };
    let is_target = |byte: &u8| (b'!'..=b'~').contains(byte) && *byte != b'#';
    if !is_token(method) || target.is_empty() || !target.iter().all(is_target) {
        return Err(format!("the request line of {}", shown()));
    }
    let (mut hosts, mut framing) = (0, Vec::new());
    while let Some(line) = line().map_err(|why| format!("{why} in {}", shown()))? {
        let colon = line.iter().position(|&byte| byte == b':').ok_or_else(|| format!("no colon in {}", shown()))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if !is_token(name) || !value.iter().all(is_value) {
            return Err(format!("a field of {}", shown()));
        }
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" => {
                let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                framing.push(Framing::Length(length.ok_or_else(|| format!("the length of {}", shown()))?));
            }
            b"transfer-encoding" if value == b"chunked" => framing.push(Framing::Chunks),
            b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"proxy" => {
                return Err(format!("a field that must stay behind, in {}", shown()));
            }
            b"connection" if value != b"Upgrade" && value != b"te" => {
                return Err(format!("the Connection of {}", shown()));
            }
            b"te" if value != b"trailers" => return Err(format!("the TE of {}", shown())),
            b"upgrade" if value.eq_ignore_ascii_case(b"h2c") => return Err(format!("h2c in {}", shown())),
            _ => {}
        }
    }
    match (hosts, framing.len()) {
        (1, 0) => Ok(Framing::Length(0)),
        (1, 1) => Ok(framing.remove(0)),
        _ => Err(format!("hosts or framing of {}", shown())),
    }
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

fn is_token(name: &[u8]) -> bool {
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
