//! Orders certificates from an ACME server (RFC 8555), proves the names, writes the files, and renews them in time.
//!
//! The files are like any others: the config reads them, and a reload puts new ones in force. Orders are retried for as
//! long as the proxy runs; a failure is a problem in the status and never stops the proxy from serving.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewAccount, NewOrder,
    OrderStatus, RetryPolicy,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::os::clock;
use crate::tls::{Acme, Challenge, Challenges, Identity, Terminator};

/// A certificate is renewed when less than this part of its validity is left.
const RENEW_AT: f64 = 1.0 / 3.0;

/// The proxy checks this often whether a certificate is due.
const LOOK: Duration = Duration::from_secs(3600);

/// The proxy waits this long after each failure, because Let's Encrypt allows five per hour for a name.
const AGAIN: [Duration; 4] = [Duration::from_secs(60), Duration::from_secs(5 * 60), Duration::from_secs(15 * 60), LOOK];

/// The server may take this long for a proof or a certificate.
const PATIENCE: Duration = Duration::from_secs(90);

/// Orders certificates that are missing or expire soon, and never returns. It calls `reload` when a file has changed.
pub async fn keep(acme: Acme, terminator: Arc<Terminator>, reload: impl AsyncFn()) {
    let mut failures = 0_usize;
    loop {
        let mut failed = false;
        for domain in &acme.domains {
            if !is_due(&acme, domain, clock::unix_seconds()) {
                continue;
            }
            tracing::info!(domain, directory = acme.directory, "ordering a certificate");
            let outcome = order(&acme, domain, terminator.challenges()).await;
            terminator.challenges().withdraw();
            match outcome {
                Ok(()) => {
                    terminator.note_order(domain, None);
                    tracing::info!(domain, "a new certificate was issued");
                    reload().await;
                }
                Err(why) => {
                    failed = true;
                    tracing::error!(domain, "no certificate: {why}");
                    terminator.note_order(domain, Some(why));
                }
            }
        }
        failures = if failed { failures + 1 } else { 0 };
        let wait = if failed { AGAIN[(failures - 1).min(AGAIN.len() - 1)] } else { LOOK };
        // The random factor keeps proxies from asking in the same second.
        tokio::time::sleep(wait.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Whether the certificate of `domain` is missing, unusable, or has less than [`RENEW_AT`] of its time left.
fn is_due(acme: &Acme, domain: &str, now: i64) -> bool {
    let (cert, key) = acme.files(domain);
    match Identity::load(&cert, &key) {
        Ok(identity) => {
            let (whole, left) = (identity.not_after - identity.not_before, identity.not_after - now);
            (left as f64) < whole as f64 * RENEW_AT
        }
        Err(_) => true,
    }
}

/// Orders one certificate, from the account to the files. The error is a sentence.
async fn order(acme: &Acme, domain: &str, challenges: &Challenges) -> Result<(), String> {
    let failed = |step: &'static str| move |error: instant_acme::Error| format!("{step}: {}", full(&error));
    let account = account(acme).await?;
    let port = match acme.challenge {
        Challenge::Http01 => 80,
        Challenge::TlsAlpn01 => 443,
    };
    let help = format!("; does {domain} resolve to this machine, and is port {port} reachable from the Internet?");
    let names = [Identifier::Dns(domain.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await.map_err(failed("the order was not accepted"))?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(failed("the order has nothing to prove"))?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(format!("the server reports the proof as {status:?} before it was given")),
        }
        let wanted = match acme.challenge {
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let offered = format!("the server offers no {wanted:?}: set tls.acme.challenge to the other one");
        let mut challenge = authorization.challenge(wanted).ok_or(offered)?;
        show(&challenge, acme.challenge, domain, challenges)?;
        let asked = challenge.set_ready().await;
        asked.map_err(|error| failed("the proof was not accepted")(error) + &help)?;
    }
    let patience = RetryPolicy::new().timeout(PATIENCE);
    let status = order.poll_ready(&patience).await.map_err(failed("the proof was not accepted"))?;
    if status != OrderStatus::Ready {
        return Err(refusal(&mut order).await + &help);
    }
    let key = order.finalize().await.map_err(failed("the certificate was refused"))?;
    let chain = order.poll_certificate(&patience).await.map_err(failed("the certificate was not issued"))?;
    let (cert_file, key_file) = acme.files(domain);
    let kept = write(&key_file, &key).and_then(|()| write(&cert_file, &chain));
    kept.map_err(|error| format!("{}: {error}", cert_file.display()))
}

/// Returns the server's reason for rejecting the proof.
async fn refusal(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return format!("the proof was not accepted: {problem}");
        }
    }
    "the proof was not accepted".into()
}

/// Publishes the proof where the server looks for it.
fn show(challenge: &ChallengeHandle<'_>, kind: Challenge, domain: &str, challenges: &Challenges) -> Result<(), String> {
    let proof = challenge.key_authorization();
    match kind {
        Challenge::Http01 => challenges.show_http(&challenge.token, proof.as_str()),
        Challenge::TlsAlpn01 => {
            let certificate = proof_certificate(domain, proof.digest().as_ref());
            challenges.show_tls(domain, certificate.map_err(|why| format!("cannot make the proof: {why}"))?);
        }
    }
    Ok(())
}

/// Creates the certificate that serves as a proof (RFC 8737 3).
fn proof_certificate(domain: &str, digest: &[u8]) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
    let mut params = rcgen::CertificateParams::new([domain.to_owned()])?;
    params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
    let key = rcgen::KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // The certificate is not checked, because the check does not know the critical extension that is the proof.
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key)?;
    Ok(CertifiedKey::new(vec![cert.der().clone()], key))
}

/// Returns the saved account, or creates a new one. There is one per directory.
async fn account(acme: &Acme) -> Result<Account, String> {
    let failed = |step: &'static str| move |error: instant_acme::Error| format!("{step}: {}", full(&error));
    let builder = || match &acme.ca {
        Some(ca) => Account::builder_with_root(ca).map_err(failed("tls.acme.ca cannot be used")),
        None => Account::builder().map_err(failed("the system's authorities cannot be used")),
    };
    let file = acme.account_file();
    let unusable = |error: &dyn std::fmt::Display| format!("{}: {error}; remove it for a new account", file.display());
    match fs::read(&file) {
        Ok(text) => {
            let credentials: AccountCredentials = serde_json::from_slice(&text).map_err(|error| unusable(&error))?;
            builder()?.from_credentials(credentials).await.map_err(|error| unusable(&full(&error)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let contact: Vec<_> = acme.email.iter().map(|email| format!("mailto:{email}")).collect();
            let contact: Vec<_> = contact.iter().map(String::as_str).collect();
            let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
            let created = builder()?.create(&new, acme.directory.clone(), None).await;
            let (account, credentials) = created.map_err(failed("the server did not give an account"))?;
            let text = serde_json::to_string(&credentials).map_err(|error| unusable(&error))?;
            write(&file, &text).map_err(|error| unusable(&error))?;
            Ok(account)
        }
        Err(error) => Err(unusable(&error)),
    }
}

/// Formats an error with all its causes.
fn full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Replaces a file atomically; nobody else may read it.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let made = file.with_extension("new");
    let mut open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&made)?;
    open.write_all(text.as_bytes())?;
    open.sync_all()?;
    fs::rename(&made, file)?;
    fs::File::open(folder)?.sync_all()
}
