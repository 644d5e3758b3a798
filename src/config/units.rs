//! Parses and formats durations and sizes in the notation that people write.

use std::time::Duration;

/// Reads `10s`, `500ms`, `1h30m`; `0s` is zero. `None` for anything else, a missing unit included.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let milliseconds = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
    }
    // The limit is a year: longer durations are typing errors, and could overflow a clock.
    (sum <= Duration::from_secs(366 * 86_400)).then_some(sum)
}

/// Writes a duration so that [`duration`] reads it back.
pub fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0s".into(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// Reads `65536`, `64KiB`, `10MB`.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, want) in [
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("1m 5s", Some(65_000)),
            ("0s", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("10 parsecs", None),
            ("99999999999999999999s", None),
            ("9999d", None),
        ] {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        }
        for ms in [0, 1, 1_000, 61_000, 120_000, 7_200_000] {
            let value = Duration::from_millis(ms);
            assert_eq!(duration(&show(value)), Some(value));
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal() {
        for (text, want) in [
            ("65536", Some(65_536)),
            ("64KiB", Some(65_536)),
            ("10 MB", Some(10_000_000)),
            ("2GiB", Some(2 << 30)),
            ("10 Mb", None),
            ("many", None),
            ("99999999999999GiB", None),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
    }
}
