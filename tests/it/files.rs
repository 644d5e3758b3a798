//! The files and scripts of the runbook, by the programs that read them: Compose, promtool, shellcheck, systemd, a shell.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::harness::{docker, free_port, have, have_docker, test_api_image};

const BINARY: &str = env!("CARGO_BIN_EXE_cutover");
const COMPOSE: &str = "deploy/docker-compose.yml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).current_dir(root()).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn must(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `(key, value)` of each line of an env file.
fn entries(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect()
}

/// Whether a key's value is a secret, or a URL with one inside.
fn is_secret(key: &str) -> bool {
    let words = ["SECRET", "PASSWORD", "TOKEN", "KEY", "DATABASE_URL", "REDIS_URL"];
    words.iter().any(|word| key.contains(word)) && key != "COMPOSE_PROJECT_NAME"
}

mod compose {
    use super::*;

    /// Runs Compose as the runbook does, with these in the environment.
    fn compose(environment: &[(&str, &str)], args: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.args(["compose", "-f", COMPOSE, "--env-file", "deploy/.env.deploy.example"]).args(args);
        command.current_dir(root()).stdin(Stdio::null());
        command.env("SECRET_KEY", "from the test").envs(environment.iter().copied()).output().expect("docker starts")
    }

    fn config(environment: &[(&str, &str)]) -> Value {
        let output = compose(environment, &["config", "--format", "json"]);
        assert!(output.status.success(), "{environment:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn takes_the_file_with_every_profile() {
        if !have_docker() {
            return;
        }
        for profiles in ["", "postgres", "redis", "vllm", "postgres,redis", "postgres,redis,vllm"] {
            let config = config(&[("COMPOSE_PROFILES", profiles)]);
            let have: BTreeSet<_> = config["services"].as_object().unwrap().keys().map(String::as_str).collect();
            let want: BTreeSet<_> = profiles.split(',').filter(|name| !name.is_empty()).chain(["api"]).collect();
            assert_eq!(have, want, "{profiles:?}");
            for (name, service) in config["services"].as_object().unwrap() {
                assert_eq!(service["restart"], "unless-stopped", "{name}: a stopped color stays stopped at a reboot");
                assert_eq!(service["logging"]["options"]["max-size"], "10m", "{name}");
                assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
                assert!(!service["healthcheck"]["test"].is_null(), "{name}");
            }
        }
    }

    #[test]
    fn makes_a_color_of_the_three_parameters() {
        if !have_docker() {
            return;
        }
        let environment = [
            ("COMPOSE_PROJECT_NAME", "recall_green"),
            ("HOST_PORT", "8001"),
            ("IMAGE_REPO", "r/api"),
            ("IMAGE_TAG", "sha-2"),
        ];
        let config = config(&environment);
        let api = &config["services"]["api"];
        assert_eq!((&config["name"], &api["image"]), (&"recall_green".into(), &"r/api:sha-2".into()));
        let port = &api["ports"][0];
        assert_eq!((&port["host_ip"], &port["published"]), (&"127.0.0.1".into(), &"8001".into()));
        assert!(api["healthcheck"]["test"].to_string().contains("/readyz"), "{api}");
        assert_eq!((&api["read_only"], &api["cap_drop"][0]), (&true.into(), &"ALL".into()));
        assert_eq!(config["networks"]["data"]["name"], "recall_green_default", "nothing is shared unless it is said");
    }

    #[test]
    fn refuses_what_must_be_set() {
        if !have_docker() {
            return;
        }
        for key in ["IMAGE_REPO", "IMAGE_TAG", "SECRET_KEY"] {
            let output = compose(&[(key, "")], &["config", "--quiet"]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(&format!("set {key}")), "{key}: {said}");
        }
    }

    /// Ends its projects and its network with the test.
    struct Stage {
        name: String,
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            for project in ["green", "blue", "data"] {
                let project = format!("{}_{project}", self.name);
                let down =
                    run("docker", &["compose", "--project-name", &project, "down", "--volumes", "--timeout", "0"]);
                if !down.status.success() {
                    eprintln!("{project} is left: {down:?}");
                }
            }
            run("docker", &["network", "rm", &self.name]);
        }
    }

    /// The runbook's commands, word for word but for the names.
    #[test]
    fn runs_two_colors_that_share_their_data_and_nothing_else() {
        if !have_docker() {
            return;
        }
        let Some(image) = test_api_image() else { return };
        let (stage, folder) =
            (Stage { name: format!("cutover-test-{}", std::process::id()) }, tempfile::tempdir().unwrap());
        let name = &stage.name;
        docker(&["network", "create", name], root());
        let (repo, tag) = image.split_once(':').unwrap();
        let ports = [free_port(), free_port()];
        for (color, port) in ["blue", "green"].into_iter().zip(ports) {
            let replaced = [
                ("COMPOSE_PROJECT_NAME", format!("{name}_{color}")),
                ("HOST_PORT", port.to_string()),
                ("IMAGE_REPO", repo.into()),
                ("IMAGE_TAG", tag.into()),
                ("SECRET_KEY", "from the test".into()),
                ("DATA_NETWORK", name.clone()),
                ("DATA_NETWORK_EXTERNAL", "true".into()),
                // Any image will do to see who finds whom.
                ("POSTGRES_IMAGE", image.into()),
            ];
            let example = text("deploy/.env.deploy.example");
            let lines = example.lines().map(|line| {
                let new = replaced.iter().find(|(key, _)| line.split_once('=').is_some_and(|(have, _)| have == *key));
                new.map_or(line.to_owned(), |(key, value)| format!("{key}={value}"))
            });
            fs::write(folder.path().join(format!(".env.{color}")), lines.collect::<Vec<_>>().join("\n")).unwrap();
        }
        let env = |color: &str| folder.path().join(format!(".env.{color}")).display().to_string();
        let compose = |color: &str, args: &[&str]| {
            docker(&[&["compose", "-f", COMPOSE, "--env-file", &env(color)], args].concat(), root())
        };
        compose("blue", &["-p", &format!("{name}_data"), "up", "-d", "postgres"]);
        for color in ["blue", "green"] {
            compose(color, &["up", "-d"]);
        }
        for (color, port) in ["blue", "green"].into_iter().zip(ports) {
            let project = format!("{name}_{color}");
            let mut script = Command::new(root().join("scripts/smoke/smoke_test.sh"));
            script.arg(format!("http://127.0.0.1:{port}")).args(["--expect-version", tag, "--project", &project]);
            // The script goes to the repository's root; what the test writes does not belong there.
            let config = format!("[state]\nledger = '{}'\n[service.a]\nblue = 1\ngreen = 2\n", env("log"));
            fs::write(folder.path().join("cutover.toml"), config).unwrap();
            script.env("CUTOVER_BIN", BINARY).env("CUTOVER_CONFIG", folder.path().join("cutover.toml"));
            let output = script.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && said.contains("Smoke test completed successfully"),
                "{color}: {output:?}"
            );
            compose(color, &["exec", "-T", "api", "nslookup", "postgres"]);
        }
        let ledger = fs::read_to_string(env("log")).unwrap();
        assert_eq!(ledger.matches(": passed service=recall version=").count(), 2, "{ledger}");
        docker(&["compose", "--project-name", &format!("{name}_blue"), "down"], folder.path());
        let left = docker(&["ps", "--format", "{{.Names}}", "--filter", &format!("name={name}")], root());
        let left: BTreeSet<_> = left.lines().collect();
        let want = [format!("{name}_data-postgres-1"), format!("{name}_green-api-1")];
        assert_eq!(left, want.iter().map(String::as_str).collect(), "blue is gone, and took nothing with it");
    }
}

mod env_examples {
    use super::*;

    /// `NAME` of every `${NAME…}` of a text.
    fn variables(text: &str) -> BTreeSet<&str> {
        let names = text.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap());
        names.filter(|name| !name.is_empty()).collect()
    }

    #[test]
    fn have_every_variable_of_the_compose_file_and_no_other() {
        let (compose, example) = (text(COMPOSE), text("deploy/.env.deploy.example"));
        let compose = compose.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let mut want = variables(&compose);
        want.extend(["VAULT_LOCATION", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"]);
        let have: Vec<_> = entries(&example).into_iter().map(|(key, _)| key).collect();
        assert_eq!(have.iter().copied().collect::<BTreeSet<_>>(), want);
        assert_eq!(have.len(), want.len(), "none stands there twice");
    }

    #[test]
    fn hold_no_secret_and_name_the_vault() {
        let (deploy, production) = (text("deploy/.env.deploy.example"), text("deploy/.env.production.example"));
        let (deploy, production) = (entries(&deploy), entries(&production));
        for (key, value) in &deploy {
            assert!(!is_secret(key) || value.is_empty(), "{key} has a value in the example");
            assert!(!is_secret(key) || production.iter().any(|(name, _)| name == key), "the vault knows {key}");
        }
        for (key, value) in &production {
            assert!(!is_secret(key) || value.starts_with("vault://recall/prod/"), "{key}={value}");
        }
        for entries in [&deploy, &production] {
            assert!(entries.contains(&("VAULT_LOCATION", "vault://recall/prod")));
        }
        for secret in ["DEPLOY_HOST", "DEPLOY_USER", "DEPLOY_KEY", "DEPLOY_PATH", "GHCR_TOKEN", "GHCR_USERNAME"] {
            assert!(production.iter().any(|(key, _)| *key == secret), "the vault knows {secret}");
        }
    }

    #[test]
    fn explain_every_key() {
        for path in ["deploy/.env.deploy.example", "deploy/.env.production.example"] {
            let text = text(path);
            let mut explained = false;
            for line in text.lines() {
                match line {
                    "" => explained = false,
                    line if line.starts_with("# ---") => {}
                    line if line.starts_with("# ") => explained = true,
                    line => assert!(line == "#" || explained, "{path}: nothing is said of {line}"),
                }
            }
        }
    }

    #[test]
    fn become_two_colors_that_cutover_reads() {
        let folder = tempfile::tempdir().unwrap();
        let example = text("deploy/.env.deploy.example");
        for (color, port) in [("blue", "8000"), ("green", "8001")] {
            let text = example.replace("HOST_PORT=8000", &format!("HOST_PORT={port}"));
            let text = text.replace("COMPOSE_PROJECT_NAME=recall", &format!("COMPOSE_PROJECT_NAME=recall_{color}"));
            fs::write(folder.path().join(format!(".env.{color}")), text).unwrap();
        }
        let config = "[service.recall]\nblue = { env_file = '.env.blue' }\ngreen = { env_file = '.env.green' }\n";
        fs::write(folder.path().join("cutover.toml"), config).unwrap();
        let output = Command::new(BINARY).arg("check").current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("127.0.0.1:8001"), "{output:?}");
    }

    #[test]
    fn are_in_git_and_their_copies_are_not() {
        if !have("git") || !root().join(".git").exists() {
            return;
        }
        for (path, is_ignored) in [
            ("deploy/.env", true),
            ("deploy/.env.blue", true),
            ("deploy/.env.green", true),
            ("deploy/.env.production", true),
            ("deploy/releases.log", true),
            ("deploy/.env.deploy.example", false),
            ("deploy/.env.production.example", false),
        ] {
            let output = run("git", &["check-ignore", "--no-index", "--quiet", path]);
            assert_eq!(output.status.code(), Some(i32::from(!is_ignored)), "{path}: {output:?}");
        }
    }
}

mod monitoring {
    use super::*;

    #[test]
    fn rules_and_config_are_what_prometheus_takes() {
        if !have("promtool") {
            return;
        }
        must("promtool", &["check", "config", "deploy/prometheus/prometheus.yml"]);
        must("promtool", &["check", "rules", "deploy/prometheus/rules.yml"]);
        must("promtool", &["test", "rules", "deploy/prometheus/rules_test.yml"]);
    }

    #[test]
    fn rules_are_all_tested() {
        let (rules, tests) = (text("deploy/prometheus/rules.yml"), text("deploy/prometheus/rules_test.yml"));
        let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert!(alerts.len() >= 10, "{alerts:?}");
        for alert in alerts {
            // In the quiet test, and once where it fires.
            assert!(tests.matches(&format!("alertname: {alert}\n        exp_alerts")).count() >= 1, "{alert} fires");
            assert!(tests.contains(&format!("eval_time: 10m, alertname: {alert}}}")), "{alert} is quiet");
        }
    }

    #[test]
    fn names_only_metrics_that_there_are() {
        let product = text("src/metrics.rs");
        let product = product.split("#[cfg(test)]").next().unwrap();
        for path in ["deploy/prometheus/rules.yml", "deploy/prometheus/rules_test.yml", "deploy/grafana/cutover.json"] {
            let text = text(path);
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            let names = text.match_indices("cutover_").map(|(at, _)| {
                let name = &text[at + "cutover_".len()..];
                name.split(|c| !is_name(c)).next().unwrap()
            });
            let names: BTreeSet<_> = names.map(|name| name.strip_suffix("_bucket").unwrap_or(name)).collect();
            assert!(names.len() > 5, "{path}: {names:?}");
            for name in names {
                assert!(product.contains(&format!("\"{name}\"")), "{path}: there is no cutover_{name}");
            }
        }
    }

    #[test]
    fn dashboard_asks_what_prometheus_understands() {
        let json: Value = serde_json::from_str(&text("deploy/grafana/cutover.json")).unwrap();
        let panels = json["panels"].as_array().unwrap();
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
        let asked: Vec<_> = targets.chain(json["annotations"]["list"].as_array().unwrap()).collect();
        assert!(asked.len() > 15, "{}", asked.len());
        if !have("promtool") {
            return;
        }
        let rules = asked.iter().enumerate().map(|(n, asked)| {
            let expression = asked["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            let expression = expression.replace("$__interval", "1m").replace("$service", ".*");
            serde_json::json!({ "record": format!("panel:{n}"), "expr": expression })
        });
        let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules.collect::<Vec<_>>() }] });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yml");
        // JSON is YAML.
        fs::write(&path, rules.to_string()).unwrap();
        must("promtool", &["check", "rules", path.to_str().unwrap()]);
    }
}

mod scripts {
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
    fn say_what_to_do_without_a_binary() {
        let tree = tree("target/release/something-else");
        for path in ["smoke/smoke_test.sh", "deploy/server_deploy.sh", "deploy/server_rollback.sh"] {
            let (code, said) = script(tree.path(), path, &[], &[]);
            assert!(code == 127 && said.contains("cargo build --release") && said.contains("CUTOVER_BIN"), "{said}");
            let (code, said) = script(tree.path(), path, &[], &[("CUTOVER_BIN", "/nowhere/cutover")]);
            assert!(code == 127 && said.contains("/nowhere/cutover"), "{said}");
        }
    }
}

mod docs {
    use super::*;

    #[test]
    fn name_files_that_are_there() {
        let runbook = text("docs/runbook.md");
        let made_later = ["deploy/.env", "deploy/.env.blue", "deploy/.env.green", "deploy/releases.log"];
        let is_path = |word: &&str| ["deploy/", "scripts/", ".github/"].iter().any(|folder| word.starts_with(folder));
        let words = runbook.split(|c: char| c.is_whitespace() || "`;|,()".contains(c)).filter(is_path);
        let words: BTreeSet<_> = words.map(|word| word.trim_end_matches(['.', ':'])).collect();
        assert!(words.len() > 12, "{words:?}");
        for word in words.into_iter().filter(|word| !made_later.contains(word) && !word.contains('*')) {
            assert!(root().join(word).exists(), "docs/runbook.md names {word}");
        }
    }

    #[test]
    fn lead_to_headings_that_are_there() {
        let runbook = text("docs/runbook.md");
        let anchor = |heading: &str| -> String {
            let kept = heading.trim_matches(['#', ' ']).to_lowercase();
            let kept = kept.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        let headings: Vec<_> = runbook.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
        for link in runbook.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            assert!(headings.iter().any(|heading| heading == link), "#{link} is not among {headings:?}");
        }
    }
}

/// Writes a program of one line of shell.
fn program(path: &Path, line: &str) {
    fs::write(path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

mod workflow {
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
}

mod service {
    use super::*;

    #[test]
    fn unit_is_what_systemd_takes_and_hardened() {
        let unit = text("deploy/cutover.service");
        for line in ["ExecReload=/bin/kill -HUP $MAINPID", "KillSignal=SIGTERM", "NoNewPrivileges=yes"] {
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
}
