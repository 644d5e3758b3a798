//! TLS towards clients: certificates read and checked, and the set that new connections are met with.
//!
//! A layer of its own because both planes need it: the config reads identities, the control plane publishes them, the
//! data plane shakes hands with them. It knows nothing of sockets, requests or the config file.

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

/// `[tls]`, with the files it names read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// In the order of the file. Not empty where there is a TLS listener.
    pub identities: Vec<Identity>,
    /// What a client gets that names no host, or one that no certificate is for. Default: the first certificate.
    pub unknown_name: UnknownName,
    /// Who may connect; anybody by default.
    pub clients: Option<Clients>,
    /// `max-age` of `Strict-Transport-Security` on every answer over TLS; none by default.
    pub hsts: Option<Duration>,
    /// Whether HTTP/2 is offered: `proxy.http2.enabled`.
    pub http2: bool,
    /// From the accepted connection to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Where certificates are ordered; nowhere by default.
    pub acme: Option<Acme>,
}

/// `[tls.acme]`: certificates that are ordered and renewed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// Each gets a certificate of its own.
    pub domains: Vec<String>,
    /// For the server's mails about the account.
    pub email: Option<String>,
    /// The URL of the server's directory. Default: Let's Encrypt.
    pub directory: String,
    /// How the names are proved.
    pub challenge: Challenge,
    /// The authority of the server's own certificate, in PEM. Default: the system's.
    pub ca: Option<PathBuf>,
    /// `acme` under `state.dir`.
    pub folder: PathBuf,
}

/// How a name is proved to be this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// By a file on port 80 (RFC 8555 8.3).
    Http01,
    /// By a certificate on port 443 (RFC 8737).
    TlsAlpn01,
}

impl Acme {
    /// Where the chain and the key of `domain` are, or will be.
    pub fn files(&self, domain: &str) -> (PathBuf, PathBuf) {
        let folder = self.folder.join(domain);
        (folder.join("cert.pem"), folder.join("key.pem"))
    }

    /// Where the account with its key is, or will be: another directory is another account.
    pub fn account_file(&self) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        self.folder.join(format!("account-{}.json", self.directory.chars().map(plain).collect::<String>()))
    }
}

/// What a client gets that names no host, or one that no certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownName {
    /// The first certificate; the client decides whether it will do.
    First,
    /// An alert, and the end of the connection.
    Refuse,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Which one.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// A way out.
    pub help: String,
}

impl Settings {
    /// What is wrong and yet no reason to refuse: certificates outside of their time, at the unix time `now`, and names
    /// that more than one certificate is for.
    pub fn warnings(&self, now: i64) -> Vec<String> {
        let times = self.identities.iter().filter_map(|identity| identity.out_of_time(now));
        let overlaps = self.identities.iter().enumerate().flat_map(|(at, later)| {
            self.identities[..at].iter().filter_map(|first| first.overlap(later)).collect::<Vec<_>>()
        });
        times.chain(overlaps).collect()
    }
}

/// The largest file that is read: a certificate takes a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a PEM file whole.
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
