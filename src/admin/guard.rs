//! Who may ask: a page of another origin must not be able to flip, and a name that resolves to this machine for a
//! moment (DNS rebinding) must not be able to read.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use hyper::{Method, StatusCode};

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// `Host` is neither loopback nor the address listened on.
    ForeignHost,
    /// A page of another origin sent it.
    ForeignOrigin,
    /// The body has a type that a plain form of any page could send.
    FormBody,
    /// No token, or a wrong one.
    NoToken,
}

impl TurnedAway {
    /// The answer's status.
    pub fn status(self) -> StatusCode {
        match self {
            TurnedAway::ForeignHost | TurnedAway::ForeignOrigin => StatusCode::FORBIDDEN,
            TurnedAway::FormBody => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            TurnedAway::NoToken => StatusCode::UNAUTHORIZED,
        }
    }

    /// The code in the answer.
    pub fn code(self) -> &'static str {
        match self {
            TurnedAway::ForeignHost => "foreign_host",
            TurnedAway::ForeignOrigin => "foreign_origin",
            TurnedAway::FormBody => "unsupported_media_type",
            TurnedAway::NoToken => "unauthorized",
        }
    }

    /// The sentence in the answer.
    pub fn message(self) -> &'static str {
        match self {
            TurnedAway::ForeignHost => "this Host is not the admin address; use 127.0.0.1, localhost or admin.listen",
            TurnedAway::ForeignOrigin => "a page of another origin may not use the admin API",
            TurnedAway::FormBody => "send the body as application/json",
            TurnedAway::NoToken => "send the token of admin.token_file as Authorization: Bearer TOKEN",
        }
    }
}

/// Checks where a request comes from. `listen` is `None` for the unix socket, whose file mode is the guard.
///
/// # Errors
/// Why it is turned away.
pub fn check_origin(method: &Method, headers: &HeaderMap, listen: Option<SocketAddr>) -> Result<(), TurnedAway> {
    let Some(listen) = listen else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).ok_or(TurnedAway::ForeignHost)?;
    if !is_own_host(host, listen) {
        return Err(TurnedAway::ForeignHost);
    }
    let foreign_origin = headers.get(ORIGIN).is_some_and(|origin| {
        let named = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        named.is_none_or(|named| !named.eq_ignore_ascii_case(host))
    });
    let fetched_from_elsewhere =
        headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    if foreign_origin || (fetched_from_elsewhere && *method != Method::GET) {
        return Err(TurnedAway::ForeignOrigin);
    }
    let has_body = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let is_json = content_type
        .is_none_or(|value| value.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json"));
    // curl's -d says "x-www-form-urlencoded" by itself; only a browser adds Sec-Fetch-Site or Origin to it.
    let from_browser = headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site");
    if *method == Method::POST && has_body && !is_json && from_browser {
        return Err(TurnedAway::FormBody);
    }
    Ok(())
}

/// Checks the token, if one is needed. The comparison takes the same time wherever the first wrong byte is.
///
/// # Errors
/// [`TurnedAway::NoToken`]
pub fn check_token(headers: &HeaderMap, token: Option<&str>) -> Result<(), TurnedAway> {
    let Some(token) = token else { return Ok(()) };
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer ")).unwrap_or(b"");
    let mut difference = usize::from(shown.len() != token.len());
    for (at, expected) in token.bytes().enumerate() {
        difference |= usize::from(shown.get(at).copied().unwrap_or(0) ^ expected);
    }
    if difference == 0 { Ok(()) } else { Err(TurnedAway::NoToken) }
}

fn is_own_host(host: &str, listen: SocketAddr) -> bool {
    if host.parse::<SocketAddr>().is_ok_and(|address| address == listen || address.ip().is_loopback()) {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    // A wildcard address says nothing about the name it is reached by; any address may be meant, but no name.
    let is_address =
        bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == listen.ip() || listen.ip().is_unspecified());
    name.eq_ignore_ascii_case("localhost") || is_address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], method: Method) -> Result<(), TurnedAway> {
        let listen = "127.0.0.1:9900".parse().expect("an address");
        let headers =
            headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        check_origin(&method, &headers.collect(), Some(listen))
    }

    #[test]
    fn only_this_machine_s_own_names_are_hosts() {
        for (host, fine) in [
            ("127.0.0.1:9900", true),
            ("127.0.0.1", true),
            ("localhost:9900", true),
            ("LOCALHOST", true),
            ("[::1]:9900", true),
            ("evil.example:9900", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:9900", false),
            ("10.0.0.1:9900", false),
            ("", false),
        ] {
            assert_eq!(check(&[("host", host)], Method::GET).is_ok(), fine, "{host}");
        }
        assert_eq!(check(&[], Method::GET), Err(TurnedAway::ForeignHost));
    }

    #[test]
    fn a_page_of_another_origin_cannot_change_anything() {
        let host = ("host", "127.0.0.1:9900");
        for (case, headers, want) in [
            ("curl", vec![host], Ok(())),
            (
                "the dashboard",
                vec![host, ("origin", "http://127.0.0.1:9900"), ("sec-fetch-site", "same-origin")],
                Ok(()),
            ),
            ("another page", vec![host, ("origin", "http://evil.example")], Err(TurnedAway::ForeignOrigin)),
            ("a sandboxed page", vec![host, ("origin", "null")], Err(TurnedAway::ForeignOrigin)),
            ("another port", vec![host, ("origin", "http://127.0.0.1:8080")], Err(TurnedAway::ForeignOrigin)),
            ("a page without Origin", vec![host, ("sec-fetch-site", "cross-site")], Err(TurnedAway::ForeignOrigin)),
            (
                "a form",
                vec![
                    host,
                    ("origin", "http://127.0.0.1:9900"),
                    ("content-type", "text/plain"),
                    ("content-length", "9"),
                ],
                Err(TurnedAway::FormBody),
            ),
        ] {
            assert_eq!(check(&headers, Method::POST), want, "{case}");
        }
    }

    #[test]
    fn a_token_must_be_the_whole_token() {
        for (shown, fine) in
            [("Bearer abc", true), ("Bearer ab", false), ("Bearer abcd", false), ("abc", false), ("", false)]
        {
            let headers = [(AUTHORIZATION, shown.parse().expect("a value"))].into_iter().collect();
            assert_eq!(check_token(&headers, Some("abc")).is_ok(), fine, "{shown}");
        }
        assert_eq!(check_token(&HeaderMap::new(), None), Ok(()));
    }
}
