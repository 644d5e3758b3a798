//! The verbs: exit codes, words for people, JSON for programs.

use serde_json::{Value, json};

use crate::harness::{Cutover, Setup, Upstream, free_port};

fn two() -> (Upstream, Upstream, Setup) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green);
    (blue, green, setup)
}

/// One JSON document on standard output, and the exit code.
fn json_of(cutover: &Cutover, args: &[&str]) -> (i32, Value) {
    let output = cutover.cli(args);
    let said = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{args:?}: {error}: {said}"));
    (output.status.code().unwrap(), value)
}

#[test]
fn check_says_that_a_config_is_valid() {
    let (_blue, _green, setup) = two();
    let cutover = setup.prepared();
    let (code, said) = cutover.cli_code(&["check"]);
    assert!(code == 0 && said.contains("valid") && said.contains("app"), "{code} {said}");
    let (code, value) = json_of(&cutover, &["check", "--json"]);
    assert_eq!((code, &value["valid"], &value["services"]), (0, &json!(true), &json!(["app"])));
}

#[test]
fn check_says_everything_that_is_wrong_with_its_place() {
    let (_blue, _green, setup) = two();
    let cutover = setup.prepared();
    let text =
        "[proxy]\nlisten = [\"nowhere\"]\nworkerz = 2\n\n[service.app]\nblue = 8000\ngreen = 8000\nactive = \"red\"\n";
    std::fs::write(cutover.path("cutover.toml"), text).unwrap();
    let (code, said) = cutover.cli_code(&["check"]);
    assert_eq!(code, 2, "{said}");
    for (place, word) in [(":2:", "nowhere"), (":3:1", "workers"), (":7:", "8000"), (":8:", "red")] {
        assert!(said.contains(&format!("cutover.toml{place}")) && said.contains(word), "{place} {word} in {said}");
    }
    let (code, value) = json_of(&cutover, &["check", "--json"]);
    assert_eq!((code, &value["valid"]), (2, &json!(false)));
    assert!(value["problems"].as_array().is_some_and(|problems| problems.len() >= 4), "{value}");
    assert_eq!(cutover.cli_code(&["serve"]).0, 2);
}

#[test]
fn a_broken_config_on_the_disk_does_not_close_the_way_back() {
    let (_blue, _green, setup) = two();
    let mut cutover = setup.start();
    cutover.must_flip("green");
    cutover.configure("service.app.health.interval", "'soon'");
    let (code, said) = cutover.cli_code(&["status"]);
    assert!(code == 0 && said.contains("green active"), "{code} {said}");
    let (code, said) = cutover.cli_code(&["rollback", "app"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cutover.get("/").text(), "blue");
}

#[test]
fn check_reads_the_env_files() {
    let (_blue, _green, setup) = two();
    let cutover = setup.set("service.app.green", "{ env_file = 'green.env' }").prepared();
    let (code, said) = cutover.cli_code(&["check"]);
    assert!(code == 2 && said.contains("green.env"), "{code} {said}");
    std::fs::write(cutover.path("green.env"), "IMAGE_TAG=sha-1\n").unwrap();
    let (code, said) = cutover.cli_code(&["check"]);
    assert!(code == 2 && said.contains("HOST_PORT"), "{code} {said}");
    std::fs::write(cutover.path("green.env"), "HOST_PORT=8001\n").unwrap();
    assert_eq!(cutover.cli_code(&["check"]).0, 0);
}

#[test]
fn a_missing_config_is_wrong_usage() {
    let (_blue, _green, setup) = two();
    let cutover = setup.prepared();
    std::fs::remove_file(cutover.path("cutover.toml")).unwrap();
    for verb in ["check", "serve", "status"] {
        let (code, said) = cutover.cli_code(&[verb]);
        assert!(code == 2 && said.contains("cutover.toml"), "{verb}: {code} {said}");
    }
    let (code, said) = cutover.cli_code(&["check", "--config", "elsewhere.toml"]);
    assert!(code == 2 && said.contains("elsewhere.toml"), "{code} {said}");
}

#[test]
fn the_config_is_found_in_its_usual_places() {
    let (_blue, _green, setup) = two();
    let cutover = setup.prepared();
    std::fs::create_dir(cutover.path("config")).unwrap();
    std::fs::rename(cutover.path("cutover.toml"), cutover.path("config/cutover.toml")).unwrap();
    let (code, value) = json_of(&cutover, &["check", "--json"]);
    assert_eq!(code, 0);
    assert!(value["config"].as_str().is_some_and(|path| path.ends_with("config/cutover.toml")), "{value}");
}

#[test]
fn wrong_usage_is_2() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    for args in [
        &["flip"][..],
        &["flip", "red"],
        &["flip", "app", "green", "more"],
        &["flip", "nobody", "green"],
        &["paint"],
        &["flip", "green", "--what"],
        &["status", "nobody"],
        &[],
    ] {
        let (code, said) = cutover.cli_code(args);
        assert_eq!(code, 2, "{args:?}: {said}");
        assert!(!said.is_empty(), "{args:?}");
    }
    assert_eq!(cutover.app()["epoch"], 1);
}

#[test]
fn without_a_proxy_every_verb_is_6() {
    let (_blue, _green, setup) = two();
    let cutover = setup.prepared();
    for args in [&["status"][..], &["flip", "green"], &["rollback"], &["drain"], &["reload"]] {
        let (code, said) = cutover.cli_code(args);
        assert!(code == 6 && said.contains(&cutover.setup.admin_port.to_string()), "{args:?}: {code} {said}");
        let (code, value) = json_of(&cutover, &[args, &["--json"]].concat());
        assert_eq!((code, &value["error"]["code"]), (6, &json!("no_answer")), "{args:?}");
    }
}

#[test]
fn a_proxy_that_is_something_else_is_not_believed() {
    let (_blue, _green, setup) = two();
    let other = Upstream::answering("SSH-2.0-OpenSSH\r\n");
    let cutover = setup.set("admin.listen", format!("'127.0.0.1:{}'", other.port)).prepared();
    let (code, said) = cutover.cli_code(&["status"]);
    assert!(code == 1 || code == 6, "{code} {said}");
}

#[test]
fn json_is_one_document_for_each_verb() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    let (code, status) = json_of(&cutover, &["status", "--json"]);
    assert_eq!((code, &status["services"]["app"]["active"]), (0, &json!("blue")));
    let (code, changed) = json_of(&cutover, &["flip", "green", "--dry-run", "--json"]);
    assert_eq!((code, &changed["dry_run"]), (0, &json!(true)));
    let (code, changed) = json_of(&cutover, &["--json", "flip", "green"]);
    assert_eq!((code, &changed["epoch"], &changed["drain"]["cut"]), (0, &json!(2), &json!(0)));
    let (code, refused) = json_of(&cutover, &["flip", "green", "--json"]);
    assert_eq!((code, &refused["error"]["code"]), (5, &json!("cutover_under_way")));
    let (code, _) = json_of(&cutover, &["drain", "--json"]);
    assert_eq!(code, 0);
    let (code, changed) = json_of(&cutover, &["rollback", "--json"]);
    assert_eq!((code, &changed["to"]), (0, &json!("blue")));
    let (code, reloaded) = json_of(&cutover, &["reload", "--json"]);
    assert_eq!((code, &reloaded["changes"]), (0, &json!([])));
    let (code, ledger) = json_of(&cutover, &["ledger", "--json"]);
    let lines = ledger["lines"].as_array().unwrap();
    assert!(
        code == 0 && lines.iter().any(|line| line.as_str().is_some_and(|l| l.contains("] rollback app"))),
        "{ledger}"
    );
}

#[test]
fn status_is_a_screen_for_people() {
    let (_blue, _green, setup) = two();
    let cutover = setup.start();
    cutover.get("/");
    cutover.must_flip("green");
    let (code, said) = cutover.cli_code(&["status"]);
    assert_eq!(code, 0);
    for words in ["app", "green active, epoch 2, watching", "blue", "yes", "flip app: blue -> green", "127.0.0.1:"] {
        assert!(said.contains(words), "{words} in {said}");
    }
    assert!(!said.contains('\x1b'), "no terminal, no colors: {said}");
}

#[test]
fn version_and_help_are_there() {
    let (_blue, _green, setup) = two();
    let cutover = setup.prepared();
    let (code, said) = cutover.cli_code(&["--version"]);
    assert!(code == 0 && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    let (code, said) = cutover.cli_code(&["--help"]);
    assert_eq!(code, 0);
    for word in ["serve", "check", "status", "flip", "rollback", "drain", "reload", "ledger", "demo", "Exit codes"] {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn both_colors_on_one_port_are_refused() {
    let (_blue, _green, setup) = two();
    let port = free_port();
    let cutover = setup.set("service.app.blue", port).set("service.app.green", port).prepared();
    let (code, said) = cutover.cli_code(&["check"]);
    assert!(code == 2 && said.contains(&port.to_string()), "{code} {said}");
}
