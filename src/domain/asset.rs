//! Recognizes paths that name a static file by its content: `app.3f9a1c2e.js`, `index-BxY3k9Qz.css`. Such a name means
//! the same bytes in every release, so a release that has the file may serve it for a release that does not.
//!
//! The rule is cautious: a name counts as hashed only when it surely holds a hash.

/// The endings of files that pages load. They leave out files that a release may remove on purpose, or that are not
/// part of a page: `html`, `json`, `pdf`, `zip`.
const ENDINGS: [&str; 27] = [
    "js", "mjs", "cjs", "css", "map", "wasm", "woff", "woff2", "ttf", "otf", "eot", "svg", "png", "jpg", "jpeg", "gif",
    "webp", "avif", "ico", "cur", "mp3", "mp4", "ogg", "webm", "m4a", "flac", "wav",
];

/// A shorter hash could too easily be a word.
const HASH_BYTES_MIN: usize = 8;
/// A SHA-256 hash has this many hexadecimal digits.
const HASH_BYTES_MAX: usize = 64;

/// Whether the last segment of `path` (without its query) holds a hash of the content.
///
/// Before one of the known endings, between dots, hyphens and underscores, there must be one of these:
/// 1. 8 to 64 hexadecimal digits in lower case, with a digit and a letter among them (webpack, Parcel, Rails, Django);
/// 2. exactly 8 of `A`–`Z` and `2`–`7`, with a digit and a letter among them (esbuild);
/// 3. exactly 8 letters and digits, or at the very end also hyphens and underscores, that change at least three times
///    between small letters, capitals, digits and signs, and are not words written together (Vite, Rollup).
pub fn is_hashed(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    if !ENDINGS.contains(&ending) || !stem.is_ascii() {
        return false;
    }
    // `app-BxY3k9Qz.js.map` is the map of `app-BxY3k9Qz.js`.
    let stem = match stem.rsplit_once('.') {
        Some((inner, known)) if ENDINGS.contains(&known) => inner,
        Some(_) | None => stem,
    };
    // The base64url form of a hash may contain the characters that separate it.
    let tail = stem.len().checked_sub(HASH_BYTES_MIN + 1).map(|at| stem.split_at(at).1);
    let tail = tail.and_then(|tail| tail.strip_prefix(['-', '.']));
    stem.split(['.', '-', '_']).any(|part| is_hexadecimal(part) || is_base32(part) || is_base64(part))
        || tail.is_some_and(is_base64)
}

fn is_hexadecimal(part: &str) -> bool {
    (HASH_BYTES_MIN..=HASH_BYTES_MAX).contains(&part.len())
        && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && has_both(part)
}

fn is_base32(part: &str) -> bool {
    part.len() == HASH_BYTES_MIN && part.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7')) && has_both(part)
}

fn has_both(part: &str) -> bool {
    part.bytes().any(|b| b.is_ascii_digit()) && part.bytes().any(|b| b.is_ascii_alphabetic())
}

fn is_base64(part: &str) -> bool {
    let kind = |byte: u8| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let bytes = part.as_bytes();
    let changes = bytes.windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    bytes.len() == HASH_BYTES_MIN && bytes.iter().all(is_known) && changes >= 3 && !is_words(bytes)
}

/// Whether the bytes are words, such as `HomePage` or `Utf8Text`: every letter is in a word of at least two small
/// letters, with or without a capital before.
fn is_words(bytes: &[u8]) -> bool {
    // Counts the small letters of the word so far; `None` outside of a word.
    let mut word: Option<u32> = None;
    for byte in bytes {
        match byte {
            b'a'..=b'z' => word = Some(word.unwrap_or(0) + 1),
            _ if word.is_some_and(|small| small < 2) => return false,
            b'A'..=b'Z' => word = Some(0),
            _ => word = None,
        }
    }
    word.is_none_or(|small| small >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_hash_of_its_content_is_known() {
        for path in [
            "/app.3f9a1c2e.js",
            "/static/js/main.3f9a1c2e.chunk.js",
            "/static/app.55e7cbb9ba48.css",
            "/packs/application-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.js",
            "/3f9a1c2e4d5b6a79.woff2",
            "/chunk-5HXKDQ2L.js",
            "/assets/index-BxY3k9Qz.css",
            "/assets/index-BxYkkaQz.js",
            "/assets/index-C-1aB_x9.js",
            "/assets/index-a5k2x9qz.js",
            "/assets/index-BxY3k9Qz.js.map",
            "/assets/logo_3f9a1c2e.png",
        ] {
            assert!(is_hashed(path), "{path}");
        }
    }

    #[test]
    fn any_other_name_is_not() {
        for path in [
            "/",
            "",
            "/index.html",
            "/app.js",
            "/app.min.js",
            "/jquery-3.7.1.min.js",
            "/bootstrap5.bundle.js",
            "/3f9a1c2e/app.js",
            "/app.3f9a1c2e",
            "/app.3f9a1c2e.html",
            "/app.3f9a1c2e.json",
            "/app.3f9a1c2.js",
            "/report.20240115.png",
            "/app.deadbeef.js",
            "/photo-12345678.jpg",
            "/my-HomePage.js",
            "/my-Utf8Text.js",
            "/my-home-page.css",
            "/Version2.js",
            "/polyfills.js",
            "/settings.ABCDEFGH.js",
            "/app.3F9A1C2E4D.js",
            "/ünicode-BxY3k9Qz.js",
            "/.3f9a1c2e/",
        ] {
            assert!(!is_hashed(path), "{path}");
        }
    }
}
