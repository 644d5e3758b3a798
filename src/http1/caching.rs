//! Keeps a response to one person out of the caches of others.

use crate::http1::buffer::Buffer;
use crate::http1::fields::{FieldLine, put_field};

/// Whether a field tells caches what to do, and has no place beside what [`put_private`] writes.
pub fn is_for_caches(name: &str) -> bool {
    const SUFFIX: &str = "cache-control";
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    // `Cache-Control`, `CDN-Cache-Control` (RFC 9213), and those of single vendors.
    let ends = name.len().checked_sub(SUFFIX.len()).and_then(|at| name.get(at..));
    ends.is_some_and(|end| end.eq_ignore_ascii_case(SUFFIX))
        || ["vary", "expires", "surrogate-control", "x-accel-expires"].into_iter().any(is)
}

/// Writes `mark`, and that no cache may keep the response for requests that have another cookie or another field of
/// that name. `vary` is what the response varied by before.
pub fn put_private<'a>(out: &mut Buffer, mark: FieldLine<'_>, vary: impl Iterator<Item = &'a [u8]>) {
    put_field(out, mark.name, mark.value.as_bytes());
    out.put(b"Cache-Control: private, no-store\r\nVary: ");
    for value in vary.filter(|value| !value.is_empty()) {
        out.put(value);
        out.put(b", ");
    }
    out.put(b"Cookie, ");
    out.put(mark.name.as_bytes());
    out.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_response_varied_by_before_stays_in_the_list() {
        for (before, want) in [
            (&[][..], "Vary: Cookie, X-Cutover-Preview\r\n"),
            (&[&b"Accept-Encoding"[..], b"Origin, Accept"], "Vary: Accept-Encoding, Origin, Accept, Cookie, X-Cut"),
            (&[&b"*"[..]], "Vary: *, Cookie, X-Cutover-Preview\r\n"),
            (&[&b""[..]], "Vary: Cookie, X-Cutover-Preview\r\n"),
        ] {
            let mut out = Buffer::default();
            put_private(&mut out, FieldLine { name: "X-Cutover-Preview", value: "green" }, before.iter().copied());
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
