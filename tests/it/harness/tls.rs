//! An authority that signs certificates for a test, and connections that trust it.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Client, PATIENCE};

/// A client's connection over TLS.
pub type Secured = StreamOwned<ClientConnection, TcpStream>;

/// Signs what a test asks it to.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

impl Authority {
    /// One that nobody trusts yet.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is a wrong one");
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names, and its key.
    pub fn sign(&self, names: &[&str]) -> (String, String) {
        self.sign_until(names, 2040)
    }

    /// One that ends with the year before `until`.
    pub fn sign_until(&self, names: &[&str], until: i32) -> (String, String) {
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.into()).collect::<Vec<_>>()).expect("names");
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// What a client needs that trusts it.
    pub fn trusted(&self) -> Arc<ClientConfig> {
        Arc::new(ClientConfig::builder().with_root_certificates(self.roots()).with_no_client_auth())
    }

    /// The same for a client that shows a certificate of its own.
    pub fn trusted_by(&self, (cert, key): &(String, String)) -> Arc<ClientConfig> {
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        Arc::new(builder.with_client_auth_cert(vec![cert], key).expect("they belong together"))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("our own")).expect("an authority");
        roots
    }
}

/// Connects to a port of this machine by `name` and shakes hands.
pub fn secured(port: u16, name: &str, config: &Arc<ClientConfig>) -> io::Result<Client<Secured>> {
    secured_over(TcpStream::connect(("127.0.0.1", port))?, name, config)
}

/// Shakes hands on a connection.
pub fn secured_over(mut stream: TcpStream, name: &str, config: &Arc<ClientConfig>) -> io::Result<Client<Secured>> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(Client::of(StreamOwned::new(connection, stream)))
}
