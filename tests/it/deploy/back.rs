//! `cutover rollback`: to a color that still runs, to one that is stopped, and to any tag.

use super::{Stage, have_images, none_failed};

#[test]
fn to_a_color_that_still_runs_is_one_flip() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("deploy.retire", "'keep'")]);
    let load = stage.load();
    assert_eq!(stage.deploy("sha-2").0, 0);
    let (code, said) = stage.cutover.cli_code(&["rollback", "--to-tag", "sha-1"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("blue still runs sha-1"), "{said}");
    assert_eq!(stage.cutover.app()["active"], "blue");
    assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", "sha-2"));
    none_failed(load);
}

#[test]
fn to_a_color_that_was_stopped_goes_through_the_gates() {
    if !have_images() {
        return;
    }
    let migrate = ("deploy.migrate.command", "['/cutover', 'sample-app', 'migrate']");
    let stage = Stage::set(&[migrate, ("watch.window", "'1s'")]);
    let load = stage.load();
    assert_eq!(stage.deploy("sha-2").0, 0);
    assert_eq!(stage.running("blue"), "");
    let (code, said) = stage.cutover.cli_code(&["rollback"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(stage.cutover.app()["active"], "blue");
    assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", ""));
    let schema = stage.compose("blue", &["exec", "-T", "api", "/cutover", "sample-app", "dump"]);
    assert_eq!(schema, "sha-2 ok\n", "the code went back, the data stayed");
    assert!(stage.ledger().contains("] rollback app: kept tag=sha-1 color=blue"), "{}", stage.ledger());

    // And to a tag that neither color ran last.
    let (code, said) = stage.cutover.cli_code(&["rollback", "--to-tag", "sha-3"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("", "sha-3"));
    none_failed(load);
}

#[test]
fn after_a_failed_deploy_the_idle_color_runs_what_it_ran() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("deploy.retire", "'keep'")]);
    let load = stage.load();
    assert_eq!(stage.deploy("sha-2").0, 0);
    for (tag, code) in [("wrong-version", 3), ("fail-after-start", 4)] {
        let (ended, said) = stage.deploy(tag);
        assert_eq!(ended, code, "{said}");
        assert_eq!(stage.cutover.app()["active"], "green");
        assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", "sha-2"), "{said}");
    }
    none_failed(load);
}

#[test]
fn is_not_made_twice_nor_to_where_nobody_came_from() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let refused = |case: &str, active: &str, runs: &str| {
        for args in [&["rollback"][..], &["rollback", "--dry-run"]] {
            let (code, said) = stage.cutover.cli_code(args);
            assert!(code == 3 && said.contains("nothing to roll back") && said.contains("--to-tag"), "{case}: {said}");
            assert!(!said.contains("bringing it up again"), "{case}: {said}");
        }
        assert_eq!((&stage.cutover.app()["active"], &*stage.running(active)), (&active.into(), runs), "{case}");
    };
    refused("never flipped", "blue", "sha-1");
    let load = stage.load();
    assert_eq!(stage.deploy("sha-2").0, 0);
    let (code, said) = stage.deploy("fail-after-start");
    assert_eq!(code, 4, "{said}");
    none_failed(load);
    // Blue's env file still says sha-1: that is two releases back.
    refused("taken back by the watch", "green", "sha-2");
}
