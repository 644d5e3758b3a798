//! Terminates TLS: reads and checks certificates, and publishes the set that new connections use.
//!
//! TLS is a layer of its own because both planes need it: the config reads identities, the control plane publishes
//! them, and the data plane does handshakes with them. It knows nothing of sockets, requests or the config file.

pub mod acme;
mod challenges;
mod clients;
mod identity;
mod terminator;

use std::path::PathBuf;
use std::time::Duration;

pub use challenges::{ACME_TLS, Challenges};
pub use clients::{ClientCertificates, Clients};
pub use identity::Identity;
pub use terminator::{ALPN_H2, Current, Handshake, Terminator};

/// The section `[tls]`, with the files it names read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The certificates in the order of the file. The list is not empty where there is a TLS listener.
    pub identities: Vec<Identity>,
    /// Decides what happens to a client that names no host, or one that no certificate covers. Default: the first
    /// certificate.
    pub unknown_name: UnknownName,
    /// Limits which clients may connect; by default all may.
    pub clients: Option<Clients>,
    /// The `max-age` of `Strict-Transport-Security` on every response over TLS; none by default.
    pub hsts: Option<Duration>,
    /// Whether HTTP/2 is offered, by `proxy.http2.enabled`.
    pub http2: bool,
    /// Limits the time from the accepted connection to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// The ACME settings; by default no certificates are ordered.
    pub acme: Option<Acme>,
}

/// The section `[tls.acme]`, for certificates that the proxy orders and renews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// Each domain gets its own certificate.
    pub domains: Vec<String>,
    /// The address for the server's mails about the account.
    pub email: Option<String>,
    /// The URL of the server's directory. Default: Let's Encrypt.
    pub directory: String,
    /// Says how the names are proved.
    pub challenge: Challenge,
    /// The authority of the server's own certificate, in PEM. Default: the system's.
    pub ca: Option<PathBuf>,
    /// The folder `acme` under `state.dir`.
    pub folder: PathBuf,
}

/// Says how the proxy proves that a name leads to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The proof is a file on port 80 (RFC 8555 8.3).
    Http01,
    /// The proof is a certificate on port 443 (RFC 8737).
    TlsAlpn01,
}

impl Acme {
    /// Returns the paths of the chain and the key of `domain`; the files may not exist yet.
    pub fn files(&self, domain: &str) -> (PathBuf, PathBuf) {
        let folder = self.folder.join(domain);
        (folder.join("cert.pem"), folder.join("key.pem"))
    }

    /// Returns the path of the account with its key; the file may not exist yet. Each directory has its own account.
    pub fn account_file(&self) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        self.folder.join(format!("account-{}.json", self.directory.chars().map(plain).collect::<String>()))
    }
}

/// Decides what happens to a client that names no host, or one that no certificate covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownName {
    /// The client gets the first certificate, and decides whether to accept it.
    First,
    /// The client gets an alert, and the connection ends.
    Refuse,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The path of the file.
    pub file: PathBuf,
    /// Says what is wrong with the file.
    pub what: String,
    /// Says how to fix it.
    pub help: String,
}

impl Settings {
    /// Returns problems that do not prevent serving: certificates that are not valid at the Unix time `now`, and names
    /// that more than one certificate covers.
    pub fn warnings(&self, now: i64) -> Vec<String> {
        let times = self.identities.iter().filter_map(|identity| identity.out_of_time(now));
        let overlaps = self.identities.iter().enumerate().flat_map(|(at, later)| {
            self.identities[..at].iter().filter_map(|first| first.overlap(later)).collect::<Vec<_>>()
        });
        times.chain(overlaps).collect()
    }
}

/// Limits the size of a file; a certificate takes a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a whole PEM file.
fn read(file: &std::path::Path) -> Result<Vec<u8>, Unusable> {
    use std::io::Read;
    let mut text = Vec::new();
    let read = std::fs::File::open(file).and_then(|open| open.take(FILE_BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(Unusable {
            file: file.to_owned(),
            what: format!("cannot be read: {error}"),
            help: "name a PEM file that cutover's user may read".into(),
        }),
    }
}
