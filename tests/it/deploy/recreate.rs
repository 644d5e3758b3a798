//! Recreate: the active color's containers replaced in place, and put back when the new ones are bad.
//!
//! The proxy holds every request during the gap, so that none fails.

use super::killed::kill_at;
use super::{COMPOSE, Stage, have_images, none_failed};
use crate::harness::eventually;

const RECREATE: (&str, &str) = ("deploy.strategy", "'recreate'");

#[test]
fn a_good_release_takes_the_place_of_the_one_before() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[RECREATE]);
    let load = stage.load();
    for (tag, before) in [("sha-2", "sha-1"), ("sha-3", "sha-2")] {
        let (code, said) = stage.deploy(tag);
        assert_eq!(code, 0, "{said}");
        let app = stage.cutover.app();
        assert_eq!((&app["active"], &app["epoch"]), (&"blue".into(), &1.into()), "nothing was flipped: {app}");
        assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), (tag, ""));
        assert!(stage.env("blue").contains(&format!("\nIMAGE_TAG={tag} # now\n")));
        assert_eq!(stage.cutover.get("/").text(), format!("{{\"release\":\"{tag}\"}}"));
        let begin = format!("] deploy app: begin tag={tag} color=blue before={before} strategy=recreate");
        assert!(stage.ledger().contains(&begin), "{}", stage.ledger());
    }
    // Without a tag, the one that the present one replaced: the ledger knows it.
    let (code, said) = stage.cutover.cli_code(&["rollback"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(stage.running("blue"), "sha-2");
    none_failed(load);
    let ledger = stage.ledger();
    assert_eq!(ledger.matches("] freeze app: all for=5s by=deploy why=\"deploy of sha-").count(), 2, "{ledger}");
    assert_eq!(ledger.matches("] thaw app: all reason=thawed by=cli:tester").count(), 3, "{ledger}");
}

#[test]
fn a_bad_release_gives_its_place_back() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[RECREATE]);
    let before = stage.files();
    let load = stage.load();
    for tag in ["never-ready", "wrong-version", "crash-loop"] {
        let (code, said) = stage.deploy(tag);
        assert_eq!(code, 4, "{tag}: {said}");
        assert_eq!(stage.files(), before, "{tag}");
        assert_eq!(stage.running("blue"), "sha-1", "{tag}");
        assert_eq!(stage.cutover.get("/").text(), "{\"release\":\"sha-1\"}", "{tag}: it answers again");
        assert!(stage.ledger().contains(&format!("] deploy app: failed tag={tag} color=blue")), "{}", stage.ledger());
    }
    let (code, said) = stage.deploy("no-such-tag");
    assert_eq!(code, 1, "nothing was touched yet: {said}");
    assert_eq!(stage.files(), before);
    // Most of the time was gaps, so they were not many.
    let (answered, failures) = load.end();
    assert!(failures.is_empty() && answered > 20, "{} of {answered} failed: {failures:#?}", failures.len());
}

#[test]
fn a_bad_release_whose_predecessor_cannot_be_had_keeps_running() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[RECREATE]);
    // What runs is sha-1; what is to be brought back is an image that is nowhere.
    let env = stage.env("blue").replace("IMAGE_TAG=sha-1", "IMAGE_TAG=gone-1");
    stage.cutover.write("deploy/.env.blue", &env);
    let (code, said) = stage.deploy("wrong-version");
    assert_eq!(code, 1, "nothing was rolled back: {said}");
    assert!(said.contains("gone-1 is NOT back") && said.contains("left as it is"), "{said}");
    assert!(!said.contains("gone-1 stays") && !said.contains("is stopped"), "{said}");
    assert_eq!(stage.running("blue"), "wrong-version", "bad, and all there is");
    assert!(stage.ledger().contains(" not_undone=\""), "{}", stage.ledger());
    // The way out is the next release.
    let (code, said) = stage.deploy("sha-2");
    assert_eq!((code, stage.running("blue").as_str()), (0, "sha-2"), "{said}");
}

#[test]
fn a_bad_release_where_nothing_ran_takes_nothing_else_down() {
    if !have_images() {
        return;
    }
    let database = "volumes:\n  data:\n";
    let compose = COMPOSE.replace(database, &format!("  database:\n    image: cutover-sample:sha-3\n{database}"));
    let stage = Stage::of(&compose, &[RECREATE]);
    stage.compose("blue", &["stop", "api"]);
    let (code, said) = stage.deploy("wrong-version");
    assert!(code == 4 && said.contains("`api` does not run, as before"), "{code} {said}");
    assert_eq!(stage.running("blue"), "sha-3", "the database goes on: {said}");
}

#[test]
fn killed_in_the_gap_what_is_held_is_let_go_and_the_next_run_goes_on() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[RECREATE]);
    kill_at(&stage, "never-ready", "healthy");
    let app = stage.cutover.app();
    assert_eq!((&app["freeze"]["what"], &app["freeze"]["by"]), (&"all".into(), &"deploy".into()), "{app}");
    stage.cutover.until_app("it ends by itself", |app| app["freeze"].is_null());
    eventually("the ledger says so", || stage.ledger().contains("] thaw app: all reason=expired of=deploy"));
    let (code, said) = stage.deploy("sha-2");
    assert_eq!(code, 0, "{said}");
    assert_eq!(stage.cutover.get("/").text(), "{\"release\":\"sha-2\"}");
}

#[test]
fn killed_at_any_step_the_next_run_ends_right() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[RECREATE]);
    let steps = ["candidate", "image", "backup", "up", "healthy", "migrate", "smoke", "env-file"];
    for (n, step) in steps.into_iter().enumerate() {
        let (tag, other) = if n % 2 == 0 { ("sha-2", "sha-3") } else { ("sha-3", "sha-2") };
        kill_at(&stage, tag, step);
        let (code, said) = stage.deploy(tag);
        assert_eq!(code, 0, "{step}: {said}");
        assert_eq!(stage.running("blue"), tag, "{step}");
        assert!(stage.env("blue").contains(&format!("\nIMAGE_TAG={tag} # now\n")), "{step}");
        // And with another one wanted: this one is undone first.
        kill_at(&stage, other, step);
        let (code, said) = stage.deploy("sha-1");
        assert_eq!(code, 0, "{step}: {said}");
        // The last step is over in a moment, perhaps before the signal comes.
        assert!(said.contains("undoing this one first") || step == "env-file", "{step}: {said}");
        assert_eq!(stage.running("blue"), "sha-1", "{step}");
    }
}
