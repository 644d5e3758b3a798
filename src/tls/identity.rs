//! Loads a certificate with its key from two PEM files and checks them, so that nothing unusable is ever published.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls;
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Unusable, read};

/// One certificate chain and its key.
#[derive(Clone)]
pub struct Identity {
    /// The file of the chain, as it is configured.
    pub cert: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
    /// The DNS names that it covers, in lower case; `*.example.com` covers one label before the dot.
    pub names: Vec<String>,
    /// The Unix time of the first second in which it is valid.
    pub not_before: i64,
    /// The Unix time of the last second in which it is valid.
    pub not_after: i64,
    pub(super) certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads and checks both files. It does not check whether the certificate is valid today: an expired one is better
    /// than none, and [`super::Settings::warnings`] reports it.
    ///
    /// # Errors
    /// Names the file that is missing, is not PEM, holds nothing of its kind, or does not belong to the other.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, Unusable> {
        let chain = chain(cert)?;
        let unusable = |file: &Path, what: String, help: &str| Unusable { file: file.into(), what, help: help.into() };
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| match error {
            pem::Error::NoItemsFound => unusable(
                key,
                "holds no private key that can be read".into(),
                "it must be unencrypted PEM; `openssl pkey -in FILE` decrypts one",
            ),
            error => unusable(key, format!("is not PEM: {error}"), "write the private key into it, in PEM"),
        })?;
        let (names, not_before, not_after) = describe(&chain[0]).map_err(|why| {
            unusable(
                cert,
                format!("holds a certificate that cannot be read: {why}"),
                "`openssl x509 -text -noout -in FILE` shows what is in it",
            )
        })?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, secret, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => unusable(
                key,
                format!("is not the key of the first certificate in {}", cert.display()),
                "renew both together, and put the server's own certificate first, before its issuer's",
            ),
            error => unusable(
                key,
                format!("holds a key that cannot be used: {error}"),
                "ECDSA (P-256, P-384), Ed25519 and RSA from 2048 bits are",
            ),
        })?;
        let (cert, key) = (cert.to_owned(), key.to_owned());
        Ok(Identity { cert, key, names, not_before, not_after, certified: Arc::new(certified) })
    }

    /// Returns the time of its expiry, RFC 3339 in UTC.
    pub fn expires(&self) -> String {
        day(self.not_after)
    }

    /// Returns a sentence, if it is not valid at the Unix time `now`.
    pub(super) fn out_of_time(&self, now: i64) -> Option<String> {
        let cert = self.cert.display();
        if now > self.not_after {
            let help = "clients refuse it; put a renewed one in its place, and it is loaded at once";
            Some(format!("certificate {cert} expired on {}: {help}", day(self.not_after)))
        } else if now < self.not_before {
            let help = "clients refuse it until then; is the clock right?";
            Some(format!("certificate {cert} is not valid before {}: {help}", day(self.not_before)))
        } else {
            None
        }
    }

    /// Returns a sentence, if `later` covers a name that this one covers, with a key of the same kind, because then it
    /// is never served.
    pub(super) fn overlap(&self, later: &Identity) -> Option<String> {
        if self.certified.key.algorithm() != later.certified.key.algorithm() {
            return None; // each client gets the one whose signature it understands
        }
        let names: BTreeSet<_> = self.names.iter().collect();
        let shared: Vec<_> = later.names.iter().filter(|name| names.contains(name)).map(String::as_str).collect();
        let (first, second) = (self.cert.display(), later.cert.display());
        (!shared.is_empty()).then(|| {
            format!("certificates {first} and {second} are both for {}: the first is served", shared.join(", "))
        })
    }
}

/// The key is left out of the debug text.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("cert", &self.cert).field("names", &self.names).finish_non_exhaustive()
    }
}

/// Two identities are equal if they have the same chain from the same files. The key cannot differ, because both were
/// checked to belong together.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (&self.cert, &self.key, &self.certified.cert) == (&other.cert, &other.key, &other.certified.cert)
    }
}

/// Reads every certificate of a PEM file, in order; there is at least one.
pub(super) fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let help = "write the certificate into it, in PEM (`-----BEGIN CERTIFICATE-----`), the issuer's after it";
    let unusable = |what: String| Unusable { file: file.to_owned(), what, help: help.into() };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    let chain = chain.map_err(|error| unusable(format!("is not PEM: {error}")))?;
    if chain.is_empty() { Err(unusable("holds no certificate".into())) } else { Ok(chain) }
}

/// Returns the DNS names, and the first and last second of validity.
fn describe(cert: &CertificateDer<'_>) -> Result<(Vec<String>, i64, i64), String> {
    let (_, cert) = X509Certificate::from_der(cert).map_err(|error| error.to_string())?;
    let names = cert.subject_alternative_name().map_err(|error| error.to_string())?;
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    let names = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(dns).collect();
    let validity = cert.validity();
    Ok((names, validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Formats a Unix time as RFC 3339 in UTC.
fn day(unix: i64) -> String {
    jiff::Timestamp::from_second(unix).map_or_else(|_| format!("Unix time {unix}"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Folder(tempfile::tempdir().unwrap())
        }

        /// Writes a certificate for `names` and its key.
        fn made(&self, file: &str, names: &[&str], until: i32) -> (PathBuf, PathBuf) {
            let mut params =
                rcgen::CertificateParams::new(names.iter().map(|&n| n.into()).collect::<Vec<_>>()).unwrap();
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let paths = (self.0.path().join(format!("{file}.pem")), self.0.path().join(format!("{file}.key")));
            std::fs::write(&paths.0, params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(&paths.1, key.serialize_pem()).unwrap();
            paths
        }
    }

    #[test]
    fn is_read_with_its_names_and_its_end() {
        let folder = Folder::new();
        let (cert, key) = folder.made("a", &["App.Example", "*.app.example"], 2040);
        let identity = Identity::load(&cert, &key).unwrap();
        assert_eq!(identity.names, ["app.example", "*.app.example"]);
        assert_eq!(identity.expires(), "2040-01-01T00:00:00Z");
        assert_eq!(identity.out_of_time(identity.not_after), None);
        assert!(identity.out_of_time(identity.not_after + 1).unwrap().contains("expired on 2040-01-01"));
        assert!(identity.out_of_time(identity.not_before - 1).unwrap().contains("not valid before"));
    }

    #[test]
    fn says_which_file_is_wrong_and_how() {
        let folder = Folder::new();
        let ((cert, key), (other, _)) = (folder.made("a", &["a"], 2040), folder.made("b", &["b"], 2040));
        let garbage = folder.0.path().join("garbage");
        std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n").unwrap();
        let (broken, empty) = (folder.0.path().join("broken"), folder.0.path().join("empty"));
        std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
        std::fs::write(&empty, "").unwrap();
        let missing = folder.0.path().join("missing");
        for (case, cert, key, file, what) in [
            ("no file", &missing, &key, &missing, "cannot be read"),
            ("no key file", &cert, &missing, &missing, "cannot be read"),
            ("an empty file", &empty, &key, &empty, "holds no certificate"),
            ("a key instead", &key, &key, &key, "holds no certificate"),
            ("a certificate instead of a key", &cert, &cert, &cert, "holds no private key"),
            ("no base64", &broken, &key, &broken, "is not PEM"),
            ("base64 of nothing", &garbage, &key, &garbage, "cannot be read"),
            ("another's key", &other, &key, &key, "is not the key of"),
        ] {
            let unusable = Identity::load(cert, key).expect_err(case);
            assert!(unusable.file == *file && unusable.what.contains(what), "{case}: {unusable:?}");
        }
    }

    #[test]
    fn that_is_never_served_is_reported() {
        let folder = Folder::new();
        let load = |file: &str, names: &[&str]| {
            let (cert, key) = folder.made(file, names, 2040);
            Identity::load(&cert, &key).unwrap()
        };
        let (first, second, third) = (load("a", &["x", "y"]), load("b", &["y", "z"]), load("c", &["w"]));
        assert!(first.overlap(&second).unwrap().ends_with("are both for y: the first is served"));
        assert_eq!(first.overlap(&third), None);
    }
}
