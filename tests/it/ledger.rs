//! The ledger on the disk: append-only, one line a thing that happened, whatever else touches the file.

use std::fs;

use serde_json::json;

use super::harness::{Cutover, Setup, Upstream, eventually};

#[test]
fn is_only_appended_to() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    cutover.must_flip("green");
    let first = cutover.ledger();
    assert!(first.contains("flip app: blue -> green epoch=2 reason=operator"), "{first}");
    cutover.kill();
    // A line that a crash tore is ended, not continued.
    fs::write(cutover.path("releases.log"), format!("{first}[2026-01-01T00:00:00Z] flip a")).unwrap();
    cutover.run();
    cutover.until_app("blue is ready", |app| app["colors"]["blue"]["ready"] == true);
    cutover.must_flip("blue");
    let second = cutover.ledger();
    assert!(second.starts_with(&first), "{second}");
    assert!(second.contains("flip a\n["), "{second}");
    for line in second.lines() {
        let stamp = line.strip_prefix('[').and_then(|line| line.split_once(']')).map(|(stamp, _)| stamp);
        assert!(stamp.is_some_and(|stamp| stamp.len() == 20 && stamp.ends_with('Z')), "{line}");
    }
}

#[test]
fn may_be_rotated_while_it_is_written() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    cutover.must_flip("green");
    fs::rename(cutover.path("releases.log"), cutover.path("releases.log.1")).unwrap();
    cutover.must_flip("blue");
    assert!(cutover.file("releases.log.1").contains("blue -> green"));
    assert!(cutover.ledger().contains("green -> blue") && !cutover.ledger().contains("blue -> green"));
}

#[test]
fn has_one_line_for_what_somebody_says_of_himself() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    let by = "me\n[2026-01-01T00:00:00Z] flip app: forged";
    let (status, _) = cutover.admin("POST", "/v1/services/app/flip", &json!({"to": "green", "by": by}));
    assert!(matches!(status, 200 | 400), "{status}");
    let flips = cutover.ledger().lines().filter(|line| line.contains("] flip app")).count();
    assert_eq!(flips, usize::from(status == 200), "{}", cutover.ledger());
}

#[test]
fn that_cannot_be_written_stops_no_flip_and_is_said() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    fs::create_dir(cutover.path("releases.log")).unwrap();
    cutover.must_flip("green");
    assert_eq!(cutover.get("/").text(), "green");
    eventually("the status says so", || cutover.status()["problems"].to_string().contains("releases.log"));
    assert!(
        metrics(&cutover).contains("\ncutover_ledger_ok 0\n") && metrics(&cutover).contains("\ncutover_problems 1\n")
    );
    fs::remove_dir(cutover.path("releases.log")).unwrap();
    cutover.must_flip("blue");
    assert_eq!(cutover.status()["problems"], json!([]));
    assert!(
        metrics(&cutover).contains("\ncutover_ledger_ok 1\n") && metrics(&cutover).contains("\ncutover_problems 0\n")
    );
}

fn metrics(cutover: &Cutover) -> String {
    cutover.admin_with("GET", "/metrics", "", "").text().to_owned()
}
