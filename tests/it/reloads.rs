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
    assert!(code == 0 && said.contains("green active"), "{code} {said}");
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
