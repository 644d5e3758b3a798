//! Holds `[proxy]` and `[proxy.http2]`: the listeners, and the limits that clients must keep.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::de::DeValue;

use super::address::Cidr;
use super::section::{Section, integer};
use super::values::{addresses, networks, seconds};

/// The section `[proxy]`: the listeners, and the limits that clients must keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// The addresses for plain HTTP. Default `0.0.0.0:8080`.
    pub listen: Vec<SocketAddr>,
    /// The addresses for HTTP over TLS; none by default.
    pub listen_tls: Vec<SocketAddr>,
    /// The port that plain requests are redirected to. By default it is `None`, and plain requests are served.
    pub redirect_to_tls: Option<u16>,
    /// The number of worker threads, at least 1; a configured 0 has become the number of cores.
    pub workers: usize,
    /// The peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are trusted; none by default.
    pub trusted_proxies: Vec<Cidr>,
    /// The peers whose connections must begin with a PROXY header; none by default.
    pub proxy_protocol_from: Vec<Cidr>,
    /// Limits the time for a client's request head, from its first byte. Default 10 s.
    pub header_timeout: Duration,
    /// Limits a pause within a client's body. Default 30 s.
    pub body_timeout: Duration,
    /// Limits the idle time between requests on a kept connection. Default 75 s.
    pub idle_timeout: Duration,
    /// Limits a shutdown. Default 30 s.
    pub shutdown_timeout: Duration,
    /// Limits the client connections at once; one more gets 503 and is closed. Default 16,384.
    pub max_connections: usize,
    /// Limits the connections at once from one client address, or one /64 of IPv6; one more is closed. Default 0: no
    /// limit.
    pub max_connections_per_client: usize,
    /// Limits the requests on one client connection; the last response closes it. Default 0: no limit.
    pub max_requests_per_connection: u64,
    /// The rate in bytes per second that a request body must keep, measured over `body_timeout`. Default 128; 0: no
    /// limit.
    pub min_body_rate: u64,
    /// The rate in bytes per second at which a client must read a waiting response, measured over `idle_timeout`.
    /// Default 128; 0: no limit.
    pub min_read_rate: u64,
    /// Limits the request line and headers together, and the trailers; more gets 431. Default 64 KiB.
    pub max_header_bytes: usize,
    /// Limits a request body; more gets 413. Default 0: no limit.
    pub max_body_bytes: u64,
    /// Whether requests and responses are forwarded with `Via: 1.1 cutover` (RFC 9110 7.6.3). Default true.
    pub via: bool,
    /// The section `[proxy.http2]`.
    pub http2: Http2,
}

impl Proxy {
    /// Whether connections of `peer` begin with a PROXY header.
    pub fn is_announced(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxy_protocol_from.iter().any(|network| network.contains(peer))
    }
}

/// The section `[proxy.http2]`: HTTP/2 from clients. The limits on heads, bodies and idle time apply as to every
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Whether HTTP/2 is served: over TLS where the client negotiates it, and over plain TCP where the client begins
    /// with it. Default true.
    pub enabled: bool,
    /// Limits the concurrent requests on one connection. Default 128.
    pub max_streams: u32,
    /// Limits the requests that a client may cancel at once, or make the proxy reset by its errors; each second a tenth
    /// of the limit is added again. One more ends the connection. Default 200.
    pub max_resets: u32,
}

pub(super) fn proxy(section: &Section<'_, '_>) -> Proxy {
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

/// Reads `true`, or the port at which clients reach the proxy where that differs from the listen port.
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
