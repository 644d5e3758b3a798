//! The operator's own programs at the moments of a cutover.

use std::fs;

use serde_json::Value;

use super::{Stage, have_images};
use crate::harness::eventually;

/// A hook that keeps what it is told, and says something.
fn keeping(moment: &str) -> String {
    format!("['sh', '-c', 'echo {moment} >> order; cat > {moment}.json; echo {moment} is heard']")
}

#[test]
fn are_run_in_order_and_told_what_they_need() {
    if !have_images() {
        return;
    }
    let moments = ["announce", "confirm_backup", "freeze", "unfreeze", "completion"];
    let keys: Vec<_> = moments.iter().map(|moment| (format!("deploy.hooks.{moment}"), keeping(moment))).collect();
    let mut settings: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    settings.extend([
        ("watch.window", "'1s'"),
        ("deploy.migrate.command", "[]"),
        ("deploy.backup.command", "['echo', 'rows']"),
    ]);
    let stage = Stage::set(&settings);
    let (code, planned) = stage.cutover.cli_code(&["deploy", "--image-tag", "sha-2", "--dry-run"]);
    let positions: Vec<_> = moments.iter().map(|moment| planned.find(&format!("hook       {moment}"))).collect();
    assert!(code == 0 && positions.iter().all(Option::is_some) && positions.is_sorted(), "{planned}");
    assert!(!stage.cutover.path("order").exists(), "a dry run runs none");

    let (code, said) = stage.deploy("sha-2");
    assert_eq!(code, 0, "{said}");
    assert_eq!(stage.cutover.file("order"), moments.map(|moment| format!("{moment}\n")).concat());
    let told =
        |moment: &str| -> Value { serde_json::from_str(&stage.cutover.file(&format!("{moment}.json"))).unwrap() };
    let announced = told("announce");
    assert_eq!(
        (&announced["tag"], &announced["tag_before"], &announced["color"]),
        (&"sha-2".into(), &"sha-1".into(), &"green".into())
    );
    assert!(announced["outcome"].is_null() && told("unfreeze")["snapshot"].as_str().unwrap().ends_with(".snapshot"));
    assert!(told("completion")["detail"].as_str().unwrap().contains("sha-2 is in production"));
    let ledger = stage.ledger();
    for moment in moments {
        assert!(
            ledger.contains(&format!(
                "] deploy app: hook {moment} done tag=sha-2 color=green said=\"{moment} is heard\""
            )),
            "{ledger}"
        );
    }
    let phases = ["T-10", "T-0 ", "T+15"].map(|phase| said.find(phase));
    assert!(phases.iter().all(Option::is_some) && phases.is_sorted(), "{said}");
}

#[test]
fn stop_a_deploy_where_they_are_required_and_otherwise_are_only_told() {
    if !have_images() {
        return;
    }
    let settings = [
        ("deploy.hooks.announce", "['sh', '-c', 'echo nobody there >&2; exit 7']"),
        ("deploy.hooks.confirm_backup", "['sh', '-c', 'echo the last backup is a week old >&2; exit 1']"),
        ("deploy.hooks.completion", &keeping("completion")),
        ("deploy.migrate.command", "[]"),
    ];
    let stage = Stage::set(&settings);
    let before = stage.files();
    let (code, said) = stage.deploy("sha-2");
    assert!(code == 1 && said.contains("the hook confirm_backup") && said.contains("a week old"), "{code} {said}");
    assert_eq!((stage.files(), stage.running("green").as_str()), (before, ""));
    let ledger = stage.ledger();
    assert!(ledger.contains("hook announce failed") && ledger.contains("hook confirm_backup failed"), "{ledger}");
    let told: Value = serde_json::from_str(&stage.cutover.file("completion.json")).unwrap();
    assert!(told["outcome"].is_string() && told["detail"].as_str().unwrap().contains("a week old"), "{told}");
    assert!(!fs::read_to_string(stage.cutover.path("order")).unwrap().contains("freeze"), "nothing was frozen");
}

#[test]
fn that_a_killed_run_left_are_run_by_the_next() {
    if !have_images() {
        return;
    }
    // The first completion is killed in the middle of it.
    let completion =
        "['sh', '-c', 'echo completion >> order; cat >/dev/null; test -e again || { touch again; sleep 60; }']";
    let settings = [
        ("deploy.hooks.freeze", &*keeping("freeze")),
        ("deploy.hooks.unfreeze", &keeping("unfreeze")),
        ("deploy.hooks.completion", completion),
        ("deploy.hooks.timeout", "'90s'"),
        ("deploy.migrate.command", "[]"),
        ("watch.window", "'1s'"),
    ];
    for (case, strategy, tag) in [("a bad one", "blue-green", "wrong-version"), ("in place", "recreate", "sha-2")] {
        let stage = Stage::set(&[&settings[..], &[("deploy.strategy", &format!("'{strategy}'"))]].concat());
        let mut child = stage.begin_deploy(tag);
        eventually(case, || stage.cutover.path("again").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            stage.files().0.iter().filter(|(name, _)| name == "app.json").count(),
            1,
            "{case}: still to be done"
        );
        // Whatever is wanted next: that is done first, and then the other one ends as it should.
        let (code, said) = stage.deploy("sha-3");
        assert_eq!(code, 0, "{case}: {said}");
        let ran = stage.cutover.file("order");
        let first: Vec<_> = ran.lines().take(4).collect();
        assert_eq!(first, ["freeze", "unfreeze", "completion", "completion"], "{case}: {said}");
        assert!(said.contains("was interrupted at"), "{case}: {said}");
        assert!(stage.ledger().contains(&format!("] deploy app: hook completion done tag={tag} ")), "{case}");
    }
}
