//! A real Flask application with Flask-Migrate on a real PostgreSQL, deployed by the shipped Compose file: what the
//! defaults of `deploy.migrate` are made for.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::none_failed;
use super::shipped::Server;
use crate::harness::{Client, Load, docker, have, have_docker, try_docker};

const REQUIRED: (&str, &str) = ("deploy.migrate.required", "true");

/// Builds the images, once per run of the tests; not where the machine has no Debian packages to make them of.
fn have_images() -> bool {
    if !have_docker() || !have("dpkg") || !have("pg_ctlcluster") {
        return false;
    }
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = Command::new("bash").arg("tests/images/flask/build.sh").current_dir(root).output();
        let built = built.expect("bash starts");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    });
    true
}

/// The database: a Compose project of its own, in a network of its own. Both go when dropped.
struct Database(String);

impl Database {
    fn name() -> String {
        format!("cutover-flask-{}-data", std::process::id())
    }

    /// The words that run a command in its container.
    fn exec(&self, words: &[&str]) -> Vec<String> {
        let first = ["compose", "-f", "deploy/docker-compose.yml", "--env-file", "deploy/.env.blue", "-p", &self.0];
        [&first[..], &["exec", "-T", "postgres"], words].concat().into_iter().map(String::from).collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        try_docker(&["compose", "-p", &self.0, "down", "--volumes", "--timeout", "0"], Path::new("/"));
        try_docker(&["network", "rm", &self.0], Path::new("/"));
    }
}

#[test]
fn a_flask_application_is_migrated_and_its_data_are_safe() {
    if !have_images() {
        return;
    }
    let database = Database(Database::name()); // dropped last: its network is the colors' too
    let dump = database.exec(&["pg_dump", "--username", "recall", "recall"]);
    let dump = serde_json::to_string(&[&["docker".to_owned()][..], &dump].concat()).unwrap();
    let url = "postgresql+psycopg://recall:hush@postgres:5432/recall";
    let mut server = Server::prepared(
        "flask",
        &[
            REQUIRED,
            ("deploy.backup.command", &dump),
            ("deploy.ready_timeout", "'120s'"),
            ("monitor.projects", &format!("['{}']", database.0)),
        ],
        &[
            ("IMAGE_REPO", "cutover-flask"),
            ("POSTGRES_IMAGE", "cutover-postgres:test"),
            ("POSTGRES_PASSWORD", "hush"),
            ("DATABASE_URL", url),
            ("DATA_NETWORK", &database.0),
            ("DATA_NETWORK_EXTERNAL", "true"),
        ],
    );
    let folder = server.cutover.dir.path().to_owned();
    docker(&["network", "create", &database.0], &folder);
    server.compose(&["-p", &database.0, "up", "--detach", "--wait", "postgres"]);
    server.start();
    server.compose(&["exec", "-T", "api", "flask", "db", "upgrade"]);
    let mut client = Client::connect(server.cutover.port());
    for _ in 0..2 {
        let answer = client.ask("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nbread");
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let psql = |statement: &str| {
        let words = database.exec(&["psql", "--username", "recall", "--tuples-only", "--no-align", "-c", statement]);
        docker(&words.iter().map(String::as_str).collect::<Vec<_>>(), &folder).trim().to_owned()
    };
    let revision = || psql("SELECT version_num FROM alembic_version");
    assert_eq!(revision(), "0001");
    let deploy = |tag: &str| server.cutover.cli_code(&["deploy", "--image-tag", tag]);

    let (code, said) = server.cutover.cli_code(&["monitor", "--over", "1s"]);
    assert_eq!(code, 0, "{said}");
    let postgres = format!("{}-postgres-1 is healthy", database.0);
    assert!(said.contains(&postgres) && said.contains("-api-1: CPU ") && said.contains("MiB"), "{said}");

    let load = Load::of_gets(server.cutover.port(), 4);
    let (code, said) = deploy("sha-2");
    assert_eq!(code, 0, "{said}");
    assert_eq!((revision().as_str(), server.cutover.get("/").text().trim()), ("0002", r#"["bread","bread"]"#));
    let snapshot = only_snapshot(&server.cutover.path("backups"));
    assert!(snapshot.contains("COPY public.note (id, text) FROM stdin;\n1\tbread\n2\tbread\n"), "{snapshot}");

    let (code, said) = deploy("sha-3");
    assert!(code == 1 && said.contains("note_text_once"), "the database says why: {code} {said}");
    assert_eq!(revision(), "0002", "a migration is one transaction");
    assert_eq!(psql("SELECT count(*) FROM information_schema.columns WHERE column_name = 'gone'"), "0");
    none_failed(load);

    let load = Load::of_gets(server.cutover.port(), 4);
    let (code, said) = deploy("sha-4");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("green does not work with the migration") && said.contains(".snapshot"), "{said}");
    drop(load.end()); // the old release fails of the schema: no proxy can help
    let app = server.cutover.app();
    assert_eq!((&app["active"], &app["epoch"]), (&"green".into(), &2.into()), "no traffic went to it");
    let ledger = server.cutover.file("deploy/releases.log");
    assert!(!ledger.contains("hush") && !said.contains("hush"), "{ledger}");
}

fn only_snapshot(folder: &Path) -> String {
    let entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    fs::read_to_string(&entries[0]).unwrap()
}
