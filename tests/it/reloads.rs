//! A config that changes, breaks and is mended while it is in force.

use serde_json::json;

use crate::harness::{Cutover, Load, Setup, Upstream, eventually};

fn two() -> (Upstream, Upstream, Cutover) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).start();
    (blue, green, cutover)
}

#[test]
fn move_a_color_s_address_without_a_failed_request() {
    let (blue, _green, mut cutover) = two();
    let moved = Upstream::saying("moved");
    let load = Load::start(cutover.port(), 4);
    for target in [&moved, &blue, &moved] {
        let before = target.text().matches("/load ").count();
        cutover.configure("service.app.blue", format!("'127.0.0.1:{}'", target.port));
        cutover.signal(libc::SIGHUP);
        eventually("traffic is there", || target.text().matches("/load ").count() > before + 50);
    }
    let (_, failures) = load.end();
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(cutover.app()["epoch"], 1, "the color is the same");
}

/// By the signal and by the file alone, also some at once, with what they change taken back again and again.
#[test]
fn in_any_number_fail_no_request() {
    let (_blue, _green, mut cutover) = two();
    let load = Load::start(cutover.port(), 4);
    let bad = |cutover: &mut Cutover| {
        let good = cutover.setup.clone();
        cutover.configure("service.app.active", "'grene'");
        cutover.signal(libc::SIGHUP);
        cutover.setup = good;
    };
    for round in 0_u32..60 {
        cutover.configure("service.app.drain.timeout", format!("'{}s'", 1 + round % 7));
        cutover.configure("service.app.upstream.idle_timeout", format!("'{}s'", 1 + round % 3));
        match round % 4 {
            0 => (0..5).for_each(|_| cutover.signal(libc::SIGHUP)),
            1 => bad(&mut cutover),
            2 => drop(cutover.admin("POST", "/v1/reload", &json!({}))),
            _ => {}
        }
        let before = load.answered();
        eventually("requests go on", || load.answered() > before + 20);
    }
    cutover.configure("service.app.drain.timeout", "'9s'");
    eventually("the last one is in force", || cutover.status()["problems"] == json!([]));
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{answered} answered, {failures:?}");
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let name = "cutover_config_reloads_total{result=\"ok\"} ";
    let loaded: f64 =
        metrics.text().lines().find_map(|line| line.strip_prefix(name)).expect("the metric").parse().unwrap();
    assert!(loaded > 20.0, "{loaded}");
    assert_eq!(cutover.app()["epoch"], 1);
}

#[test]
fn of_a_file_that_comes_back_mend_what_was_said() {
    let (_blue, _green, cutover) = two();
    std::fs::remove_file(cutover.path("cutover.toml")).unwrap();
    eventually("its absence is said", || cutover.status()["problems"].to_string().contains("cutover.toml"));
    cutover.must_flip("green");
    cutover.write_config();
    eventually("it is well again", || cutover.status()["problems"] == json!([]));
    assert_eq!(cutover.app()["active"], "green", "a file that comes back is no flip");
}

/// Within the time in which several writes are taken for one, the content is again what the file watch knew; but it is
/// not what was loaded last.
#[test]
fn of_a_file_that_is_mended_at_once_forget_its_problem() {
    let (_blue, _green, mut cutover) = two();
    let good = cutover.setup.clone();
    cutover.configure("service.app.active", "'grene'");
    assert_eq!(cutover.admin("POST", "/v1/reload", &json!({})).0, 422);
    cutover.setup = good;
    cutover.write_config();
    eventually("it is well again", || cutover.status()["problems"] == json!([]));
}

#[test]
fn that_were_taken_back_at_once_are_in_force() {
    let (_blue, _green, mut cutover) = two();
    let before = cutover.setup.clone();
    cutover.configure("service.app.active", "'green'");
    cutover.signal(libc::SIGHUP);
    cutover.until_app("green is active", |app| app["active"] == "green");
    cutover.setup = before;
    cutover.write_config();
    cutover.until_app("the file says blue, and so it is", |app| app["active"] == "blue");
}

#[test]
fn that_fail_do_not_close_the_way_back() {
    let (_blue, _green, mut cutover) = two();
    cutover.must_flip("green");
    cutover.configure("service.app.health.interval", "'soon'");
    cutover.signal(libc::SIGHUP);
    eventually("it was refused", || cutover.log().contains("config refused (HUP)"));
    let (code, said) = cutover.cli_code(&["status"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = cutover.cli_code(&["rollback"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cutover.get("/").text(), "blue");
}

#[test]
fn that_fail_are_counted_and_change_nothing() {
    let (_blue, _green, mut cutover) = two();
    cutover.configure("service.app.active", "'grene'");
    let (code, said) = cutover.cli_code(&["reload"]);
    assert!(code == 2 && said.contains("cutover.toml:") && said.contains("grene"), "{code} {said}");
    cutover.signal(libc::SIGHUP);
    eventually("HUP was refused too", || cutover.log().contains("config refused (HUP)"));
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let name = "cutover_config_reloads_total{result=\"failed\"} ";
    let failed = metrics.text().lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
    assert!(failed.parse::<f64>().unwrap() >= 2.0, "{failed}");
    assert_eq!(cutover.get("/").text(), "blue");
}

/// The file watch hears of the new file only after it has been loaded, and must not take what it finds for that.
#[test]
fn do_not_miss_an_env_file_that_changes_right_after_it_was_named() {
    let (_blue, _green, mut cutover) = two();
    let env = |tag: &str| format!("HOST_PORT={}\nIMAGE_TAG={tag}\n", crate::harness::free_port());
    std::fs::write(cutover.path("green.env"), env("sha-1")).unwrap();
    cutover.configure("service.app.green", "{ env_file = 'green.env' }");
    assert_eq!(cutover.admin("POST", "/v1/reload", &json!({})).0, 200);
    assert_eq!(cutover.app()["colors"]["green"]["image_tag"], "sha-1");
    std::fs::write(cutover.path("green.env"), env("sha-2")).unwrap();
    cutover.until_app("the second one is in force", |app| app["colors"]["green"]["image_tag"] == "sha-2");
}
