//! `cutover smoke`: the runbook's transcript, the exit code and the ledger's line, for good and bad applications.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::harness::{Conn, Project, Upstream, box_image, ended, eventually, free_port, have_docker, plain, unchained};

const VERSION: &str = r#"{"service":"recall","version":"sha-abcdef"}"#;

/// What a run of the verb said.
struct Ran {
    code: i32,
    /// Without the stamps.
    said: Vec<String>,
    errors: String,
}

fn smoke(folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.current_dir(folder).arg("smoke").args(args).env_remove("CUTOVER_CONFIG").env_remove("SUDO_USER");
    let output = ended(command.env("USER", "tester"));
    let out = String::from_utf8(output.stdout).unwrap();
    let said = out.lines().map(|line| without_stamp(line).to_owned()).collect();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), said, errors }
}

/// `text` of `[2025-09-30T12:34:10Z] text`; other lines have no stamp to lose.
fn without_stamp(line: &str) -> &str {
    let stamped = line.strip_prefix('[').and_then(|line| line.split_once("Z] "));
    stamped.filter(|(stamp, _)| stamp.len() == 19 && stamp.as_bytes()[10] == b'T').map_or(line, |(_, text)| text)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn ledger(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("deploy/releases.log")).unwrap_or_default();
    unchained(&text).lines().map(|line| without_stamp(line).to_owned()).collect()
}

/// An application that answers these at its three addresses.
fn app(readyz: &[u8], healthz: &'static str, version: &'static str) -> Upstream {
    let app = Upstream::start(move |conn: &mut Conn| -> io::Result<()> {
        loop {
            let request = conn.request()?;
            match request.target() {
                "/healthz" => conn.send(plain(healthz, "ok"))?,
                "/version" => conn.send(plain("200 OK", version))?,
                _ => conn.send(plain("404 Not Found", ""))?,
            }
        }
    });
    app.answer_probes(&String::from_utf8_lossy(readyz));
    app
}

fn good() -> Upstream {
    app(&plain("200 OK", r#"{ "ready": true }"#), "200 OK", VERSION)
}

fn url(app: &Upstream) -> String {
    format!("http://127.0.0.1:{}", app.port)
}

#[test]
fn of_a_good_color_prints_the_runbook_s_transcript() {
    let (app, folder) = (good(), folder());
    let url = url(&app);
    let ran = smoke(folder.path(), &[&url, "--expect-version", "sha-abcdef"]);
    assert_eq!(
        ran.said,
        [
            format!("=== Smoke test: {url} ==="),
            "Ready endpoint returned success".into(),
            format!("Checking {url}/healthz"),
            format!("Checking {url}/version"),
            "Smoke test completed successfully".into(),
        ]
    );
    assert_eq!((ran.code, &*ran.errors), (0, ""));
    let want = format!("smoke {url}: passed service=recall version=sha-abcdef by=cli:tester");
    assert_eq!(ledger(folder.path()), [want], "without a config, in the folder it was started in");
}

#[test]
fn of_a_bad_color_says_why_and_so_does_the_ledger() {
    let ready = plain("200 OK", r#"{"ready":true}"#);
    let unready = plain("503 Service Unavailable", r#"{"ready":false}"#);
    for (case, app, check, why) in [
        ("not ready", app(&unready, "200 OK", VERSION), "ready", "returned 503, not 200"),
        ("a 200 that says no", app(&plain("200 OK", r#"{"ready":false}"#), "200 OK", VERSION), "ready", "false}"),
        ("a 200 that says nothing", app(&plain("200 OK", "ok"), "200 OK", VERSION), "ready", "not JSON"),
        ("garbage", app(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "200 OK", VERSION), "ready", "no HTTP response"),
        ("nobody", Upstream::stopped(), "ready", "connection refused"),
        ("not well", app(&ready, "500 Internal Server Error", VERSION), "healthz", "/healthz returned 500, not 200"),
        (
            "another version",
            app(&ready, "200 OK", VERSION),
            "version",
            r#"says version "sha-abcdef", expected "sha-x""#,
        ),
        ("no version", app(&ready, "200 OK", r#"{"service":"recall"}"#), "version", r#"without a "version""#),
        ("no name", app(&ready, "200 OK", r#"{"version":"sha-x"}"#), "version", r#"without a "service""#),
        ("a page", app(&ready, "200 OK", "<html>\n<p>hello"), "version", "which is not JSON"),
    ] {
        let folder = folder();
        let url = url(&app);
        let ran = smoke(folder.path(), &[&url, "--expect-version", "sha-x", "--timeout", "600ms"]);
        assert_eq!(ran.code, 1, "{case}: {:?}", ran.said);
        let last = ran.said.last().unwrap();
        assert!(last.starts_with("Smoke test failed: ") && last.contains(why), "{case}: {last}");
        let ledger = ledger(folder.path());
        let begin = format!("smoke {url}: failed check={check} why=\"");
        assert!(ledger.len() == 1 && ledger[0].starts_with(&begin), "{case}: {ledger:?}");
        assert!(!ran.said.iter().any(|line| line.contains("success")) || check != "ready", "{case}: {:?}", ran.said);
    }
}

#[test]
fn waits_until_the_color_is_ready() {
    let (app, folder) = (good(), folder());
    app.be_ready(false);
    let (begun, url) = (Instant::now(), url(&app));
    let ran = std::thread::scope(|scope| {
        let ran = scope.spawn(|| smoke(folder.path(), &[&url]));
        std::thread::sleep(Duration::from_millis(700));
        app.be_ready(true);
        ran.join().unwrap()
    });
    assert_eq!(ran.code, 0, "{:?}", ran.said);
    assert!(begun.elapsed() >= Duration::from_millis(700));
}

#[test]
fn tells_the_same_as_json() {
    let (app, folder) = (good(), folder());
    for (expected, code) in [("recall", 0), ("shop", 1)] {
        let ran = smoke(folder.path(), &[&url(&app), "--json", "--expect-service", expected]);
        let json: Value = serde_json::from_str(&ran.said.join("\n")).unwrap();
        assert_eq!((ran.code, &json["passed"]), (code, &Value::Bool(code == 0)), "{json}");
        match code {
            0 => assert_eq!((&json["service"], &json["version"]), (&"recall".into(), &"sha-abcdef".into())),
            _ => assert_eq!(json["check"], "version", "{json}"),
        }
    }
    assert_eq!(ledger(folder.path()).len(), 2);
}

#[test]
fn of_what_is_no_url_is_wrong_usage_and_no_event() {
    let folder = folder();
    for url in ["127.0.0.1:8001", "https://127.0.0.1:8001", "http://ann:secret@127.0.0.1:8001"] {
        let ran = smoke(folder.path(), &[url]);
        assert!(ran.code == 2 && ran.errors.contains("http://127.0.0.1:8001"), "{url}: {}", ran.errors);
    }
    assert_eq!(ledger(folder.path()), [""; 0]);
}

#[test]
fn is_written_to_the_ledger_of_the_config() {
    let (app, folder) = (good(), folder());
    let config = format!("[state]\nledger = 'log'\n[service.a]\nblue = {}\ngreen = {}\n", app.port, free_port());
    fs::write(folder.path().join("cutover.toml"), config).unwrap();
    assert_eq!(smoke(folder.path(), &[&url(&app)]).code, 0);
    let text = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(text.contains("] smoke http://127.0.0.1:") && text.ends_with('\n'), "{text}");
    assert!(!folder.path().join("deploy").exists());
}

#[test]
fn that_cannot_be_written_down_says_so() {
    let (app, folder) = (good(), folder());
    fs::write(folder.path().join("deploy"), "not a folder").unwrap();
    let ran = smoke(folder.path(), &[&url(&app)]);
    assert!(
        ran.code == 0 && ran.errors.contains("cannot write the outcome to the ledger deploy/releases.log"),
        "{}",
        ran.errors
    );
}

#[test]
fn beside_a_running_proxy_keeps_the_ledger_whole() {
    let (blue, green) = (good(), good());
    let cutover = super::harness::Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    std::thread::scope(|scope| {
        let smokes = scope
            .spawn(|| (0..10).for_each(|_| assert_eq!(cutover.cli(&["smoke", &url(&green)]).status.code(), Some(0))));
        (0..10).for_each(|n| drop(cutover.must_flip(if n % 2 == 0 { "green" } else { "blue" })));
        smokes.join().unwrap();
    });
    let ledger = cutover.ledger();
    assert!(ledger.lines().all(|line| line.starts_with("[20") && line.as_bytes()[21] == b']'), "{ledger}");
    assert_eq!(ledger.matches("] smoke ").count(), 10, "{ledger}");
    assert_eq!(ledger.matches("] flip app").count(), 10, "{ledger}");
}

mod containers {
    use super::*;

    const SERVE: &str = "mkdir /www; echo '{\"ready\": true}' >/www/readyz; echo ok >/www/healthz;
        echo '{\"service\":\"recall\",\"version\":\"sha-1\"}' >/www/version;";
    const CHECKED: &str = "    healthcheck: {test: [CMD, /bin/true], interval: 1s, timeout: 5s}\n";

    /// A project whose `api` is at this port.
    fn project(name: &str, port: u16, before: &str, settings: &str) -> Project {
        let ports = format!("    ports: ['127.0.0.1:{port}:80']\n");
        Project::up(name, &format!("{SERVE} {before} httpd -f -p 80 -h /www"), &format!("{ports}{settings}"))
    }

    fn is_possible() -> bool {
        have_docker() && box_image().is_some()
    }

    #[test]
    fn of_the_color_s_project_are_found_by_its_port() {
        if !is_possible() {
            return;
        }
        let (port, folder) = (free_port(), folder());
        let project = project("well", port, "", CHECKED);
        let env = format!("HOST_PORT={port}\nCOMPOSE_PROJECT_NAME={}\n", project.name);
        fs::write(folder.path().join(".env.green"), env).unwrap();
        let config = format!("[service.a]\nblue = {}\ngreen = {{ env_file = '.env.green' }}\n", free_port());
        fs::write(folder.path().join("cutover.toml"), config).unwrap();
        let ran = smoke(folder.path(), &[&format!("http://localhost:{port}"), "--expect-version", "sha-1"]);
        assert_eq!(ran.code, 0, "{:?} {}", ran.said, ran.errors);
        let name = format!("{}-api-1", project.name);
        for line in [format!("Checking container {name}"), format!("Checking the log of {name} for errors")] {
            assert!(ran.said.contains(&line), "{line}: {:?}", ran.said);
        }
        let ran = smoke(folder.path(), &[&format!("http://127.0.0.1:{port}"), "--no-container"]);
        assert_eq!((ran.code, ran.said.len()), (0, 5), "{:?}", ran.said);
    }

    #[test]
    fn that_are_not_well_fail_the_test() {
        if !is_possible() {
            return;
        }
        let ill = "    healthcheck: {test: [CMD, /bin/false], interval: 1s, timeout: 5s, retries: 1}\n";
        let noise = "for n in 1 2 3 4 5 6; do echo \"ERROR in app: $$n\"; done;";
        // It is up long enough to answer, and not to stay.
        let dying = "sleep 2 && kill -9 $$$$ &";
        let restarting = format!("    restart: always\n{CHECKED}");
        for (name, before, settings, check, why) in [
            ("unhealthy", "", ill, "container", "is unhealthy, not healthy"),
            ("unchecked", "", "", "container", "has no health check"),
            (
                "noisy",
                noise,
                CHECKED,
                "log",
                "logged 6 errors in the last minute, more than 5; the last: ERROR in app: 6",
            ),
            ("crashing", dying, &restarting, "container", "restart"),
        ] {
            let (port, folder) = (free_port(), folder());
            let project = project(name, port, before, settings);
            let args = [&format!("http://127.0.0.1:{port}"), "--project", &project.name, "--timeout", "5s"];
            if name == "crashing" {
                let container = format!("{}-api-1", project.name);
                eventually("it crashed three times", || restarts(&container) >= 3);
            }
            let ran = smoke(folder.path(), &args);
            assert_eq!(ran.code, 1, "{name}: {:?}", ran.said);
            assert!(ran.said.last().unwrap().contains(why), "{name}: {:?}", ran.said);
            assert!(ledger(folder.path())[0].contains(&format!("failed check={check} ")), "{name}");
            if name == "noisy" {
                assert_eq!(smoke(folder.path(), &[&args[..], &["--max-errors", "6"]].concat()).code, 0, "{name}");
            }
        }
    }

    fn restarts(container: &str) -> u64 {
        let folder = Path::new("/");
        let said = super::super::harness::docker(&["inspect", "-f", "{{.RestartCount}}", container], folder);
        said.trim().parse().unwrap()
    }

    #[test]
    fn that_are_not_there_fail_the_test_at_once() {
        if !have_docker() {
            return;
        }
        let (app, folder) = (good(), folder());
        for (args, why) in [
            (["--project", "cutover-test-nobody"], "no container of api in the Compose project cutover-test-nobody"),
            (["--container", "cutover-test-nobody"], "No such container: cutover-test-nobody"),
        ] {
            let ran = smoke(folder.path(), &[&[&*url(&app), "--timeout", "10m"], &args[..]].concat());
            let last = ran.said.last().unwrap();
            assert!(ran.code == 1 && last.contains(why), "{last}");
        }
    }
}

#[test]
fn is_patient_with_a_listener_that_says_nothing() {
    let (silent, folder) = (TcpListener::bind("127.0.0.1:0").unwrap(), folder());
    let url = format!("http://{}", silent.local_addr().unwrap());
    let ran = smoke(folder.path(), &[&url, "--timeout", "1s"]);
    assert!(ran.code == 1 && ran.said.last().unwrap().contains("no response within"), "{:?}", ran.said);
}
