//! What is known of each color, and why.

use serde_json::json;

use crate::harness::{Setup, Upstream};

#[test]
fn a_failing_probe_says_why() {
    for (answer, want) in [
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"ready\":false}", "\"ready\": false"),
        ("", "timed out after 200ms"),
    ] {
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        green.answer_probes(answer);
        let cutover = Setup::of(&blue, &green).set("service.app.health.timeout", "'200ms'").start_unready();
        cutover.until_app(want, |app| app["colors"]["green"]["upstreams"][0]["reason"] == want);
    }
}

#[test]
fn one_failed_probe_closes_the_gate_but_takes_no_traffic_away() {
    let (mut blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.health.fall", 1000).start();
    blue.stop();
    let app = cutover
        .until_app("a probe has failed", |app| app["colors"]["blue"]["upstreams"][0]["reason"] == "connection refused");
    assert_eq!(app["colors"]["blue"]["upstreams"][0]["ready"], true, "one of a thousand: {app}");
    assert_eq!(app["colors"]["blue"]["ready"], false, "but nobody is sent there now: {app}");
    cutover.must_flip("green");
    assert_eq!(cutover.flip("blue").1["error"]["code"], "not_ready");
}

#[test]
fn a_color_is_ready_when_all_of_its_upstreams_are() {
    let (one, other, green) = (Upstream::saying("one"), Upstream::saying("other"), Upstream::saying("green"));
    let cutover = Setup::of(&green, &one).service("app", &[&green], &[&one, &other]).start();
    other.be_ready(false);
    let app = cutover.until_app("green is not ready", |app| app["colors"]["green"]["ready"] == false);
    assert_eq!(app["colors"]["green"]["upstreams"][0]["ready"], true, "{app}");
    assert_eq!(cutover.flip("green").0, 409);
    other.be_ready(true);
    cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
    cutover.must_flip("green");
}

#[test]
fn what_an_env_file_says_is_shown_and_read_again() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::stopped());
    let mut cutover = Setup::of(&blue, &green).start_unready();
    let env = |port: u16, tag: &str| {
        format!(
            "export HOST_PORT=\"{port}\"\r\n# a comment\r\nIMAGE_TAG='{tag}' # c\r\nCOMPOSE_PROJECT_NAME=app-green\r\n"
        )
    };
    std::fs::write(cutover.path("green.env"), env(green.port, "sha-1")).unwrap();
    cutover.configure("service.app.green", "{ env_file = 'green.env' }");
    assert_eq!(cutover.admin("POST", "/v1/reload", &json!({})).0, 200);
    let app = cutover
        .until_app("green was probed", |app| app["colors"]["green"]["upstreams"][0]["reason"] == "connection refused");
    let shown = &app["colors"]["green"];
    assert_eq!(shown["upstreams"][0]["address"], format!("127.0.0.1:{}", green.port));
    assert_eq!((&shown["image_tag"], &shown["project"]), (&json!("sha-1"), &json!("app-green")));
    // The next release has another port, and nobody touches the config.
    let next = Upstream::saying("next");
    std::fs::write(cutover.path("green.env"), env(next.port, "sha-2")).unwrap();
    assert_eq!(cutover.admin("POST", "/v1/reload", &json!({})).0, 200);
    cutover.until_app("the new one is ready", |app| {
        app["colors"]["green"]["image_tag"] == "sha-2" && app["colors"]["green"]["ready"] == true
    });
    cutover.must_flip("green");
    assert_eq!(cutover.get("/").text(), "next");
}
