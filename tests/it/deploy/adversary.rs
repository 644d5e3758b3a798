//! Somebody else acts while a deploy runs: flips, edits an env file, or takes the engine away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use super::{Stage, have_images, none_failed};
use crate::harness::eventually;

/// A hook that says that it has begun, and waits until it may end.
const WAITS: &str = "['sh', '-c', 'touch begun; while [ ! -e goes-on ]; do sleep 0.1; done']";

impl Stage {
    /// Puts a `docker` in front of the real one that fails for one subcommand of Compose as long as `engine-away`
    /// exists.
    fn break_compose(&self, subcommand: &str) {
        fs::create_dir_all(self.cutover.path("bin")).unwrap();
        let away = self.cutover.path("engine-away");
        let text = format!(
            "#!/bin/sh\nPATH=${{PATH#*:}}\nif [ -e {away} ]; then for word; do [ \"$word\" = {subcommand} ] && \
             {{ echo 'the engine went away' >&2; exit 1; }}; done; fi\nexec docker \"$@\"\n",
            away = away.display()
        );
        self.cutover.write("bin/docker", &text);
        fs::set_permissions(self.cutover.path("bin/docker"), fs::Permissions::from_mode(0o755)).unwrap();
        self.cutover.write("engine-away", "");
    }

    /// Runs `deploy` with the `docker` of [`Stage::break_compose`].
    fn deploy_with_broken_compose(&self, tag: &str) -> (i32, String) {
        let path = format!("{}:{}", self.cutover.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.current_dir(self.cutover.dir.path()).env_remove("CUTOVER_CONFIG").env("USER", "tester");
        command.env("PATH", path).args(["deploy", "--image-tag", tag]).stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().expect("the binary starts");
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().unwrap(), said)
    }
}

#[test]
fn who_moves_the_traffic_finds_it_untouched_by_the_deploy() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("deploy.hooks.confirm_backup", WAITS), ("watch.window", "'0s'")]);
    stage.compose("green", &["up", "-d"]);
    stage.cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
    let load = stage.load();
    let deploy = stage.begin_deploy("sha-2");
    eventually("the deploy waits in its hook", || stage.cutover.path("begun").exists());
    // The release was not brought up yet, so this is an ordinary flip.
    assert_eq!(stage.cutover.flip("green").0, 200);
    stage.cutover.write("goes-on", "");
    let output = deploy.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(5) && said.contains("green has the traffic all the same"), "{said}");
    assert_eq!((stage.running("green").as_str(), stage.running("blue").as_str()), ("sha-1", "sha-1"), "{said}");
    assert!(stage.env("green").contains("\nIMAGE_TAG=sha-1 # now\n"));
    let (_, failures) = load.end();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(stage.ledger().contains("] deploy app: left tag=sha-2 color=green"), "{}", stage.ledger());
}

#[test]
fn nobody_flips_to_a_color_under_deploy_unless_by_force() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("deploy.hooks.freeze", WAITS), ("watch.window", "'1s'")]);
    let deploy = stage.begin_deploy("sha-2");
    eventually("the deploy waits in its hook", || stage.cutover.path("begun").exists());
    stage.cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
    let refused = |what: &str, (code, answer): (u16, serde_json::Value)| {
        let said = answer.to_string();
        assert!(code == 409 && said.contains("cutover_under_way") && said.contains("sha-2"), "{what}: {code} {said}");
        assert_eq!(stage.cutover.app()["active"], "blue", "{what}");
    };
    let path = "/v1/services/app/flip";
    refused("the API", stage.cutover.admin("POST", path, &json!({ "to": "green", "wait": false })));
    refused("a dry run", stage.cutover.admin("POST", path, &json!({ "to": "green", "dry_run": true })));
    let forced = json!({ "to": "green", "wait": false, "force": true });
    let (code, answer) = stage.cutover.admin("POST", path, &forced);
    assert_eq!(code, 200, "{answer}");
    eventually("the ledger says so", || stage.ledger().contains("] flip app: blue -> green epoch=2 reason=operator"));
    assert!(stage.ledger().lines().any(|line| line.contains("] flip app:") && line.contains(" forced=true")));
    stage.cutover.write("goes-on", "");
    let output = deploy.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert_eq!(stage.running("green"), "sha-2", "it has the traffic, and is left as it is: {said}");
}

#[test]
fn edits_of_an_env_file_are_kept_whatever_comes_of_the_deploy() {
    if !have_images() {
        return;
    }
    const ROTATE: &str = "['sh', '-c', 'sed -i s/=hush/=rotated/ deploy/.env.green']";
    for (tag, code, in_force) in [("fail-after-start", 4, "sha-1"), ("sha-2", 0, "sha-2")] {
        let stage = Stage::set(&[("deploy.hooks.freeze", ROTATE)]);
        let load = stage.load();
        let (ended, said) = stage.deploy(tag);
        assert_eq!(ended, code, "{said}");
        assert!(said.contains("was edited since the deploy began"), "{said}");
        let env = stage.env("green");
        assert!(env.contains("SECRET_KEY=rotated\n"), "{tag}: {env}");
        assert!(env.contains(&format!("IMAGE_TAG={in_force} # now\n")), "{tag}: {env}");
        none_failed(load);
    }
}

#[test]
fn an_undo_that_failed_is_kept_blocks_its_color_and_is_done_by_the_next_run() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("watch.window", "'1s'")]);
    let before = stage.files();
    stage.break_compose("stop");
    let (code, said) = stage.deploy_with_broken_compose("wrong-version");
    assert!(code == 3 && said.contains("NOT undone") && said.contains("the engine went away"), "{code} {said}");
    assert_eq!(stage.running("green"), "wrong-version", "{said}");
    assert!(stage.ledger().contains(" not_undone=\""), "{}", stage.ledger());
    let (code, answer) = stage.cutover.flip("green");
    assert!(code == 409 && answer.to_string().contains("not undone"), "{code} {answer}");
    let (code, said) = stage.cutover.cli_code(&["flip", "green"]);
    assert!(code == 5 && said.contains("not undone"), "{code} {said}");

    // The engine is back: what was asked for last comes after what is left.
    let (code, said) = stage.cutover.cli_code(&["rollback", "--to-tag", "never-ready"]);
    assert!(code == 3 && said.contains("undone     "), "{code} {said}");
    assert_eq!((stage.files(), stage.running("green").as_str()), (before, ""), "{said}");
    assert_eq!(stage.cutover.app()["epoch"], 1, "no traffic went to it");
}

#[test]
fn a_retirement_that_failed_is_no_success_and_is_finished_by_the_next_run() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("watch.window", "'1s'")]);
    let load = stage.load();
    stage.break_compose("stop");
    let (code, said) = stage.deploy_with_broken_compose("sha-2");
    assert!(code == 1 && said.contains("retire is not done") && said.contains("in production"), "{code} {said}");
    assert_eq!((stage.running("green").as_str(), stage.running("blue").as_str()), ("sha-2", "sha-1"), "{said}");
    let (code, said) = stage.deploy("sha-2");
    assert!(code == 0 && said.contains("it was kept: going on with the old color"), "{code} {said}");
    assert_eq!((stage.running("green").as_str(), stage.running("blue").as_str()), ("sha-2", ""), "{said}");
    let names: Vec<_> = stage.files().0.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".env.blue", ".env.green", "compose.yml"], "nothing is left beside them");
    none_failed(load);
}
