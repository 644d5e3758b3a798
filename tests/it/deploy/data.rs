//! The data of a release: the snapshot before it, the migration, and the old color that has to live with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use super::killed::kill_at;
use super::{Stage, have_images, none_failed};
use crate::harness::Load;

const MIGRATE: (&str, &str) = ("deploy.migrate.command", "['/cutover', 'sample-app', 'migrate']");
const REQUIRED: (&str, &str) = ("deploy.migrate.required", "true");

fn snapshots(stage: &Stage) -> Vec<String> {
    let entries = fs::read_dir(stage.cutover.path("backups")).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn are_kept_by_number_and_migrated() {
    if !have_images() {
        return;
    }
    // The dump is taken by the active color, as `docker compose exec postgres pg_dump` would be.
    let dump =
        "['sh', '-c', 'echo dump of $(docker ps --quiet --filter label=com.docker.compose.service=api | wc -l)']";
    let stage = Stage::set(&[
        MIGRATE,
        REQUIRED,
        ("deploy.backup.command", dump),
        ("deploy.backup.keep", "2"),
        ("watch.window", "'1s'"),
    ]);
    let load = stage.load();
    for tag in ["sha-2", "sha-3", "sha-1"] {
        let (code, said) = stage.deploy(tag);
        assert_eq!(code, 0, "{said}");
        assert!(stage.ledger().contains(&format!("] deploy app: migrated tag={tag}")), "{}", stage.ledger());
    }
    none_failed(load);
    let names = snapshots(&stage);
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].ends_with("-sha-3.snapshot") && names[1].ends_with("-sha-1.snapshot"), "{names:?}");
    let text = fs::read_to_string(stage.cutover.path("backups").join(&names[0])).unwrap();
    assert!(text.starts_with("dump of "), "{text}");
    let schema = stage.compose("green", &["exec", "-T", "api", "/cutover", "sample-app", "dump"]);
    assert_eq!(schema, "sha-2 ok\nsha-3 ok\nsha-1 ok\n");
}

#[test]
fn are_written_by_nobody_from_the_snapshot_to_the_flip_if_so_configured() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[
        MIGRATE,
        REQUIRED,
        ("deploy.freeze", "true"),
        ("deploy.backup.command", "['sh', '-c', 'sleep 0.3; echo dump']"),
        ("watch.window", "'1s'"),
    ]);
    let load = Load::start(stage.cutover.port(), 2);
    let (code, said) = stage.deploy("sha-2");
    assert_eq!(code, 0, "{said}");
    none_failed(load);
    let ledger = stage.ledger();
    let place = |what: &str| ledger.find(what).unwrap_or_else(|| panic!("{what} in {ledger}"));
    let order = [
        "] freeze app: writes for=5s by=deploy why=\"deploy of sha-2 by cli:tester\"",
        ": snapshot ",
        ": migrated tag=sha-2",
        "] flip app: blue -> green",
        "] thaw app: writes reason=thawed by=cli:tester",
    ];
    let places = order.map(place);
    assert!(places.is_sorted(), "{ledger}");
    assert!(ledger[places[4]..].contains(" held=2 "), "each client's write had to wait: {ledger}");
}

#[test]
fn without_a_snapshot_nothing_is_deployed() {
    if !have_images() {
        return;
    }
    for (command, word) in [("['sh', '-c', 'echo disk full >&2; exit 1']", "disk full"), ("['true']", "wrote nothing")]
    {
        let stage = Stage::set(&[MIGRATE, ("deploy.backup.command", command), ("deploy.freeze", "true")]);
        let before = stage.files();
        let (code, said) = stage.deploy("sha-2");
        assert!(code == 1 && said.contains(word), "{code} {said}");
        assert!(stage.ledger().contains("] thaw app: writes reason=thawed by=cli:tester"), "{}", stage.ledger());
        assert_eq!(stage.files(), before);
        assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", ""));
        assert_eq!(snapshots(&stage), [""; 0]);
        assert_eq!(stage.compose("blue", &["exec", "-T", "api", "/cutover", "sample-app", "dump"]), "", "not migrated");
    }
}

#[test]
fn that_could_not_be_migrated_stop_the_deploy_if_that_is_required() {
    if !have_images() {
        return;
    }
    const FAILS: (&str, &str) = ("deploy.migrate.command", "['/cutover', 'sample-app', 'explode']");
    let stage = Stage::set(&[FAILS, REQUIRED]);
    let before = stage.files();
    let (code, said) = stage.deploy("sha-2");
    assert!(code == 1 && said.contains("explode"), "{code} {said}");
    assert_eq!(stage.files(), before);
    assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", ""));

    let stage = Stage::set(&[FAILS]);
    let (code, said) = stage.deploy("sha-2");
    assert_eq!(code, 0, "best-effort: {said}");
    assert!(stage.ledger().contains("] deploy app: migration failed, not required tag=sha-2"), "{}", stage.ledger());
}

#[test]
fn that_the_old_color_cannot_live_with_stop_the_deploy() {
    if !have_images() {
        return;
    }
    let dump = ("deploy.backup.command", "['echo', 'rows']");
    let stage = Stage::set(&[MIGRATE, dump, ("deploy.settle", "'3s'")]);
    let before = stage.files();
    let (code, said) = stage.deploy("breaks-the-old");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("blue does not work with the migration") && said.contains(".snapshot"), "{said}");
    assert_eq!(stage.files(), before);
    assert_eq!(stage.cutover.app()["epoch"], 1, "no traffic went to it");
}

#[test]
fn and_an_old_color_that_is_down_do_not_keep_out_the_release_that_helps() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[MIGRATE, REQUIRED, ("watch.window", "'1s'")]);
    stage.cutover.get("/");
    stage.cutover.until_app("blue has served", |app| app["colors"]["blue"]["requests"] != 0);
    stage.compose("blue", &["stop"]);
    stage.cutover.until_app("blue is found down", |app| app["colors"]["blue"]["ready"] == false);
    // Also when the run that found it so does not live to say it.
    kill_at(&stage, "sha-2", "old-color");
    let (code, said) = stage.deploy("sha-2");
    assert!(code == 0 && said.contains("was not ready before the migration either"), "{code} {said}");
    assert_eq!(stage.cutover.get("/").text(), "{\"release\":\"sha-2\"}");
    stage.compose("green", &["stop"]);
    stage.cutover.until_app("green is found down", |app| app["colors"]["green"]["ready"] == false);
    let (code, said) = stage.deploy("sha-3");
    assert!(code == 0 && said.contains("was not ready before the migration either"), "{code} {said}");
}

#[test]
fn that_were_migrated_by_a_killed_run_are_still_what_the_old_color_must_live_with() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[MIGRATE, ("deploy.settle", "'2s'")]);
    kill_at(&stage, "breaks-the-old", "old-color");
    stage.cutover.until_app("blue is hurt", |app| app["colors"]["blue"]["ready"] == false);
    let (code, said) = stage.deploy("breaks-the-old");
    assert!(code == 3 && said.contains("blue does not work with the migration"), "{code} {said}");
}

/// Longer than the slow migration takes.
const PAST_IT: Duration = Duration::from_secs(6);

#[test]
fn are_not_migrated_any_more_when_that_took_too_long() {
    if !have_images() {
        return;
    }
    let late = ("deploy.migrate.timeout", "'1s'");
    let stage = Stage::set(&[MIGRATE, late]);
    let before = stage.files();
    let dump = || stage.compose("blue", &["exec", "-T", "api", "/cutover", "sample-app", "dump"]);
    let (code, said) = stage.deploy("slow-migration");
    assert!(code == 1 && said.contains("not done within 1s") && said.contains("deploy.migrate.timeout"), "{said}");
    assert_eq!((stage.files(), stage.running("green").as_str()), (before, ""), "although it is not required");
    std::thread::sleep(PAST_IT);
    assert_eq!(dump(), "", "it ended with its container");

    // Also where the color ran the same tag before, and runs it again.
    let env = stage.env("green").replace("IMAGE_TAG=sha-1", "IMAGE_TAG=slow-migration");
    stage.cutover.write("deploy/.env.green", &env);
    stage.compose("green", &["up", "-d"]);
    assert_eq!(stage.deploy("slow-migration").0, 1);
    std::thread::sleep(PAST_IT);
    assert_eq!((dump().as_str(), stage.running("green").as_str()), ("", "slow-migration"));
}

#[test]
fn are_migrated_by_one_run_at_a_time() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[MIGRATE, ("watch.window", "'1s'")]);
    let mut child = stage.begin_deploy("slow-migration");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("\"begin\"") && line.contains("\"migrate\"")));
    // In the middle of it.
    std::thread::sleep(Duration::from_secs(2));
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, said) = stage.deploy("slow-migration");
    assert_eq!(code, 0, "{said}");
    let schema = stage.compose("green", &["exec", "-T", "api", "/cutover", "sample-app", "dump"]);
    assert_eq!(schema, "slow-migration slow\n", "the first one was ended");
}
