//! A bad release: no GET fails, the active color and every file are as before, and the ledger says why.

use super::{Stage, have_images, none_failed};
use crate::harness::eventually;

/// A bad release before the flip: its exit code, and the words that say why.
fn never_gets_traffic(tag: &str, words: &[&str]) {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let (before, load) = (stage.files(), stage.load());
    let (code, said) = stage.deploy(tag);
    assert_eq!(code, 3, "{said}");
    let app = stage.cutover.app();
    assert_eq!((&app["active"], &app["epoch"], &app["phase"]), (&"blue".into(), &1.into(), &"steady".into()), "{app}");
    assert_eq!(stage.files(), before);
    assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", ""));
    none_failed(load);
    let ledger = stage.ledger();
    let last = ledger.lines().last().unwrap_or_default();
    assert!(last.contains(&format!("] deploy app: failed tag={tag} color=green")), "{ledger}");
    for word in words {
        assert!(said.contains(word) && last.contains(word), "{word}: {said}\n{ledger}");
    }
}

#[test]
fn that_is_never_ready_gets_no_traffic() {
    never_gets_traffic("never-ready", &["not healthy within 20s"]);
}

#[test]
fn that_is_another_version_gets_no_traffic() {
    never_gets_traffic("wrong-version", &["something-else"]);
}

#[test]
fn that_crashes_gets_no_traffic() {
    never_gets_traffic("crash-loop", &["restart"]);
}

#[test]
fn that_fails_after_its_start_is_taken_back() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let (before, load) = (stage.files(), stage.load());
    let (code, said) = stage.deploy("fail-after-start");
    assert_eq!(code, 4, "{said}");
    let app = stage.cutover.app();
    assert_eq!((&app["active"], &app["phase"]), (&"blue".into(), &"rolled_back".into()), "{app}");
    assert_eq!(stage.files(), before);
    assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", ""));
    none_failed(load);
    let ledger = stage.ledger();
    assert!(ledger.contains("] deploy app: taken back tag=fail-after-start color=green why="), "{ledger}");

    let path = app["evidence_file"].as_str().expect("a file is named");
    assert!(path.starts_with("deploy/evidence/") && said.contains(path) && ledger.contains(path), "{said}\n{ledger}");
    let (mut text, mut case) = (String::new(), serde_json::Value::Null);
    eventually("the file has the container's log", || {
        text = stage.cutover.file(path);
        case = serde_json::from_str(&text).unwrap_or_default();
        case["log"].as_array().is_some_and(|log| !log.is_empty())
    });
    let last = case["log"].as_array().and_then(|log| log.last()).and_then(|line| line.as_str()).unwrap();
    assert!(last.contains("-api-1 | 20") && last.contains("fail-after-start listens on"), "{text}");
    assert_eq!(case["image_tag"], "fail-after-start", "{text}");
    let first = &case["first_failed_requests"][0];
    assert!(first["status"] == 500 && first["replay"] == "answered", "{text}");

    // An operator's next one is not held against it.
    let (code, said) = stage.deploy("sha-2");
    assert_eq!(code, 0, "{said}");
}

#[test]
fn that_answers_otherwise_gets_no_traffic() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("rehearse.share", "1.0"), ("rehearse.rate", "100"), ("deploy.rehearse", "'20s'")]);
    let (before, load) = (stage.files(), stage.load());
    let (code, said) = stage.deploy("fail-after-start");
    assert!(code == 3 && said.contains("responses differ"), "{code} {said}");
    assert_eq!(stage.cutover.app()["epoch"], 1, "users never met it");
    assert_eq!(stage.files(), before);
    let (code, said) = stage.deploy("sha-2");
    assert!(code == 0 && said.contains("0 differ"), "{code} {said}");
    none_failed(load);
}

#[test]
fn with_nowhere_to_go_back_to_is_no_success() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    stage.compose("blue", &["stop"]);
    stage.cutover.until_app("blue is found down", |app| app["colors"]["blue"]["upstreams"][0]["ready"] == false);
    let deploy = stage.begin_deploy("fail-after-start");
    stage.cutover.until_app("green is watched", |app| app["phase"] == "watching");
    // Not before: users who only ever saw failures are no yardstick.
    let load = stage.load();
    let output = deploy.wait_with_output().unwrap();
    drop(load.end());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && said.contains("keeps the traffic on green"), "{said}");
    assert_eq!(stage.running("green"), "fail-after-start", "it is all there is");
    assert!(stage.ledger().contains("] deploy app: bad, and nowhere to go tag=fail-after-start"), "{}", stage.ledger());
    // The way out is the next release.
    let (code, said) = stage.deploy("sha-2");
    assert_eq!(code, 0, "{said}");
}

#[test]
fn whose_image_is_nowhere_changes_nothing() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let before = stage.files();
    let (code, said) = stage.deploy("no-such-tag");
    assert_eq!(code, 1, "{said}");
    assert_eq!(stage.files(), before);
    assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", ""));
}

#[test]
fn that_is_told_of_tells_no_secret() {
    if !have_images() {
        return;
    }
    let stage =
        Stage::set(&[("deploy.backup.command", "['false', 'postgresql://ann:hush-9@db/x', '--token', 'hush-8']")]);
    for args in [&["deploy", "--image-tag", "sha-2"][..], &["deploy", "--image-tag", "sha-2", "--json"]] {
        let (code, said) = stage.cutover.cli_code(args);
        assert!(code == 1 && !said.contains("hush-"), "{args:?}: {said}");
        assert!(said.contains("postgresql://ann:***@db/x --token ***"), "{args:?}: {said}");
    }
    // And what an application says of its environment: here the word of its log that happens to be its token.
    let stage = Stage::set(&[]);
    stage.cutover.write("deploy/.env.green", &format!("{}API_TOKEN=listens\n", stage.env("green")));
    let (code, said) = stage.deploy("wrong-version");
    assert!(code == 3 && said.contains("wrong-version *** on") && !said.contains("listens"), "{said}");
}
