//! The ledger and the state in a folder that a group shares: whoever deploys comes first, and the proxy is not shut
//! out.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::harness::{Setup, Upstream, free_port, have, have_root};

const GROUP: u32 = 12_300;
const DEPLOYER: u32 = 12_301;
const PROXY: u32 = 12_302;
const STRANGER: u32 = 12_303;

/// Runs a verb in `folder` as somebody else, with the usual umask. Who may not even see where it was built has it
/// there.
fn run_as(user: u32, group: u32, folder: &Path, args: &[&str]) -> (i32, String) {
    let (built, program) = (env!("CARGO_BIN_EXE_cutover"), folder.join("cutover"));
    if !program.exists() {
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
    }
    let mut command = Command::new("sh");
    command.args(["-c", "umask 022; exec ./cutover \"$@\"", "sh"]).args(args).current_dir(folder);
    let output = command.uid(user).gid(group).env_remove("CUTOVER_CONFIG").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// As `install -d -g GROUP -m 2775` makes it.
fn share(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    chown(folder, None, Some(GROUP)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o2775)).unwrap();
}

#[test]
fn ledger_and_lock_are_for_all_of_the_group() {
    if !have_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    ["state", "deploy"].iter().for_each(|name| share(&folder.path().join(name)));
    let env = |color: &str| format!("COMPOSE_PROJECT_NAME=a_{color}\nHOST_PORT={}\nIMAGE_TAG=sha-1\n", free_port());
    let mut config = format!("admin.listen = '127.0.0.1:{}'\n", free_port());
    for color in ["blue", "green"] {
        fs::write(folder.path().join(format!("deploy/.env.{color}")), env(color)).unwrap();
        config += &format!("service.a.{color} = {{ env_file = 'deploy/.env.{color}' }}\n");
    }
    fs::write(folder.path().join("cutover.toml"), config).unwrap();
    let url = format!("http://127.0.0.1:{}", free_port());
    for user in [DEPLOYER, PROXY] {
        let (_, said) = run_as(user, GROUP, folder.path(), &["smoke", &url, "--no-container", "--timeout", "1ms"]);
        assert!(!said.contains("not in the ledger"), "{user}: {said}");
        // Nobody serves: it ends with the lock taken.
        let (code, said) = run_as(user, GROUP, folder.path(), &["deploy", "--image-tag", "sha-2"]);
        assert_eq!(code, 6, "{user}: {said}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("deploy/releases.log")).unwrap().lines().count(), 2);
    for (name, mode) in [("deploy/releases.log", 0o664), ("state/ledger.head", 0o664), ("state/deploy", 0o2775)] {
        let about = fs::metadata(folder.path().join(name)).unwrap();
        assert_eq!((about.mode() & 0o7777, about.gid()), (mode, GROUP), "{name}");
    }
}

#[test]
fn journal_that_somebody_may_not_read_keeps_them_from_flipping() {
    if !have_root() {
        return;
    }
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    fs::set_permissions(cutover.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(cutover.path("state/deploy")).unwrap();
    fs::write(cutover.path("state/deploy/app.json"), "{}").unwrap();
    fs::set_permissions(cutover.path("state/deploy/app.json"), fs::Permissions::from_mode(0o600)).unwrap();
    let (code, said) = run_as(STRANGER, STRANGER, cutover.dir.path(), &["flip", "green"]);
    assert!(code == 3 && said.contains("app.json: Permission denied") && said.contains("--force"), "{code} {said}");
    assert_eq!(cutover.app()["active"], "blue");
    let (code, said) = run_as(STRANGER, STRANGER, cutover.dir.path(), &["flip", "green", "--force"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn env_file_that_is_deployed_stays_the_group_s_whose_proxy_reads_it() {
    if !have_root() || !have("setpriv") {
        return;
    }
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let env = |color: &str, port| format!("COMPOSE_PROJECT_NAME=a_{color}\nHOST_PORT={port}\nIMAGE_TAG=sha-1\n");
    let mut cutover = Setup::of(&blue, &green)
        .file("blue.env", &env("blue", blue.port))
        .set("service.app.blue", "{ env_file = 'blue.env' }")
        .set("service.app.green", "{ env_file = 'deploy/green.env' }")
        .prepared();
    let deploy = cutover.path("deploy");
    fs::set_permissions(cutover.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    share(&cutover.path("state"));
    // Somebody else's, and shared by hand: chgrp and chmod 640.
    fs::create_dir(&deploy).unwrap();
    chown(&deploy, Some(DEPLOYER), Some(DEPLOYER)).unwrap();
    cutover.write("deploy/green.env", &env("green", green.port));
    chown(deploy.join("green.env"), Some(PROXY), Some(GROUP)).unwrap();
    fs::set_permissions(deploy.join("green.env"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(cutover.path("bin")).unwrap();
    // `compose config` of the candidate sees what `up` would; before it, the file in force is asked for.
    cutover.write(
        "bin/docker",
        "#!/bin/sh\ncase \"$*\" in\n*green.env.next*) stat -c %g:%a deploy/green.env.next >deploy/seen; exit 1 ;;\n\
         *config*) echo '{\"services\":{}}' ;;\nesac\n",
    );
    fs::set_permissions(cutover.path("bin/docker"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_cutover"), cutover.path("cutover")).unwrap();
    cutover.run();
    cutover.until_app("both are ready", |app| app["colors"]["green"]["ready"] == true);
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={DEPLOYER}"), format!("--regid={DEPLOYER}"), format!("--groups={GROUP}")]);
    command.args(["./cutover", "deploy", "--image-tag", "sha-2"]).current_dir(cutover.dir.path());
    command.env("PATH", format!("{}:/usr/bin:/bin", cutover.path("bin").display())).env_remove("CUTOVER_CONFIG");
    let output = command.output().unwrap();
    assert_eq!(cutover.file("deploy/seen"), format!("{GROUP}:640\n"), "{output:?}");
}

#[test]
fn a_ledger_begun_by_root_belongs_to_its_folder_s_owner() {
    if !have_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (deploy, url) = (folder.path().join("deploy"), format!("http://127.0.0.1:{}", free_port()));
    fs::create_dir(&deploy).unwrap();
    chown(&deploy, Some(DEPLOYER), Some(GROUP)).unwrap();
    let owner = || {
        let args = ["smoke", &url, "--no-container", "--timeout", "1ms"];
        Command::new(env!("CARGO_BIN_EXE_cutover")).args(args).current_dir(folder.path()).output().unwrap();
        fs::metadata(deploy.join("releases.log")).map(|about| (about.uid(), about.gid())).unwrap()
    };
    assert_eq!(owner(), (DEPLOYER, GROUP));
    chown(deploy.join("releases.log"), Some(0), Some(0)).unwrap();
    assert_eq!(owner(), (0, 0), "one that is there is left alone");
}
