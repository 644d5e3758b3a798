//! Holds `[service.NAME.rehearse]`, which selects the requests that are copied to the idle color and the fields that
//! are compared.

use std::time::Duration;

use super::section::{Section, Value};
use super::values::globs;

/// `[service.NAME.rehearse]`: before a flip, live safe requests are copied to the idle color, and the responses are
/// compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Rehearse {
    /// The share of GET and HEAD requests that is copied, 0.0 to 1.0. Default 0.0: off.
    pub share: f64,
    /// Limits the copies per second. Default 10.
    pub rate: u32,
    /// Limits the time of each response to a copy, to its last byte. Default 5 s.
    pub timeout: Duration,
    /// Globs of the paths that are copied; empty (the default) means every path.
    pub allow: Vec<String>,
    /// Globs of the paths that are not copied. Empty by default.
    pub deny: Vec<String>,
    /// The headers that are compared, in lower case. Default `content-type`, `location`, `cache-control`.
    pub headers: Vec<String>,
    /// The share of differing responses up to which a flip is allowed. Default 0.01.
    pub max_differences: f64,
    /// A flip is not refused before this many comparisons. Default 20.
    pub min_requests: u64,
}

impl Default for Rehearse {
    fn default() -> Self {
        Rehearse {
            share: 0.0,
            rate: 10,
            timeout: Duration::from_secs(5),
            allow: Vec::new(),
            deny: Vec::new(),
            headers: ["content-type", "location", "cache-control"].map(str::to_owned).to_vec(),
            max_differences: 0.01,
            min_requests: 20,
        }
    }
}

pub(super) fn rehearse(section: &Section<'_, '_>) -> Rehearse {
    let default = Rehearse::default();
    let rehearse = Rehearse {
        share: section.fraction("share", 0.0..=1.0, default.share),
        rate: u32::try_from(section.integer("rate", 1..=1000, default.rate.into())).unwrap_or(default.rate),
        timeout: section.duration("timeout", default.timeout),
        allow: globs(section, "allow", "[\"/api/**\"]"),
        deny: globs(section, "deny", "[\"/logout\", \"/admin/**\"]"),
        headers: header_names(section, default.headers),
        max_differences: section.fraction("max_differences", 0.0..=1.0, default.max_differences),
        min_requests: section.integer("min_requests", 1..=1_000_000, default.min_requests),
    };
    section.refuse_unknown();
    rehearse
}

fn header_names(section: &Section<'_, '_>, default: Vec<String>) -> Vec<String> {
    const KEY: &str = "headers";
    let name = |(text, value): (&str, &Value<'_>)| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.is_empty() || !text.bytes().all(is_name) {
            section.problem(KEY, value, "has an entry that is not a header name", "for example \"content-type\"");
        }
        text.to_ascii_lowercase()
    };
    let names = section.strings(KEY, "[\"content-type\", \"location\"]");
    names.map_or(default, |names| names.into_iter().map(name).collect())
}
