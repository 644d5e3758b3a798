//! The target of a request, and the authority that the target or `Host` names: their syntax.

use crate::http1::reject::Rejection;

/// Splits a request target into authority and path (RFC 9112 3.2).
///
/// # Errors
/// [`Rejection::MethodNotAllowed`] for `CONNECT`, [`Rejection::Malformed`] for a target in none of its forms.
pub fn split_target<'h>(method: &str, target: &'h str) -> Result<(Option<&'h str>, &'h str), Rejection> {
    const MALFORMED: Rejection = Rejection::Malformed("the request target is malformed");
    if method == "CONNECT" {
        return Err(Rejection::MethodNotAllowed);
    }
    if target.contains('#') {
        return Err(Rejection::Malformed("the request target has a fragment"));
    }
    // RFC 3986 2: anything else has to be percent-encoded, and some parsers read it otherwise than they write it.
    if !target.is_ascii() {
        return Err(MALFORMED);
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok((None, target)) } else { Err(MALFORMED) };
    }
    let (scheme, rest) = target.split_once("://").ok_or(MALFORMED)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(MALFORMED);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match path {
        "" if method == "OPTIONS" => Ok((Some(authority), "*")), // RFC 9112 3.2.4
        "" => Ok((Some(authority), "/")),
        _ => Ok((Some(authority), path)),
    }
}

/// Splits an authority into host, without brackets, and port.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(bracketed) = authority.strip_prefix('[') {
        return match bracketed.split_once(']') {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => (authority, None),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

/// Checks that an authority is `uri-host [ ":" port ]` of RFC 9110 7.2, not empty and without user information.
///
/// # Errors
/// [`Rejection::Malformed`]
pub fn check_authority(authority: &str) -> Result<(), Rejection> {
    let (host, port) = split_port(authority);
    let is_host = if authority.starts_with('[') {
        let after = authority.split_once(']').map(|(_, after)| after);
        after.is_some_and(|after| after.is_empty() || after.starts_with(':'))
            && host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        is_reg_name(host.as_bytes())
    };
    let is_port = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok())
    });
    if is_host && is_port { Ok(()) } else { Err(Rejection::Malformed("Host is malformed")) }
}

/// Whether it is a `reg-name`, which an IPv4 address is as well (RFC 3986 3.2.2).
fn is_reg_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let [byte, tail @ ..] = rest {
        rest = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => tail,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {
                tail
            }
            b'%' => match tail {
                [a, b, tail @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => tail,
                _ => return false,
            },
            _ => return false,
        };
    }
    !host.is_empty()
}
