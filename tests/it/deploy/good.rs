//! A good release: no request fails, and nothing is left of how it came there.

use serde_json::Value;

use super::{COMPOSE, Stage, have_images, none_failed};

#[test]
fn is_kept_and_costs_no_request() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let load = stage.load();
    let (code, said) = stage.deploy("sha-2");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("sha-2 is in production on green and stays"), "{said}");
    let app = stage.cutover.app();
    assert_eq!((&app["active"], &app["phase"]), (&"green".into(), &"steady".into()), "{app}");
    assert_eq!((stage.running("green").as_str(), stage.running("blue").as_str()), ("sha-2", ""), "blue is retired");
    assert!(stage.env("green").contains("\nIMAGE_TAG=sha-2 # now\n"), "{}", stage.env("green"));
    assert!(stage.env("blue").contains("\nIMAGE_TAG=sha-1 # now\n"));
    let names: Vec<_> = stage.files().0.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".env.blue", ".env.green", "compose.yml"], "nothing is left beside them");
    let ledger = stage.ledger();
    for line in [
        "] deploy app: begin tag=sha-2 color=green before=sha-1",
        "] smoke http://127.0.0.1:",
        "] flip app: blue -> green epoch=2",
        "] verdict app: green ",
        "] deploy app: kept tag=sha-2 color=green",
    ] {
        assert!(ledger.contains(line), "{line}: {ledger}");
    }
    assert!(!ledger.contains("hush") && !said.contains("hush"), "secrets are nowhere");

    // The next one goes the other way.
    let (code, said) = stage.deploy("sha-3");
    assert_eq!(code, 0, "{said}");
    assert_eq!((stage.running("green").as_str(), stage.running("blue").as_str()), ("", "sha-3"));
    none_failed(load);
}

#[test]
fn may_start_slowly_and_old_one_may_be_kept() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("deploy.retire", "'keep'")]);
    let load = stage.load();
    let (code, said) = stage.deploy("slow-start");
    assert_eq!(code, 0, "{said}");
    assert_eq!((stage.running("green").as_str(), stage.running("blue").as_str()), ("slow-start", "sha-1"));
    none_failed(load);
}

#[test]
fn is_told_in_events() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let output = stage.cutover.cli(&["deploy", "--json", "--image-tag", "sha-2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let steps = |event: &str| -> Vec<_> {
        let of = |value: &Value| (value["event"] == event).then(|| value["step"].as_str().unwrap().to_owned());
        events.iter().filter_map(of).collect()
    };
    let all = [
        "candidate",
        "image",
        "up",
        "healthy",
        "backup",
        "migrate",
        "old-color",
        "smoke",
        "rehearse",
        "env-file",
        "flip",
        "watch",
        "drain",
        "retire",
    ];
    assert_eq!(
        (steps("begin"), steps("done")),
        (all.map(str::to_owned).into(), all.map(str::to_owned).into()),
        "{text}"
    );
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["outcome"]), (&"outcome".into(), &"kept".into()), "{text}");
    // From the command to the flip, beyond the app's own start: what the issue promises.
    let seconds: f64 = events
        .iter()
        .filter(|e| e["event"] == "done")
        .map(|e| (e, e["seconds"].as_f64().unwrap()))
        .take_while(|(e, _)| e["step"] != "watch")
        .map(|(_, seconds)| seconds)
        .sum();
    eprintln!("from the command to the flip: {seconds:.1} s");
}

#[test]
fn is_only_planned_in_a_dry_run() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let before = (stage.files(), stage.ledger());
    let (code, said) = stage.cutover.cli_code(&["deploy", "--image-tag", "sha-2", "--dry-run"]);
    assert_eq!(code, 0, "{said}");
    let (green, first) = (stage.project("green"), "docker compose -p");
    for line in [
        format!("$ {first} {green} -f deploy/compose.yml --env-file deploy/.env.green.next up --detach\n"),
        format!("$ {first} {} -f deploy/compose.yml --env-file deploy/.env.blue stop\n", stage.project("blue")),
        "nothing was changed".into(),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    assert_eq!((stage.files(), stage.ledger()), before);
    assert_eq!(stage.running("green"), "");
}

#[test]
fn of_an_application_with_a_health_check_of_its_own_is_deployed() {
    if !have_images() {
        return;
    }
    let compose = COMPOSE.replace("8000/readyz", "8000/health");
    let stage = Stage::of(&compose, &[("health.path", "'/health'"), ("watch.window", "'1s'")]);
    let (code, said) = stage.deploy("plain-health");
    assert_eq!(code, 0, "{said}");
    assert_eq!(stage.running("green"), "plain-health");
}
