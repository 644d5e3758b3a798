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

/// A ledger of a few flips, whose proxy has ended.
fn of_four_flips() -> (Cutover, Vec<String>) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
    for to in ["green", "blue", "green", "blue"] {
        cutover.must_flip(to);
    }
    cutover.signal(libc::SIGTERM);
    assert!(cutover.ended().success());
    let lines = cutover.ledger().lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(lines.len() >= 8, "{lines:#?}");
    (cutover, lines)
}

#[test]
fn is_proved_to_be_whole_or_the_line_that_is_not_is_named() {
    let (cutover, lines) = of_four_flips();
    let (code, said) = cutover.cli_code(&["ledger", "verify"]);
    assert!(code == 0 && said.contains("none was changed"), "{code} {said}");
    let write = |lines: &[String]| fs::write(cutover.path("releases.log"), lines.join("\n") + "\n").unwrap();
    let edited = |at: usize, from: &str, to: &str| {
        let mut lines = lines.clone();
        assert!(lines[at].contains(from), "{}", lines[at]);
        lines[at] = lines[at].replace(from, to);
        lines
    };
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat();
    let swapped = || {
        let mut lines = lines.clone();
        lines.swap(2, 3);
        lines
    };
    let last = lines.len() - 1;
    for (case, lines, line, what) in [
        ("edited", edited(2, "app", "api"), 3, "edited"),
        ("the time", edited(1, "[20", "[19"), 2, "edited"),
        ("removed", without(3), 4, "before it is gone"),
        (
            "put in",
            [&lines[..2], &["[2026-01-01T00:00:00Z] flip app: forged".into()], &lines[2..]].concat(),
            3,
            "inserted",
        ),
        ("in another order", swapped(), 4, "out of order"),
        ("twice", [&lines[..3], &lines[2..]].concat(), 4, "is in line"),
        ("cut off at the end", lines[..last].to_vec(), last, "gone"),
    ] {
        write(&lines);
        let (code, said) = cutover.cli_code(&["ledger", "verify"]);
        let named = said.lines().any(|said| said.contains(&format!("releases.log:{line}: ")) && said.contains(what));
        assert!(code == 1 && named, "{case}: {code} {said}");
    }
    fs::write(cutover.path("releases.log"), lines.join("\n") + "\n[2026-01-01T00:00:00Z] flip a").unwrap();
    let (code, said) = cutover.cli_code(&["ledger", "verify"]);
    assert!(code == 1 && said.contains("torn"), "{code} {said}");
}

#[test]
fn of_a_version_without_a_chain_goes_on_with_one() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut setup = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'");
    setup = setup.file("releases.log", "[2026-01-01T00:00:00Z] flip app: blue -> green epoch=2\n");
    let cutover = setup.start();
    let (code, said) = cutover.cli_code(&["ledger", "verify"]);
    assert!(code == 0 && said.contains("none of 1 lines is chained"), "{code} {said}");
    cutover.must_flip("green");
    eventually("the drain is there too", || cutover.ledger().contains("drained"));
    let (code, said) = cutover.cli_code(&["ledger", "verify"]);
    assert!(code == 0 && said.contains("from line 2 on"), "{code} {said}");
    let forged = cutover.ledger().replacen("epoch=2", "epoch=3", 1);
    fs::write(cutover.path("releases.log"), forged).unwrap();
    let (code, said) = cutover.cli_code(&["ledger", "verify"]);
    assert!(code == 1 && said.contains("edited"), "what was there before is covered as well: {code} {said}");
}

#[test]
fn is_shown_without_its_chain_and_by_service() {
    let (cutover, lines) = of_four_flips();
    let (code, said) = cutover.cli_code(&["ledger", "--service", "app", "-n", "2"]);
    assert!(code == 0 && said.lines().count() == 2 && !said.contains("chain="), "{said}");
    assert!(lines.iter().all(|line| line.contains(" chain=")), "{lines:#?}");
    let (_, said) = cutover.cli_code(&["ledger", "--service", "other"]);
    assert!(said.contains("has no such lines yet"), "{said}");
}
