//! The runbook as it is written: the shipped Compose file, env files made from the shipped example, the shipped scripts.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Cutover, Setup, Upstream, docker, free_port, have_docker, test_api_image, try_docker};

/// The repository as it is on a server, with a proxy before it. The colors are taken down when dropped.
struct Server {
    cutover: Cutover,
    projects: [String; 2],
}

impl Server {
    fn set() -> Server {
        let setup = Setup::of(&Upstream::stopped(), &Upstream::stopped())
            .set("service.app.blue", "{ env_file = 'deploy/.env.blue' }")
            .set("service.app.green", "{ env_file = 'deploy/.env.green' }")
            .set("service.app.health.fall", "3")
            .set("service.app.watch.window", "'1s'")
            .set("state.ledger", "'deploy/releases.log'");
        let projects = ["blue", "green"].map(|color| format!("cutover-shipped-{}-{color}", std::process::id()));
        let mut server = Server { cutover: setup.prepared(), projects };
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
            let text = with(&text, "IMAGE_REPO", "cutover-test-api");
            let text = with(&text, "IMAGE_TAG", "sha-1");
            let text = with(&text, "SECRET_KEY", "hush");
            let text = with(&text, "HEALTH_INTERVAL", "1s");
            fs::write(server.cutover.path(&format!("deploy/.env.{color}")), text).unwrap();
        }
        let first = ["compose", "-f", "deploy/docker-compose.yml", "--env-file", "deploy/.env.blue"];
        docker(&[&first[..], &["up", "-d"]].concat(), server.cutover.dir.path());
        server.cutover.run();
        server.cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
        server
    }

    /// Runs a script from somewhere else, with the environment of an operator who has worked on blue by hand.
    fn script(&self, name: &str, args: &[&str]) -> (i32, String) {
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

    let server = Server::set();
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
