//! The `Cookie` field (RFC 6265 4.2.1): cookies are found in it, and taken out of it.

use crate::http1::buffer::Buffer;
use crate::http1::fields::put_field;

/// The values of the cookies of that name, in order.
pub fn values<'v>(field: &'v [u8], name: &str) -> impl Iterator<Item = &'v [u8]> {
    pairs(field).filter_map(move |pair| value_of(pair, name))
}

/// Writes a `Cookie` field without the cookies of that name, and none at all if it held nothing else. `field_name` is
/// the name of the field as it came.
pub fn put_without(out: &mut Buffer, field_name: &str, field: &[u8], name: &str) {
    if values(field, name).next().is_none() {
        return put_field(out, field_name, field);
    }
    let is_other = |pair: &&[u8]| !pair.is_empty() && value_of(pair, name).is_none();
    let others: Vec<_> = pairs(field).filter(is_other).collect();
    if !others.is_empty() {
        put_field(out, field_name, &others.join(&b"; "[..]));
    }
}

fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|&byte| byte == b';').map(<[u8]>::trim_ascii)
}

fn value_of<'v>(pair: &'v [u8], name: &str) -> Option<&'v [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(field: &str) -> String {
        let mut out = Buffer::default();
        put_without(&mut out, "Cookie", field.as_bytes(), "cutover_preview");
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
}
