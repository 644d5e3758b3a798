//! The systemd unit, by systemd, and the image's last stage.

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

#[test]
fn image_has_one_program_that_is_not_root() {
    let text = text("deploy/Dockerfile");
    let last = text.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("scratch\n"), "{last}");
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
}
