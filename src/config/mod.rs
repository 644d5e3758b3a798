//! The valid configuration: what the rest of the program reads.
//!
//! `section` reads the file's tables with their places, `read` turns them into a [`Config`] or into every problem at
//! once.

mod beside;
mod deploy;
mod env_file;
mod freeze;
mod hooks;
mod monitor;
mod problem;
mod read;
mod section;
#[cfg(test)]
mod tests;
mod tls;
mod units;

pub use beside::{Preview, SkewShield};
pub use deploy::{Backup, Deploy, Migrate, Retire, Version};
pub use env_file::EnvFile;
pub use freeze::Freeze;
pub use hooks::Hooks;
pub use monitor::Monitor;
pub use problem::{Problem, Problems};
use section::Reader;
pub use units::duration;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::domain::Color;
pub use crate::http_client::Protocol;
use crate::proxy_protocol::Version as ProxyProtocol;
use crate::tls::Settings;

/// Everything that was configured, valid, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from, absolute. Relative paths in the file are relative to the working directory.
    pub path: PathBuf,
    /// `[proxy]`
    pub proxy: Proxy,
    /// `[tls]`
    pub tls: Settings,
    /// `[admin]`
    pub admin: Admin,
    /// `[state]`
    pub state: State,
    /// `[log]`
    pub log: Log,
    /// `[service.*]`, by name.
    pub services: Vec<Service>,
}

/// Where a config is looked for when none is named, in this order; `$CUTOVER_CONFIG` comes before them.
pub const PLACES: [&str; 3] = ["cutover.toml", "config/cutover.toml", "/etc/cutover/cutover.toml"];

/// Where the ledger is when no config says so.
pub const LEDGER: &str = "deploy/releases.log";

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every problem of the file and of the files it names.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Config::parse(&text_of(path)?, path)
    }

    /// Checks `text`, the content of `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Problems> {
        match read::config(text, path, Reader::Proxy) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// For a client of a running proxy, which may well run although its file has been broken since: whatever can be
    /// read of it, and its problems. Certificates and keys are not read.
    ///
    /// # Errors
    /// There is nothing to be read: no file, or no TOML in it.
    pub fn load_for_client(path: &Path) -> Result<(Self, Option<Problems>), Problems> {
        match read::config(&text_of(path)?, path, Reader::Client) {
            (Some(config), problems) if problems.is_empty() => Ok((config, None)),
            (Some(config), problems) => Ok((config, Some(Problems(problems)))),
            (None, problems) => Err(Problems(problems)),
        }
    }
}

fn text_of(path: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(path).map_err(|error| {
        let help = "name another file with --config or $CUTOVER_CONFIG";
        Problems(vec![Problem::with_file(path, format!("cannot be read: {error}"), help)])
    })
}

/// The file to load: the one named on the command line, else `$CUTOVER_CONFIG`, else the first of [`PLACES`].
///
/// # Errors
/// There is none; the problem says where it was looked for.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Problems> {
    // A variable that is empty is one that was not set, as for every shell.
    let from_environment = || std::env::var_os("CUTOVER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_owned).or_else(from_environment) {
        return Ok(path);
    }
    PLACES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
        let message = format!("no config: looked for --config, $CUTOVER_CONFIG, {}", PLACES.join(", "));
        let help = "write cutover.toml with [service.NAME], blue = 8000 and green = 8001";
        Problems(vec![Problem::with_file(Path::new("cutover.toml"), message, help)])
    })
}

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

/// `[admin]`: the API, `/metrics` and the dashboard.
#[derive(Clone, PartialEq)]
pub struct Admin {
    /// Default `127.0.0.1:9900`.
    pub listen: SocketAddr,
    /// The content of `token_file`, without its line end; required when `listen` is not loopback.
    pub token: Option<String>,
    /// A unix socket, mode 0600; none by default.
    pub socket: Option<PathBuf>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("listen", &self.listen)
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .field("socket", &self.socket)
            .finish()
    }
}

/// `[state]`: what survives a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Default `state`.
    pub dir: PathBuf,
    /// Default [`LEDGER`].
    pub ledger: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// One line per request; off by default.
    pub access: AccessLog,
    /// Where access lines go; standard output by default.
    pub access_file: Option<PathBuf>,
}

/// The form of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nothing is written.
    Off,
    /// One JSON object per line.
    Json,
    /// The Apache/nginx "combined" form, with our fields behind it.
    Combined,
}

/// `[service.NAME]`: one application behind the proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// `[a-z0-9][a-z0-9_-]*`, at most 63 bytes.
    pub name: String,
    /// Lower case, without port; `*.example.com` stands for any one or more labels before it. Empty: every other host.
    pub hosts: Vec<String>,
    /// Starts with `/`. Matches whole segments: `/api` takes `/api` and `/api/x`, not `/apix`.
    pub path_prefix: String,
    /// The active color as the file has it; see "Who decides the color" in the docs.
    pub active: Color,
    /// Indexed by [`Color::index`].
    pub colors: [ColorConfig; 2],
    /// `[service.NAME.upstream]`
    pub upstream: Upstream,
    /// `[service.NAME.health]`
    pub health: Health,
    /// `[service.NAME.watch]`
    pub watch: Watch,
    /// `[service.NAME.replay]`
    pub replay: Replay,
    /// `[service.NAME.rehearse]`
    pub rehearse: Rehearse,
    /// `[service.NAME.preview]`
    pub preview: Preview,
    /// `[service.NAME.skew_shield]`
    pub skew_shield: SkewShield,
    /// `[service.NAME.drain]`
    pub drain: Drain,
    /// `[service.NAME.freeze]`
    pub freeze: Freeze,
    /// `[service.NAME.deploy]`
    pub deploy: Deploy,
    /// `[service.NAME.monitor]`
    pub monitor: Monitor,
}

/// One color: where it listens, and where that was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColorConfig {
    /// At least one.
    pub upstreams: Vec<Address>,
    /// The Compose `.env` the rest was read from.
    pub env_file: Option<PathBuf>,
    /// `COMPOSE_PROJECT_NAME`
    pub project: Option<String>,
    /// `IMAGE_TAG`
    pub image_tag: Option<String>,
}

/// `host:port`. A name is resolved anew for each connection, so that a changed DNS record is followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// An IP address (IPv6 without brackets) or a name.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl Address {
    /// The socket address, where the host is an IP address.
    pub fn socket(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The text is not `host:port`.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            let address = Address { host: socket.ip().to_string(), port: socket.port() };
            return if address.port > 0 { Ok(address) } else { Err(NotAnAddress) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(NotAnAddress)?;
        let is_name =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let port = port.parse().ok().filter(|&port| port > 0);
        port.filter(|_| is_name).map(|port| Address { host: host.to_owned(), port }).ok_or(NotAnAddress)
    }
}

/// `[service.NAME.upstream]`
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// For all attempts of one request together. Default 1 s.
    pub connect_timeout: Duration,
    /// Silence before or within an answer. Default 60 s.
    pub response_timeout: Duration,
    /// How long an unused connection is kept. Default 4 s: under the 5 s after which Node closes it.
    pub idle_timeout: Duration,
    /// What the application speaks. Default HTTP/1.
    pub protocol: Protocol,
    /// Whether connections begin with a header of the PROXY protocol. Default none. Only with HTTP/1.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// `[service.NAME.health]`
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Default `/readyz`.
    pub path: String,
    /// How the application is asked. Default as requests are: `upstream.protocol`.
    pub check: Check,
    /// As `upstream.proxy_protocol`: the connections are our own, and say so.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Default 1 s.
    pub interval: Duration,
    /// Default 2 s; a probe that is still running when the next is due delays it.
    pub timeout: Duration,
    /// Successes in a row that make an upstream ready. Default 2.
    pub rise: u32,
    /// Failures in a row that make it not ready. Default 3.
    pub fall: u32,
}

/// How an application is asked whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// GET, over this.
    Http(Protocol),
    /// `Check` of grpc.health.v1 for this service of it; empty asks for the server as a whole. At most
    /// [`crate::http_client::grpc::SERVICE_BYTES_MAX`] bytes.
    Grpc(String),
}

/// `[service.NAME.watch]`
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Default 15 min; 0 s switches the watch off.
    pub window: Duration,
    /// The chance of taking a good release back, per flip: 0.000001 to 0.1. Default 0.001.
    pub max_false_rollbacks: f64,
    /// Rises of the share of failures by less than this are not worth a rollback: 0 to 0.5. Default 0.001.
    pub min_effect: f64,
    /// Failures without which nothing is taken back, at least 1. Default 5.
    pub min_failures: u32,
    /// How long a cold start is judged mildly. Default 2 s; a quarter of the window at most.
    pub warm_up: Duration,
    /// Slower than so many times the old color's own p50, p90 or p99 is slow: 0 (not judged) to 100. Default 2.
    pub slow_factor: f64,
    /// Whether a doubted color shares the traffic with the old one until it is settled. Default true.
    pub split: bool,
    /// Whether a watch without enough traffic stays open past its window. Default false.
    pub stay_open: bool,
    /// The share of requests below which a route alone takes nothing back: 0 to 0.5. Default 0.02.
    pub rare_route: f64,
    /// Requests of the proxy's own to both colors while the new one is judged. None by default.
    pub synthetic: Option<Synthetic>,
}

/// `[service.NAME.watch.synthetic]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// Asked with GET; it may have a query.
    pub path: String,
    /// From one request to each color to the next. Default 1 s.
    pub interval: Duration,
    /// For a whole answer; past it the request has failed. Default 5 s.
    pub timeout: Duration,
}

/// `[service.NAME.replay]`: which requests that failed on the new color are sent once more to the old one, during the
/// watch. A request that no upstream could be connected for is, whatever its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// GET, HEAD and OPTIONS. Default true.
    pub safe: bool,
    /// PUT, DELETE and requests with an `Idempotency-Key`. Default false.
    pub idempotent: bool,
}

impl Default for Replay {
    fn default() -> Self {
        Replay { safe: true, idempotent: false }
    }
}

/// `[service.NAME.rehearse]`: before a flip, live safe requests are copied to the idle color, and the answers compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Rehearse {
    /// Of GET and HEAD requests, 0.0 to 1.0. Default 0.0: off.
    pub share: f64,
    /// Copies per second at most. Default 10.
    pub rate: u32,
    /// For each answer to a copy, to its last byte. Default 5 s.
    pub timeout: Duration,
    /// Globs of the paths that are copied; empty (the default): every path.
    pub allow: Vec<String>,
    /// Globs of the paths that are not. Empty by default.
    pub deny: Vec<String>,
    /// Headers that are compared, in lower case. Default `content-type`, `location`, `cache-control`.
    pub headers: Vec<String>,
    /// The share of differing answers that still lets a flip through. Default 0.01.
    pub max_differences: f64,
    /// Fewer comparisons refuse no flip. Default 20.
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

/// `[service.NAME.drain]`
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// Past it what is still in flight on the old color is cut. Default 30 s.
    pub timeout: Duration,
}

/// A network, such as `10.0.0.0/8` or `fd00::/8`; a bare address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The network's address.
    pub base: IpAddr,
    /// Leading bits that count: 0 to 32, or 0 to 128.
    pub bits: u8,
}

impl Cidr {
    /// Whether `ip` is in the network. An IPv4-mapped IPv6 address is looked at as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                prefix(u32::from(base) as u128, 32, self.bits) == prefix(u32::from(ip) as u128, 32, self.bits)
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                prefix(u128::from(base), 128, self.bits) == prefix(u128::from(ip), 128, self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The text is not a network.
#[derive(Debug, PartialEq, Eq)]
pub struct NotANetwork;

impl FromStr for Cidr {
    type Err = NotANetwork;

    /// Host bits may be set; they do not count. An IPv4-mapped IPv6 network is one of IPv4.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| NotANetwork)?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| NotANetwork))?;
        match (base, base.to_canonical()) {
            (IpAddr::V6(_), base @ IpAddr::V4(_)) if (96..=128).contains(&bits) => Ok(Cidr { base, bits: bits - 96 }),
            _ if bits <= width => Ok(Cidr { base, bits }),
            _ => Err(NotANetwork),
        }
    }
}

fn prefix(address: u128, width: u32, bits: u8) -> u128 {
    address.checked_shr(width - u32::from(bits)).unwrap_or(0)
}
