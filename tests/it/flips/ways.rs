//! The ways in: CLI, API, HUP, a changed file.

use serde_json::json;

use super::{colors, two_colors};
use crate::harness::{Cutover, Setup, eventually};

fn is_on(cutover: &Cutover, color: &str) {
    assert_eq!(cutover.get("/").text(), color);
    assert_eq!(cutover.app()["active"], color);
}

#[test]
fn by_the_command_line() {
    let (_blue, _green, cutover) = two_colors();
    let (code, said) = cutover.cli_code(&["flip", "green"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("blue -> green") && said.contains("epoch 2") && said.contains("drained"), "{said}");
    is_on(&cutover, "green");
    let (code, said) = cutover.cli_code(&["flip", "app", "blue"]);
    assert_eq!(code, 0, "{said}");
    is_on(&cutover, "blue");
    let ledger = cutover.ledger();
    assert!(ledger.contains("] flip app: blue -> green epoch=2 reason=operator by=cli:tester chain="), "{ledger}");
    assert!(ledger.contains("] flip app: green -> blue epoch=3 reason=operator by=cli:tester chain="), "{ledger}");
}

#[test]
fn by_the_api() {
    let (_blue, _green, cutover) = two_colors();
    let changed = cutover.must_flip("green");
    assert_eq!((&changed["from"], &changed["to"], &changed["epoch"]), (&json!("blue"), &json!("green"), &json!(2)));
    assert_eq!(changed["drain"]["cut"], 0, "{changed}");
    is_on(&cutover, "green");
    let ledger = cutover.ledger();
    assert!(ledger.contains("flip app: blue -> green epoch=2 reason=operator by=api"), "{ledger}");
}

#[test]
fn by_hup_after_active_changed() {
    let (_blue, _green, mut cutover) = two_colors();
    cutover.configure("service.app.active", "'green'");
    cutover.signal(libc::SIGHUP);
    cutover.until_app("green is active", |app| app["active"] == "green");
    is_on(&cutover, "green");
    eventually("the ledger says why", || cutover.ledger().contains("blue -> green epoch=2 reason=config"));
}

#[test]
fn by_a_changed_file_alone() {
    let (_blue, _green, mut cutover) = two_colors();
    cutover.configure("service.app.active", "'green'");
    cutover.until_app("green is active", |app| app["active"] == "green");
    // The way editors write: another file, renamed over the old one.
    cutover.setup = cutover.setup.clone().set("service.app.active", "'blue'");
    std::fs::write(cutover.path("cutover.toml.new"), cutover.setup.text()).unwrap();
    std::fs::rename(cutover.path("cutover.toml.new"), cutover.path("cutover.toml")).unwrap();
    cutover.until_app("blue is active", |app| app["active"] == "blue" && app["epoch"] == 3);
    is_on(&cutover, "blue");
}

#[test]
fn by_the_reload_verb_after_active_changed() {
    let (_blue, _green, mut cutover) = two_colors();
    cutover.configure("service.app.active", "'green'");
    let (code, said) = cutover.cli_code(&["reload"]);
    assert_eq!(code, 0, "{said}");
    cutover.until_app("green is active", |app| app["active"] == "green");
}

#[test]
fn hup_without_a_change_does_nothing() {
    let (_blue, _green, cutover) = two_colors();
    cutover.must_flip("green");
    for n in 1..=3 {
        cutover.signal(libc::SIGHUP);
        eventually("the reload is done", || cutover.log().matches("config read again (HUP)").count() == n);
    }
    let app = cutover.app();
    assert_eq!((&app["active"], &app["epoch"]), (&json!("green"), &json!(2)), "the operator's flip stays: {app}");
}

#[test]
fn a_hup_for_another_reason_keeps_the_color() {
    let (_blue, _green, mut cutover) = two_colors();
    cutover.must_flip("green");
    cutover.configure("service.app.drain.timeout", "'7s'");
    cutover.signal(libc::SIGHUP);
    eventually("the reload is done", || cutover.log().contains("app: drain changed"));
    is_on(&cutover, "green");
}

#[test]
fn one_service_does_not_move_another() {
    let (blue, green) = colors();
    let cutover = Setup::of(&blue, &green)
        .service("other", &[&blue], &[&green])
        .set("service.other.hosts", "['other.example']")
        .start();
    let (code, said) = cutover.cli_code(&["flip", "green"]);
    assert_eq!(code, 2, "which one? {said}");
    assert!(said.contains("app") && said.contains("other"), "{said}");
    let (code, said) = cutover.cli_code(&["flip", "other", "green"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cutover.get("/").text(), "blue");
    let other = cutover.client().ask("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert_eq!(other.text(), "green");
}
