//! A static file that the active color does not have is asked of the other one, for as long as that is up.

use super::harness::{Answer, Conn, Cutover, Setup, Upstream, eventually, plain};

const FILE: &str = "/assets/app-BxY3k9Qz.js";

/// Answers 404 to everything but what is in `files`, which is the name of the color in its own path.
fn serve(color: &'static str, files: &'static [&'static str]) -> Upstream {
    Upstream::start(move |conn| serve_on(conn, color, files))
}

fn serve_on(conn: &mut Conn, color: &str, files: &[&str]) -> std::io::Result<()> {
    loop {
        let request = conn.request()?;
        conn.body(&request)?;
        let path = request.target().split('?').next().unwrap_or_default();
        let status = match (files.contains(&path), request.header("if-none-match")) {
            (true, Some(_)) => "304 Not Modified",
            (true, None) => "200 OK",
            (false, _) => "404 Not Found",
        };
        let body = if status.starts_with("304") { String::new() } else { format!("{color} {path}") };
        let shown = if request.head.starts_with("HEAD") { "" } else { &body };
        let head = format!("HTTP/1.1 {status}\r\nX-Color: {color}\r\nContent-Length: {}\r\n\r\n", body.len());
        conn.send(head + shown)?;
    }
}

/// Blue is active and has no files; green has one.
fn skewed(setup: impl FnOnce(Setup) -> Setup) -> (Cutover, Upstream, Upstream) {
    let (blue, green) = (serve("blue", &[]), serve("green", &[FILE, "/page", "/build/7/a.js"]));
    (setup(Setup::of(&blue, &green)).start(), blue, green)
}

fn told(answer: &Answer) -> (u16, &str, Option<&str>) {
    (answer.status, answer.header("x-color").unwrap_or(""), answer.header("x-cutover-skew"))
}

fn answers(cutover: &Cutover, color: &str) -> u64 {
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let sample = format!("cutover_skew_answers_total{{service=\"app\",color=\"{color}\"}} ");
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(&sample)).expect("the sample");
    value.parse().expect("a number")
}

#[test]
fn a_file_named_by_its_content_is_answered_by_the_color_that_has_it() {
    let (cutover, blue, green) =
        skewed(|setup| setup.set("log.access", "'json'").set("log.access_file", "'access.log'"));
    let mut client = cutover.client();
    for (method, more, want, body) in [
        ("GET", "", 200, "green /assets/app-BxY3k9Qz.js"),
        ("HEAD", "", 200, ""),
        ("GET", "If-None-Match: \"1\"\r\n", 304, ""),
    ] {
        let answer = client.ask(&format!("{method} {FILE}?v=1 HTTP/1.1\r\nHost: app\r\n{more}\r\n"));
        assert_eq!((told(&answer), answer.text()), ((want, "green", Some("green")), body), "{method} {more}");
    }
    assert_eq!(told(&client.ask("GET /page HTTP/1.1\r\nHost: app\r\n\r\n")), (404, "blue", None), "kept connection");
    assert_eq!((answers(&cutover, "green"), answers(&cutover, "blue")), (3, 0));
    assert_eq!(blue.text().matches(FILE).count(), 3, "the active color is asked first");
    assert_eq!(green.text().matches(FILE).count(), 3);
    eventually("all is logged", || cutover.file("access.log").lines().count() == 4);
    let log = cutover.file("access.log");
    assert_eq!(log.matches(r#""end":"skew""#).count(), 3, "{log}");
    assert_eq!(log.matches(r#""color":"green""#).count(), 3, "{log}");
    let app = cutover.app();
    assert_eq!((&app["colors"]["green"]["in_flight"], &app["colors"]["green"]["requests"]), (&0.into(), &3.into()));
}

#[test]
fn any_other_404_is_passed_on_and_the_other_color_is_not_asked() {
    let (cutover, _blue, green) = skewed(|setup| setup);
    let mut client = cutover.client();
    for request in [
        "GET /page HTTP/1.1\r\nHost: app\r\n\r\n".to_owned(),
        "GET /assets/app.js HTTP/1.1\r\nHost: app\r\n\r\n".to_owned(),
        "GET /build/7/a.js HTTP/1.1\r\nHost: app\r\n\r\n".to_owned(),
        format!("POST {FILE} HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi"),
        format!("OPTIONS {FILE} HTTP/1.1\r\nHost: app\r\n\r\n"),
        format!("GET /x?{FILE} HTTP/1.1\r\nHost: app\r\n\r\n"),
    ] {
        assert_eq!(told(&client.ask(&request)), (404, "blue", None), "{request}");
    }
    assert_eq!(green.text(), "");
}

#[test]
fn a_file_that_neither_has_is_the_first_color_s_404() {
    let (cutover, _blue, green) = skewed(|setup| setup);
    let missing = "GET /app.3f9a1c2e.css HTTP/1.1\r\nHost: app\r\n\r\n";
    let mut client = cutover.client();
    for _ in 0..3 {
        let answer = client.ask(missing);
        assert_eq!((told(&answer), answer.text()), ((404, "blue", None), "blue /app.3f9a1c2e.css"));
    }
    assert_eq!(green.text().matches("/app.3f9a1c2e.css").count(), 3);
    for broken in ["500 Internal Server Error", "302"] {
        green.behave(move |conn| {
            conn.request()?;
            conn.send(if broken == "302" { "not HTTP".to_owned() } else { format!("HTTP/1.1 {broken}\r\n\r\n") })
        });
        green.stop_connections();
        assert_eq!(told(&client.ask(missing)), (404, "blue", None), "{broken}");
    }
    assert_eq!(answers(&cutover, "green"), 0);
}

#[test]
fn a_color_that_is_not_up_is_not_asked() {
    let (cutover, _blue, mut green) = skewed(|setup| setup);
    green.be_ready(false);
    cutover.until_app("green is not ready", |app| app["colors"]["green"]["ready"] == false);
    assert_eq!(told(&cutover.get(FILE)), (404, "blue", None));
    assert_eq!(green.text(), "");
    green.be_ready(true);
    cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
    green.stop();
    assert_eq!(told(&cutover.get(FILE)), (404, "blue", None), "stopped, and perhaps no probe has found out");
}

#[test]
fn it_works_in_a_watch_as_well_and_is_no_evidence() {
    let (blue, green) = (serve("blue", &[FILE]), serve("green", &[]));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'60s'").start();
    cutover.must_flip("green");
    for _ in 0..20 {
        assert_eq!(told(&cutover.get(FILE)), (200, "blue", Some("blue")));
    }
    let app = cutover.until_app("all count", |app| app["watch"]["answered"] == 20);
    assert_eq!((&app["watch"]["failed"], &app["phase"]), (&0.into(), &"watching".into()), "{app}");
    assert_eq!(answers(&cutover, "blue"), 20);
}

#[test]
fn the_config_names_more_files_or_switches_it_off() {
    let (mut cutover, _blue, green) = skewed(|setup| setup.set("service.app.skew_shield.paths", "['/build/**']"));
    assert_eq!(told(&cutover.get("/build/7/a.js")), (200, "green", Some("green")));
    assert_eq!(told(&cutover.get("/page")), (404, "blue", None));
    cutover.configure("service.app.skew_shield.enabled", "false");
    assert_eq!(cutover.cli_code(&["reload"]).0, 0);
    green.forget();
    assert_eq!(told(&cutover.get("/build/7/a.js")), (404, "blue", None));
    assert_eq!(green.text(), "");
}

#[test]
fn a_large_file_streams_and_a_flood_is_bounded() {
    let (cutover, _blue, green) = skewed(|setup| setup.set("proxy.workers", "1"));
    let body = "x".repeat(3 << 20);
    let answer = plain("200 OK", &body);
    green.behave(move |conn| conn.answer_all(&answer));
    green.stop_connections();
    assert_eq!(cutover.get(FILE).body.len(), body.len());
    green.behave(|conn| serve_on(conn, "green", &[]));
    green.stop_connections();
    green.forget();
    let mut client = cutover.client();
    for _ in 0..400 {
        assert_eq!(client.ask(&format!("GET {FILE} HTTP/1.1\r\nHost: app\r\n\r\n")).status, 404);
    }
    let asked = green.text().matches(FILE).count();
    assert!((255..=300).contains(&asked), "256 and a tenth of the requests: {asked}");
}
