//! `cutover deploy` on a real Docker engine with real Compose, under load, with good and bad releases.
//!
//! The releases are this repository's own sample app in images FROM scratch (`tests/images/build.sh`). Each test has a
//! proxy, a folder and two Compose projects of its own.

mod adversary;
mod back;
mod bad;
mod data;
mod flask;
mod good;
mod hooks;
mod killed;
mod recreate;
mod shipped;
mod singletons;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::harness::{Cutover, Load, Setup, Upstream, docker, free_port, have_docker, try_docker};

/// `tag`, `SAMPLE_BEHAVIOR`, `SAMPLE_MIGRATION` of every image.
const RELEASES: [(&str, &str, &str); 11] = [
    ("sha-1", "good", "ok"),
    ("sha-2", "good", "ok"),
    ("sha-3", "good", "ok"),
    ("slow-start", "slow-start", "ok"),
    ("never-ready", "never-ready", "ok"),
    ("wrong-version", "wrong-version", "ok"),
    ("fail-after-start", "fail-after-start", "ok"),
    ("crash-loop", "crash-loop", "ok"),
    ("breaks-the-old", "good", "breaks"),
    ("slow-migration", "good", "slow"),
    ("plain-health", "plain-health", "ok"),
];

const COMPOSE: &str = r#"services:
  api:
    image: cutover-sample:${IMAGE_TAG:?no tag}
    restart: unless-stopped
    ports: ["127.0.0.1:${HOST_PORT}:8000"]
    environment:
      SAMPLE_SCHEMA: /data/schema
      SECRET_KEY: ${SECRET_KEY}
    volumes: ["data:/data"]
    stop_grace_period: 5s
    healthcheck:
      test: ["CMD", "/cutover", "sample-app", "probe", "http://127.0.0.1:8000/readyz"]
      interval: 1s
      timeout: 3s
      retries: 3
      start_period: 30s
volumes:
  data:
    name: ${DATA}
"#;

/// Builds the images, once per run of the tests.
fn have_images() -> bool {
    if !have_docker() {
        return false;
    }
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = Command::new("bash")
            .args(["tests/images/build.sh", env!("CARGO_BIN_EXE_cutover")])
            .current_dir(root)
            .output()
            .expect("bash starts");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let folder = tempfile::tempdir().unwrap();
        for (tag, behavior, migration) in RELEASES {
            let text = format!(
                "FROM cutover-sample:base\nENV SAMPLE_RELEASE={tag} SAMPLE_BEHAVIOR={behavior} \
                 SAMPLE_MIGRATION={migration}\n"
            );
            fs::write(folder.path().join("Dockerfile"), text).unwrap();
            docker(&["build", "--quiet", "--tag", &format!("cutover-sample:{tag}"), "."], folder.path());
        }
    });
    true
}

/// A proxy before two Compose projects, of which blue runs `sha-1`. Everything goes when dropped.
struct Stage {
    cutover: Cutover,
    name: String,
}

/// Everything that a failed deploy must leave as it was.
#[derive(Debug, PartialEq)]
struct Files(Vec<(String, String)>);

impl Stage {
    /// `settings` are further keys of the config.
    fn set(settings: &[(&str, &str)]) -> Stage {
        Stage::of(COMPOSE, settings)
    }

    /// The same with another Compose file.
    fn of(compose: &str, settings: &[(&str, &str)]) -> Stage {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cutover-deploy-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let mut setup = Setup::of(&Upstream::stopped(), &Upstream::stopped())
            .set("service.app.health.interval", "'200ms'")
            .set("service.app.health.fall", "3")
            .set("service.app.watch.window", "'2s'")
            .set("service.app.deploy.compose_file", "'deploy/compose.yml'")
            .set("service.app.deploy.ready_timeout", "'20s'")
            .set("service.app.deploy.settle", "'1s'")
            .set("state.ledger", "'deploy/releases.log'");
        for color in ["blue", "green"] {
            setup = setup.set(&format!("service.app.{color}"), format!("{{ env_file = 'deploy/.env.{color}' }}"));
        }
        for (key, value) in settings {
            setup = setup.set(&format!("service.app.{key}"), value);
        }
        let mut stage = Stage { cutover: setup.prepared(), name };
        fs::create_dir(stage.cutover.path("deploy")).unwrap();
        fs::write(stage.cutover.path("deploy/compose.yml"), compose).unwrap();
        for color in ["blue", "green"] {
            let text = format!(
                "# {color}\nCOMPOSE_PROJECT_NAME={}\nHOST_PORT={}\nIMAGE_TAG=sha-1 # now\nDATA={}-data\nSECRET_KEY=hush\n",
                stage.project(color),
                free_port(),
                stage.name
            );
            fs::write(stage.cutover.path(&format!("deploy/.env.{color}")), text).unwrap();
        }
        stage.compose("blue", &["up", "-d"]);
        stage.cutover.run();
        stage.cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
        stage
    }

    fn project(&self, color: &str) -> String {
        format!("{}-{color}", self.name)
    }

    /// Runs `docker compose` for a color, with the env file in force.
    fn compose(&self, color: &str, args: &[&str]) -> String {
        let env = format!("deploy/.env.{color}");
        let first = ["compose", "-f", "deploy/compose.yml", "--env-file", &env];
        docker(&[&first[..], args].concat(), self.cutover.dir.path())
    }

    /// The images that run in a color.
    fn running(&self, color: &str) -> String {
        let filter = format!("label=com.docker.compose.project={}", self.project(color));
        let running = docker(&["ps", "--filter", &filter, "--format", "{{.Image}}"], self.cutover.dir.path());
        running.trim().trim_start_matches("cutover-sample:").to_owned()
    }

    fn env(&self, color: &str) -> String {
        self.cutover.file(&format!("deploy/.env.{color}"))
    }

    fn ledger(&self) -> String {
        self.cutover.file("deploy/releases.log")
    }

    fn deploy(&self, tag: &str) -> (i32, String) {
        self.cutover.cli_code(&["deploy", "--image-tag", tag])
    }

    /// Starts a deploy with events, and reads none of them.
    fn begin_deploy(&self, tag: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.current_dir(self.cutover.dir.path()).env_remove("CUTOVER_CONFIG").env("USER", "tester");
        command.args(["deploy", "--json", "--image-tag", tag]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().expect("the binary starts")
    }

    fn load(&self) -> Load {
        Load::of_gets(self.cutover.port(), 4)
    }

    /// Every file of the deploy folder but the ledger and the evidence, and what a deploy left in the state folder.
    fn files(&self) -> Files {
        let mut files = Vec::new();
        for folder in ["deploy", "state/deploy"] {
            for entry in fs::read_dir(self.cutover.path(folder)).into_iter().flatten() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                if !matches!(&*name, "releases.log" | "evidence") && !name.ends_with(".lock") {
                    files.push((name, fs::read_to_string(path).unwrap()));
                }
            }
        }
        files.sort();
        Files(files)
    }
}

/// Ends a load: no request failed.
#[track_caller]
fn none_failed(load: Load) {
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{} of {answered} failed: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
    assert!(answered > 50, "{answered} requests prove nothing");
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- ledger ---\n{}", self.ledger());
        }
        for color in ["blue", "green"] {
            let args = ["compose", "-p", &self.project(color), "down", "--timeout", "0"];
            let output = try_docker(&args, self.cutover.dir.path());
            if !output.status.success() {
                eprintln!("{} is left: {output:?}", self.project(color));
            }
        }
        try_docker(&["volume", "rm", "--force", &format!("{}-data", self.name)], self.cutover.dir.path());
    }
}
