//! Holds `[service.NAME]`, the config of one application behind the proxy.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use super::address::Address;
use super::beside::{self, Preview, SkewShield};
use super::color::{ColorConfig, color};
use super::deploy::{Deploy, deploy};
use super::freeze::{Freeze, freeze};
use super::monitor::{Monitor, monitor};
use super::proxy::Proxy;
use super::rehearse::{Rehearse, rehearse};
use super::section::{Section, Value};
use super::values::{absolute_path, seconds};
use super::watch::{Replay, Watch, replay, watch};
use crate::domain::Color;
use crate::http_client::Protocol;
use crate::http_client::grpc::SERVICE_BYTES_MAX;
use crate::proxy_protocol::Version as ProxyProtocol;

/// The section `[service.NAME]`: one application behind the proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The name, `[a-z0-9][a-z0-9_-]*`, at most 63 bytes.
    pub name: String,
    /// The hosts in lower case, without port; `*.example.com` stands for one or more labels before it. Empty: every
    /// other host.
    pub hosts: Vec<String>,
    /// The prefix starts with `/` and matches whole segments: `/api` takes `/api` and `/api/x`, not `/apix`.
    pub path_prefix: String,
    /// The active color in the file; see "Who decides the color" in the docs.
    pub active: Color,
    /// The colors, indexed by [`Color::index`].
    pub colors: [ColorConfig; 2],
    /// The section `[service.NAME.upstream]`.
    pub upstream: Upstream,
    /// The section `[service.NAME.health]`.
    pub health: Health,
    /// The section `[service.NAME.watch]`.
    pub watch: Watch,
    /// The section `[service.NAME.replay]`.
    pub replay: Replay,
    /// The section `[service.NAME.rehearse]`.
    pub rehearse: Rehearse,
    /// The section `[service.NAME.preview]`.
    pub preview: Preview,
    /// The section `[service.NAME.skew_shield]`.
    pub skew_shield: SkewShield,
    /// The section `[service.NAME.drain]`.
    pub drain: Drain,
    /// The section `[service.NAME.freeze]`.
    pub freeze: Freeze,
    /// The section `[service.NAME.deploy]`.
    pub deploy: Deploy,
    /// The section `[service.NAME.monitor]`.
    pub monitor: Monitor,
}

/// The section `[service.NAME.upstream]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Limits the time of all attempts to connect for one request together. Default 1 s.
    pub connect_timeout: Duration,
    /// Limits a pause before or within a response. Default 60 s.
    pub response_timeout: Duration,
    /// An unused connection is kept for this long. Default 4 s, which is below the 5 s after which Node closes it.
    pub idle_timeout: Duration,
    /// The protocol of the application. Default HTTP/1.
    pub protocol: Protocol,
    /// The PROXY header with which connections begin. Default none. It is only possible with HTTP/1.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The section `[service.NAME.health]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// The path of the probe. Default `/readyz`.
    pub path: String,
    /// The kind of the probe. By default it uses the protocol of requests, `upstream.protocol`.
    pub check: Check,
    /// The version of the PROXY header, as in `upstream.proxy_protocol`; a probe's header says that the connection is
    /// the proxy's own.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The time between probes. Default 1 s.
    pub interval: Duration,
    /// Limits a probe. Default 2 s; a probe that is still running when the next is due delays it.
    pub timeout: Duration,
    /// An upstream becomes ready after this many successes in a row. Default 2.
    pub rise: u32,
    /// An upstream stops being ready after this many failures in a row. Default 3.
    pub fall: u32,
}

/// Says how the proxy checks whether an application is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The probe is a GET over this protocol.
    Http(Protocol),
    /// The probe calls `Check` of grpc.health.v1 for this service of the application; an empty name means the server as
    /// a whole. The name has at most [`crate::http_client::grpc::SERVICE_BYTES_MAX`] bytes.
    Grpc(String),
}

/// The section `[service.NAME.drain]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// After this time, requests that are still in flight on the old color are cut. Default 30 s.
    pub timeout: Duration,
}

pub(super) fn services(top: &Section<'_, '_>, proxy: &Proxy) -> Vec<Service> {
    let section = top.section("service");
    let entries = section.entries();
    if entries.is_empty() {
        let help = "add [service.NAME] with blue = 8000 and green = 8001";
        top.source.problem(0..0, "there is no service", help);
    }
    let mut seen: HashMap<(String, String), String> = HashMap::new();
    let mut services = Vec::new();
    for (name, place, value) in entries {
        if !is_service_name(name) {
            let help = "lower-case letters, digits, - and _, beginning with a letter or digit; at most 63";
            top.source.problem(place.clone(), format!("{name:?} is not a service name"), help);
        }
        let service = service(name, &section.table_of(section.dotted(name), value), &place);
        for color in &service.colors {
            if let Some(own) = color.upstreams.iter().find(|address| is_own(proxy, address)) {
                let message =
                    format!("service.{name}: {own} is the proxy's own address: a request would go in circles");
                top.source.problem(place.clone(), message, "give the application or proxy.listen another port");
            }
        }
        let hosts = if service.hosts.is_empty() { vec![String::new()] } else { service.hosts.clone() };
        for host in hosts {
            if let Some(other) = seen.insert((host.clone(), service.path_prefix.clone()), name.to_owned()) {
                let whose = if host.is_empty() { "every other host" } else { &host };
                let message =
                    format!("service.{name} and service.{other} both claim {whose} with {}", service.path_prefix);
                top.source.problem(place.clone(), message, "give one of them other hosts or another path_prefix");
            }
        }
        services.push(service);
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// Whether a connection to `address` would lead back to this proxy.
fn is_own(proxy: &Proxy, address: &Address) -> bool {
    address.socket().is_some_and(|upstream| {
        let reaches = |listen: &SocketAddr| {
            listen.port() == upstream.port()
                && (listen.ip() == upstream.ip() || (listen.ip().is_unspecified() && upstream.ip().is_loopback()))
        };
        proxy.listen.iter().chain(&proxy.listen_tls).any(reaches)
    })
}

fn is_service_name(name: &str) -> bool {
    let is_start = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 63
        && name.bytes().next().is_some_and(is_start)
        && name.bytes().all(|b| is_start(b) || matches!(b, b'-' | b'_'))
}

fn service(name: &str, section: &Section<'_, '_>, place: &Range<usize>) -> Service {
    let colors = ["blue", "green"].map(|key| color(section, key, place));
    if let Some(shared) = colors[0].upstreams.iter().find(|address| colors[1].upstreams.contains(address)) {
        let span = section.get("green").map_or_else(|| place.clone(), Value::span);
        let message = format!("service.{name}: both colors are at {shared}, so a flip would change nothing");
        section.source.problem(span, message, "each color needs a HOST_PORT of its own");
    }
    let upstream = section.section("upstream");
    let health = section.section("health");
    let drain = section.section("drain");
    let freeze = freeze(&section.section("freeze"));
    let deploy = deploy(&section.section("deploy"), &colors);
    let (spoken, announced) = spoken(&upstream);
    let service = Service {
        name: name.to_owned(),
        hosts: hosts(section),
        path_prefix: absolute_path(section, "path_prefix", "/"),
        active: active(section),
        colors,
        upstream: Upstream {
            connect_timeout: upstream.duration("connect_timeout", seconds(1)),
            response_timeout: upstream.duration("response_timeout", seconds(60)),
            idle_timeout: upstream.duration("idle_timeout", seconds(4)),
            protocol: spoken,
            proxy_protocol: announced,
        },
        health: Health {
            path: absolute_path(&health, "path", "/readyz"),
            check: check(&health, spoken),
            proxy_protocol: announced,
            interval: health.duration("interval", seconds(1)),
            timeout: health.duration("timeout", seconds(2)),
            rise: u32::try_from(health.integer("rise", 1..=1_000_000, 2)).unwrap_or(2),
            fall: u32::try_from(health.integer("fall", 1..=1_000_000, 3)).unwrap_or(3),
        },
        watch: watch(&section.section("watch")),
        replay: replay(&section.section("replay")),
        rehearse: rehearse(&section.section("rehearse")),
        monitor: monitor(&section.section("monitor")),
        preview: beside::preview(&section.section("preview")),
        skew_shield: beside::skew_shield(&section.section("skew_shield")),
        drain: Drain { timeout: drain.duration("timeout", seconds(30)) },
        freeze,
        deploy,
    };
    for section in [section, &upstream, &health, &drain] {
        section.refuse_unknown();
    }
    service
}

fn hosts(section: &Section<'_, '_>) -> Vec<String> {
    let host = |(text, value): (&str, &Value<'_>)| {
        let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let name = host.strip_prefix("*.").unwrap_or(&host);
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if name.is_empty() || !(is_name || name.parse::<IpAddr>().is_ok()) {
            let help = "a name without scheme, port and path: \"recall.example.com\", \"*.example.com\"";
            section.problem("hosts", value, "has an entry that is not a host name", help);
        }
        host
    };
    section.strings("hosts", "[\"recall.example.com\"]").unwrap_or_default().into_iter().map(host).collect()
}

fn active(section: &Section<'_, '_>) -> Color {
    let Some((text, value)) = section.string("active", "\"blue\"") else { return Color::Blue };
    text.parse().unwrap_or_else(|_| {
        section.problem("active", value, "is not a color", "write \"blue\" or \"green\"");
        Color::Blue
    })
}

/// Reads the protocol of the application, and the PROXY header in front of it.
fn spoken(section: &Section<'_, '_>) -> (Protocol, Option<ProxyProtocol>) {
    const KEY: &str = "proxy_protocol";
    let protocol = section.word("protocol", [("http1", Protocol::Http1), ("h2c", Protocol::H2c)]);
    let Some((word, value)) = section.string(KEY, "\"v2\"") else { return (protocol, None) };
    let version = match word {
        "v1" => Some(ProxyProtocol::V1),
        "v2" => Some(ProxyProtocol::V2),
        _ => {
            section.problem(KEY, value, "is none of v1, v2", "leave out the key to send none");
            None
        }
    };
    if protocol == Protocol::H2c {
        let message = "names one client, but with h2c many clients share a connection";
        section.problem(KEY, value, message, "remove one of the two");
    }
    (protocol, version)
}

fn check(section: &Section<'_, '_>, of_requests: Protocol) -> Check {
    let service = section.string("service", "\"package.Service\"");
    let check = match section.string("protocol", "\"grpc\"") {
        None | Some(("http", _)) => Check::Http(of_requests),
        Some(("grpc", _)) => Check::Grpc(service.map(|(name, _)| name.to_owned()).unwrap_or_default()),
        Some((_, value)) => {
            section.problem("protocol", value, "is none of http, grpc", "the default is \"http\"");
            Check::Http(of_requests)
        }
    };
    match (&check, service) {
        (Check::Http(_), Some((_, value))) => {
            section.problem("service", value, "is used with grpc only", "set health.protocol = \"grpc\" as well");
        }
        (Check::Grpc(name), Some((_, value))) if name.len() > SERVICE_BYTES_MAX => {
            section.problem("service", value, "is longer than 127 bytes", "for example \"package.Service\"");
        }
        (Check::Http(_) | Check::Grpc(_), _) => {}
    }
    check
}
