//! From the file's tables to a valid [`Config`], or to every problem at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::beside;
use super::env_file::EnvFile;
use super::monitor::monitor;
use super::problem::Problem;
use super::section::{Reader, Section, Source, Value, integer, kind};
use super::tls::tls;
use super::{
    AccessLog, Address, Admin, Check, Cidr, ColorConfig, Config, Drain, Health, Http2, LEDGER, Log, Protocol, Proxy,
    Rehearse, Replay, Service, State, Synthetic, Upstream, Watch,
};
use crate::domain::Color;
use crate::http_client::grpc::SERVICE_BYTES_MAX;
use crate::proxy_protocol::Version as ProxyProtocol;

/// Parses `text`, the content of `path`: what could be made of it, with defaults in place of what is wrong, and every
/// problem of the file and of the files it names. `None` when it is not TOML.
pub fn config(text: &str, path: &Path, reader: Reader) -> (Option<Config>, Vec<Problem>) {
    let source = Source { path, text, reader, problems: Default::default() };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            let message = format!("not TOML: {}", error.message().trim());
            return (None, vec![Problem::at(path, text, span, message, "config/cutover.toml shows every key")]);
        }
    };
    let top = Section::top(&source, &table);
    let proxy = proxy(&top.section("proxy"));
    let state = state(&top.section("state"));
    let tls = tls(&top.section("tls"), top.section("proxy").get("listen_tls"), &state.dir, proxy.http2.enabled);
    let config = Config {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        admin: admin(&top.section("admin"), &proxy),
        state,
        log: log(&top.section("log")),
        services: services(&top, &proxy),
        proxy,
        tls,
    };
    top.refuse_unknown();
    let mut problems = source.problems.into_inner();
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    (Some(config), problems)
}

pub(super) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn proxy(section: &Section<'_, '_>) -> Proxy {
    let default = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080))];
    let workers = section.integer("workers", 0..=1024, 0);
    let listen_tls = addresses(section, "listen_tls", "0.0.0.0:8443").unwrap_or_default();
    let proxy = Proxy {
        listen: addresses(section, "listen", "0.0.0.0:8080").unwrap_or(default),
        redirect_to_tls: redirect_to_tls(section, &listen_tls),
        listen_tls,
        workers: if workers == 0 { cores() } else { usize::try_from(workers).unwrap_or(1) },
        trusted_proxies: networks(section, "trusted_proxies"),
        proxy_protocol_from: networks(section, "proxy_protocol_from"),
        header_timeout: section.duration("header_timeout", seconds(10)),
        body_timeout: section.duration("body_timeout", seconds(30)),
        idle_timeout: section.duration("idle_timeout", seconds(75)),
        shutdown_timeout: section.duration_or_zero("shutdown_timeout", seconds(30)).unwrap_or(seconds(30)),
        max_connections: usize::try_from(section.integer("max_connections", 1..=1_000_000, 16_384)).unwrap_or(16_384),
        max_connections_per_client: usize::try_from(section.integer("max_connections_per_client", 0..=1_000_000, 0))
            .unwrap_or(0),
        max_requests_per_connection: section.integer("max_requests_per_connection", 0..=1_000_000_000, 0),
        min_body_rate: section.bytes("min_body_rate", 128),
        min_read_rate: section.bytes("min_read_rate", 128),
        max_header_bytes: header_bytes(section),
        max_body_bytes: section.bytes("max_body_bytes", 0),
        via: section.boolean("via", true),
        http2: http2(&section.section("http2")),
    };
    if let (Some(value), []) = (section.get("listen"), &proxy.listen[..])
        && matches!(value.get_ref(), DeValue::Array(list) if list.is_empty())
        && proxy.listen_tls.is_empty()
    {
        section.problem("listen", value, "is empty: nobody could reach the proxy", "the default is [\"0.0.0.0:8080\"]");
    }
    if let (Some(value), Some(both)) =
        (section.get("listen_tls"), proxy.listen_tls.iter().find(|address| proxy.listen.contains(address)))
    {
        section.problem("listen_tls", value, &format!("has {both}, and so has proxy.listen"), "give it another port");
    }
    section.refuse_unknown();
    proxy
}

fn http2(section: &Section<'_, '_>) -> Http2 {
    let number =
        |key, range, default: u32| u32::try_from(section.integer(key, range, default.into())).unwrap_or(default);
    let http2 = Http2 {
        enabled: section.boolean("enabled", true),
        max_streams: number("max_streams", 1..=10_000, 128),
        max_resets: number("max_resets", 1..=1_000_000, 200),
    };
    section.refuse_unknown();
    http2
}

/// `true`, or the port that clients reach us at where that is another than the one we listen on.
fn redirect_to_tls(section: &Section<'_, '_>, listen_tls: &[SocketAddr]) -> Option<u16> {
    const KEY: &str = "redirect_to_tls";
    let value = section.get(KEY)?;
    let port = match value.get_ref() {
        DeValue::Boolean(false) => return None,
        DeValue::Boolean(true) => listen_tls.first().map(SocketAddr::port),
        DeValue::Integer(number) => integer(number.as_str(), number.radix())
            .and_then(|port| u16::try_from(port).ok().filter(|&port| port > 0))
            .or_else(|| {
                section.problem(KEY, value, "is not a port from 1 to 65535", "for example `redirect_to_tls = 443`");
                None
            }),
        _ => {
            let help = "write true, or the port that clients use: 443";
            section.problem(KEY, value, "is neither true, false nor a port", help);
            None
        }
    };
    if listen_tls.is_empty() {
        let help = "set proxy.listen_tls and tls.certificates";
        section.problem(KEY, value, "redirects to nowhere: there is no TLS listener", help);
    }
    port
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn header_bytes(section: &Section<'_, '_>) -> usize {
    const RANGE: std::ops::RangeInclusive<u64> = 1024..=1_048_576;
    let bytes = section.bytes("max_header_bytes", 65_536);
    if let (false, Some(value)) = (RANGE.contains(&bytes), section.get("max_header_bytes")) {
        section.problem("max_header_bytes", value, "must be from 1KiB to 1MiB", "the default is \"64KiB\"");
    }
    usize::try_from(bytes).unwrap_or(65_536)
}

fn addresses(section: &Section<'_, '_>, key: &'static str, example: &str) -> Option<Vec<SocketAddr>> {
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

fn networks(section: &Section<'_, '_>, key: &'static str) -> Vec<Cidr> {
    let network = |(text, value): (&str, &Value<'_>)| {
        let network = text.parse::<Cidr>().ok();
        if network.is_none() {
            section.problem(key, value, "is not a network", "for example \"10.0.0.0/8\", \"fd00::/8\" or one address");
        }
        network
    };
    section.strings(key, "[\"10.0.0.0/8\"]").unwrap_or_default().into_iter().filter_map(network).collect()
}

fn admin(section: &Section<'_, '_>, proxy: &Proxy) -> Admin {
    let listen = match section.string("listen", "\"127.0.0.1:9900\"") {
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, 9900)),
        Some((text, value)) => text.parse().unwrap_or_else(|_| {
            section.problem("listen", value, "is not an address", "an IP address and a port: \"127.0.0.1:9900\"");
            SocketAddr::from((Ipv4Addr::LOCALHOST, 9900))
        }),
    };
    let place = section.get("listen").map_or_else(|| section.span.clone(), Value::span);
    for (key, taken) in [("listen", &proxy.listen), ("listen_tls", &proxy.listen_tls)] {
        if listen.port() != 0 && taken.contains(&listen) {
            let message = format!("admin.listen is also an address of proxy.{key}");
            section.source.problem(place.clone(), message, "give it a port of its own");
        }
    }
    let token =
        section.string("token_file", "\"/etc/cutover/token\"").and_then(|(path, value)| match std::fs::read_to_string(
            path,
        ) {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Ok(_) => {
                section.problem("token_file", value, "names an empty file", "write a long random token into it");
                None
            }
            Err(error) => {
                let message = format!("cannot be read: {error}");
                section.problem(
                    "token_file",
                    value,
                    &message,
                    "write a long random token into it, readable by cutover only",
                );
                None
            }
        });
    if !listen.ip().is_loopback() && section.get("token_file").is_none() {
        let help = "set admin.token_file, or listen on 127.0.0.1";
        section.source.problem(place, "admin.listen is not loopback and there is no token: anybody could flip", help);
    }
    let admin = Admin { listen, token, socket: path(section, "socket", "\"/run/cutover/admin.sock\"") };
    section.refuse_unknown();
    admin
}

pub(super) fn path(section: &Section<'_, '_>, key: &'static str, example: &str) -> Option<PathBuf> {
    let (text, value) = section.string(key, example)?;
    if text.is_empty() {
        section.problem(key, value, "is empty", format!("for example `{key} = {example}`"));
        return None;
    }
    Some(text.into())
}

fn state(section: &Section<'_, '_>) -> State {
    let state = State {
        dir: path(section, "dir", "\"state\"").unwrap_or_else(|| "state".into()),
        ledger: path(section, "ledger", "\"deploy/releases.log\"").unwrap_or_else(|| LEDGER.into()),
    };
    section.refuse_unknown();
    state
}

fn log(section: &Section<'_, '_>) -> Log {
    let words = [("off", AccessLog::Off), ("json", AccessLog::Json), ("combined", AccessLog::Combined)];
    let access = section.word("access", words);
    let log = Log { access, access_file: path(section, "access_file", "\"access.log\"") };
    section.refuse_unknown();
    log
}

/// Whether a connection to `address` would come back to this proxy.
fn is_own(proxy: &Proxy, address: &Address) -> bool {
    address.socket().is_some_and(|upstream| {
        let reaches = |listen: &SocketAddr| {
            listen.port() == upstream.port()
                && (listen.ip() == upstream.ip() || (listen.ip().is_unspecified() && upstream.ip().is_loopback()))
        };
        proxy.listen.iter().chain(&proxy.listen_tls).any(reaches)
    })
}

fn services(top: &Section<'_, '_>, proxy: &Proxy) -> Vec<Service> {
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
    let watch = section.section("watch");
    let replay = section.section("replay");
    let rehearsal = section.section("rehearse");
    let drain = section.section("drain");
    let freeze = super::freeze::freeze(&section.section("freeze"));
    let deploy = super::deploy::deploy(&section.section("deploy"), &colors);
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
        watch: Watch {
            window: watch.duration_or_zero("window", seconds(900)).unwrap_or(seconds(900)),
            max_false_rollbacks: watch.fraction("max_false_rollbacks", 0.000_001..=0.1, 0.001),
            min_effect: watch.fraction("min_effect", 0.0..=0.5, 0.001),
            min_failures: u32::try_from(watch.integer("min_failures", 1..=1000, 5)).unwrap_or(5),
            warm_up: watch.duration_or_zero("warm_up", seconds(2)).unwrap_or(seconds(2)),
            slow_factor: watch.fraction("slow_factor", 0.0..=100.0, 2.0),
            split: watch.boolean("split", true),
            stay_open: watch.boolean("stay_open", false),
            rare_route: watch.fraction("rare_route", 0.0..=0.5, 0.02),
            synthetic: synthetic(&watch),
        },
        replay: Replay { safe: replay.boolean("safe", true), idempotent: replay.boolean("idempotent", false) },
        rehearse: rehearse(&rehearsal),
        monitor: monitor(&section.section("monitor")),
        preview: beside::preview(&section.section("preview")),
        skew_shield: beside::skew_shield(&section.section("skew_shield")),
        drain: Drain { timeout: drain.duration("timeout", seconds(30)) },
        freeze,
        deploy,
    };
    for section in [section, &upstream, &health, &watch, &replay, &rehearsal, &drain] {
        section.refuse_unknown();
    }
    service
}

/// `None` where it is not configured.
fn synthetic(watch: &Section<'_, '_>) -> Option<Synthetic> {
    let given = watch.get("synthetic")?;
    let section = watch.section("synthetic");
    if section.get("path").is_none() {
        watch.problem("synthetic", given, "names no path", "{ path = \"/\", interval = \"1s\" }");
    }
    let synthetic = Synthetic {
        path: absolute_path(&section, "path", "/"),
        interval: section.duration("interval", seconds(1)),
        timeout: section.duration("timeout", seconds(5)),
    };
    section.refuse_unknown();
    Some(synthetic)
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

/// What is spoken with the application, and what stands in front of it.
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

fn rehearse(section: &Section<'_, '_>) -> Rehearse {
    let default = Rehearse::default();
    Rehearse {
        share: section.fraction("share", 0.0..=1.0, default.share),
        rate: u32::try_from(section.integer("rate", 1..=1000, default.rate.into())).unwrap_or(default.rate),
        timeout: section.duration("timeout", default.timeout),
        allow: globs(section, "allow", "[\"/api/**\"]"),
        deny: globs(section, "deny", "[\"/logout\", \"/admin/**\"]"),
        headers: header_names(section, default.headers),
        max_differences: section.fraction("max_differences", 0.0..=1.0, default.max_differences),
        min_requests: section.integer("min_requests", 1..=1_000_000, default.min_requests),
    }
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

fn absolute_path(section: &Section<'_, '_>, key: &'static str, default: &str) -> String {
    match section.string(key, &format!("{default:?}")) {
        None => default.to_owned(),
        Some((path, _)) if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) => path.to_owned(),
        Some((_, value)) => {
            section.problem(key, value, "is not a path", format!("begin it with a slash: `{key} = {default:?}`"));
            default.to_owned()
        }
    }
}

fn active(section: &Section<'_, '_>) -> Color {
    let Some((text, value)) = section.string("active", "\"blue\"") else { return Color::Blue };
    text.parse().unwrap_or_else(|_| {
        section.problem("active", value, "is not a color", "write \"blue\" or \"green\"");
        Color::Blue
    })
}

/// A port, an address, a list of addresses, or `{ env_file = … }`.
fn color(section: &Section<'_, '_>, key: &'static str, place: &Range<usize>) -> ColorConfig {
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

/// `HOST_PORT`, with or without an address before it.
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
