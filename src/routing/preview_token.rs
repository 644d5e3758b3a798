//! Passes to the idle color: made with a key, bound to one service, good until a second.
//!
//! Pure but for the making of a key: the time comes in, and nothing here reads a file or a request. A pass is
//! `UNTIL.MAC`: the last second it is good in, as a number since 1970, and the HMAC-SHA-256 of that and the service's
//! name, in hexadecimal. Nothing of it is secret but the key, and nothing is kept per pass: whoever wants one void
//! before its time removes the key.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a MAC.
const MAC_BYTES: usize = 32;
/// Digits of a time; enough for the next thirty thousand years.
const DIGITS_MAX: usize = 12;
/// Said before what is signed, so that a key that came to sign something else as well could not be tricked.
const PURPOSE: &[u8] = b"cutover preview pass 1\n";

/// Creates and checks passes.
pub struct PreviewKey(hmac::Key);

impl fmt::Debug for PreviewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreviewKey(secret)")
    }
}

/// Says why a pass is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It was good, and its time is over.
    Expired,
    /// It was not made with this key for this service.
    Invalid,
}

impl PreviewKey {
    /// From the bytes of a key.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        PreviewKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Bytes for a new key, that nobody can guess.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn random_bytes() -> Result<[u8; KEY_BYTES], Unspecified> {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A pass to `service` that is good until `until`, in seconds since 1970.
    pub fn sign(&self, service: &str, until: u64) -> String {
        let mac = hmac::sign(&self.0, &said(service, until));
        format!("{until}.{}", to_hex(mac.as_ref()))
    }

    /// Checks a pass to `service` at `now`, in seconds since 1970; gives the last second it is good in. How long it
    /// takes does not tell how much of it is right.
    ///
    /// # Errors
    /// Its [`TokenError`]. One that is both made up and out of date is invalid.
    pub fn check(&self, service: &str, pass: &[u8], now: u64) -> Result<u64, TokenError> {
        let (until, mac) = parse(pass).ok_or(TokenError::Invalid)?;
        hmac::verify(&self.0, &said(service, until), &mac).map_err(|_| TokenError::Invalid)?;
        if now <= until { Ok(until) } else { Err(TokenError::Expired) }
    }
}

/// What is signed. A service's name has no line end, so no two say the same.
fn said(service: &str, until: u64) -> Vec<u8> {
    [PURPOSE, service.as_bytes(), b"\n", until.to_string().as_bytes()].concat()
}

fn parse(pass: &[u8]) -> Option<(u64, [u8; MAC_BYTES])> {
    let dot = pass.iter().take(DIGITS_MAX + 1).position(|&byte| byte == b'.')?;
    let (digits, mac) = (&pass[..dot], &pass[dot + 1..]);
    // Only one way to write a number: no sign, no zero before it.
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, from_hex(mac)?))
}

/// Bytes in lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Exactly `N` bytes out of lower-case hexadecimal digits.
pub fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use crate::routing::preview_token::*;

    const UNTIL: u64 = 2_000_000_000;

    #[test]
    fn a_pass_is_good_until_its_last_second_for_its_service_and_its_key() {
        let (key, other) = (PreviewKey::new(&[7; KEY_BYTES]), PreviewKey::new(&[8; KEY_BYTES]));
        let pass = key.sign("shop", UNTIL);
        for (case, key, service, now, want) in [
            ("its last second", &key, "shop", UNTIL, Ok(UNTIL)),
            ("a second later", &key, "shop", UNTIL + 1, Err(TokenError::Expired)),
            ("another service", &key, "shop2", UNTIL, Err(TokenError::Invalid)),
            ("another service, later", &key, "shop2", UNTIL + 1, Err(TokenError::Invalid)),
            ("another key", &other, "shop", UNTIL, Err(TokenError::Invalid)),
        ] {
            assert_eq!(key.check(service, pass.as_bytes(), now), want, "{case}");
        }
    }

    #[test]
    fn no_byte_of_a_pass_can_be_changed() {
        let key = PreviewKey::new(&[7; KEY_BYTES]);
        let pass = key.sign("shop", UNTIL).into_bytes();
        for at in 0..pass.len() {
            for to in *b"0189afAF.+ " {
                let mut changed = pass.clone();
                changed[at] = to;
                if changed != pass {
                    assert_eq!(key.check("shop", &changed, 0), Err(TokenError::Invalid), "{}", changed.escape_ascii());
                }
            }
        }
        let text = String::from_utf8(pass).unwrap();
        let (until, mac) = text.split_once('.').unwrap();
        for wrong in [
            "".into(),
            ".".into(),
            until.into(),
            format!("{until}."),
            format!("{until}.{}", &mac[2..]),
            format!("{until}.{mac}00"),
            format!("0{until}.{mac}"),
            format!("+{until}.{mac}"),
            format!("{until}.{}", mac.to_uppercase()),
            format!("99999999999999999999.{mac}"),
            format!(" {text}"),
            format!("{text}\n"),
        ] {
            assert_eq!(key.check("shop", wrong.as_bytes(), 0), Err(TokenError::Invalid), "{wrong:?}");
        }
    }

    #[test]
    fn a_pass_is_the_hmac_that_others_compute() {
        // printf 'cutover preview pass 1\nshop\n2000000000' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07
        let pass = PreviewKey::new(&[7; KEY_BYTES]).sign("shop", UNTIL);
        assert_eq!(pass, "2000000000.a7b6f2670154fcce81f6b63bebdf5549e247188ced5b45a215fc52a5067f55a6");
    }

    #[test]
    fn keys_differ_and_are_not_shown() {
        let (one, two) = (PreviewKey::random_bytes().unwrap(), PreviewKey::random_bytes().unwrap());
        assert_ne!(one, two);
        assert_eq!(from_hex(to_hex(&one).as_bytes()), Some(one));
        assert_eq!(format!("{:?}", PreviewKey::new(&one)), "PreviewKey(secret)");
    }
}
