//! What the `docker` command says beside its answer, and when it has none. A script stands for it: no engine is needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::harness::{Conn, Setup, Upstream, free_port, plain};

/// As the real one, where it may not read its own config.
const WARNING: &str =
    "echo 'WARNING: Error loading config file: open /root/.docker/config.json: permission denied' >&2";
const ANSWERS: &str = r#"case $1 in
    ps) echo ab12 ;;
    inspect) echo '[{"Id":"ab12","Name":"/a-api-1","RestartCount":0,"State":{"Status":"running",
        "StartedAt":"2026-11-23T08:00:00Z","Health":{"Status":"healthy"}}}]' ;;
    stats) echo '{"Name":"a-api-1","CPUPerc":"3.07%","MemUsage":"120MiB / 1GiB","MemPerc":"11.72%"}' ;;
esac"#;
const ANSWERS_NOT: &str = "echo 'Cannot connect to the Docker daemon' >&2; exit 1";

/// Runs a verb in `folder` with a `docker` that is these lines of shell.
fn with_docker(folder: &Path, lines: &[&str], args: &[&str]) -> (i32, String) {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("docker"), format!("#!/bin/sh\n{}\n", lines.join("\n"))).unwrap();
    fs::set_permissions(bin.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    let output =
        command.current_dir(folder).env_remove("CUTOVER_CONFIG").env("PATH", path).args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// An application that says yes to everything.
fn app() -> Upstream {
    Upstream::start(|conn: &mut Conn| {
        loop {
            conn.request()?;
            conn.send(plain("200 OK", r#"{"ready":true,"service":"a","version":"sha-1"}"#))?;
        }
    })
}

#[test]
fn beside_its_answer_is_no_part_of_it() {
    let (app, folder) = (app(), tempfile::tempdir().unwrap());
    let url = format!("http://127.0.0.1:{}", app.port);
    let (code, said) = with_docker(folder.path(), &[WARNING, ANSWERS], &["smoke", &url, "--project", "a"]);
    assert!(code == 0 && said.contains("Checking container a-api-1"), "{code} {said}");
}

#[test]
fn of_a_container_s_log_is_told_without_the_secrets_of_its_env_file() {
    const LOGS: &str = "[ $1 = logs ] && for n in 1 2 3 4 5 6; do echo \"ERROR in app: hush-7 is refused $n\"; done";
    let (app, folder) = (app(), tempfile::tempdir().unwrap());
    let env = format!("COMPOSE_PROJECT_NAME=a\nHOST_PORT={}\nSMTP_PWD=hush-7\n", app.port);
    fs::write(folder.path().join(".env.blue"), env).unwrap();
    let config = format!("[service.a]\nblue = {{ env_file = '.env.blue' }}\ngreen = {}\n", free_port());
    fs::write(folder.path().join("cutover.toml"), config).unwrap();
    let url = format!("http://127.0.0.1:{}", app.port);
    let (code, said) = with_docker(folder.path(), &[LOGS, ANSWERS], &["smoke", &url]);
    assert!(code == 1 && said.contains("the last: ERROR in app: *** is refused 6"), "{code} {said}");
    let ledger = fs::read_to_string(folder.path().join("deploy/releases.log")).unwrap();
    assert!(!said.contains("hush-7") && !ledger.contains("hush-7"), "{said}\n{ledger}");
}

#[test]
fn instead_of_an_answer_is_not_taken_for_a_color_that_is_stopped() {
    let (blue, green) = (app(), Upstream::stopped());
    let env = |project: &str, port| format!("COMPOSE_PROJECT_NAME={project}\nHOST_PORT={port}\nIMAGE_TAG=sha-1\n");
    let cutover = Setup::in_front_of(&blue)
        .file(".env.blue", &env("a_blue", blue.port))
        .file(".env.green", &env("a_green", green.port))
        .set("service.app.blue", "{ env_file = '.env.blue' }")
        .set("service.app.green", "{ env_file = '.env.green' }")
        .start();
    let args = ["deploy", "--image-tag", "sha-2", "--dry-run"];
    let (code, said) = with_docker(cutover.dir.path(), &[ANSWERS_NOT], &args);
    assert!(code == 1 && said.contains("whether a_green runs is not known"), "{code} {said}");
    assert!(said.contains("Cannot connect to the Docker daemon") && !said.contains("is stopped"), "{said}");
}
