//! Reads values that several sections share: durations, paths, globs, addresses, networks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Cidr;
use super::section::{Section, Value};

pub(super) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn path(section: &Section<'_, '_>, key: &'static str, example: &str) -> Option<PathBuf> {
    let (text, value) = section.string(key, example)?;
    if text.is_empty() {
        section.problem(key, value, "is empty", format!("for example `{key} = {example}`"));
        return None;
    }
    Some(text.into())
}

pub(super) fn globs(section: &Section<'_, '_>, key: &'static str, example: &str) -> Vec<String> {
    let glob = |(text, value): (&str, &Value<'_>)| {
        if !text.starts_with(['/', '*']) {
            section.problem(key, value, "has a glob that no path can match", "begin it with / or **: \"/admin/**\"");
        } else if let Err(error) = globset::Glob::new(text) {
            let help = "* and ? stay within a segment, ** does not: \"/admin/**\", \"/*.png\"";
            section.problem(key, value, &format!("is not a glob: {}", error.kind()), help);
        }
        text.to_owned()
    };
    section.strings(key, example).unwrap_or_default().into_iter().map(glob).collect()
}

pub(super) fn absolute_path(section: &Section<'_, '_>, key: &'static str, default: &str) -> String {
    match section.string(key, &format!("{default:?}")) {
        None => default.to_owned(),
        Some((path, _)) if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) => path.to_owned(),
        Some((_, value)) => {
            section.problem(key, value, "is not a path", format!("begin it with a slash: `{key} = {default:?}`"));
            default.to_owned()
        }
    }
}

pub(super) fn addresses(section: &Section<'_, '_>, key: &'static str, example: &str) -> Option<Vec<SocketAddr>> {
    let list = section.strings(key, &format!("[{example:?}]"))?;
    let mut addresses = Vec::new();
    for (text, value) in &list {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 && addresses.contains(&address) => {
                section.problem(key, value, "has this address twice", "remove one of them");
            }
            Ok(address) => addresses.push(address),
            Err(_) => section.problem(
                key,
                value,
                "is not an address",
                format!("an IP address and a port: {example:?}, \"[::]:8080\""),
            ),
        }
    }
    Some(addresses)
}

pub(super) fn networks(section: &Section<'_, '_>, key: &'static str) -> Vec<Cidr> {
    let network = |(text, value): (&str, &Value<'_>)| {
        let network = text.parse::<Cidr>().ok();
        if network.is_none() {
            section.problem(key, value, "is not a network", "for example \"10.0.0.0/8\", \"fd00::/8\" or one address");
        }
        network
    };
    section.strings(key, "[\"10.0.0.0/8\"]").unwrap_or_default().into_iter().filter_map(network).collect()
}

/// Reads a program and its arguments.
pub(super) fn words_of(section: &Section<'_, '_>, key: &'static str, example: &str) -> Option<Vec<String>> {
    let words = section.strings(key, example)?;
    if let [(only, value)] = words[..]
        && only.contains(' ')
    {
        let help = format!("a program and its arguments: {example}; for a shell: [\"sh\", \"-c\", {only:?}]");
        section.problem(key, value, "is one word with spaces", help);
    }
    Some(words.into_iter().map(|(word, _)| word.to_owned()).collect())
}
