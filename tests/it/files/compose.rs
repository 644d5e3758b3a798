//! The Compose file of a color, by real Compose.

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
            let down = run("docker", &["compose", "--project-name", &project, "down", "--volumes", "--timeout", "0"]);
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
        assert!(output.status.success() && said.contains("Smoke test completed successfully"), "{color}: {output:?}");
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
