//! A scheduler beside `api`, of which there must never be two.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{COMPOSE, Stage, have_images};
use crate::harness::try_docker;

/// The Compose file with a service that is marked.
fn with_cron() -> String {
    let cron = "  cron:\n    image: cutover-sample:${IMAGE_TAG}\n    labels: [\"cutover.singleton=true\"]\n    \
                stop_grace_period: 1s\n    environment: [\"SAMPLE_SCHEMA=/data/schema\"]\n    volumes: [\"data:/data\"]\n";
    let (services, volumes) = COMPOSE.split_once("volumes:\n  data:\n").expect("it has a volume");
    format!("{services}{cron}volumes:\n  data:\n{volumes}")
}

/// Where it runs, and what: `blue sha-1`.
fn running(stage: &Stage) -> Vec<String> {
    let of = |color: &str| {
        let project = format!("label=com.docker.compose.project={}", stage.project(color));
        let cron = "label=com.docker.compose.service=cron";
        let output =
            try_docker(&["ps", "--filter", &project, "--filter", cron, "--format", "{{.Image}}"], Path::new("/"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.lines().map(|image| format!("{color} {}", image.trim_start_matches("cutover-sample:"))).collect::<Vec<_>>()
    };
    [of("blue"), of("green")].concat()
}

/// Does something while it is looked that there are never two.
fn never_two<T>(stage: &Stage, act: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let found = running(stage);
                assert!(found.len() < 2, "{found:?}");
            }
        });
        let done = act();
        over.store(true, Relaxed);
        done
    })
}

#[test]
fn runs_where_the_release_has_won_and_nowhere_else() {
    if !have_images() {
        return;
    }
    let stage = Stage::of(&with_cron(), &[("deploy.migrate.command", "[]"), ("watch.window", "'1s'")]);
    assert_eq!(running(&stage), ["blue sha-1"]);
    let (code, said) = never_two(&stage, || stage.deploy("sha-2"));
    assert_eq!((code, running(&stage)), (0, vec!["green sha-2".to_owned()]), "{said}");
    let (code, said) = never_two(&stage, || stage.deploy("crash-loop"));
    assert_eq!((code, running(&stage)), (3, vec!["green sha-2".to_owned()]), "{said}");
    let (code, said) = never_two(&stage, || stage.cutover.cli_code(&["rollback", "--to-tag", "sha-1"]));
    assert_eq!((code, running(&stage)), (0, vec!["blue sha-1".to_owned()]), "{said}");
}

#[test]
fn is_replaced_after_the_gate_where_the_release_is_recreated_in_place() {
    if !have_images() {
        return;
    }
    let stage = Stage::of(&with_cron(), &[("deploy.migrate.command", "[]"), ("deploy.strategy", "'recreate'")]);
    let (code, said) = never_two(&stage, || stage.deploy("sha-2"));
    assert_eq!((code, running(&stage)), (0, vec!["blue sha-2".to_owned()]), "{said}");
    let (code, said) = never_two(&stage, || stage.deploy("never-ready"));
    assert_eq!((code, running(&stage)), (4, vec!["blue sha-2".to_owned()]), "{said}");
}
