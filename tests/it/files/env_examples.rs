//! The env examples: whole, explained, and without a secret.

use super::*;

/// `(key, value)` of each line of an env file.
fn entries(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect()
}

/// Whether a key's value is a secret, or a URL with one inside.
fn is_secret(key: &str) -> bool {
    let words = ["SECRET", "PASSWORD", "TOKEN", "KEY", "DATABASE_URL", "REDIS_URL"];
    words.iter().any(|word| key.contains(word))
}

/// `NAME` of every `${NAME…}` of a text.
fn variables(text: &str) -> BTreeSet<&str> {
    let names = text.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap());
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn have_every_variable_of_the_compose_file_and_no_other() {
    let (compose, example) = (text(COMPOSE), text("deploy/.env.deploy.example"));
    let compose = compose.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut want = variables(&compose);
    want.extend(["VAULT_LOCATION", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"]);
    let have: Vec<_> = entries(&example).into_iter().map(|(key, _)| key).collect();
    assert_eq!(have.iter().copied().collect::<BTreeSet<_>>(), want);
    assert_eq!(have.len(), want.len(), "none stands there twice");
}

#[test]
fn hold_no_secret_and_name_the_vault() {
    let (deploy, production) = (text("deploy/.env.deploy.example"), text("deploy/.env.production.example"));
    let (deploy, production) = (entries(&deploy), entries(&production));
    for (key, value) in &deploy {
        assert!(!is_secret(key) || value.is_empty(), "{key} has a value in the example");
        assert!(!is_secret(key) || production.iter().any(|(name, _)| name == key), "the vault knows {key}");
    }
    for (key, value) in &production {
        assert!(!is_secret(key) || value.starts_with("vault://recall/prod/"), "{key}={value}");
    }
    for entries in [&deploy, &production] {
        assert!(entries.contains(&("VAULT_LOCATION", "vault://recall/prod")));
    }
    for secret in ["DEPLOY_HOST", "DEPLOY_USER", "DEPLOY_KEY", "DEPLOY_PATH", "GHCR_TOKEN", "GHCR_USERNAME"] {
        assert!(production.iter().any(|(key, _)| *key == secret), "the vault knows {secret}");
    }
}

#[test]
fn explain_every_key() {
    for path in ["deploy/.env.deploy.example", "deploy/.env.production.example"] {
        let text = text(path);
        let mut explained = false;
        for line in text.lines() {
            match line {
                "" => explained = false,
                line if line.starts_with("# ---") => {}
                line if line.starts_with("# ") => explained = true,
                line => assert!(line == "#" || explained, "{path}: nothing is said of {line}"),
            }
        }
    }
}

#[test]
fn become_two_colors_that_cutover_reads() {
    let folder = tempfile::tempdir().unwrap();
    let example = text("deploy/.env.deploy.example");
    for (color, port) in [("blue", "8000"), ("green", "8001")] {
        let text = example.replace("HOST_PORT=8000", &format!("HOST_PORT={port}"));
        let text = text.replace("COMPOSE_PROJECT_NAME=recall", &format!("COMPOSE_PROJECT_NAME=recall_{color}"));
        fs::write(folder.path().join(format!(".env.{color}")), text).unwrap();
    }
    let config = "[service.recall]\nblue = { env_file = '.env.blue' }\ngreen = { env_file = '.env.green' }\n";
    fs::write(folder.path().join("cutover.toml"), config).unwrap();
    let output = Command::new(BINARY).arg("check").current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("127.0.0.1:8001"), "{output:?}");
}

#[test]
fn are_in_git_and_their_copies_are_not() {
    if !have("git") || !root().join(".git").exists() {
        return;
    }
    for (path, is_ignored) in [
        ("deploy/.env", true),
        ("deploy/.env.blue", true),
        ("deploy/.env.green", true),
        ("deploy/.env.production", true),
        ("deploy/releases.log", true),
        ("deploy/evidence/2026-11-23T05-28-11Z-recall-green-epoch2.json", true),
        ("deploy/.env.deploy.example", false),
        ("deploy/.env.production.example", false),
    ] {
        let output = run("git", &["check-ignore", "--no-index", "--quiet", path]);
        assert_eq!(output.status.code(), Some(i32::from(!is_ignored)), "{path}: {output:?}");
    }
}
