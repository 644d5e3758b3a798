//! Decides who may ask, by pure checks of a request's head that run before anything is done for it.
//!
//! Two kinds of strangers are kept out. A page in the operator's browser must not reach the API, neither from its own
//! origin nor by making its name resolve to 127.0.0.1. And nobody may ask from off loopback without the token.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH, ORIGIN};
use hyper::http::uri::Authority;

use super::context::HostCheck;
use super::response::ApiError;

/// Names the endpoint on which a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// The request came in on `admin.listen`, whose configured address is inside.
    Tcp(SocketAddr),
    /// The request came in on `admin.socket`. No browser can reach it, and the file's mode decides who may connect.
    Socket,
}

/// Returns how names are checked for `listen`, given whether a token guards it.
pub(super) fn host_check(listen: SocketAddr, token: Option<&str>) -> HostCheck {
    if token.is_some() && !listen.ip().is_loopback() { HostCheck::Any } else { HostCheck::Known }
}

/// Refuses a `Host` that is not ours (DNS rebinding). `target` is the authority of an absolute request target.
pub(super) fn check_host(
    endpoint: Endpoint,
    check: HostCheck,
    headers: &HeaderMap,
    target: Option<&Authority>,
) -> Result<(), ApiError> {
    let Endpoint::Tcp(listen) = endpoint else { return Ok(()) };
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    let (Some(host), None) = (host, hosts.next()) else {
        return Err(ApiError::foreign_host("a request needs one Host header that names this proxy"));
    };
    let stranger = [Some(&host), target].into_iter().flatten().find(|name| !is_ours(listen, check, name));
    match stranger {
        None => Ok(()),
        Some(name) => Err(ApiError::foreign_host(format!(
            "Host {name} is not this proxy; ask for {listen}, localhost or 127.0.0.1"
        ))),
    }
}

fn is_ours(listen: SocketAddr, check: HostCheck, authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        // A page can rebind its name, but not an address. When the server listens on every address, any address is
        // ours.
        Ok(ip) => {
            let ip = ip.to_canonical();
            ip.is_loopback() || ip == listen.ip().to_canonical() || listen.ip().is_unspecified()
        }
        Err(_) => check == HostCheck::Any || host.eq_ignore_ascii_case("localhost"),
    }
}

/// Refuses a request that a browser sends for a page of another origin.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(HOST).map(|host| host.as_bytes().to_ascii_lowercase());
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.as_bytes().to_ascii_lowercase();
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        if authority.is_none() || authority != host.as_deref() {
            return Err(ApiError::foreign_origin(
                "a page of another origin may not use the API; use the dashboard, the CLI or curl",
            ));
        }
    }
    // Another port is another origin ("same-site"): the proxied application itself may run on the same host.
    match headers.get("sec-fetch-site").map(|site| site.as_bytes()) {
        Some(b"cross-site" | b"same-site") => Err(ApiError::foreign_origin(
            "a page of another site may not use the API; use the dashboard, the CLI or curl",
        )),
        Some(_) | None => Ok(()),
    }
}

/// Refuses a request without the token, where one is configured. A client that may open the socket's file needs none.
pub(super) fn check_token(endpoint: Endpoint, token: Option<&str>, headers: &HeaderMap) -> Result<(), ApiError> {
    let (Endpoint::Tcp(_), Some(token)) = (endpoint, token) else { return Ok(()) };
    let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).and_then(|value| {
        let (scheme, given) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(given)
    });
    match given {
        Some(given) if is_same(given, token.as_bytes()) => Ok(()),
        Some(_) => Err(ApiError::unauthorized("this is not the token of admin.token_file")),
        None => Err(ApiError::unauthorized("a token is needed: Authorization: Bearer …, from admin.token_file")),
    }
}

/// Compares in a time that does not depend on how much of the token is right.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    // `black_box` prevents an early exit, which would tell how many bytes were right.
    let differ = |sum: u8, (a, b): (&u8, &u8)| std::hint::black_box(sum | (a ^ b));
    given.len() == wanted.len() && given.iter().zip(wanted).fold(0, differ) == 0
}

/// Refuses a body that a form of any page could send: only JSON, no type at all, or the default of `curl -d` is
/// accepted. A form with that default type escapes every brace, so its body is not JSON; an empty form and a script
/// send an `Origin`.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let accepted = [&b"application/json"[..], b"application/x-www-form-urlencoded"];
    if accepted.iter().any(|accepted| kind.eq_ignore_ascii_case(accepted)) { Ok(()) } else { Err(ApiError::not_json()) }
}

/// Returns the epoch of `If-Match`: `None` without the header, or for `*`.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let mut given = headers.get_all(IF_MATCH).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let digits = value.as_bytes().strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let epoch = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    match (value.as_bytes(), epoch, given.next()) {
        (b"*", _, None) => Ok(None),
        (_, Some(epoch), None) => Ok(Some(epoch)),
        (_, None, _) | (_, _, Some(_)) => Err(ApiError::bad_request("If-Match is one epoch in quotes, like \"3\"")),
    }
}

/// Checks the guards for the fuzzer; `text` has one `name: value` field per line. A request that passes every check
/// named one host, which is this machine, came from no other page, and has the token.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    use hyper::header::{HeaderName, HeaderValue};
    let listen = SocketAddr::from(([127, 0, 0, 1], 9900));
    let endpoint = Endpoint::Tcp(listen);
    let mut headers = HeaderMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value.trim())) {
            headers.append(name, value);
        }
    }
    let _ = (check_content_type(&headers), if_match(&headers));
    let checks = check_host(endpoint, HostCheck::Known, &headers, None).and_then(|()| check_origin(&headers));
    if checks.and_then(|()| check_token(endpoint, Some("token"), &headers)).is_ok() {
        let values = |name: &str| headers.get_all(name).iter().map(|value| value.as_bytes().to_ascii_lowercase());
        let hosts: Vec<_> = values("host").collect();
        assert_eq!(hosts.len(), 1);
        assert!(values("origin").all(|origin| origin.ends_with(&hosts[0])));
        assert_eq!(headers[AUTHORIZATION].as_bytes()[7..], *b"token");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Endpoint = Endpoint::Tcp(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900));

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    mod host {
        use super::*;

        fn passes(listen: &str, check: HostCheck, list: &[(&'static str, &str)]) -> bool {
            check_host(Endpoint::Tcp(listen.parse().unwrap()), check, &headers(list), None).is_ok()
        }

        #[test]
        fn is_a_loopback_name_or_the_listen_address() {
            for (listen, host, want) in [
                ("127.0.0.1:9900", "127.0.0.1:9900", true),
                ("127.0.0.1:9900", "127.8.8.8", true),
                ("127.0.0.1:9900", "LocalHost:1234", true),
                ("127.0.0.1:9900", "[::1]:9900", true),
                ("127.0.0.1:9900", "[::ffff:127.0.0.1]", true),
                ("127.0.0.1:9900", "10.0.0.7:9900", false),
                ("127.0.0.1:9900", "evil.example:9900", false),
                ("127.0.0.1:9900", "127.0.0.1.evil.example", false),
                ("127.0.0.1:9900", "localhost.evil.example", false),
                ("127.0.0.1:9900", "", false),
                ("127.0.0.1:9900", "evil.example@127.0.0.1:9900", true), // http's own reading: the host is 127.0.0.1
                ("10.0.0.7:9900", "10.0.0.7:9900", true),
                ("10.0.0.7:9900", "10.0.0.8:9900", false),
                ("0.0.0.0:9900", "10.0.0.8:9900", true),
                ("0.0.0.0:9900", "evil.example", false),
            ] {
                assert_eq!(passes(listen, HostCheck::Known, &[("host", host)]), want, "{host} at {listen}");
            }
        }

        #[test]
        fn is_needed_once() {
            assert!(!passes("127.0.0.1:9900", HostCheck::Known, &[]));
            assert!(!passes("127.0.0.1:9900", HostCheck::Known, &[("host", "localhost"), ("host", "localhost")]));
        }

        #[test]
        fn of_an_absolute_target_counts_as_well() {
            let (endpoint, target) =
                (Endpoint::Tcp("127.0.0.1:9900".parse().unwrap()), "evil.example".parse().unwrap());
            let list = headers(&[("host", "localhost")]);
            assert!(check_host(endpoint, HostCheck::Known, &list, Some(&target)).is_err());
            assert!(check_host(Endpoint::Socket, HostCheck::Known, &list, Some(&target)).is_ok());
        }

        #[test]
        fn may_be_any_name_off_loopback_where_a_token_guards() {
            let (near, far) = ("127.0.0.1:9900".parse().unwrap(), "0.0.0.0:9900".parse().unwrap());
            for (listen, token, want) in [
                (near, None, HostCheck::Known),
                (near, Some("t"), HostCheck::Known),
                (far, None, HostCheck::Known),
                (far, Some("t"), HostCheck::Any),
            ] {
                assert_eq!(host_check(listen, token), want, "{listen} {token:?}");
            }
            assert!(passes("0.0.0.0:9900", HostCheck::Any, &[("host", "cutover:9900")]));
        }
    }

    #[test]
    fn an_origin_is_the_host_or_refused() {
        for (case, list, want) in [
            ("no browser", vec![], true),
            ("the dashboard", vec![("origin", "http://localhost:9900"), ("sec-fetch-site", "same-origin")], true),
            ("typed by hand", vec![("sec-fetch-site", "none")], true),
            ("another port", vec![("origin", "http://localhost:8080")], false),
            ("a sandboxed page", vec![("origin", "null")], false),
            ("a look-alike", vec![("origin", "http://localhost:9900.evil.example")], false),
            ("another scheme", vec![("origin", "ftp://localhost:9900")], false),
            ("two of them", vec![("origin", "http://localhost:9900"), ("origin", "http://evil.example")], false),
            ("another site", vec![("sec-fetch-site", "cross-site")], false),
            ("another port's page", vec![("sec-fetch-site", "same-site")], false),
        ] {
            let mut list = headers(&list);
            list.append("host", "localhost:9900".parse().unwrap());
            assert_eq!(check_origin(&list).is_ok(), want, "{case}");
        }
    }

    #[test]
    fn a_token_is_whole_or_wrong() {
        for (given, want) in [
            (None, false),
            (Some("Bearer secret"), true),
            (Some("bearer secret"), true),
            (Some("Bearer secre"), false),
            (Some("Bearer secret2"), false),
            (Some("Bearer  secret"), false),
            (Some("Basic secret"), false),
            (Some("Bearer"), false),
        ] {
            let list: Vec<_> = given.map(|given| ("authorization", given)).into_iter().collect();
            assert_eq!(check_token(TCP, Some("secret"), &headers(&list)).is_ok(), want, "{given:?}");
        }
        assert!(check_token(TCP, None, &HeaderMap::new()).is_ok());
        assert!(check_token(Endpoint::Socket, Some("secret"), &HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_body_has_a_type_that_no_form_can_fake() {
        for (kind, want) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", true),
            ("multipart/form-data; boundary=x", false),
            ("text/plain; application/json", false),
            ("", false),
        ] {
            assert_eq!(check_content_type(&headers(&[("content-type", kind)])).is_ok(), want, "{kind:?}");
        }
        assert!(check_content_type(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn if_match_is_one_quoted_epoch() {
        for (value, want) in [
            ("\"3\"", Some(Some(3))),
            ("*", Some(None)),
            ("3", None),
            ("\"\"", None),
            ("\"+3\"", None),
            ("\"-3\"", None),
            ("W/\"3\"", None),
            ("\"3\", \"4\"", None),
            ("\"99999999999999999999\"", None),
            ("\"", None),
        ] {
            assert_eq!(if_match(&headers(&[("if-match", value)])).ok(), want, "{value}");
        }
        assert_eq!(if_match(&HeaderMap::new()).ok(), Some(None));
        assert!(if_match(&headers(&[("if-match", "\"3\""), ("if-match", "\"3\"")])).is_err());
    }
}
