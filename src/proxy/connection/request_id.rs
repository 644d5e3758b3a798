//! `X-Request-Id`: one name of a request in the responses, in the logs and for the application.

use crate::http1::header::Field;
use crate::http1::request::Request;
use crate::http1::upstream_head::ClientIdentity;

/// The longest id that is taken over from a trusted proxy.
const LEN_MAX: usize = 128;

/// The id of a request: the one that a trusted proxy gave it, or a new one.
pub fn of(request: &Request<'_>, client: &ClientIdentity) -> String {
    let claimed = if client.is_trusted { request.fields.values(Field::RequestId).next() } else { None };
    match claimed {
        Some(id) if (1..=LEN_MAX).contains(&id.len()) => String::from_utf8_lossy(id).into_owned(),
        Some(_) | None => random(),
    }
}

/// A new id of 128 random bits.
pub fn random() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bits = fastrand::u128(..);
    let mut id = String::with_capacity(32);
    for _ in 0..32 {
        id.push(char::from(DIGITS[(bits & 15) as usize]));
        bits >>= 4;
    }
    id
}
