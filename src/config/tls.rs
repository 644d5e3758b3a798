//! Reads the table `[tls]` and the certificate files it names.

use std::path::Path;

use toml::de::DeValue;

use super::section::{Reader, Section, Value, kind};
use super::values::{path, seconds};
use crate::tls::{Acme, Challenge, ClientCertificates, Clients, Identity, Settings, UnknownName, Unusable};

/// An example of how one certificate is written.
const CERTIFICATE: &str = "{ cert = \"/etc/cutover/example.com.pem\", key = \"/etc/cutover/example.com.key\" }";

/// The directories of Let's Encrypt: production, and staging, whose certificates nobody trusts and whose limits are
/// generous.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Reads the table and every file it names. `listen_tls` is the key of `[proxy]` that needs them, `state` the folder of
/// ordered certificates, and `http2` says whether HTTP/2 is served there.
pub fn tls(section: &Section<'_, '_>, listen_tls: Option<&Value<'_>>, state: &Path, http2: bool) -> Settings {
    let acme = section.get("acme").and_then(|_| acme(&section.section("acme"), listen_tls.is_some(), state));
    let ordered = acme.iter().filter(|_| reads_files(section)).flat_map(|acme| {
        let files = acme.domains.iter().map(|domain| acme.files(domain));
        // A certificate that is missing or unusable is ordered.
        files.filter_map(|(cert, key)| Identity::load(&cert, &key).ok()).collect::<Vec<_>>()
    });
    let settings = Settings {
        identities: identities(section).into_iter().chain(ordered).collect(),
        acme,
        unknown_name: section.word("unknown_name", [("first", UnknownName::First), ("refuse", UnknownName::Refuse)]),
        clients: clients(section),
        hsts: section.get("hsts").and_then(|_| section.duration_or_zero("hsts", seconds(365 * 86_400))),
        http2,
        handshake_timeout: section.duration("handshake_timeout", seconds(10)),
    };
    let is_empty = |value: &Value<'_>| matches!(value.get_ref(), DeValue::Array(list) if list.is_empty());
    if let Some(listen) = listen_tls.filter(|list| !is_empty(list))
        && section.get("certificates").is_none_or(is_empty)
        && section.get("acme").is_none()
    {
        let message = "proxy.listen_tls needs a certificate, and tls.certificates has none";
        section.source.problem(listen.span(), message, format!("[tls] certificates = [{CERTIFICATE}]"));
    }
    section.refuse_unknown();
    settings
}

fn acme(section: &Section<'_, '_>, has_listener: bool, state: &Path) -> Option<Acme> {
    const EXAMPLE: &str = "[\"recall.example.com\"]";
    let domains = section.strings("domains", EXAMPLE).unwrap_or_default();
    let is_name = |name: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(is_plain);
        name.len() <= 253 && name.split('.').all(label)
    };
    for (name, value) in &domains {
        if name.starts_with("*.") {
            let help = "name the hosts one by one; a wildcard needs a proof by DNS, which cutover does not offer";
            section.problem("domains", value, "has a wildcard", help);
        } else if !is_name(name) {
            section.problem("domains", value, "has no host name", format!("for example `domains = {EXAMPLE}`"));
        }
    }
    let words = [("http-01", Challenge::Http01), ("tls-alpn-01", Challenge::TlsAlpn01)];
    let challenge = section.word("challenge", words);
    let directory = section.string("directory", "\"letsencrypt\"").map_or(LETS_ENCRYPT, |(text, value)| match text {
        "letsencrypt" => LETS_ENCRYPT,
        "letsencrypt-staging" => STAGING,
        url if url.starts_with("https://") => url,
        _ => {
            let help = "letsencrypt, letsencrypt-staging, or the https URL of a server's directory";
            section.problem("directory", value, "is not a directory URL", help);
            LETS_ENCRYPT
        }
    });
    let acme = Acme {
        domains: domains.iter().map(|(name, _)| name.to_ascii_lowercase()).collect(),
        email: section.string("email", "\"ops@example.com\"").map(|(email, _)| email.to_owned()),
        directory: directory.to_owned(),
        challenge,
        ca: path(section, "ca", "\"/etc/cutover/acme-ca.pem\""),
        folder: state.join("acme"),
    };
    section.refuse_unknown();
    if domains.is_empty() {
        let help = format!("for example `domains = {EXAMPLE}`");
        section.source.problem(section.span.clone(), "tls.acme orders no certificate: it has no domains", help);
    } else if !has_listener {
        let help = "listen_tls = [\"0.0.0.0:443\"] in [proxy]; with http-01 also listen = [\"0.0.0.0:80\"]";
        section.source.problem(section.span.clone(), "tls.acme has no TLS listener to order certificates for", help);
    }
    Some(acme)
}

fn identities(section: &Section<'_, '_>) -> Vec<Identity> {
    const KEY: &str = "certificates";
    let Some(value) = section.get(KEY) else { return Vec::new() };
    let DeValue::Array(list) = value.get_ref() else {
        let message = format!("is {}, but must be a list", kind(value.get_ref()));
        section.problem(KEY, value, &message, format!("certificates = [{CERTIFICATE}]"));
        return Vec::new();
    };
    let mut identities: Vec<Identity> = Vec::new();
    for value in list {
        let Some(identity) = identity(section, KEY, value) else { continue };
        if identities.iter().any(|other| other.cert == identity.cert) {
            section.problem(KEY, value, "has this certificate twice", "remove one of them");
        }
        identities.push(identity);
    }
    identities
}

fn identity(section: &Section<'_, '_>, key: &str, value: &Value<'_>) -> Option<Identity> {
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        let message = format!("has {}, but must have tables", kind(value.get_ref()));
        section.problem(key, value, &message, format!("write {CERTIFICATE}"));
        return None;
    }
    let pair = section.table_of(section.dotted(key), value);
    let (cert, secret) = (path(&pair, "cert", "\"example.com.pem\""), path(&pair, "key", "\"example.com.key\""));
    pair.refuse_unknown();
    let (Some(cert), Some(secret)) = (cert, secret) else {
        if pair.get("cert").is_none() || pair.get("key").is_none() {
            section.problem(key, value, "has an entry without `cert` or `key`", format!("write {CERTIFICATE}"));
        }
        return None;
    };
    if reads_files(section) { usable(section, value, Identity::load(&cert, &secret)) } else { None }
}

fn clients(section: &Section<'_, '_>) -> Option<Clients> {
    let words = [("required", ClientCertificates::Required), ("optional", ClientCertificates::Optional)];
    let certificates = section.word("client_certificates", words);
    match (path(section, "client_ca", "\"/etc/cutover/clients.pem\""), section.get("client_ca")) {
        (Some(ca), Some(value)) if reads_files(section) => usable(section, value, Clients::load(&ca, certificates)),
        (_, None) if certificates == ClientCertificates::Optional => {
            let value = section.get("client_certificates")?;
            let help = "set tls.client_ca to the authorities that sign them";
            section.problem("client_certificates", value, "has nothing to check them against", help);
            None
        }
        (_, _) => None,
    }
}

/// Whether the named files are read.
fn reads_files(section: &Section<'_, '_>) -> bool {
    section.source.reader == Reader::Proxy
}

/// Returns what was loaded, or records a problem at the place that names the file.
fn usable<T>(section: &Section<'_, '_>, value: &Value<'_>, loaded: Result<T, Unusable>) -> Option<T> {
    let shown = |file: &Path| file.display().to_string();
    loaded
        .map_err(|Unusable { file, what, help }| section.source.problem(value.span(), shown(&file) + " " + &what, help))
        .ok()
}
