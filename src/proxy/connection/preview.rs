//! Requests with a preview pass, which leads to the idle color: the pass is found, kept from the application, and the
//! response says what came of it. A path of the proxy's own puts a pass into a browser's cookie.
//!
//! Everything here is pure: a request goes in, bytes come out. `routing::preview_token` checks passes, and `routing`
//! leases the idle color.

use crate::domain::Color;
use crate::http1::buffer::Buffer;
use crate::http1::header::Field;
use crate::http1::request::{Request, put_field};
use crate::proxy::fault::Fault;
use crate::routing::preview_token::TokenError;
use crate::routing::{PreviewAction, PreviewGate};

/// The header field in which a request shows a pass, and in which the response says what came of it.
pub const HEADER: &str = "X-Cutover-Preview";

/// The cookie in which a browser shows a pass.
const COOKIE: &str = "cutover_preview";

/// How many cookies of that name are looked at. A page on a sibling host can add a worthless one, which must not keep a
/// tester out; nor must it make the proxy check a hundred.
const COOKIES_MAX: usize = 4;

/// What came of a request's pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The pass was good, and this idle color got the request.
    Served(Color),
    /// The pass was no good, and the request went where all others go.
    Ignored(TokenError),
}

/// Checks the request's pass and returns what comes of it; `None` where the request shows no pass. The header field
/// comes before the cookies. `color` is the idle one, and `now` returns seconds since 1970.
pub fn note(gate: &PreviewGate, request: &Request<'_>, color: Color, now: impl Fn() -> u64) -> Option<Note> {
    let of = |pass: &[u8]| gate.check(pass, now()).map_or_else(Note::Ignored, |_| Note::Served(color));
    if let Some(pass) = request.fields.values(Field::Preview).next() {
        return Some(of(pass));
    }
    let cookies = request.fields.values(Field::Cookie).flat_map(crumbs);
    let passes = cookies.filter_map(|crumb| value_of(crumb)).take(COOKIES_MAX).map(of);
    // A good pass wins over any other; without one, the first counts.
    passes.reduce(|first, next| if matches!(next, Note::Served(_)) { next } else { first })
}

/// The cookies of a `Cookie` field (RFC 6265 4.2.1).
fn crumbs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|&byte| byte == b';').map(<[u8]>::trim_ascii)
}

/// The value of a cookie if it holds a pass.
fn value_of(crumb: &[u8]) -> Option<&[u8]> {
    crumb.strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"=")
}

/// Writes a `Cookie` field without its passes, and no field if it held nothing else.
pub fn put_cookies(out: &mut Buffer, name: &str, field: &[u8]) {
    if crumbs(field).all(|crumb| value_of(crumb).is_none()) {
        return put_field(out, name, field);
    }
    let others: Vec<_> = crumbs(field).filter(|crumb| !crumb.is_empty() && value_of(crumb).is_none()).collect();
    if !others.is_empty() {
        put_field(out, name, &others.join(&b"; "[..]));
    }
}

impl Note {
    /// The value of [`HEADER`] in the response.
    pub fn as_str(self) -> &'static str {
        match self {
            Note::Served(color) => color.as_str(),
            Note::Ignored(TokenError::Expired) => "expired",
            Note::Ignored(TokenError::Invalid) => "invalid",
        }
    }

    /// Writes what a response says about the pass, and that no cache may keep the response for others. `vary` is what
    /// it varied by before.
    pub fn write<'a>(self, out: &mut Buffer, vary: impl Iterator<Item = &'a [u8]>) {
        put_field(out, HEADER, self.as_str().as_bytes());
        out.put(b"Cache-Control: private, no-store\r\nVary: ");
        for value in vary.filter(|value| !value.is_empty()) {
            out.put(value);
            out.put(b", ");
        }
        out.put(b"Cookie, ");
        out.put(HEADER.as_bytes());
        out.put(b"\r\n");
    }
}

/// Whether a field of a response tells caches what to do. [`Note::write`] replaces such fields.
pub fn is_for_caches(name: &str) -> bool {
    const SUFFIX: &str = "cache-control";
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    // `Cache-Control`, `CDN-Cache-Control` (RFC 9213), and those of single vendors.
    let ends = name.len().checked_sub(SUFFIX.len()).and_then(|at| name.get(at..));
    ends.is_some_and(|end| end.eq_ignore_ascii_case(SUFFIX))
        || ["vary", "expires", "surrogate-control", "x-accel-expires"].into_iter().any(is)
}

/// Whether a browser may send the cookie of a pass without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieSecurity {
    /// The pass came over TLS, and goes over TLS only.
    TlsOnly,
    /// The service is reached without TLS.
    Any,
}

/// The response of the entry path: a fault that is none, and its header fields.
pub fn open(
    gate: &PreviewGate,
    door: PreviewAction<'_>,
    method: &str,
    cookie: CookieSecurity,
    now: u64,
) -> (Fault, Vec<(&'static str, String)>) {
    if !matches!(method, "GET" | "HEAD") {
        return (Fault::MethodRefused, vec![("Allow", "GET, HEAD".into())]);
    }
    let (pass, age) = match door {
        PreviewAction::Leave => ("", 0),
        PreviewAction::Enter(pass) => match gate.check(pass.as_bytes(), now) {
            Ok(until) => (pass, until - now),
            Err(TokenError::Expired | TokenError::Invalid) => return (Fault::PassRefused, discreet().to_vec()),
        },
    };
    let secure = match cookie {
        CookieSecurity::TlsOnly => "; Secure",
        CookieSecurity::Any => "",
    };
    let cookie = format!("{COOKIE}={pass}; Max-Age={age}; Path={}; HttpOnly; SameSite=Lax{secure}", gate.prefix());
    let mut fields = vec![("Location", gate.prefix().to_owned()), ("Set-Cookie", cookie)];
    fields.extend(discreet());
    (Fault::PassTaken, fields)
}

/// Keeps the pass private that is in the address of the page: no cache stores the response, and no other page learns
/// the address from a `Referer`.
fn discreet() -> [(&'static str, String); 2] {
    [("Cache-Control", "no-store".into()), ("Referrer-Policy", "no-referrer".into())]
}

#[cfg(test)]
mod tests {
    use crate::proxy::connection::preview::*;

    fn kept(field: &str) -> String {
        let mut out = Buffer::default();
        put_cookies(&mut out, "Cookie", field.as_bytes());
        String::from_utf8(out.filled().to_vec()).expect("text")
    }

    #[test]
    fn a_pass_is_taken_out_of_the_cookies_and_the_others_stay() {
        for (field, want) in [
            ("a=1; cutover_preview=x; b=2", "Cookie: a=1; b=2\r\n"),
            ("cutover_preview=x", ""),
            ("cutover_preview=x;", ""),
            ("cutover_preview=x;cutover_preview=y; a=1", "Cookie: a=1\r\n"),
            ("a=1;b=2", "Cookie: a=1;b=2\r\n"),
            ("a=cutover_preview=x", "Cookie: a=cutover_preview=x\r\n"),
            ("cutover_previews=x; cutover_preview", "Cookie: cutover_previews=x; cutover_preview\r\n"),
            ("", "Cookie: \r\n"),
        ] {
            assert_eq!(kept(field), want, "{field}");
        }
    }

    #[test]
    fn what_an_answer_varied_by_before_stays_in_the_list() {
        for (before, want) in [
            (&[][..], "Vary: Cookie, X-Cutover-Preview\r\n"),
            (&[&b"Accept-Encoding"[..], b"Origin, Accept"], "Vary: Accept-Encoding, Origin, Accept, Cookie, X-Cut"),
            (&[&b"*"[..]], "Vary: *, Cookie, X-Cutover-Preview\r\n"),
            (&[&b""[..]], "Vary: Cookie, X-Cutover-Preview\r\n"),
        ] {
            let mut out = Buffer::default();
            Note::Served(Color::Green).write(&mut out, before.iter().copied());
            let text = String::from_utf8(out.filled().to_vec()).expect("text");
            assert!(text.contains(want), "{text}");
        }
    }

    #[test]
    fn every_word_for_caches_is_known() {
        for name in ["Cache-Control", "CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "vary", "Expires"] {
            assert!(is_for_caches(name), "{name}");
        }
        for name in ["Cache", "Control", "ETag", "Last-Modified", "é", "Content-Type"] {
            assert!(!is_for_caches(name), "{name}");
        }
    }
}
