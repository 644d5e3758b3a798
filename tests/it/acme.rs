//! Certificates from a real ACME server, which is Caddy's. Both need the ports 80 and 443 and names of their own, so
//! they run in network and mount namespaces.

use std::fs;
use std::process::Command;

use super::harness::{have, have_root};

/// What runs in the namespaces; `$CHALLENGE` and `$CUTOVER` come from the test.
const SCRIPT: &str = r#"
set -eu
trap 'kill $(jobs -p); wait' EXIT
ip link set lo up
printf '127.0.0.1 localhost app.test ca.test\n' >hosts
mount --bind hosts /etc/hosts
caddy run --config Caddyfile --adapter caddyfile >caddy.log 2>&1 &
root=ca/pki/authorities/local/root.crt
until_true() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    echo "never: $*" >&2
    exit 1
}
until_true curl --fail --cacert $root https://ca.test:14000/acme/local/directory
"$CUTOVER" serve >cutover.log 2>&1 &
until_true curl --cacert $root https://app.test/
fails_for_other() { "$CUTOVER" status | grep 'no certificate for other.test'; }
until_true fails_for_other
curl --silent --output /dev/null --write-out 'redirect %{http_code}\n' http://app.test/
curl --silent --output /dev/null --write-out 'unknown token %{http_code}\n' http://app.test/.well-known/acme-challenge/x
"$CUTOVER" status
find state/acme -type f -printf '%m %P\n' | sort
"#;

const CADDYFILE: &str = "
{
    admin off
    auto_https disable_redirects
    skip_install_trust
    http_port 8880
    https_port 14000
    storage file_system ca
    persist_config off
}
https://ca.test:14000 {
    tls internal
    acme_server
}
";

fn ordered_by(challenge: &str) {
    if !["caddy", "unshare", "ip", "curl"].iter().all(|tool| have(tool)) || !have_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        r#"
[proxy]
listen = ["127.0.0.1:80"]
listen_tls = ["127.0.0.1:443"]
redirect_to_tls = true
workers = 1
[tls.acme]
domains = ["app.test", "other.test"]
email = "ops@app.test"
directory = "https://ca.test:14000/acme/local/directory"
ca = "ca/pki/authorities/local/root.crt"
challenge = "{challenge}"
[service.app]
blue = 8000
green = 8001
"#
    );
    fs::write(folder.path().join("cutover.toml"), config).unwrap();
    fs::write(folder.path().join("Caddyfile"), CADDYFILE).unwrap();
    // A certificate that has ended is renewed.
    fs::create_dir_all(folder.path().join("state/acme/app.test")).unwrap();
    let mut params = rcgen::CertificateParams::new(["app.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let ended = params.self_signed(&key).unwrap().pem();
    fs::write(folder.path().join("state/acme/app.test/cert.pem"), &ended).unwrap();
    fs::write(folder.path().join("state/acme/app.test/key.pem"), key.serialize_pem()).unwrap();

    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "bash", "-c", SCRIPT]).current_dir(folder.path()).env("HOME", folder.path());
    command.env("CUTOVER", env!("CARGO_BIN_EXE_cutover")).env_remove("CUTOVER_CONFIG");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let log = |name| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    assert!(output.status.success(), "{output:?}\n{}\n{}", log("cutover.log"), log("caddy.log"));
    assert!(said.contains("redirect 308\n") && said.contains("unknown token 308\n"), "{said}");
    assert!(said.contains("certificate state/acme/app.test/cert.pem: app.test, until 20"), "{said}");
    let help = "does other.test resolve to this machine";
    assert!(said.contains("problem: no certificate for other.test: ") && said.contains(help), "{said}");
    for file in
        ["600 account-https---ca-test-14000-acme-local-directory.json", "600 app.test/cert.pem", "600 app.test/key.pem"]
    {
        assert!(said.lines().any(|line| line == file), "{file} is not in\n{said}");
    }
    assert_ne!(log("state/acme/app.test/cert.pem"), ended);
}

#[test]
fn a_certificate_is_ordered_and_renewed_by_http_01() {
    ordered_by("http-01");
}

#[test]
fn a_certificate_is_ordered_and_renewed_by_tls_alpn_01() {
    ordered_by("tls-alpn-01");
}
