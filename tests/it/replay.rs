//! During a watch, what fails on the new color is answered by the old one, where that can do no harm.

use super::harness::{Cutover, Setup, Upstream, eventually, plain};

const BROKEN: &str = "500 Internal Server Error";

/// Blue is well, green answers 500 and is active; nothing takes it back within the test, and the watch runs.
fn watched(setup: impl FnOnce(Setup) -> Setup) -> (Cutover, Upstream, Upstream) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = setup(Setup::of(&blue, &green).set("service.app.watch.window", "'60s'"));
    let cutover = setup.start();
    green.behave(|conn| conn.answer_all(&plain(BROKEN, "broken")));
    green.stop_connections();
    cutover.must_flip("green");
    (cutover, blue, green)
}

fn answer(cutover: &Cutover, request: &str) -> (u16, Option<String>, String) {
    let mut client = cutover.client();
    client.send(request);
    let answer = client.try_answer(false).unwrap();
    (answer.status, answer.header("x-cutover-replayed").map(str::to_owned), answer.text().to_owned())
}

#[test]
fn a_get_that_failed_is_answered_by_the_standby_and_says_so() {
    let (cutover, _blue, _green) = watched(|setup| setup);
    let got = answer(&cutover, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    assert_eq!(got, (200, Some("blue".into()), "blue".into()));
    let app = cutover.until_app("the failure counts", |app| app["watch"]["failed"] == 1);
    assert_eq!(app["colors"]["green"]["errors"], 1, "{app}");
    let counted = r#"cutover_replays_total{service="app",result="answered"} 1"#;
    // The client may have its answer a moment before it is counted.
    eventually("the replay counts", || cutover.admin_with("GET", "/metrics", "", "").text().contains(counted));
}

#[test]
fn a_post_is_not_repeated() {
    let (cutover, blue, _green) = watched(|setup| setup);
    let post = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(answer(&cutover, post), (500, None, "broken".into()));
    assert!(!blue.text().contains("POST"));
}

#[test]
fn a_put_is_repeated_where_the_config_allows_it() {
    let put = "PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi";
    let (cutover, _blue, _green) = watched(|setup| setup);
    assert_eq!(answer(&cutover, put).0, 500);
    let (cutover, blue, _green) = watched(|setup| setup.set("service.app.replay.idempotent", "true"));
    assert_eq!(answer(&cutover, put), (200, Some("blue".into()), "blue".into()));
    assert!(blue.text().ends_with("\r\n\r\nhi"), "with its body");
}

#[test]
fn any_method_is_repeated_when_nothing_could_be_connected_to() {
    let (cutover, _blue, mut green) = watched(|setup| setup);
    green.stop();
    let post = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(answer(&cutover, post), (200, Some("blue".into()), "blue".into()));
}

#[test]
fn the_first_answer_is_passed_on_when_the_standby_is_gone() {
    let (cutover, mut blue, _green) = watched(|setup| setup);
    blue.stop();
    let got = answer(&cutover, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    assert_eq!(got, (500, None, "broken".into()));
}

#[test]
fn nothing_is_repeated_without_a_watch() {
    let (cutover, _blue, _green) = watched(|setup| setup.set("service.app.watch.window", "'0s'"));
    eventually("green is active", || cutover.app()["active"] == "green");
    assert_eq!(answer(&cutover, "GET / HTTP/1.1\r\nHost: app\r\n\r\n"), (500, None, "broken".into()));
}
