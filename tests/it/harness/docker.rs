//! A real Docker engine: whether it is there, an image of a few kilobytes of shell, and Compose projects that end with
//! their test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::needs::{have, skipped_for};

/// The image of [`box_image`].
const IMAGE: &str = "cutover-test-box:1";
/// The image of [`test_api_image`].
const API_IMAGE: &str = "cutover-test-api:sha-1";

/// Whether a Docker engine answers, and Compose v2 is there. The calling test is noted as skipped when not.
#[track_caller]
pub fn have_docker() -> bool {
    static ANSWERS: OnceLock<bool> = OnceLock::new();
    let answers =
        |args: &[&str]| Command::new("docker").args(args).output().is_ok_and(|output| output.status.success());
    have("docker")
        && (*ANSWERS.get_or_init(|| answers(&["version"]) && answers(&["compose", "version"]))
            || skipped_for("a Docker engine with Compose v2"))
}

/// Runs `docker` in `folder`, which must succeed; its standard output.
pub fn docker(args: &[&str], folder: &Path) -> String {
    let output = try_docker(args, folder);
    assert!(output.status.success(), "docker {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("docker speaks UTF-8")
}

/// Runs `docker` in `folder`, whatever comes of it.
pub fn try_docker(args: &[&str], folder: &Path) -> Output {
    Command::new("docker").args(args).current_dir(folder).stdin(Stdio::null()).output().expect("docker starts")
}

/// An image of a shell and a small web server, made from the machine's own static BusyBox; none without one.
pub fn box_image() -> Option<&'static str> {
    static MADE: OnceLock<()> = OnceLock::new();
    have("busybox").then(|| MADE.get_or_init(|| import(IMAGE, &[])))?;
    Some(IMAGE)
}

/// The same as an application that lives under the hardened `api` of `deploy/docker-compose.yml`: it is ready, and
/// calls itself `recall` in the version that its tag is.
pub fn test_api_image() -> Option<&'static str> {
    const SERVE: &str = "mkdir -p /tmp/www && cd /tmp/www && echo '{\"ready\": true}' >readyz && echo ok >healthz && \
        echo '{\"service\": \"recall\", \"version\": \"sha-1\"}' >version && exec httpd -f -p ${PORT:-8000}";
    static MADE: OnceLock<()> = OnceLock::new();
    let command = format!("CMD {}", serde_json::json!(["/bin/sh", "-c", SERVE]));
    have("busybox").then(|| MADE.get_or_init(|| import(API_IMAGE, &["--change", &command])))?;
    Some(API_IMAGE)
}

/// Makes an image of BusyBox alone.
fn import(image: &str, changes: &[&str]) {
    let root = tempfile::tempdir().expect("a folder");
    let bin = root.path().join("bin");
    fs::create_dir(&bin).expect("a folder of our own");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox is at /bin");
    for applet in ["sh", "mkdir", "httpd", "sleep", "true", "false", "nc", "head", "grep", "nslookup"] {
        symlink("busybox", bin.join(applet)).expect("a folder of our own");
    }
    // A static BusyBox cannot resolve names with the C library, and its wget dies of trying.
    let curl = "#!/bin/sh\nfor url; do :; done\nrest=${url#http://}\nat=${rest%%/*}\n\
        printf 'GET /%s HTTP/1.0\\r\\n\\r\\n' \"${rest#*/}\" | nc \"${at%:*}\" \"${at#*:}\" | head -n 1 | grep -q ' 200 '\n";
    fs::write(bin.join("curl"), curl).expect("a folder of our own");
    fs::set_permissions(bin.join("curl"), fs::Permissions::from_mode(0o755)).expect("a file of our own");
    let tmp = root.path().join("tmp");
    fs::create_dir(&tmp).expect("a folder of our own");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).expect("a folder of our own");
    let archive = root.path().join("image.tar");
    let tar = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(root.path()).args(["bin", "tmp"]).status();
    assert!(tar.expect("tar starts").success());
    let archive = archive.to_str().expect("a plain path");
    docker(&[&["import"], changes, &[archive, image]].concat(), Path::new("/"));
}

/// A Compose project with one service, `api`. Taken down when dropped.
pub struct Project {
    pub name: String,
    folder: TempDir,
}

impl Project {
    /// Brings up `api` from the box image: `settings` are further lines of the service, indented by four spaces.
    pub fn up(name: &str, command: &str, settings: &str) -> Project {
        let project = Project {
            name: format!("cutover-test-{name}-{}", std::process::id()),
            folder: tempfile::tempdir().expect("a folder"),
        };
        let command = serde_json::json!(["/bin/sh", "-c", command]);
        let text = format!("services:\n  api:\n    image: {IMAGE}\n    command: {command}\n    init: true\n{settings}");
        fs::write(project.folder.path().join("compose.yml"), text).expect("a folder of our own");
        docker(&["compose", "-f", "compose.yml", "-p", &project.name, "up", "-d"], project.folder.path());
        project
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let args = ["compose", "-p", &self.name, "down", "--volumes", "--timeout", "0"];
        let output = try_docker(&args, self.folder.path());
        if !output.status.success() {
            eprintln!("{} is left: {output:?}", self.name);
        }
    }
}
