//! Verifies client certificates: it holds the authorities that are trusted, and whether a client must show a
//! certificate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use super::{Unusable, identity};

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A client without a certificate is refused.
    Required,
    /// A client may connect without a certificate, but one that it shows must be valid.
    Optional,
}

/// Says which clients may connect.
#[derive(Clone)]
pub struct Clients {
    /// The file with the authorities that sign the clients' certificates.
    pub ca: PathBuf,
    /// Whether clients must show a certificate.
    pub certificates: ClientCertificates,
    roots: Vec<CertificateDer<'static>>,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    /// Reads the authorities.
    ///
    /// # Errors
    /// Fails when the file is missing, is not PEM, or holds something other than an authority's certificate.
    pub fn load(ca: &Path, certificates: ClientCertificates) -> Result<Self, Unusable> {
        let roots = identity::chain(ca)?;
        let unusable = |what: String| {
            let help = "write the certificates of the authorities that sign your clients' certificates into it, in PEM";
            Unusable { file: ca.to_owned(), what, help: help.into() }
        };
        let mut store = RootCertStore::empty();
        for root in &roots {
            let added = store.add(root.clone());
            added.map_err(|error| unusable(format!("holds a certificate that cannot be used: {error}")))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
        let builder = match certificates {
            ClientCertificates::Required => builder,
            ClientCertificates::Optional => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(|error| unusable(format!("cannot be used: {error}")))?;
        Ok(Clients { ca: ca.to_owned(), certificates, roots, verifier })
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Clients");
        shown.field("ca", &self.ca).field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// The verifier follows from the other fields, so it is not compared.
impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        (&self.ca, self.certificates, &self.roots) == (&other.ca, other.certificates, &other.roots)
    }
}
