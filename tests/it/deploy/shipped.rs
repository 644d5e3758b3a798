//! The runbook as it is written: the shipped Compose file, env files made from the shipped example, the shipped
//! scripts.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Cutover, Setup, Upstream, docker, free_port, have_docker, test_api_image, try_docker};

/// The repository as it is on a server, with a proxy before it. The colors are taken down when dropped.
pub(super) struct Server {
    pub(super) cutover: Cutover,
    pub(super) projects: [String; 2],
}

impl Server {
    /// A server on which nothing runs: `settings` are further keys of the config, `env` values of both env files.
    pub(super) fn prepared(name: &str, settings: &[(&str, &str)], env: &[(&str, &str)]) -> Server {
        let mut setup = Setup::of(&Upstream::stopped(), &Upstream::stopped())
            .set("service.app.blue", "{ env_file = 'deploy/.env.blue' }")
            .set("service.app.green", "{ env_file = 'deploy/.env.green' }")
            .set("service.app.health.fall", "3")
            .set("service.app.watch.window", "'1s'")
            .set("state.ledger", "'deploy/releases.log'");
        for (key, value) in settings {
            setup = setup.set(&format!("service.app.{key}"), value);
        }
        let projects = ["blue", "green"].map(|color| format!("cutover-{name}-{}-{color}", std::process::id()));
        let server = Server { cutover: setup.prepared(), projects };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in [
            "deploy/docker-compose.yml",
            "scripts/find_cutover.sh",
            "scripts/deploy/server_deploy.sh",
            "scripts/deploy/server_rollback.sh",
        ] {
            let to = server.cutover.path(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(root.join(file), to).unwrap();
        }
        let example = fs::read_to_string(root.join("deploy/.env.deploy.example")).unwrap();
        for (project, color) in server.projects.iter().zip(["blue", "green"]) {
            let text = with(&example, "COMPOSE_PROJECT_NAME", project);
            let text = with(&text, "HOST_PORT", &free_port().to_string());
            let text = with(&text, "IMAGE_TAG", "sha-1");
            let text = with(&text, "SECRET_KEY", "hush");
            let text = with(&text, "HEALTH_INTERVAL", "1s");
            let text = env.iter().fold(text, |text, (key, value)| with(&text, key, value));
            fs::write(server.cutover.path(&format!("deploy/.env.{color}")), text).unwrap();
        }
        server
    }

    /// Runs the shipped Compose file as blue's env file has it.
    pub(super) fn compose(&self, args: &[&str]) -> String {
        let first = ["compose", "-f", "deploy/docker-compose.yml", "--env-file", "deploy/.env.blue"];
        docker(&[&first[..], args].concat(), self.cutover.dir.path())
    }

    /// Brings up blue and the proxy.
    pub(super) fn start(&mut self) {
        self.compose(&["up", "-d"]);
        self.cutover.run();
        self.cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
    }

    /// Runs a script from somewhere else, with the environment of an operator who has worked on blue by hand.
    pub(super) fn script(&self, name: &str, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(self.cutover.path(name));
        command.args(args).current_dir("/").env("CUTOVER_BIN", env!("CARGO_BIN_EXE_cutover"));
        command.env("COMPOSE_PROJECT_NAME", &self.projects[0]).env("HOST_PORT", "1").env("IMAGE_TAG", "sha-0");
        let output = command.env_remove("CUTOVER_CONFIG").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for project in &self.projects {
            try_docker(&["compose", "-p", project, "down", "--timeout", "0"], Path::new("/"));
        }
    }
}

/// An env file with another value for a key that it has.
fn with(text: &str, key: &str, value: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(&format!("{key}="))).expect("the example has it");
    text.replacen(&format!("\n{line}\n"), &format!("\n{key}={value}\n"), 1)
}

#[test]
fn files_and_scripts_deploy_and_go_back() {
    if !have_docker() {
        return;
    }
    let Some(image) = test_api_image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let inspected = docker(&["image", "inspect", "--format", "{{json .Config.Cmd}}", image], folder.path());
    let next = inspected.trim().replace("sha-1", "sha-2");
    fs::write(folder.path().join("Dockerfile"), format!("FROM {image}\nCMD {next}\n")).unwrap();
    docker(&["build", "--quiet", "--tag", "cutover-test-api:sha-2", "."], folder.path());

    let mut server = Server::prepared("shipped", &[], &[("IMAGE_REPO", "cutover-test-api")]);
    server.start();
    let (code, said) = server.script("scripts/deploy/server_deploy.sh", &["--image-tag", "sha-2"]);
    assert_eq!(code, 0, "{said}");
    assert!(server.cutover.file("deploy/.env.green").contains("\nIMAGE_TAG=sha-2\n"), "{said}");
    assert_eq!(server.cutover.get("/version").text().trim(), r#"{"service": "recall", "version": "sha-2"}"#);
    let (code, said) = server.script("scripts/deploy/server_rollback.sh", &["--to-tag", "sha-1"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(server.cutover.get("/version").text().trim(), r#"{"service": "recall", "version": "sha-1"}"#);
    assert_eq!(server.cutover.app()["active"], "blue");
    let ledger = server.cutover.file("deploy/releases.log");
    assert!(!ledger.contains("hush") && !said.contains("hush"), "secrets are nowhere");
}
