//! The parts that field values are made of (RFC 9110 5.6).

/// Whether it is a token (RFC 9110 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = (byte as u8).is_ascii_alphanumeric()
                || matches!(
                    byte as u8,
                    b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
                );
            byte += 1;
        }
        table
    };
    !text.is_empty() && text.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// Reads a length (RFC 9110 8.6): digits only, and few enough not to overflow the integer of any other parser.
pub fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// Reads a number of any size; more than `u64` holds counts as `u64::MAX`.
pub fn number(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| value.iter().fold(0_u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// The members of a comma-separated list, without white space and without empty ones (RFC 9110 5.6.1).
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
}

/// A value as text; `None` for anything but ASCII.
pub fn ascii(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| text.is_ascii())
}
