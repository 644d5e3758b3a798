//! `[proxy]` and `[proxy.http2]`: the listeners, and what is asked of clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::de::DeValue;

use super::address::Cidr;
use super::section::{Section, integer};
use super::values::{addresses, networks, seconds};

/// `[proxy]`: the listeners and what is asked of clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// Plain HTTP. Default `0.0.0.0:8080`.
    pub listen: Vec<SocketAddr>,
    /// HTTP over TLS; none by default.
    pub listen_tls: Vec<SocketAddr>,
    /// The port that plain requests are redirected to; `None` by default: they are served.
    pub redirect_to_tls: Option<u16>,
    /// Worker threads, at least 1; a configured 0 has become the number of cores.
    pub workers: usize,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed; nobody by default.
    pub trusted_proxies: Vec<Cidr>,
    /// Peers whose connections must begin with a header of the PROXY protocol; nobody by default.
    pub proxy_protocol_from: Vec<Cidr>,
    /// A client's request head, from its first byte. Default 10 s.
    pub header_timeout: Duration,
    /// Silence within a client's body. Default 30 s.
    pub body_timeout: Duration,
    /// Between requests on a kept connection. Default 75 s.
    pub idle_timeout: Duration,
    /// Default 30 s.
    pub shutdown_timeout: Duration,
    /// Client connections at once; one more is answered 503 and closed. Default 16,384.
    pub max_connections: usize,
    /// Client connections of one address at once, of one /64 of IPv6; one more is closed. Default 0: no limit.
    pub max_connections_per_client: usize,
    /// Requests on one client connection; the last answer closes it. Default 0: no limit.
    pub max_requests_per_connection: u64,
    /// Bytes per second that a request body must come with, over `body_timeout`. Default 128; 0: no limit.
    pub min_body_rate: u64,
    /// Bytes per second that a client must read an answer with that waits for it, over `idle_timeout`. Default 128; 0:
    /// no limit.
    pub min_read_rate: u64,
    /// Request line and headers together, and trailers; more is 431. Default 64 KiB.
    pub max_header_bytes: usize,
    /// A request body; more is 413. Default 0: no limit.
    pub max_body_bytes: u64,
    /// Whether requests and answers are forwarded with `Via: 1.1 cutover` (RFC 9110 7.6.3). Default true.
    pub via: bool,
    /// `[proxy.http2]`
    pub http2: Http2,
}

impl Proxy {
    /// Whether connections of `peer` begin with a header of the PROXY protocol.
    pub fn is_announced(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxy_protocol_from.iter().any(|network| network.contains(peer))
    }
}

/// `[proxy.http2]`: HTTP/2 from clients. Its heads, bodies and silences have the limits of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Whether it is spoken: over TLS where the client asks for it, without where it begins with it. Default true.
    pub enabled: bool,
    /// Requests at once on one connection. Default 128.
    pub max_streams: u32,
    /// Requests that a client may cancel at once, or make us break off by its mistakes; a tenth of that each second
    /// after it. One more ends the connection. Default 200.
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
