//! Parses the addresses of upstreams, and the networks of clients.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// An address `host:port`. A name is resolved anew for each connection, so that a changed DNS record takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// An IP address (IPv6 without brackets) or a name.
    pub host: String,
    /// A port from 1 to 65535.
    pub port: u16,
}

impl Address {
    /// Returns the socket address, where the host is an IP address.
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

/// The text is not of the form `host:port`.
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

/// A network, such as `10.0.0.0/8` or `fd00::/8`; a bare address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The network's address.
    pub base: IpAddr,
    /// The number of leading bits that are compared: 0 to 32, or 0 to 128.
    pub bits: u8,
}

impl Cidr {
    /// Whether `ip` is in the network. An IPv4-mapped IPv6 address is treated as IPv4.
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

    /// Parses a network. Host bits may be set, but are ignored. An IPv4-mapped IPv6 network is treated as IPv4.
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
