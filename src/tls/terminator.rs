//! Publishes the TLS state for new connections as one value, and counts how handshakes ended.
//!
//! A connection keeps the state that it began with: publishing touches no open connection.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use super::{Challenges, Clients, Identity, Settings, UnknownName};

/// Limits the size of a sent record. With the overhead of encryption it stays below the size from which the allocator
/// maps every piece of memory on its own, which would cost more than the encryption.
const RECORD_BYTES_MAX: usize = 16_000;

/// The ALPN name of HTTP/2 (RFC 9113 3.2).
pub const ALPN_H2: &[u8] = b"h2";

/// The TLS side of every listener and worker.
pub struct Terminator {
    current: ArcSwap<Current>,
    challenges: Challenges,
    /// The reason for which the last order of a name failed.
    orders: Mutex<BTreeMap<String, String>>,
    handshakes: [AtomicU64; Handshake::ALL.len()],
}

/// The TLS state for a new connection.
pub struct Current {
    /// The config for the handshake.
    pub server: Arc<ServerConfig>,
    /// The value of `Strict-Transport-Security`.
    pub hsts: Option<Box<str>>,
    /// Limits the time from the accepted connection to the end of the handshake.
    pub handshake_timeout: Duration,
    resolver: Arc<Resolver>,
    clients: Option<Clients>,
}

impl Terminator {
    /// Creates a terminator that uses `settings`.
    ///
    /// # Errors
    /// Fails when there is no randomness for the keys of the session tickets.
    pub fn new(settings: &Settings) -> Result<Self, rustls::Error> {
        let current = Current::new(settings, aws_lc_rs::Ticketer::new()?);
        Ok(Terminator {
            current: ArcSwap::from_pointee(current),
            challenges: Challenges::default(),
            orders: Mutex::default(),
            handshakes: Default::default(),
        })
    }

    /// Makes new connections use `settings` from now on. Sessions can still be resumed, unless the clients that may
    /// connect have changed: a resumed session does not show its certificate again.
    ///
    /// # Errors
    /// Fails like [`Terminator::new`]; nothing has changed then.
    pub fn publish(&self, settings: &Settings) -> Result<(), rustls::Error> {
        let before = self.current.load();
        let ticketer = if before.clients == settings.clients {
            Arc::clone(&before.server.ticketer)
        } else {
            aws_lc_rs::Ticketer::new()?
        };
        self.current.store(Arc::new(Current::new(settings, ticketer)));
        Ok(())
    }

    /// Returns the TLS state for a new connection.
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Returns the proofs for an ACME server.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Records how the order of a certificate for `domain` ended; `failure` is a sentence.
    pub fn note_order(&self, domain: &str, failure: Option<String>) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.remove(domain);
        orders.extend(failure.map(|why| (domain.to_owned(), why)));
    }

    /// Returns sentences about certificates whose order failed.
    pub fn problems(&self) -> Vec<String> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.iter().map(|(domain, why)| format!("no certificate for {domain}: {why}; it is tried again")).collect()
    }

    /// Counts the end of a handshake.
    pub fn count(&self, end: Handshake) {
        self.handshakes[end as usize].fetch_add(1, Relaxed);
    }

    /// Returns how often handshakes ended in each way.
    pub fn handshakes(&self) -> Vec<(Handshake, u64)> {
        let count = |end: Handshake| (end, self.handshakes[end as usize].load(Relaxed));
        Handshake::ALL.into_iter().map(count).collect()
    }
}

impl Current {
    fn new(settings: &Settings, ticketer: Arc<dyn ProducesTickets>) -> Self {
        let resolver = Arc::new(Resolver::new(&settings.identities, settings.unknown_name));
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs speaks TLS 1.2 and 1.3");
        let builder = match &settings.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
        };
        let mut server = builder.with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        let protocols = [settings.http2.then_some(ALPN_H2), Some(b"http/1.1")];
        server.alpn_protocols = protocols.into_iter().flatten().map(<[u8]>::to_vec).collect();
        server.max_fragment_size = Some(RECORD_BYTES_MAX);
        server.ticketer = ticketer;
        // The ticket holds the session, so the proxy keeps nothing for clients that may never come back.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Current {
            server: Arc::new(server),
            hsts: settings.hsts.map(|age| format!("max-age={}", age.as_secs()).into()),
            handshake_timeout: settings.handshake_timeout,
            resolver,
            clients: settings.clients.clone(),
        }
    }

    /// Whether a client is refused because it names `name`.
    pub fn refuses(&self, name: Option<&str>) -> bool {
        self.resolver.find(name).is_empty()
    }
}

/// Finds the certificate for a name.
struct Resolver {
    /// Certificates by name in lower case; `*.example.com` is stored as `.example.com`.
    by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// Certificates for any other name, and for clients without a name.
    otherwise: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    fn new(identities: &[Identity], unknown_name: UnknownName) -> Self {
        let mut by_name: HashMap<Box<str>, Vec<_>> = HashMap::new();
        for identity in identities {
            for name in &identity.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                by_name.entry(name.into()).or_default().push(Arc::clone(&identity.certified));
            }
        }
        let otherwise = match unknown_name {
            UnknownName::First => identities.first().map(|first| Arc::clone(&first.certified)).into_iter().collect(),
            UnknownName::Refuse => Vec::new(),
        };
        Resolver { by_name, otherwise }
    }

    /// Returns the certificates for `name`, which is in lower case: by the whole name, else by a wildcard for its first
    /// label.
    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let by_name = |name: &str| {
            let wildcard = || name.find('.').and_then(|dot| self.by_name.get(&name[dot..]));
            self.by_name.get(name).or_else(wildcard)
        };
        name.and_then(by_name).unwrap_or(&self.otherwise)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.by_name.keys()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    /// Returns the first certificate whose kind of signature the client supports; rustls has made the name lower case.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.find(hello.server_name());
        let understood = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        found.iter().find(understood).or_else(|| found.first()).cloned()
    }
}

/// Says how a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// A full handshake succeeded.
    Full,
    /// An earlier session was resumed.
    Resumed,
    /// An ACME server has seen its proof.
    Proof,
    /// The handshake took longer than `tls.handshake_timeout`.
    TimedOut,
    /// The client left during the handshake.
    Closed,
    /// The client spoke HTTP without TLS.
    PlainHttp,
    /// No certificate covers the name, and `tls.unknown_name` refuses such names.
    UnknownName,
    /// The client showed no certificate, or one that is not trusted.
    ClientCertificate,
    /// There is no version, cipher or protocol in common.
    Unsupported,
    /// The client refused the handshake with an alert, as it does for a certificate that it does not trust.
    RefusedByClient,
    /// The client sent something other than a TLS handshake.
    Malformed,
}

impl Handshake {
    /// Lists every end, in the order of their numbers.
    pub const ALL: [Handshake; 11] = [
        Handshake::Full,
        Handshake::Resumed,
        Handshake::Proof,
        Handshake::TimedOut,
        Handshake::Closed,
        Handshake::PlainHttp,
        Handshake::UnknownName,
        Handshake::ClientCertificate,
        Handshake::Unsupported,
        Handshake::RefusedByClient,
        Handshake::Malformed,
    ];

    /// Returns the word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Handshake::Full => "full",
            Handshake::Resumed => "resumed",
            Handshake::Proof => "proof",
            Handshake::TimedOut => "timed_out",
            Handshake::Closed => "closed",
            Handshake::PlainHttp => "plain_http",
            Handshake::UnknownName => "unknown_name",
            Handshake::ClientCertificate => "client_certificate",
            Handshake::Unsupported => "unsupported",
            Handshake::RefusedByClient => "refused_by_client",
            Handshake::Malformed => "malformed",
        }
    }

    /// Classifies a handshake that failed with `error`. It does not cover a refused name: see [`Current::refuses`].
    pub fn failed_with(error: &std::io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Handshake::Closed;
        };
        match error {
            rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_) => {
                Handshake::ClientCertificate
            }
            rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => Handshake::Unsupported,
            rustls::Error::AlertReceived(_) => Handshake::RefusedByClient,
            _ => Handshake::Malformed, // rustls may name more mistakes than it does today
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_counted_under_their_own_number() {
        assert!(Handshake::ALL.iter().enumerate().all(|(at, end)| *end as usize == at));
    }

    #[test]
    fn a_wildcard_is_for_one_label() {
        let folder = tempfile::tempdir().unwrap();
        let load = |name: &str, names: &[&str]| {
            let (cert, key) = (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
            let pair = rcgen::KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&pair).unwrap();
            std::fs::write(&cert, made.pem()).unwrap();
            std::fs::write(&key, pair.serialize_pem()).unwrap();
            Identity::load(&cert, &key).unwrap()
        };
        let all = [load("a", &["a.example"]), load("b", &["*.b.example", "b.example"]), load("c", &["x.b.example"])];
        let first = Resolver::new(&all, UnknownName::First);
        let strict = Resolver::new(&all, UnknownName::Refuse);
        for (name, want) in [
            (Some("a.example"), Some(0)),
            (Some("b.example"), Some(1)),
            (Some("www.b.example"), Some(1)),
            (Some("x.b.example"), Some(2)),
            (Some("two.labels.b.example"), None),
            (Some("www.a.example"), None),
            (Some("example"), None),
            (None, None),
        ] {
            let is = |found: &[Arc<CertifiedKey>], at: usize| Arc::ptr_eq(&found[0], &all[at].certified);
            assert!(is(first.find(name), want.unwrap_or(0)), "{name:?}");
            assert_eq!(strict.find(name).is_empty(), want.is_none(), "{name:?}");
        }
    }
}
