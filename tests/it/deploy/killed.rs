//! `kill -9` of the deploying process at each step: the next run ends right, and no request fails.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Command;

use serde_json::Value;

use super::{Files, Stage, have_images, none_failed};
use crate::harness::eventually;

const STEPS: [&str; 14] = [
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

const MIGRATE: (&str, &str) = ("deploy.migrate.command", "['/cutover', 'sample-app', 'migrate']");

/// Kills a deploy of `tag` as it says that it begins `step`.
pub(super) fn kill_at(stage: &Stage, tag: &str, step: &str) {
    let mut child = stage.begin_deploy(tag);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let came = lines.any(|line| {
        let event: Value = serde_json::from_str(&line).unwrap();
        event["event"] == "begin" && event["step"] == step
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(came, "it never came to {step}");
}

/// What is right once `tag` is in production, whatever happened on the way.
fn assert_in_production(stage: &Stage, tag: &str, case: &str) {
    let app = stage.cutover.app();
    let (active, idle) = if app["active"] == "blue" { ("blue", "green") } else { ("green", "blue") };
    assert_eq!(app["phase"], "steady", "{case}: {app}");
    assert_eq!((stage.running(active).as_str(), stage.running(idle).as_str()), (tag, ""), "{case}");
    assert!(stage.env(active).contains(&format!("\nIMAGE_TAG={tag} # now\n")), "{case}: {}", stage.env(active));
    let names: Vec<_> = stage.files().0.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".env.blue", ".env.green", "compose.yml"], "{case}: nothing is left beside them");
}

#[test]
fn and_started_again_it_goes_on() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[MIGRATE, ("watch.window", "'1s'")]);
    let load = stage.load();
    for (n, step) in STEPS.into_iter().enumerate() {
        let tag = if n % 2 == 0 { "sha-2" } else { "sha-3" };
        kill_at(&stage, tag, step);
        let (code, said) = stage.deploy(tag);
        assert_eq!(code, 0, "{step}: {said}");
        // At that step, or one later: the next one may begin before the signal comes.
        assert!(said.contains("was interrupted at "), "{step}: {said}");
        assert_in_production(&stage, tag, step);
        // The schema tells how often each release migrated. Killed around it nobody knows whether it had: the signal
        // may come a step late.
        let schema = stage.compose(
            if n % 2 == 0 { "green" } else { "blue" },
            &["exec", "-T", "api", "/cutover", "sample-app", "dump"],
        );
        let lines = schema.lines().count();
        let made = n + 1;
        let twice = usize::from(n >= 4) + usize::from(n >= 5);
        assert!((made..=made + twice).contains(&lines), "{step}: {schema}");
    }
    none_failed(load);
}

#[test]
fn and_another_release_wanted_it_is_undone_or_finished_first() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[MIGRATE, ("watch.window", "'1s'")]);
    let load = stage.load();
    for step in ["image", "up", "healthy", "smoke", "env-file", "flip", "watch", "retire"] {
        kill_at(&stage, "sha-2", step);
        let (code, said) = stage.deploy("sha-3");
        assert_eq!(code, 0, "{step}: {said}");
        assert_in_production(&stage, "sha-3", step);
    }
    none_failed(load);
}

#[test]
fn before_a_gate_said_no_the_next_run_hears_it() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let (before, load) = (stage.files(), stage.load());
    for (tag, step, code) in [
        ("never-ready", "healthy", 3),
        ("wrong-version", "smoke", 3),
        ("fail-after-start", "flip", 4),
        ("fail-after-start", "watch", 4),
    ] {
        kill_at(&stage, tag, step);
        let (ended, said) = stage.deploy(tag);
        assert_eq!(ended, code, "{tag} at {step}: {said}");
        assert_as_before(&stage, &before, &format!("{tag} at {step}"));
    }
    none_failed(load);
}

fn assert_as_before(stage: &Stage, before: &Files, case: &str) {
    assert_eq!(stage.cutover.app()["active"], "blue", "{case}");
    assert_eq!(&stage.files(), before, "{case}");
    assert_eq!((stage.running("blue").as_str(), stage.running("green").as_str()), ("sha-1", ""), "{case}");
}

#[test]
fn while_it_undoes_the_next_run_undoes_the_rest() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let (before, load) = (stage.files(), stage.load());
    for (tag, event) in [("wrong-version", "failed"), ("fail-after-start", "failed")] {
        let mut child = stage.begin_deploy(tag);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if serde_json::from_str::<Value>(&line).unwrap()["event"] == event {
                break;
            }
        }
        // Anywhere in the log, the drain, the stop of the project.
        std::thread::sleep(std::time::Duration::from_millis(150));
        child.kill().unwrap();
        child.wait().unwrap();
        let (code, said) = stage.deploy(tag);
        assert!([3, 4].contains(&code), "{tag}: {code} {said}");
        assert_as_before(&stage, &before, tag);
    }
    none_failed(load);
}

#[test]
fn or_not_there_is_only_one_at_a_time() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let mut child = stage.begin_deploy("sha-2");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"begin\"")));
    let (code, said) = stage.deploy("sha-3");
    assert!(code == 5 && said.contains(&format!("process {}", child.id())), "{code} {said}");
    assert!(lines.any(|line| line.unwrap().contains("\"kept\"")), "the first one is not disturbed");
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_it_brought_up_gets_no_traffic_by_hand() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    kill_at(&stage, "wrong-version", "smoke");
    stage.cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
    for args in [&["flip", "green"][..], &["rollback"], &["rollback", "--json"]] {
        let (code, said) = stage.cutover.cli_code(args);
        assert!(code == 5 && said.contains("has not passed its gates"), "{args:?}: {code} {said}");
    }
    assert_eq!(stage.cutover.app()["epoch"], 1);
    assert_eq!(stage.deploy("wrong-version").0, 3);
}

#[test]
fn the_proxy_instead_is_waited_for() {
    if !have_images() {
        return;
    }
    let mut stage = Stage::set(&[]);
    for step in ["healthy", "watch"] {
        let mut child = stage.begin_deploy("slow-start");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let begin = format!("\"step\":\"{step}\"");
        assert!(lines.any(|line| line.contains("\"begin\"") && line.contains(&begin)));
        stage.cutover.kill();
        std::thread::sleep(std::time::Duration::from_millis(300));
        stage.cutover.run();
        let rest: Vec<_> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{step}: {rest:#?}");
        assert_in_production(&stage, "slow-start", step);
    }
}

#[test]
fn without_a_proxy_what_is_left_is_undone_by_the_next_run() {
    if !have_images() {
        return;
    }
    let mut stage = Stage::set(&[]);
    let before = stage.files();
    let mut child = stage.begin_deploy("never-ready");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("\"begin\"") && line.contains("\"step\":\"healthy\"")));
    stage.cutover.kill();
    let _ = lines.count();
    assert_eq!(child.wait().unwrap().code(), Some(6), "nobody knows where the traffic is");
    let (code, said) = stage.deploy("sha-2");
    assert_eq!(code, 6, "{said}");
    stage.cutover.run();
    stage.cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
    let (code, said) = stage.deploy("wrong-version");
    assert!(code == 3 && said.contains("interrupted at healthy") && said.contains("something-else"), "{code} {said}");
    assert_as_before(&stage, &before, "in the end");
}

#[test]
fn politely_it_undoes_before_the_flip_and_leaves_the_watch_to_the_proxy() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[]);
    let before = stage.files();
    for (step, code) in [("healthy", 1), ("watch", 1)] {
        let mut child = stage.begin_deploy("slow-start");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let begin = format!("\"step\":\"{step}\"");
        assert!(lines.any(|line| line.as_ref().is_ok_and(|line| line.contains("\"begin\"") && line.contains(&begin))));
        // SAFETY: kill has no memory effects; the pid is our own child's, which was not waited for yet.
        unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{step}: {rest:#?}");
        if step == "healthy" {
            assert_as_before(&stage, &before, step);
        }
    }
    assert_eq!(stage.cutover.app()["active"], "green");
    let (code, said) = stage.deploy("slow-start");
    assert!(code == 0 && said.contains("interrupted at watch"), "{code} {said}");
    assert_in_production(&stage, "slow-start", "after the watch");
}

/// Both ends of a new terminal: ours, and that of the program.
fn terminal() -> (File, File) {
    let (mut ours, mut theirs) = (0, 0);
    let nothing = std::ptr::null_mut();
    // SAFETY: two numbers are written, and nothing else is asked for.
    let opened = unsafe { libc::openpty(&raw mut ours, &raw mut theirs, nothing, nothing.cast(), nothing.cast()) };
    assert_eq!(opened, 0, "a terminal");
    // SAFETY: both were opened just now, and are nobody else's.
    unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) }
}

/// How much of what was said has not been read.
fn unread(ours: &File) -> i32 {
    let mut bytes = 0;
    // SAFETY: one number is written.
    let asked = unsafe { libc::ioctl(ours.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(asked, 0, "a terminal says so");
    bytes
}

/// What was said by somebody who says nothing more now. It takes a moment through a terminal.
fn all_of(ours: &mut File) -> String {
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        while unread(ours) > 0 {
            let n = ours.read(&mut piece).unwrap();
            said.extend_from_slice(&piece[..n]);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        if unread(ours) == 0 {
            return String::from_utf8_lossy(&said).into_owned();
        }
    }
}

#[test]
fn or_asked_to_stop_at_a_terminal_it_asks_back() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("watch.window", "'60s'")]);
    let before = stage.files();
    let (mut ours, theirs) = terminal();
    // Nobody asks `theirs` twice: standard output is the same terminal.
    let (mut input, stdin) = terminal();
    let questions = stage.cutover.path("questions");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.current_dir(stage.cutover.dir.path()).env_remove("CUTOVER_CONFIG").args(["deploy", "--image-tag", "sha-2"]);
    command.stdin(stdin).stdout(theirs).stderr(File::create(&questions).unwrap());
    let mut child = command.spawn().expect("the binary starts");
    drop(command);
    stage.cutover.until_app("it is watched", |app| app["phase"] == "watching");
    let (mut asked, mut said) = (0, String::new());
    let mut answer = |is_interrupted: bool, line: &str| {
        if is_interrupted {
            // SAFETY: kill has no memory effects; the pid is our own child's, which was not waited for yet.
            unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
        }
        asked += 1;
        eventually("it asks", || std::fs::read_to_string(&questions).unwrap().matches("\n  at ").count() == asked);
        said += &all_of(&mut ours);
        input.write_all(line.as_bytes()).unwrap();
        if line == "g\n" {
            // What it waits for is not shown while it asks: until then a second signal would be a stop.
            eventually("it goes on", || unread(&ours) > 0);
        }
    };
    // It may not have heard yet that it is watched: then it asks about the flip, and goes on.
    answer(true, "nonsense\n");
    answer(false, "g\n");
    answer(true, "g\n");
    assert_eq!(stage.cutover.app()["active"], "green", "it went on");
    answer(true, "r\n");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(said.contains("\r\u{1b}[K"), "the live line: {said}");
    assert_as_before(&stage, &before, "rolled back by hand");
}

#[test]
fn or_left_at_a_terminal_it_says_so_on_a_line_of_its_own() {
    if !have_images() {
        return;
    }
    let stage = Stage::set(&[("watch.window", "'60s'")]);
    let ((mut ours, theirs), (mut input, stdin)) = (terminal(), terminal());
    let errors = stage.cutover.path("errors");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.current_dir(stage.cutover.dir.path()).env_remove("CUTOVER_CONFIG").args(["deploy", "--image-tag", "sha-2"]);
    command.stdin(stdin).stdout(theirs).stderr(File::create(&errors).unwrap());
    let mut child = command.spawn().expect("the binary starts");
    drop(command);
    stage.cutover.until_app("it is watched", |app| app["phase"] == "watching");
    std::thread::sleep(std::time::Duration::from_secs(1));
    // SAFETY: kill has no memory effects; the pid is our own child's, which was not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    eventually("it asks", || std::fs::read_to_string(&errors).unwrap().contains("at watch:"));
    input.write_all(b"l\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(std::fs::read_to_string(&errors).unwrap().contains("left by Ctrl-C at watch"));
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = ours.read(&mut piece) {
        said.extend_from_slice(&piece[..n]);
    }
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("s left, ") && said.ends_with("\r\u{1b}[K"), "the live line is gone: {said:?}");
}
