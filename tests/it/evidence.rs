//! What is known of a watch: on the screen while it runs, and in a file once it has taken a release back.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::harness::{Conn, Cutover, Load, Setup, Upstream, eventually, plain};

const BROKEN: &str = "500 Internal Server Error";

/// Some good traffic behind blue, which is the yardstick; then green is active and watched.
fn watched(green: Upstream, setup: impl FnOnce(Setup) -> Setup) -> (Cutover, [Upstream; 2]) {
    let blue = Upstream::saying("blue");
    let cutover = setup(Setup::of(&blue, &green).set("service.app.watch.window", "'60s'")).start();
    for _ in 0..20 {
        assert_eq!(cutover.get("/").text(), "blue");
    }
    cutover.must_flip("green");
    (cutover, [blue, green])
}

/// Answers 500 to targets that begin like this, and 200 to any other.
fn failing_at(start: &'static str) -> Upstream {
    Upstream::start(move |conn: &mut Conn| {
        loop {
            let request = conn.request()?;
            conn.body(&request)?;
            let status = if request.target().starts_with(start) { BROKEN } else { "200 OK" };
            conn.send(plain(status, "green"))?;
        }
    })
}

/// Asks for `request` until green is taken back.
fn until_taken_back(cutover: &Cutover, request: &str) -> Value {
    eventually("it is taken back", || {
        cutover.client().ask(request);
        cutover.app()["phase"] == "rolled_back"
    });
    cutover.app()
}

/// The file that the status names, once it is complete; and its text.
fn file_of(cutover: &Cutover) -> (Value, String) {
    let path = cutover.app()["evidence_file"].as_str().expect("a file is named").to_owned();
    let (mut case, mut text) = (Value::Null, String::new());
    eventually("the file is complete", || {
        text = cutover.file(&path);
        case = serde_json::from_str(&text).unwrap_or_default();
        case["no_log"].as_str().is_some_and(|why| why.starts_with("no log")) || case["log"][0].is_string()
    });
    (case, text)
}

#[test]
fn a_release_that_was_taken_back_has_a_file_that_says_why() {
    let (cutover, _colors) = watched(failing_at("/"), |setup| setup);
    let get = "GET /reset/7?token=s3cret&page=2 HTTP/1.1\r\nHost: app\r\nAuthorization: Bearer hush\r\n\r\n";
    for _ in 0..2 {
        cutover.client().ask("POST /orders HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi");
    }
    let app = until_taken_back(&cutover, get);
    let (case, text) = file_of(&cutover);
    let path = app["evidence_file"].as_str().unwrap();
    assert!(path.starts_with("evidence/20") && path.ends_with("Z-app-green-epoch2.json"), "{path}");
    assert_eq!(std::fs::metadata(cutover.path(path)).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!text.contains("s3cret") && !text.contains("hush"), "{text}");

    let requests = case["first_failed_requests"].as_array().unwrap();
    let of = |method: &str| requests.iter().find(|request| request["method"] == method).expect("it failed").clone();
    let (get, post) = (of("GET"), of("POST"));
    assert_eq!((&get["target"], &get["status"]), (&json!("/reset/7?token=*&page=*"), &json!(500)), "{text}");
    assert_eq!(
        (&get["replay"], &post["replay"], &post["target"]),
        (&json!("answered"), &json!("none"), &json!("/orders"))
    );
    let upstream = app["colors"]["green"]["upstreams"][0]["address"].clone();
    assert!(get["request_id"].as_str().is_some_and(|id| id.len() == 32) && get["upstream"] == upstream, "{get}");
    assert!(requests.len() <= 20 && get["milliseconds"].as_f64().is_some_and(|ms| ms > 0.0), "{text}");
    let line = text.lines().find(|line| line.contains("/orders")).unwrap();
    assert!(line.contains("\"POST\"") && line.contains("500"), "a request is one line: {line}");

    let (new, failures) = (&case["new_color"], &case["failures"]);
    assert!(new["bad"].as_u64().unwrap() >= 5 && new["begun"].as_u64() >= new["bad"].as_u64(), "{new}");
    assert!(failures["ln_evidence"].as_f64() >= failures["ln_needed"].as_f64(), "{failures}");
    assert_eq!((&case["finding"]["wrong"], &case["old_color_before"]["requests"]), (&json!("failing"), &json!(20.0)));
    assert!(
        case["replays"]["answered"].as_u64() > Some(0) && case["no_log"].to_string().contains("env_file"),
        "{text}"
    );

    eventually("the ledger names it", || {
        let ledger = cutover.ledger();
        ledger
            .lines()
            .any(|line| line.contains("rollback app: green -> blue") && line.contains(&format!("evidence={path}")))
    });
    for what in ["summary", "last_verdict"] {
        assert!(app[what].as_str().is_some_and(|said| said.contains("failed") && said.contains(path)), "{app}");
    }
    assert!(cutover.cli_code(&["status"]).1.contains(path));
}

#[test]
fn a_color_that_is_gone_is_described_by_its_fault() {
    let (cutover, [_blue, mut green]) =
        watched(Upstream::saying("green"), |setup| setup.set("service.app.health.fall", 1000));
    green.stop();
    until_taken_back(&cutover, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    let (case, text) = file_of(&cutover);
    let first = &case["first_failed_requests"][0];
    assert_eq!((&first["fault"], &first["status"]), (&json!("upstream_connect"), &Value::Null), "{text}");
    assert!(first["upstream"].as_str().is_some_and(|at| at.ends_with(&green.port.to_string())), "{text}");
    assert_eq!(case["new_color"]["refused"], case["new_color"]["bad"], "{text}");
}

#[test]
fn it_is_found_again_after_a_restart_and_forgotten_at_the_next_flip() {
    let (mut cutover, [_blue, green]) = watched(failing_at("/"), |setup| setup);
    let app = until_taken_back(&cutover, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    file_of(&cutover);
    eventually("it is saved", || cutover.file("state/app.json").contains("requests failed"));
    cutover.kill();
    cutover.run();
    assert_eq!(cutover.app()["evidence_file"], app["evidence_file"]);
    green.behave(|conn| conn.answer_all(&plain("200 OK", "mended")));
    green.stop_connections();
    cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
    cutover.must_flip("green");
    assert_eq!(cutover.app()["evidence_file"], Value::Null);
}

#[test]
fn a_folder_that_cannot_be_written_is_a_problem_and_no_obstacle() {
    let (cutover, _colors) = watched(failing_at("/"), |setup| setup.file("evidence", "a file, not a folder"));
    until_taken_back(&cutover, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    let problem = || cutover.status()["problems"].to_string();
    eventually("it is a problem", || problem().contains("evidence/"));
    assert!(problem().contains("rollback of app was made"), "{}", problem());
    assert_eq!(cutover.get("/").text(), "blue");
    eventually("the ledger says that it is not there", || cutover.ledger().contains("evidence app: not written why="));

    std::fs::remove_file(cutover.path("evidence")).unwrap();
    cutover.must_flip("green");
    until_taken_back(&cutover, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    file_of(&cutover);
    eventually("it is none any more", || cutover.status()["problems"] == json!([]));
}

#[test]
fn what_failed_before_all_was_calm_is_not_in_it() {
    let (cutover, [_blue, green]) = watched(failing_at("/early"), |setup| setup);
    assert_eq!(cutover.get("/early").text(), "blue", "replayed");
    cutover.until_app("it was counted", |app| app["watch"]["failed"] == 1);
    let load = Load::start(cutover.port(), 4);
    cutover.until_app("all is calm", |app| {
        app["watch"]["answered"].as_u64() > Some(500) && app["watch"]["evidence"] == 0.0
    });
    drop(load.end());
    green.behave(|conn| conn.answer_all(&plain(BROKEN, "broken")));
    green.stop_connections();
    until_taken_back(&cutover, "GET /late HTTP/1.1\r\nHost: app\r\n\r\n");
    let (case, text) = file_of(&cutover);
    assert!(case["first_failed_requests"].to_string().contains("/late") && !text.contains("/early"), "{text}");
}

#[test]
fn a_running_watch_is_shown() {
    let (cutover, _colors) = watched(failing_at("/"), |setup| setup.set("service.app.watch.min_failures", 1000));
    let get = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";
    eventually("it is doubted", || {
        cutover.client().ask(get);
        cutover.app()["watch"]["standing"] == "doubted" && cutover.app()["watch"]["old_color"].is_object()
    });
    let app = cutover.until_app("a replay counts", |app| app["watch"]["replays"]["answered"].as_u64() > Some(0));
    let watch = &app["watch"];
    assert!(watch["keeps_one_in"].as_u64().is_some_and(|n| (2..=10).contains(&n)), "{watch}");
    assert_eq!((&watch["tolerated"], &watch["old_color"]["failed"]), (&json!(0.05), &json!(0)), "{watch}");
    assert!(
        watch["notes"][0]["note"] == "doubted" && watch["notes"][0]["message"].to_string().contains("failed"),
        "{watch}"
    );
    let (code, screen) = cutover.cli_code(&["status"]);
    for words in ["doubted; 5.00 % are tolerated, it keeps one request in", "replays: ", "the old color failed 0 of"] {
        assert!(code == 0 && screen.contains(words), "{words}: {screen}");
    }
}

mod synthetic {
    use super::*;

    fn asking(setup: Setup) -> Setup {
        setup.set("service.app.watch.synthetic", "{ path = '/check?deep=1', interval = '20ms' }")
    }

    #[test]
    fn requests_find_a_broken_color_without_any_traffic() {
        let blue = Upstream::saying("blue");
        let green = failing_at("/check");
        let cutover = asking(Setup::of(&blue, &green).set("service.app.watch.window", "'60s'")).start();
        cutover.must_flip("green");
        cutover.until_app("it is taken back", |app| app["phase"] == "rolled_back");
        let (case, text) = file_of(&cutover);
        let first = &case["first_failed_requests"][0];
        assert_eq!((&first["synthetic"], &first["target"]), (&json!(true), &json!("/check?deep=*")), "{text}");
        let asked = &case["synthetic"];
        assert!(asked["new_color"]["failed"].as_u64() >= Some(5) && asked["old_color"]["failed"] == 0, "{asked}");
        assert_eq!(case["new_color"]["begun"], 0, "they are no requests of users");
        assert!(blue.text().to_lowercase().contains("x-cutover-synthetic: 1"), "{}", blue.text());
        let metrics = cutover.admin_with("GET", "/metrics", "", "");
        assert!(!metrics.text().contains("cutover_requests_total{"), "{}", metrics.text());
        // They end with the watch.
        green.forget();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(green.text(), "", "nobody asks any more");
    }

    #[test]
    fn requests_that_are_answered_well_keep_a_release() {
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        // It takes some hundred of them, which are late on a busy machine.
        let cutover = asking(Setup::of(&blue, &green).set("service.app.watch.window", "'10s'")).start();
        cutover.must_flip("green");
        let app = cutover.until_app("both are asked", |app| {
            let synthetic = &app["watch"]["synthetic"];
            [&synthetic["new_color"], &synthetic["old_color"]].iter().all(|side| side["answered"].as_u64() > Some(5))
        });
        assert_eq!(app["watch"]["synthetic"]["path"], "/check?deep=1");
        assert!(cutover.cli_code(&["status"]).1.contains("synthetic /check?deep=1: 0 of "));
        cutover.until_app("the watch is over", |app| app["verdict"] == "keep");
    }

    #[test]
    fn requests_that_fail_alone_take_nothing_back() {
        let (cutover, _colors) = watched(failing_at("/check"), asking);
        let load = Load::of_gets(cutover.port(), 4);
        let app = cutover.until_app("they are set aside", |app| app["watch"]["set_aside"] == json!(["client"]));
        assert_eq!((&app["active"], load.end().1), (&json!("green"), Vec::<String>::new()));
    }
}
