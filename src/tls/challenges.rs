//! Holds the proofs that a name leads to this server, as an ACME server asks for them (RFC 8555 8.3, RFC 8737 3).
//!
//! An order puts its proofs here while it is under way, and the accepting side serves them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ServerConfig};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{crypto::aws_lc_rs, sign::SingleCertAndKey};

/// A client that wants only the proof offers this by ALPN, and nothing else.
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The path prefix of the proof on a plain port; the token follows.
pub const HTTP_CHALLENGE: &str = "/.well-known/acme-challenge/";

/// Holds the proofs of the orders under way; most of the time there are none.
#[derive(Default)]
pub struct Challenges {
    /// Key authorizations by token.
    http: ArcSwap<HashMap<String, String>>,
    /// Server configs by the name that is to be proved.
    tls: ArcSwap<HashMap<String, Arc<ServerConfig>>>,
}

impl Challenges {
    /// Serves `proof` to every HTTP request for `token`, until it is withdrawn.
    pub fn show_http(&self, token: &str, proof: &str) {
        self.http.rcu(|shown| {
            let mut shown = HashMap::clone(shown);
            shown.insert(token.into(), proof.into());
            shown
        });
    }

    /// Serves `certificate` to every TLS-ALPN-01 client that asks for `name`, until it is withdrawn.
    pub fn show_tls(&self, name: &str, certificate: CertifiedKey) {
        let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
        server.alpn_protocols = vec![ACME_TLS.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let server = Arc::new(server);
        self.tls.rcu(|shown| {
            let mut shown = HashMap::clone(shown);
            shown.insert(name.into(), Arc::clone(&server));
            shown
        });
    }

    /// Withdraws all proofs.
    pub fn withdraw(&self) {
        self.http.store(Arc::default());
        self.tls.store(Arc::default());
    }

    /// Returns the proof for a request of that path, if it asks for one.
    pub fn http(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(HTTP_CHALLENGE)?;
        self.http.load().get(token).cloned()
    }

    /// Returns the server config for a client that names `name` and wants only the proof.
    pub fn tls(&self, name: Option<&str>) -> Option<Arc<ServerConfig>> {
        self.tls.load().get(name?).cloned()
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").finish_non_exhaustive()
    }
}
