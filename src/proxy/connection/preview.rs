//! Requests with a preview pass, which leads to the idle color: the pass is found, kept from the application, and the
//! response says what came of it. A path of the proxy's own puts a pass into a browser's cookie.
//!
//! Everything here is pure: a request goes in, bytes come out. `routing::preview_token` checks passes, and `routing`
//! leases the idle color.

use crate::domain::Color;
use crate::http1::buffer::Buffer;
use crate::http1::cookies;
use crate::http1::fields::FieldLine;
use crate::http1::header::Field;
use crate::http1::method::Method;
use crate::http1::request::Request;
use crate::proxy::local_reply::LocalReply;
use crate::routing::preview_token::TokenError;
use crate::routing::{PreviewAction, PreviewGate};

/// The header field in which a request shows a pass, and in which the response says what came of it.
pub const HEADER: &str = "X-Cutover-Preview";

/// The cookie in which a browser shows a pass.
pub const COOKIE: &str = "cutover_preview";

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
    let passes = request.fields.values(Field::Cookie).flat_map(|field| cookies::values(field, COOKIE));
    let passes = passes.take(COOKIES_MAX).map(of);
    // A good pass wins over any other; without one, the first counts.
    passes.reduce(|first, next| if matches!(next, Note::Served(_)) { next } else { first })
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

    /// The field of the response that says so.
    pub fn field(self) -> FieldLine<'static> {
        FieldLine { name: HEADER, value: self.as_str() }
    }
}

/// Whether a browser may send the cookie of a pass without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieSecurity {
    /// The pass came over TLS, and goes over TLS only.
    TlsOnly,
    /// The service is reached without TLS.
    Any,
}

/// The reply of the entry path.
pub fn open(
    gate: &PreviewGate,
    action: PreviewAction<'_>,
    method: Method,
    cookie: CookieSecurity,
    now: u64,
) -> LocalReply {
    if !matches!(method, Method::Get | Method::Head) {
        return LocalReply::PreviewMethodNotAllowed;
    }
    let (pass, age) = match action {
        PreviewAction::Leave => ("", 0),
        PreviewAction::Enter(pass) => match gate.check(pass.as_bytes(), now) {
            Ok(until) => (pass, until - now),
            Err(TokenError::Expired | TokenError::Invalid) => return LocalReply::PreviewPassRefused,
        },
    };
    let secure = match cookie {
        CookieSecurity::TlsOnly => "; Secure",
        CookieSecurity::Any => "",
    };
    let cookie = format!("{COOKIE}={pass}; Max-Age={age}; Path={}; HttpOnly; SameSite=Lax{secure}", gate.prefix());
    LocalReply::PreviewPassTaken { location: gate.prefix().to_owned(), cookie }
}

/// Keeps the pass private that is in the address of the page: no cache stores the response, and no other page learns
/// the address from a `Referer`.
pub fn put_discretion(out: &mut Buffer) {
    out.put(b"Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n");
}
