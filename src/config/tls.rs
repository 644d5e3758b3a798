//! `[tls]`: the table, and the certificate files it names.

use std::path::Path;

use toml::de::DeValue;

use super::read::{path, seconds};
use super::section::{Reader, Section, Value, kind};
use crate::tls::{ClientCertificates, Clients, Identity, Settings, UnknownName, Unusable};

/// How one certificate is written.
const CERTIFICATE: &str = "{ cert = \"/etc/cutover/example.com.pem\", key = \"/etc/cutover/example.com.key\" }";

/// Reads the table and every file it names. `listen_tls` is the key of `[proxy]` that needs them.
pub fn tls(section: &Section<'_, '_>, listen_tls: Option<&Value<'_>>) -> Settings {
    let settings = Settings {
        identities: identities(section),
        unknown_name: word(section, "unknown_name", [("first", UnknownName::First), ("refuse", UnknownName::Refuse)]),
        clients: clients(section),
        hsts: section.get("hsts").and_then(|_| section.duration_or_zero("hsts", seconds(365 * 86_400))),
        handshake_timeout: section.duration("handshake_timeout", seconds(10)),
    };
    let is_empty = |value: &Value<'_>| matches!(value.get_ref(), DeValue::Array(list) if list.is_empty());
    if let Some(listen) = listen_tls.filter(|list| !is_empty(list))
        && section.get("certificates").is_none_or(is_empty)
    {
        let message = "proxy.listen_tls needs a certificate, and tls.certificates has none";
        section.source.problem(listen.span(), message, format!("[tls] certificates = [{CERTIFICATE}]"));
    }
    section.refuse_unknown();
    settings
}

fn identities(section: &Section<'_, '_>) -> Vec<Identity> {
    const KEY: &str = "certificates";
    let Some(value) = section.get(KEY) else { return Vec::new() };
    let DeValue::Array(list) = value.get_ref() else {
        let message = format!("is {}, and must be a list", kind(value.get_ref()));
        section.problem(KEY, value, &message, format!("certificates = [{CERTIFICATE}]"));
        return Vec::new();
    };
    let mut identities: Vec<Identity> = Vec::new();
    for value in list {
        let Some(identity) = identity(section, KEY, value) else { continue };
        if identities.iter().any(|other| other.cert == identity.cert) {
            section.problem(KEY, value, "has this certificate twice", "leave one of them out");
        }
        identities.push(identity);
    }
    identities
}

fn identity(section: &Section<'_, '_>, key: &str, value: &Value<'_>) -> Option<Identity> {
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        let message = format!("has {}, and must have tables", kind(value.get_ref()));
        section.problem(key, value, &message, format!("write {CERTIFICATE}"));
        return None;
    }
    let pair = section.table_of(section.dotted(key), value);
    let (cert, secret) = (path(&pair, "cert", "\"example.com.pem\""), path(&pair, "key", "\"example.com.key\""));
    pair.refuse_unknown();
    let (Some(cert), Some(secret)) = (cert, secret) else {
        if pair.get("cert").is_none() || pair.get("key").is_none() {
            section.problem(key, value, "has one without `cert` or `key`", format!("write {CERTIFICATE}"));
        }
        return None;
    };
    if reads_files(section) { usable(section, value, Identity::load(&cert, &secret)) } else { None }
}

fn clients(section: &Section<'_, '_>) -> Option<Clients> {
    let words = [("required", ClientCertificates::Required), ("optional", ClientCertificates::Optional)];
    let certificates = word(section, "client_certificates", words);
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

/// One of a few words; the first is the default.
fn word<T: Copy, const N: usize>(section: &Section<'_, '_>, key: &'static str, words: [(&str, T); N]) -> T {
    let Some((text, value)) = section.string(key, &format!("{:?}", words[0].0)) else { return words[0].1 };
    words.iter().find(|(word, _)| *word == text).map_or_else(
        || {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let help = format!("the default is {:?}", known[0]);
            section.problem(key, value, &format!("is none of {}", known.join(", ")), help);
            words[0].1
        },
        |(_, meaning)| *meaning,
    )
}

/// Whether the files that are named are read.
fn reads_files(section: &Section<'_, '_>) -> bool {
    section.source.reader == Reader::Proxy
}

/// What was read, or a problem where the file is named.
fn usable<T>(section: &Section<'_, '_>, value: &Value<'_>, loaded: Result<T, Unusable>) -> Option<T> {
    let shown = |file: &Path| file.display().to_string();
    loaded
        .map_err(|Unusable { file, what, help }| section.source.problem(value.span(), shown(&file) + " " + &what, help))
        .ok()
}
