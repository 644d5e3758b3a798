//! Reads the config of one color: its addresses, or the env file that holds them.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::address::Address;
use super::env_file::EnvFile;
use super::problem::Problem;
use super::section::{Section, Value, integer, kind};
use super::values::path;

/// The addresses of one color, and the file that they come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColorConfig {
    /// Every color has at least one upstream.
    pub upstreams: Vec<Address>,
    /// The Compose `.env` file from which the other fields were read.
    pub env_file: Option<PathBuf>,
    /// The `COMPOSE_PROJECT_NAME` of the env file.
    pub project: Option<String>,
    /// The `IMAGE_TAG` of the env file.
    pub image_tag: Option<String>,
}

/// Reads a port, an address, a list of addresses, or `{ env_file = … }`.
pub(super) fn color(section: &Section<'_, '_>, key: &'static str, place: &Range<usize>) -> ColorConfig {
    const HELP: &str = "a port, \"10.0.0.7:8001\", a list of addresses, or { env_file = \"deploy/.env.blue\" }";
    let mut color = ColorConfig::default();
    let Some(value) = section.get(key) else {
        section.source.problem(place.clone(), format!("{} is missing", section.dotted(key)), format!("{key} = {HELP}"));
        return color;
    };
    match value.get_ref() {
        DeValue::Table(_) => return env_color(&section.table_of(section.dotted(key), value)),
        DeValue::Array(list) if !list.is_empty() => {
            color.upstreams = list.iter().filter_map(|member| upstream(section, key, member, HELP)).collect();
            let mut sorted: Vec<_> = color.upstreams.iter().collect();
            sorted.sort();
            if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                section.problem(key, value, "has an address twice", "remove one of them");
            }
        }
        DeValue::Array(_) => section.problem(key, value, "has no address", HELP),
        _ => color.upstreams.extend(upstream(section, key, value, HELP)),
    }
    color
}

fn upstream(section: &Section<'_, '_>, key: &str, value: &Value<'_>, help: &str) -> Option<Address> {
    let address = match value.get_ref() {
        DeValue::Integer(number) => integer(number.as_str(), number.radix())
            .and_then(|port| u16::try_from(port).ok().filter(|&port| port > 0))
            .map(|port| Address { host: Ipv4Addr::LOCALHOST.to_string(), port }),
        DeValue::String(text) => text.parse().ok(),
        other => {
            section.problem(key, value, &format!("is {}", kind(other)), help);
            return None;
        }
    };
    if address.is_none() {
        section.problem(key, value, "is not an address with a port from 1 to 65535", help);
    }
    address
}

fn env_color(section: &Section<'_, '_>) -> ColorConfig {
    let mut color = ColorConfig::default();
    let env_file = path(section, "env_file", "\"deploy/.env.blue\"");
    if section.get("env_file").is_none() {
        let message = format!("{} names no env_file", section.name);
        section.source.problem(section.span.clone(), message, "{ env_file = \"deploy/.env.blue\" }");
    }
    section.refuse_unknown();
    let Some(path) = env_file else { return color };
    match EnvFile::load(&path) {
        Err(problems) => {
            let mut noted = section.source.problems.borrow_mut();
            noted.extend(problems);
        }
        Ok(file) => {
            let owned = |key| file.get(key).map(|(value, _)| value.to_owned());
            (color.project, color.image_tag) = (owned("COMPOSE_PROJECT_NAME"), owned("IMAGE_TAG"));
            match host_port(&file, &path) {
                Ok(address) => color.upstreams.push(address),
                Err(problem) => section.source.problems.borrow_mut().push(problem),
            }
        }
    }
    color.env_file = Some(path);
    color
}

/// Reads `HOST_PORT`, with or without an address before it.
fn host_port(file: &EnvFile, path: &Path) -> Result<Address, Problem> {
    let Some((text, at)) = file.get("HOST_PORT") else {
        let help = "add HOST_PORT=8000: the port on this machine that Compose publishes for this color";
        return Err(Problem::with_file(path, "no HOST_PORT", help));
    };
    let port = text.parse::<u16>().ok().filter(|&port| port > 0);
    let address = match port {
        Some(port) => Some(Address { host: Ipv4Addr::LOCALHOST.to_string(), port }),
        None => text.parse().ok(),
    };
    let message = "HOST_PORT is not a port from 1 to 65535";
    address.ok_or_else(|| Problem::at(path, &file.text, at..at, message, "for example HOST_PORT=8000"))
}
