//! The scripts, by shellcheck and by running them.

use super::*;

fn all() -> Vec<PathBuf> {
    let listed = ["scripts", "scripts/deploy", "scripts/smoke", ".ci"].map(|folder| root().join(folder));
    let entries = listed.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let ci = root().join(".ci");
    let is_shell = |path: &PathBuf| path.parent() == Some(&ci) || path.extension().is_some_and(|end| end == "sh");
    let is_script = |path: &PathBuf| path.is_file() && is_shell(path);
    entries.filter(is_script).collect()
}

#[test]
fn pass_shellcheck() {
    if !have("shellcheck") {
        return;
    }
    let scripts = all();
    assert!(scripts.len() >= 5, "{scripts:?}");
    let paths: Vec<_> = scripts.iter().map(|path| path.to_str().unwrap()).collect();
    must("shellcheck", &[&["--external-sources"], &paths[..]].concat());
    let folder = tempfile::tempdir().unwrap();
    for (n, step) in super::workflow::steps().into_iter().enumerate() {
        let path = folder.path().join(format!("step-{n}.sh"));
        fs::write(&path, format!("#!/usr/bin/env bash\nset -eo pipefail\n{step}")).unwrap();
        must("shellcheck", &[path.to_str().unwrap()]);
    }
}

/// A tree with the scripts, a binary that says what it was asked, and nothing else.
fn tree(at: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in ["find_cutover.sh", "deploy/server_deploy.sh", "deploy/server_rollback.sh", "smoke/smoke_test.sh"] {
        let to = folder.path().join("scripts").join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join("scripts").join(path), to).unwrap();
    }
    let binary = folder.path().join(at);
    fs::create_dir_all(binary.parent().unwrap()).unwrap();
    program(&binary, "printf '%s|' \"$PWD\" \"$@\"; exit 4");
    folder
}

/// Runs a script of `tree`, from elsewhere, with nothing in the environment but a path and these.
fn script(tree: &Path, path: &str, args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(tree.join("scripts").join(path));
    command.args(args).current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").envs(environment.iter().copied());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn find_the_binary_and_pass_everything_on() {
    for (case, at, environment) in [
        ("built", "target/release/cutover", vec![]),
        ("named", "elsewhere/my-cutover", vec![("CUTOVER_BIN", "elsewhere/my-cutover")]),
        ("installed", "bin/cutover", vec![("PATH", "bin:/usr/bin:/bin")]),
    ] {
        let tree = tree(at);
        let absolute: Vec<_> = environment
            .into_iter()
            .map(|(key, value): (&str, &str)| {
                let rooted = if value.starts_with("bin") || value.starts_with("elsewhere") {
                    format!("{}/{value}", tree.path().display())
                } else {
                    value.to_owned()
                };
                (key, rooted)
            })
            .collect();
        let environment: Vec<_> = absolute.iter().map(|(key, value)| (*key, value.as_str())).collect();
        for (path, args, want) in [
            (
                "smoke/smoke_test.sh",
                &["http://h", "--expect-version", "a b"][..],
                "smoke|http://h|--expect-version|a b|",
            ),
            ("deploy/server_deploy.sh", &["--image-tag", "sha-1"], "deploy|--image-tag|sha-1|"),
            ("deploy/server_rollback.sh", &["--to-tag", "sha-0"], "rollback|--to-tag|sha-0|"),
        ] {
            let said = script(tree.path(), path, args, &environment);
            let root = tree.path().canonicalize().unwrap();
            assert_eq!(said, (4, format!("{}|{want}", root.display())), "{case}: {path}");
        }
    }
}

#[test]
fn take_the_server_s_config_before_the_example_of_the_repository() {
    if !have("unshare") || !have_root() {
        return;
    }
    let tree = tree("target/release/cutover");
    program(&tree.path().join("target/release/cutover"), "printf '%s|' \"$CUTOVER_CONFIG\" \"$@\"");
    fs::create_dir(tree.path().join("config")).unwrap();
    fs::write(tree.path().join("config/cutover.toml"), "").unwrap();
    let deploy = tree.path().join("scripts/deploy/server_deploy.sh");
    let in_etc = "mkdir /etc/cutover; : >/etc/cutover/cutover.toml";
    for (case, there, named, want) in [
        ("the server has none", "", None, ""),
        ("the server has one", in_etc, None, "/etc/cutover/cutover.toml"),
        ("an empty name is none", in_etc, Some(""), "/etc/cutover/cutover.toml"),
        ("it is named", in_etc, Some("mine.toml"), "mine.toml"),
        ("one is at the root", &format!("{in_etc}; : >cutover.toml"), None, ""),
    ] {
        // A mount namespace of its own: the machine's /etc is not touched.
        let line = format!("mount -t tmpfs tmpfs /etc; {there}\nexec \"$0\" --image-tag sha-1");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &line]).arg(&deploy).current_dir(tree.path());
        command.env_remove("CUTOVER_CONFIG").env_remove("CUTOVER_BIN").env("PATH", "/usr/bin:/bin");
        let output = command.envs(named.map(|name| ("CUTOVER_CONFIG", name))).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, format!("{want}|deploy|--image-tag|sha-1|"), "{case}: {output:?}");
    }
}

#[test]
fn say_what_to_do_without_a_binary() {
    let tree = tree("target/release/something-else");
    for path in ["smoke/smoke_test.sh", "deploy/server_deploy.sh", "deploy/server_rollback.sh"] {
        let (code, said) = script(tree.path(), path, &[], &[]);
        assert!(code == 127 && said.contains("cargo build --release") && said.contains("CUTOVER_BIN"), "{said}");
        let (code, said) = script(tree.path(), path, &[], &[("CUTOVER_BIN", "/nowhere/cutover")]);
        assert!(code == 127 && said.contains("/nowhere/cutover"), "{said}");
    }
}
