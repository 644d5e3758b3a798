//! The systemd unit, by systemd; the image: what it is built from, and its last stage.

use super::*;

#[test]
fn unit_is_what_systemd_takes_and_hardened() {
    let unit = text("deploy/cutover.service");
    for line in [
        "ExecReload=/bin/kill -HUP $MAINPID",
        "KillSignal=SIGTERM",
        "NoNewPrivileges=yes",
        "Type=notify",
        "NotifyAccess=all",
    ] {
        assert!(unit.lines().any(|have| have == line), "{line}");
    }
    if !have("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cutover.service");
    // It looks whether the program is there.
    fs::write(&path, unit.replace("/usr/local/bin/cutover", BINARY)).unwrap();
    let path = path.to_str().unwrap();
    let verified = run("systemd-analyze", &["verify", path]);
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    // Its own scale: 10 is unprotected. In tenths here.
    let secure = run("systemd-analyze", &["security", "--offline=true", "--threshold=20", path]);
    assert!(secure.status.success(), "{}", String::from_utf8_lossy(&secure.stdout));
}

/// What the first stage copies from the build context, which has what the ignore file lets in and nothing else.
fn copied_into_the_build() -> Vec<String> {
    let (dockerfile, ignored) = (text("deploy/Dockerfile"), text("deploy/Dockerfile.dockerignore"));
    assert!(ignored.lines().any(|line| line == "*"), "nothing comes in unless it is named");
    let let_in: BTreeSet<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let copies =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    let sources = copies.flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' '));
    let sources: Vec<_> = sources.map(str::to_owned).collect();
    assert_eq!(sources.iter().map(String::as_str).collect::<BTreeSet<_>>(), let_in);
    sources
}

#[test]
fn image_is_built_from_what_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    for source in copied_into_the_build() {
        must("cp", &["-R", &source, folder.path().to_str().unwrap()]);
    }
    // It compiles nothing, but reads the manifest as a build does: every target that it declares has to be there.
    let host = must(env!("CARGO"), &["-vV"]);
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["fetch", "--locked", "--offline", "--target", host]).current_dir(folder.path());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // What the source reads at compile time is beside it.
    let found = run("grep", &["-rnoE", "include_(str|bytes)!\\(\"[^\"]*\"", "src"]);
    let found = String::from_utf8(found.stdout).unwrap();
    assert!(found.lines().count() > 1, "{found}");
    assert!(!found.contains("(\"..") && !found.contains("(\"/"), "{found}");
}

#[test]
fn image_has_one_program_that_is_not_root() {
    let text = text("deploy/Dockerfile");
    let last = text.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("scratch\n"), "{last}");
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
}
