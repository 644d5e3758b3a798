//! The workflow's steps, run as they are: against a folder that plays the server, and over a real SSH.

use super::*;

/// The script of each step that is one.
pub(super) fn steps() -> Vec<String> {
    let text = text(".github/workflows/deploy.yml");
    let steps = text.split("        run: |\n").skip(1).map(|rest| {
        let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("          "));
        lines.map(|line| line.get(10..).unwrap_or_default()).collect::<Vec<_>>().join("\n") + "\n"
    });
    let steps: Vec<_> = steps.collect();
    assert_eq!(steps.len(), 3, "{steps:?}");
    steps
}

/// Runs the last step against a server that is a folder: `ssh` runs its last argument in a shell, as sshd does.
fn deploy(environment: &[(&str, &str)]) -> (Output, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["bin", "home", "srv/scripts/deploy"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    let log = at("log").display().to_string();
    let ssh = format!(
            "for last; do :; done; for one; do [ \"$one\" = \"$last\" ] || printf '%s ' \"$one\"; done >>{log}
while [ $# -gt 0 ]; do case $1 in -i) cp \"$2\" {log}.key ;; UserKnownHostsFile=*) cp \"${{1#*=}}\" {log}.hosts ;; esac; shift; done
echo >>{log}; exec sh -c \"$last\""
        );
    program(&at("bin/ssh"), &ssh);
    program(&at("bin/docker"), &format!("echo \"docker $* token=$(cat) config=$DOCKER_CONFIG\" >>{log}"));
    program(&at("srv/scripts/deploy/server_deploy.sh"), &format!("echo \"deploy $* in $PWD\" >>{log}; exit 4"));
    let mut command = Command::new("bash");
    let steps = steps();
    command.args(["-eo", "pipefail", "-c", steps.last().unwrap()]).current_dir(folder.path()).env_clear();
    command.env("PATH", format!("{}:/usr/bin:/bin", at("bin").display())).env("HOME", at("home"));
    command.env("DEPLOY_PATH", at("srv")).env("TAG", "sha-1").envs([
        ("DEPLOY_HOST", "server.example"),
        ("DEPLOY_USER", "ann"),
        ("DEPLOY_KEY", "the private key"),
        ("DEPLOY_KNOWN_HOSTS", "server.example ssh-ed25519 AAAA"),
        ("GHCR_TOKEN", ""),
        ("GHCR_USERNAME", ""),
    ]);
    (command.envs(environment.iter().copied()).output().unwrap(), folder)
}

fn log(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}

#[test]
fn waits_longer_than_a_deploy_may_take_by_default() {
    let docs = text("docs/configuration.md");
    let minutes = |section: &str, key: &str| -> u32 {
        let rows = docs.split(&format!("### [service.NAME.{section}]\n")).nth(1).expect(section);
        let row = rows.lines().find(|row| row.starts_with(&format!("| `{key}` | `\""))).expect(key);
        row.split('"').nth(1).unwrap().trim_end_matches('m').parse().expect(row)
    };
    let deploy = 2 * minutes("deploy", "up_timeout") // to pull, and to come up
        + minutes("deploy", "ready_timeout")
        + minutes("deploy.backup", "timeout")
        + minutes("deploy.migrate", "timeout")
        + minutes("watch", "window");
    let workflow = text(".github/workflows/deploy.yml");
    let mut limits = workflow.lines().filter_map(|line| line.trim().strip_prefix("timeout-minutes: "));
    let limit: u32 = limits.next_back().unwrap().parse().unwrap();
    assert!(limit >= deploy + 10, "{limit} minutes for {deploy}, and for what is stopped and undone");
}

#[test]
fn deploys_over_ssh_to_the_one_host_whose_key_is_known() {
    let (output, folder) = deploy(&[]);
    assert_eq!(output.status.code(), Some(4), "the job ends as the deploy does: {output:?}");
    let log = log(&folder);
    let root = folder.path().canonicalize().unwrap();
    assert!(log.contains(&format!("deploy --image-tag sha-1 in {}/srv\n", root.display())), "{log}");
    assert!(log.contains(" ann@server.example ") && log.contains("StrictHostKeyChecking=yes"), "{log}");
    assert!(!log.contains("docker"), "a public image needs no login: {log}");
    let kept = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(kept("log.key"), "the private key\n");
    assert_eq!(kept("log.hosts"), "server.example ssh-ed25519 AAAA\n");
}

/// A real server on a port of its own; it knows one user, us, by one key.
struct Sshd {
    port: u16,
    folder: TempDir,
    child: Child,
}

impl Sshd {
    fn start() -> Sshd {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["host", "other", "user"] {
            must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &at(name)]);
        }
        // sshd insists on it where it separates privileges.
        fs::create_dir_all("/run/sshd").unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string(), "-h", &at("host")]);
        for option in ["ListenAddress=127.0.0.1", "StrictModes=no", "UsePAM=no", "PidFile=none"] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("AuthorizedKeysFile={}", at("user.pub")));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("sshd starts");
        let sshd = Sshd { port, folder, child };
        eventually("sshd listens", || Client::try_connect(("127.0.0.1", port)).is_ok());
        sshd
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// Its line in a file of known hosts, with one of the public keys.
    fn known(&self, key: &str) -> String {
        format!("[127.0.0.1]:{} {}", self.port, self.file(key))
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn deploys_over_a_real_ssh_and_not_to_an_impostor() {
    if !have("sshd") || !have("ssh") || !have_root() {
        return;
    }
    let sshd = Sshd::start();
    let server = tempfile::tempdir().unwrap();
    // A space and a quote: what is quoted wrongly breaks here.
    let path = server.path().join("it's here");
    fs::create_dir_all(path.join("scripts/deploy")).unwrap();
    let script = path.join("scripts/deploy/server_deploy.sh");
    program(&script, "printf 'deployed %s in %s\\n' \"$*\" \"$PWD\"; exit 3");
    for (known, code) in [("host.pub", 3), ("other.pub", 255)] {
        let mut command = Command::new("bash");
        command.args(["-eo", "pipefail", "-c", steps().last().unwrap()]).env("DEPLOY_PATH", &path).envs([
            ("DEPLOY_HOST", format!("ssh://root@127.0.0.1:{}", sshd.port)),
            ("DEPLOY_USER", String::new()),
            ("DEPLOY_KEY", sshd.file("user")),
            ("DEPLOY_KNOWN_HOSTS", sshd.known(known)),
            ("TAG", "sha-1".into()),
            ("GHCR_TOKEN", String::new()),
            ("GHCR_USERNAME", String::new()),
        ]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{known}: {output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        let want = format!("deployed --image-tag sha-1 in {}\n", path.display());
        assert_eq!(said.contains(&want), code == 3, "{known}: {output:?}");
    }
}

#[test]
fn takes_a_host_that_names_its_user() {
    let (_, folder) = deploy(&[("DEPLOY_HOST", "bob@server.example"), ("DEPLOY_USER", "")]);
    assert!(log(&folder).contains(" bob@server.example "), "{}", log(&folder));
}

#[test]
fn hands_the_registry_s_token_over_unseen_and_leaves_none() {
    let (output, folder) = deploy(&[("GHCR_TOKEN", "t0ken"), ("GHCR_USERNAME", "carl")]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let log = log(&folder);
    let login = log.lines().find(|line| line.starts_with("docker login")).expect("a login");
    assert!(login.contains("ghcr.io --username carl --password-stdin token=t0ken"), "{login}");
    assert_eq!(log.matches("t0ken").count(), 1, "in no argument: {log}");
    let config = login.split_once("config=").unwrap().1;
    assert!(config.starts_with('/') && !Path::new(config).exists(), "{config} is gone");
    assert!(log.contains("deploy --image-tag sha-1"), "{log}");
}

#[test]
fn does_not_begin_without_a_pinned_host_key() {
    for secret in ["DEPLOY_HOST", "DEPLOY_KEY", "DEPLOY_PATH", "DEPLOY_KNOWN_HOSTS"] {
        let (output, folder) = deploy(&[(secret, "")]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(secret), "{secret}: {output:?}");
        assert_eq!(log(&folder), "", "{secret}");
    }
}

#[test]
fn takes_no_tag_that_is_none() {
    let steps = steps();
    for (asked, want) in
        [("", Some("sha-c0ffee")), ("sha-1", Some("sha-1")), ("a;b", None), ("-x", None), ("a b", None)]
    {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("output");
        let mut command = Command::new("bash");
        command.args(["-eo", "pipefail", "-c", &steps[0]]).env("GITHUB_OUTPUT", &out).env("GITHUB_SHA", "c0ffee");
        let output = command.env("ASKED", asked).output().unwrap();
        let said = fs::read_to_string(&out).unwrap_or_default();
        let said = said.strip_prefix("image_tag=").map(str::trim_end);
        assert_eq!((said, output.status.success()), (want, want.is_some()), "{asked:?}");
    }
}
