//! The PROXY protocol, versions 1 and 2. A balancer that passes a connection on as bytes writes a header in front of
//! them, which says whose connection it is.
//!
//! Everything here is pure: bytes become addresses, and addresses become bytes. The sections named here are those of
//! HAProxy's specification (proxy-protocol.txt, 2020/03/05). Which senders are believed is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1 in bytes, its line end included (2.1).
const V1_BYTES_MAX: usize = 107;
/// The shortest header in bytes, which is `PROXY UNKNOWN`.
const BYTES_MIN: usize = 15;
const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// The most bytes that addresses and extensions of version 2 may take. The largest extensions that senders add are
/// certificates of clients.
const V2_REST_MAX: usize = 4096;
const TLV_CRC32C: u8 = 0x03;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The header is a line of text.
    V1,
    /// The header is binary.
    V2,
}

/// Both ends of a connection, as its sender saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The address that connected.
    pub client: SocketAddr,
    /// The address that it connected to.
    pub server: SocketAddr,
}

/// What has to be done next to have the whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read at most so many bytes, all of which belong to the header.
    Read(usize),
    /// Read to the end of the line, which is at most so many bytes away.
    ReadLine(usize),
    /// The header is complete. `None` stands for one that names nobody: the connection is the sender's own, or of a
    /// kind that has no addresses here.
    Done(Option<Ends>),
}

/// The bytes are no header, or a broken one, so the connection must be closed (2). The text says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Reads a header, given everything that has come so far.
///
/// # Errors
/// [`Malformed`], as soon as the bytes show it.
pub fn read(got: &[u8]) -> Result<Step, Malformed> {
    let begins = |start: &[u8]| got.iter().zip(start).all(|(got, want)| got == want);
    match (begins(V1_START), begins(V2_SIGNATURE)) {
        (false, false) => Err(Malformed("it does not begin with a PROXY header")),
        _ if got.len() < BYTES_MIN => Ok(Step::Read(BYTES_MIN - got.len())),
        (true, _) => read_v1(got),
        (false, true) => read_v2(got),
    }
}

/// Reads a header of version 1 (2.1).
fn read_v1(got: &[u8]) -> Result<Step, Malformed> {
    let Some(line) = got.strip_suffix(b"\n") else {
        return match V1_BYTES_MAX.saturating_sub(got.len()) {
            0 => Err(Malformed("the PROXY line is too long")),
            left => Ok(Step::ReadLine(left)),
        };
    };
    let line = line.strip_suffix(b"\r").and_then(|line| std::str::from_utf8(&line[V1_START.len()..]).ok());
    let line = line.filter(|line| !line.contains(['\r', '\n'])).ok_or(Malformed("the PROXY line is malformed"))?;
    let words: Vec<_> = line.split(' ').collect();
    let ends = match words[..] {
        // The rest of the line must be ignored.
        ["UNKNOWN", ..] => None,
        ["TCP4", client, server, from, to] => ends::<Ipv4Addr>([client, server], [from, to]),
        ["TCP6", client, server, from, to] => ends::<Ipv6Addr>([client, server], [from, to]),
        _ => return Err(Malformed("the PROXY line names no known protocol")),
    };
    match ends {
        None if words[0] != "UNKNOWN" => Err(Malformed("the PROXY line has a malformed address")),
        ends => Ok(Step::Done(ends)),
    }
}

fn ends<Ip: std::str::FromStr + Into<IpAddr>>(ips: [&str; 2], ports: [&str; 2]) -> Option<Ends> {
    let address = |ip: &str, port: &str| {
        let digits = port.bytes().all(|b| b.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
        let port = port.parse().ok().filter(|_| digits)?;
        Some(SocketAddr::new(ip.parse::<Ip>().ok()?.into(), port))
    };
    Some(Ends { client: address(ips[0], ports[0])?, server: address(ips[1], ports[1])? })
}

/// Reads a header of version 2 (2.2).
fn read_v2(got: &[u8]) -> Result<Step, Malformed> {
    if got.len() < V2_FIXED {
        return Ok(Step::Read(V2_FIXED - got.len()));
    }
    let (version, command) = (got[12] >> 4, got[12] & 15);
    if version != 2 || command > 1 {
        return Err(Malformed("the PROXY header has an unknown version or command"));
    }
    let (family, transport) = (got[13] >> 4, got[13] & 15);
    if family > 3 || transport > 2 {
        return Err(Malformed("the PROXY header has an unknown address family or protocol"));
    }
    let rest = usize::from(u16::from_be_bytes([got[14], got[15]]));
    if rest > V2_REST_MAX {
        return Err(Malformed("the PROXY header is too long"));
    }
    if got.len() < V2_FIXED + rest {
        return Ok(Step::Read(V2_FIXED + rest - got.len()));
    }
    if command == 0 {
        return Ok(Step::Done(None)); // the connection is the sender's own, whatever addresses follow
    }
    let body = &got[V2_FIXED..V2_FIXED + rest];
    let addresses = match family {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let (addresses, extensions) =
        body.split_at_checked(addresses).ok_or(Malformed("the PROXY header is shorter than its addresses"))?;
    // Anything may follow where there is no family.
    if family > 0 {
        check_extensions(got, extensions)?;
    }
    // Only a stream over IP has addresses that mean something here.
    let ends = match (family, transport) {
        (1, 1) => Some(ends_of::<4>(addresses)),
        (2, 1) => Some(ends_of::<16>(addresses)),
        _ => None,
    };
    Ok(Step::Done(ends))
}

/// Reads both addresses, then both ports. The length was checked.
fn ends_of<const N: usize>(bytes: &[u8]) -> Ends
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize| {
        let octets: [u8; N] = bytes[at * N..][..N].try_into().expect("a slice of N bytes");
        let port = &bytes[2 * N + 2 * at..];
        SocketAddr::new(octets.into(), u16::from_be_bytes([port[0], port[1]]))
    };
    Ends { client: address(0), server: address(1) }
}

/// Checks the extensions (2.2.1): each is a type, a length in two bytes, and a value, and they end with the last byte.
fn check_extensions(header: &[u8], mut extensions: &[u8]) -> Result<(), Malformed> {
    const CUT: Malformed = Malformed("an extension of the PROXY header is cut");
    while let [kind, high, low, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = rest.split_at_checked(length).ok_or(CUT)?;
        if *kind == TLV_CRC32C {
            // 2.2.3: the sum is that of the whole header, with zeros in place of the sum itself.
            let at = header.len() - rest.len();
            let sum: [u8; 4] = value.try_into().map_err(|_| Malformed("the PROXY header's checksum has no 4 bytes"))?;
            let zeroed = header.iter().enumerate().map(|(i, byte)| if (at..at + 4).contains(&i) { 0 } else { *byte });
            if crc32c(zeroed) != u32::from_be_bytes(sum) {
                return Err(Malformed("the PROXY header's checksum is wrong"));
            }
        }
        extensions = after;
    }
    if extensions.is_empty() { Ok(()) } else { Err(CUT) }
}

/// CRC-32C (Castagnoli), computed bit by bit: a connection has one sum, over some hundred bytes.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

/// The header for a connection between `ends`, where `None` stands for the sender's own.
pub fn write(version: Version, ends: Option<Ends>) -> Vec<u8> {
    let ends = ends.map(of_one_family);
    match version {
        Version::V1 => match ends {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some(Ends { client, server }) => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (client.port(), server.port());
                format!("PROXY {family} {} {} {from} {to}\r\n", client.ip(), server.ip()).into_bytes()
            }
        },
        Version::V2 => {
            let mut header = V2_SIGNATURE.to_vec();
            header.push(0x20 | u8::from(ends.is_some()));
            let mut body = Vec::new();
            header.push(match ends {
                None => 0,
                Some(Ends { client, server }) => {
                    for ip in [client.ip(), server.ip()] {
                        match ip {
                            IpAddr::V4(ip) => body.extend(ip.octets()),
                            IpAddr::V6(ip) => body.extend(ip.octets()),
                        }
                    }
                    body.extend([client.port(), server.port()].map(u16::to_be_bytes).as_flattened());
                    if client.is_ipv4() { 0x11 } else { 0x21 }
                }
            });
            header.extend((body.len() as u16).to_be_bytes());
            header.extend(body);
            header
        }
    }
}

/// Gives both addresses one family, as a header has only one: IPv4 where both are of it, and IPv6 otherwise.
fn of_one_family(ends: Ends) -> Ends {
    let [client, server] = [ends.client, ends.server].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
    if client.is_ipv4() == server.is_ipv4() {
        return Ends { client, server };
    }
    let as_v6 = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    };
    Ends { client: as_v6(client), server: as_v6(server) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, server: &str) -> Option<Ends> {
        Some(Ends { client: client.parse().unwrap(), server: server.parse().unwrap() })
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, body].concat()
    }

    /// Feeds `sent` in pieces, never more than is asked for; what came of it, and how much was taken.
    fn feed(sent: &[u8], piece: usize) -> Result<(Option<Ends>, usize), Malformed> {
        let mut at = 0;
        loop {
            let left = &sent[at..];
            let n = match read(&sent[..at])? {
                Step::Done(ends) => return Ok((ends, at)),
                Step::Read(n) => n,
                Step::ReadLine(n) => left.iter().position(|b| *b == b'\n').map_or(n, |at| n.min(at + 1)),
            };
            assert!(n > 0 && !left.is_empty(), "it goes on at {at} of {sent:?}");
            at += n.min(piece).min(left.len());
        }
    }

    fn of_ipv4() -> Vec<u8> {
        vec![192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 1, 0xbb]
    }

    #[test]
    fn headers_are_read_however_they_arrive_and_no_byte_further() {
        let of_ipv6 = ["2001:db8::1", "2001:db8::2"].map(|ip| ip.parse::<Ipv6Addr>().unwrap().octets()).concat();
        let v4 = ends("192.0.2.1:8080", "198.51.100.2:443");
        for (case, header, want) in [
            ("TCP4", b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n".to_vec(), v4),
            ("TCP6", b"PROXY TCP6 2001:db8::1 ::2 1 65535\r\n".to_vec(), ends("[2001:db8::1]:1", "[::2]:65535")),
            ("unknown", b"PROXY UNKNOWN\r\n".to_vec(), None),
            ("unknown with anything", b"PROXY UNKNOWN ffff::1 whatever 0\r\n".to_vec(), None),
            ("2, IPv4", v2(0x21, 0x11, &of_ipv4()), v4),
            (
                "2, IPv6",
                v2(0x21, 0x21, &[of_ipv6, vec![0, 80, 0, 81]].concat()),
                ends("[2001:db8::1]:80", "[2001:db8::2]:81"),
            ),
            ("2, with extensions", v2(0x21, 0x11, &[of_ipv4(), vec![4, 0, 1, 9, 1, 0, 0]].concat()), v4),
            ("2, local", v2(0x20, 0x11, &of_ipv4()), None),
            ("2, local and nothing", v2(0x20, 0, b""), None),
            ("2, local and part of an address", v2(0x20, 0x11, b"abc"), None),
            ("2, no family", v2(0x21, 0, b"any thing"), None),
            ("2, datagrams", v2(0x21, 0x12, &of_ipv4()), None),
            ("2, a unix socket", v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let sent = [header.clone(), b"GET / HTTP/1.1\r\n".to_vec()].concat();
            for piece in 1..=sent.len() {
                assert_eq!(feed(&sent, piece), Ok((want, header.len())), "{case}, in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let checksum = |sum: [u8; 4]| v2(0x21, 0x11, &[of_ipv4(), vec![3, 0, 4], sum.to_vec()].concat());
        for (case, sent) in [
            ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
            ("TLS", vec![0x16, 3, 1, 2, 0, 1]),
            ("lower case", b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec()),
            ("another word", b"PROXYING TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec()),
            ("another protocol", b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec()),
            ("two spaces", b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n".to_vec()),
            ("a word too few", b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n".to_vec()),
            ("a word too many", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n".to_vec()),
            ("the wrong family", b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec()),
            ("a port too large", b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n".to_vec()),
            ("a port with a sign", b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n".to_vec()),
            ("a port with a zero before it", b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n".to_vec()),
            ("a bare LF", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n".to_vec()),
            ("a CR within", b"PROXY UNKNOWN \r \r\n".to_vec()),
            ("too long a line", [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat()),
            ("2, another version", v2(0x31, 0x11, &of_ipv4())),
            ("2, another command", v2(0x22, 0x11, &of_ipv4())),
            ("2, another family", v2(0x21, 0x41, &of_ipv4())),
            ("2, another protocol", v2(0x21, 0x13, &of_ipv4())),
            ("2, too short for its addresses", v2(0x21, 0x21, &of_ipv4())),
            ("2, too long", v2(0x21, 0x11, &[0; V2_REST_MAX + 1])),
            ("2, a cut extension", v2(0x21, 0x11, &[of_ipv4(), vec![4, 0, 9, 1]].concat())),
            ("2, a cut head of an extension", v2(0x21, 0x11, &[of_ipv4(), vec![4, 0]].concat())),
            ("2, a wrong checksum", checksum([1, 2, 3, 4])),
            ("2, a checksum that is none", v2(0x21, 0x11, &[of_ipv4(), vec![3, 0, 1, 0]].concat())),
        ] {
            for piece in [1, sent.len()] {
                assert!(feed(&sent, piece).is_err(), "{case}, in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_checksum_is_of_the_whole_header() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283, "the check value of CRC-32C");
        let mut header = v2(0x21, 0x11, &[of_ipv4(), vec![4, 0, 1, 7], vec![3, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c(header.iter().copied()).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum);
        assert!(feed(&header, 1).is_ok());
        header[20] ^= 1;
        assert_eq!(feed(&header, 1), Err(Malformed("the PROXY header's checksum is wrong")));
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let mapped = ends("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2");
        for (case, written, want) in [
            ("IPv4", ends("192.0.2.1:8080", "127.0.0.1:80"), ends("192.0.2.1:8080", "127.0.0.1:80")),
            ("IPv6", ends("[2001:db8::1]:1", "[::1]:2"), ends("[2001:db8::1]:1", "[::1]:2")),
            ("mapped", mapped, ends("192.0.2.1:1", "192.0.2.2:2")),
            ("mixed", ends("192.0.2.1:1", "[::1]:2"), ends("[::ffff:192.0.2.1]:1", "[::1]:2")),
            ("our own", None, None),
        ] {
            for version in [Version::V1, Version::V2] {
                let header = write(version, written);
                assert_eq!(feed(&header, header.len()), Ok((want, header.len())), "{case}, {version:?}");
            }
        }
        assert_eq!(write(Version::V1, ends("192.0.2.1:1", "192.0.2.2:2")), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    }
}
