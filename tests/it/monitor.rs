//! `cutover monitor`: the runbook's checklist, with what is well, what is not, and what cannot be known.

use std::net::TcpListener;

use serde_json::Value;

use super::harness::{Cutover, Setup, Upstream, eventually, free_port};

fn look(cutover: &Cutover) -> (i32, Value) {
    let (code, said) = cutover.cli_code(&["monitor", "--over", "300ms", "--json"]);
    let found: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    (code, found["services"]["app"].clone())
}

fn standing<'v>(items: &'v Value, name: &str) -> (&'v str, String) {
    let item = items.as_array().unwrap().iter().find(|item| item["name"] == name).unwrap();
    (item["standing"].as_str().unwrap(), item["findings"].to_string())
}

#[test]
fn says_that_all_is_well() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp://{}", database.local_addr().unwrap());
    let setup = Setup::of(&blue, &green)
        .set("service.app.monitor.urls", format!("['http://127.0.0.1:{}/', '{tcp}']", green.port));
    let cutover = setup.start();
    let (code, items) = look(&cutover);
    assert_eq!(code, 0, "{items}");
    assert_eq!(standing(&items, "errors").0, "ok");
    assert_eq!(standing(&items, "resources"), ("none", r#"["no color runs in Compose on this machine"]"#.into()));
    let (word, said) = standing(&items, "dependencies");
    assert!(word == "ok" && said.contains("answers 200") && said.contains("accepts connections"), "{said}");
    assert_eq!(standing(&items, "alerts").0, "none", "{items}");
    let (code, text) = cutover.cli_code(&["monitor", "app", "--over", "100ms"]);
    assert!(code == 0 && text.contains("  ok       errors") && text.contains("blue: no request"), "{text}");
}

#[test]
fn names_what_is_not_well() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let answer = r#"{"status":"success","data":{"alerts":[
        {"state":"firing","labels":{"alertname":"CutoverDown"},"annotations":{"summary":"nobody answers"}},
        {"state":"pending","labels":{"alertname":"Other"},"annotations":{}}]}}"#;
    let prometheus = Upstream::answering(super::harness::plain("200 OK", answer));
    let setup = Setup::of(&blue, &green)
        .set("service.app.monitor.urls", format!("['tcp://127.0.0.1:{}']", free_port()))
        .set("service.app.monitor.prometheus", format!("'http://127.0.0.1:{}'", prometheus.port));
    let cutover = setup.start();
    blue.behave(|conn| conn.answer_all(&super::harness::plain("500 Internal Server Error", "")));
    blue.stop_connections();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..60 {
                cutover.get("/");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        eventually("the errors are seen", || {
            let (code, items) = look(&cutover);
            let (word, said) = standing(&items, "errors");
            code == 1 && word == "bad" && said.contains("blue: ") && said.contains("requests failed")
        });
        asking.join().unwrap();
    });
    let (code, items) = look(&cutover);
    assert_eq!(code, 1);
    assert_eq!(standing(&items, "dependencies").0, "bad", "{items}");
    assert_eq!(standing(&items, "alerts"), ("bad", r#"["CutoverDown fires: nobody answers"]"#.into()));
}

#[test]
fn does_not_take_for_well_what_it_cannot_know() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green)
        .set("service.app.monitor.projects", "['no-such-project-anywhere']")
        .set("service.app.monitor.prometheus", format!("'http://127.0.0.1:{}'", free_port()));
    let cutover = setup.start();
    let (code, items) = look(&cutover);
    assert_eq!(code, 1, "{items}");
    assert_eq!(standing(&items, "dependencies").0, "unknown", "{items}");
    assert_eq!(standing(&items, "alerts").0, "unknown", "{items}");
}

#[test]
fn is_blind_without_a_proxy_and_says_so_by_its_exit_code() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).prepared();
    let (code, said) = cutover.cli_code(&["monitor", "--over", "100ms"]);
    assert!(code == 6 && said.contains("no answer from 127.0.0.1:"), "{code} {said}");
}

#[test]
fn and_a_deploy_that_do_not_have_the_token_are_a_matter_of_the_config() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut setup = Setup::of(&blue, &green).file("token", "one\n").set("admin.token_file", "'token'");
    for (color, port) in [("blue", blue.port), ("green", green.port)] {
        let env = format!("COMPOSE_PROJECT_NAME=a_{color}\nHOST_PORT={port}\nIMAGE_TAG=sha-1\n");
        let name = format!(".env.{color}");
        setup = setup.file(&name, &env).set(&format!("service.app.{color}"), format!("{{ env_file = '{name}' }}"));
    }
    let cutover = setup.start_unready();
    cutover.write("token", "another\n");
    for args in [&["monitor", "--over", "100ms"][..], &["deploy", "--image-tag", "sha-2"], &["status"]] {
        let (code, said) = cutover.cli_code(args);
        assert!(code == 2 && said.contains("token_file"), "{args:?}: {code} {said}");
    }
}

#[test]
fn an_active_color_that_is_down_is_a_problem_everywhere() {
    let (mut blue, mut green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).start();
    green.stop();
    cutover.until_app("green is down", |app| app["colors"]["green"]["ready"] == false);
    assert_eq!(look(&cutover).0, 0, "the idle color may be stopped");
    blue.stop();
    let problem = "no upstream of blue is ready";
    eventually("the status says so", || cutover.status()["problems"].to_string().contains(problem));
    assert_eq!(cutover.get("/").status, 502);
    let (code, items) = look(&cutover);
    let (word, said) = standing(&items, "alerts");
    assert!(code == 1 && word == "bad" && said.contains(problem) && said.contains("start blue again"), "{items}");
    let is_error = |line: &str| line.contains("\"ERROR\"") && line.contains(problem);
    assert_eq!(cutover.log().lines().filter(|line| is_error(line)).count(), 1, "{}", cutover.log());
    green.restart();
    eventually("the way out is named", || {
        cutover.status()["problems"].to_string().contains("`cutover flip app green` moves the traffic there")
    });
    cutover.must_flip("green");
    assert_eq!(cutover.status()["problems"], serde_json::json!([]));
}
