//! The watch after a flip, end to end: a bad release is taken back, and nothing else is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::json;

use super::harness::{Cutover, Load, Setup, Upstream, eventually, plain};

const BROKEN: &str = "500 Internal Server Error";

/// Both colors good, with some good traffic behind blue, which is the yardstick.
fn start(window: &str) -> (Cutover, Upstream, Upstream) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.watch.window", format!("'{window}'")).start();
    for _ in 0..20 {
        assert_eq!(cutover.get("/").text(), "blue");
    }
    (cutover, blue, green)
}

fn break_it(upstream: &Upstream) {
    upstream.behave(|conn| conn.answer_all(&plain(BROKEN, "broken")));
    upstream.stop_connections();
}

mod takes_back {
    use super::*;

    /// What a release does wrong.
    type Fault = fn(&Upstream);

    #[test]
    fn whatever_is_no_answer_or_a_5xx() {
        let faults: [(&str, Fault); 4] = [
            ("5xx", break_it),
            ("no answer", |green| {
                green.behave(|conn| conn.request().map(drop));
                green.stop_connections();
            }),
            ("a broken body", |green| {
                green.behave(|conn| {
                    conn.request()?;
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                });
                green.stop_connections();
            }),
            ("garbage", |green| {
                green.behave(|conn| {
                    conn.request()?;
                    conn.send("SSH-2.0-OpenSSH_9.6\r\n\r\n")
                });
                green.stop_connections();
            }),
        ];
        for (case, fault) in faults {
            let (cutover, _blue, green) = start("60s");
            fault(&green);
            cutover.must_flip("green");
            for _ in 0..100 {
                let _ = cutover.client().send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").try_answer(false);
                if cutover.app()["active"] == "blue" {
                    break;
                }
            }
            let app = cutover.until_app(&format!("{case} is taken back"), |app| app["active"] == "blue");
            assert_eq!((&app["phase"], &app["epoch"]), (&json!("rolled_back"), &json!(3)), "{case}");
            assert_eq!(cutover.get("/").text(), "blue", "{case}");
        }
    }

    #[test]
    fn and_says_why_everywhere() {
        let (cutover, _blue, green) = start("60s");
        break_it(&green);
        let output = std::thread::scope(|scope| {
            // The verb waits for the drain of blue only, so its exit code may be 0 or, if it was quick, 4.
            let flip = scope.spawn(|| cutover.cli_code(&["flip", "green"]));
            eventually("it was taken back", || {
                cutover.get("/");
                cutover.app()["phase"] == "rolled_back"
            });
            flip.join().unwrap()
        });
        assert!(matches!(output.0, 0 | 4), "{output:?}");
        let app = cutover.app();
        assert!(app["last_verdict"].to_string().contains("failed"), "{app}");
        assert!(app["summary"].to_string().contains("green"), "{app}");
        eventually("the ledger says why", || {
            cutover.ledger().lines().any(|line| {
                line.contains("rollback app: green -> blue")
                    && line.contains("reason=verdict")
                    && line.contains("requests failed")
            })
        });
        let metrics = cutover.admin_with("GET", "/metrics", "", "");
        let counted = r#"cutover_flips_total{service="app",to="blue",reason="verdict"} 1"#;
        assert!(metrics.text().contains(counted), "{}", metrics.text());
        let (code, screen) = cutover.cli_code(&["status"]);
        assert!(code == 0 && screen.contains("failed"), "{screen}");
    }

    #[test]
    fn under_load_and_nobody_fails_after() {
        let (cutover, _blue, green) = start("60s");
        let load = Load::start(cutover.port(), 4);
        break_it(&green);
        cutover.must_flip("green");
        cutover.until_app("it is taken back", |app| app["phase"] == "rolled_back");
        let (_, failures) = load.end();
        assert!(failures.iter().all(|failure| failure.contains("500 Internal Server Error")), "{failures:?}");
        let after = Load::start(cutover.port(), 4);
        eventually("some more were answered", || after.answered() > 200);
        assert_eq!(after.end().1, Vec::<String>::new());
    }

    #[test]
    fn and_nothing_moves_until_somebody_flips() {
        let (cutover, _blue, green) = start("60s");
        break_it(&green);
        cutover.must_flip("green");
        eventually("it was taken back", || {
            cutover.get("/");
            cutover.app()["phase"] == "rolled_back"
        });
        let (status, refused) = cutover.admin("POST", "/v1/services/app/rollback", &json!({}));
        assert_eq!((status, &refused["error"]["code"]), (409, &json!("nothing_to_roll_back")), "not to the bad one");
        cutover.signal(libc::SIGHUP);
        cutover.admin("POST", "/v1/reload", &json!({}));
        assert_eq!(cutover.app()["active"], "blue");
        green.behave(|conn| conn.answer_all(&plain("200 OK", "mended")));
        green.stop_connections();
        cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
        cutover.must_flip("green");
        assert_eq!((cutover.get("/").text(), &cutover.app()["phase"]), ("mended", &json!("watching")));
    }
}

mod does_not_take_back {
    use super::*;

    #[test]
    fn without_traffic() {
        let (cutover, _blue, green) = start("300ms");
        break_it(&green);
        cutover.must_flip("green");
        let app = cutover.until_app("the watch is over", |app| app["phase"] == "steady");
        assert_eq!((&app["active"], &app["epoch"]), (&json!("green"), &json!(2)));
        assert!(app["last_verdict"].to_string().contains("not enough traffic"), "{app}");
        eventually("the ledger does not call it a success", || {
            cutover.ledger().contains("verdict app: green not-enough-traffic")
        });
        let page = cutover.admin_with("GET", "/metrics", "", "");
        let metrics = page.text();
        assert!(metrics.contains(r#"cutover_watch_ends_total{service="app",end="not-enough-traffic"} 1"#), "{metrics}");
    }

    #[test]
    fn a_release_that_answers_well() {
        let (cutover, _blue, _green) = start("3s");
        let load = Load::start(cutover.port(), 2);
        cutover.must_flip("green");
        let app = cutover.until_app("the watch is over", |app| app["phase"] == "steady");
        let (_, failures) = load.end();
        assert_eq!((&app["active"], failures), (&json!("green"), Vec::new()));
        eventually("the ledger says keep", || cutover.ledger().contains("verdict app: green keep"));
    }

    #[test]
    fn what_is_no_worse_than_before() {
        let (cutover, blue, green) = start("10m");
        break_it(&blue);
        break_it(&green);
        for _ in 0..100 {
            assert_eq!(cutover.get("/").status, 500);
        }
        cutover.must_flip("green");
        // A doubt, which may come and go, sends some of them to blue.
        let app = cutover.until_app("a hundred were counted", |app| {
            assert_eq!(cutover.get("/").status, 500);
            app["watch"]["answered"].as_u64() >= Some(100)
        });
        assert_eq!((&app["active"], &app["phase"]), (&json!("green"), &json!("watching")), "{app}");
    }

    #[test]
    fn to_a_color_that_is_not_up() {
        let (cutover, mut blue, green) = start("60s");
        break_it(&green);
        cutover.must_flip("green");
        blue.stop();
        cutover.until_app("blue is down", |app| app["colors"]["blue"]["ready"] == false);
        for _ in 0..60 {
            assert_eq!(cutover.get("/").status, 500);
        }
        let app = cutover.until_app("all were counted", |app| app["watch"]["failed"] == 60);
        assert_eq!(app["active"], "green", "two broken colors are no reason to swap them");
        blue.restart();
        eventually("it is taken back as soon as there is somewhere to go", || {
            cutover.get("/");
            cutover.app()["phase"] == "rolled_back"
        });
    }

    #[test]
    fn for_4xx_and_for_clients_that_leave() {
        let (cutover, _blue, green) = start("60s");
        let slow = Arc::new(AtomicU64::new(0));
        let begun = Arc::clone(&slow);
        green.behave(move |conn| -> io::Result<()> {
            loop {
                let request = conn.request()?;
                if request.target() == "/slow" {
                    begun.fetch_add(1, Relaxed);
                    conn.rest()?;
                }
                conn.send(plain("404 Not Found", ""))?;
            }
        });
        green.stop_connections();
        cutover.must_flip("green");
        for _ in 0..50 {
            assert_eq!(cutover.get("/").status, 404);
        }
        for n in 1..=30 {
            let mut client = cutover.client();
            client.send("GET /slow HTTP/1.1\r\nHost: app\r\n\r\n");
            eventually("it has arrived", || slow.load(Relaxed) == n);
            // A reset: a client that has only closed its side might still read.
            socket2::SockRef::from(client.stream()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
        let app = cutover.until_app("all have ended", |app| app["colors"]["green"]["in_flight"] == 0);
        assert_eq!((&app["watch"]["failed"], &app["phase"]), (&json!(0), &json!("watching")), "{app}");
    }

    #[test]
    fn because_of_the_old_color_s_late_failures() {
        let (cutover, blue, _green) = start("60s");
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        blue.behave(move |conn| {
            conn.request()?;
            let _ = released.lock().unwrap().recv();
            conn.send(plain(BROKEN, "late"))
        });
        blue.stop_connections();
        let mut late: Vec<_> = (0..30).map(|_| cutover.client()).collect();
        for client in &mut late {
            client.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
        }
        cutover.until_app("they are in flight", |app| app["colors"]["blue"]["in_flight"] == 30);
        let (status, _) = cutover.admin("POST", "/v1/services/app/flip", &json!({"to": "green", "wait": false}));
        assert_eq!(status, 200);
        drop(release);
        for client in &mut late {
            assert_eq!(client.answer().status, 500);
        }
        cutover.until_app("blue is drained", |app| app["colors"]["blue"]["in_flight"] == 0);
        assert_eq!(cutover.get("/").text(), "green");
        let app = cutover.until_app("it was counted", |app| app["watch"]["answered"] == 1);
        assert_eq!((&app["watch"]["failed"], &app["active"]), (&json!(0), &json!("green")), "{app}");
    }
}

#[test]
fn a_rollback_by_hand_is_instant_and_ends_the_watch() {
    let (cutover, _blue, green) = start("60s");
    cutover.must_flip("green");
    green.be_ready(false);
    let (code, said) = cutover.cli_code(&["rollback"]);
    assert_eq!(code, 0, "{said}");
    let app = cutover.app();
    assert_eq!((&app["active"], &app["epoch"], &app["watch"]), (&json!("blue"), &json!(3), &json!(null)));
    assert_eq!(cutover.get("/").text(), "blue");
    assert!(cutover.ledger().contains("rollback app: green -> blue epoch=3 reason=operator"), "{}", cutover.ledger());
    assert_eq!(cutover.cli_code(&["rollback"]).0, 3, "there is nothing before this any more");
}

#[test]
fn a_flip_to_the_active_color_during_a_watch_is_refused() {
    let (cutover, _blue, _green) = start("60s");
    cutover.must_flip("green");
    let (status, refused) = cutover.flip("green");
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("cutover_under_way")), "{refused}");
    assert_eq!(cutover.cli_code(&["flip", "green"]).0, 5);
    cutover.must_flip("blue");
    assert_eq!(cutover.get("/").text(), "blue");
}

/// What a watch does short of a verdict.
mod holds {
    use std::time::Duration;

    use super::*;

    fn until_ledger(cutover: &Cutover, word: &str, mut ask: impl FnMut()) {
        for _ in 0..600 {
            ask();
            if cutover.ledger().contains(word) {
                return;
            }
        }
        panic!("no {word} in the ledger:\n{}", cutover.ledger());
    }

    #[test]
    fn when_both_colors_fail() {
        let (cutover, blue, green) = start("60s");
        cutover.must_flip("green");
        break_it(&blue);
        break_it(&green);
        until_ledger(&cutover, "green shared-fault", || drop(cutover.get("/")));
        let app = cutover.app();
        assert_eq!((&app["active"], &app["phase"]), (&json!("green"), &json!("watching")));
    }

    #[test]
    fn when_one_client_alone_fails() {
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        let cutover = Setup::of(&blue, &green).set("proxy.trusted_proxies", "['127.0.0.0/8']");
        // A busy machine makes any answer slow, and this is about failures.
        let cutover = cutover.set("service.app.watch.slow_factor", 0).set("service.app.watch.warm_up", "'0s'").start();
        green.behave(|conn| {
            loop {
                let request = conn.request()?;
                let answer =
                    if request.target().contains("broken") { plain(BROKEN, "") } else { plain("200 OK", "green") };
                conn.send(&answer)?;
            }
        });
        for _ in 0..200 {
            cutover.get("/");
        }
        cutover.must_flip("green");
        let mut client = cutover.client();
        let mut ask = |path: &str, who: u8| {
            client.ask(&format!(
                "POST {path} HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 10.0.0.{who}\r\nContent-Length: 0\r\n\r\n"
            ))
        };
        until_ledger(&cutover, "green client-set-aside", || {
            for who in 1..=5 {
                ask("/", who);
            }
            ask("/broken", 77);
        });
        for _ in 0..100 {
            ask("/broken", 77);
        }
        let app = cutover.app();
        assert_eq!((&app["active"], &app["phase"]), (&json!("green"), &json!("watching")));
    }

    #[test]
    fn most_of_the_traffic_back_while_it_doubts() {
        let (cutover, _blue, green) = start("60s");
        for _ in 0..200 {
            cutover.get("/");
        }
        let good = Arc::new(AtomicU64::new(0));
        let turn = Arc::clone(&good);
        // Four failures, and then all is well: a doubt and no verdict.
        green.behave(move |conn| {
            loop {
                conn.request()?;
                let is_bad = turn.fetch_add(1, Relaxed) < 4;
                conn.send(&if is_bad { plain(BROKEN, "") } else { plain("200 OK", "green") })?;
            }
        });
        green.stop_connections();
        cutover.must_flip("green");
        until_ledger(&cutover, "green doubted", || drop(cutover.get("/")));
        let blue: usize = (0..100).filter(|_| cutover.get("/").text() == "blue").count();
        assert!((60..=99).contains(&blue), "blue answered {blue} of 100");
        assert_eq!(cutover.app()["active"], "green");
    }

    #[test]
    fn no_longer_when_answers_are_slow() {
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        let cutover = Setup::of(&blue, &green).set("service.app.watch.warm_up", "'0s'").start();
        for _ in 0..400 {
            cutover.get("/");
        }
        green.behave(|conn| {
            loop {
                conn.request()?;
                std::thread::sleep(Duration::from_millis(150));
                conn.send(plain("200 OK", "green"))?;
            }
        });
        green.stop_connections();
        cutover.must_flip("green");
        let load = Load::start(cutover.port(), 8);
        let app = cutover.until_app("the slow color is taken back", |app| app["active"] == "blue");
        load.end();
        assert!(app["last_verdict"].as_str().is_some_and(|why| why.contains("took longer than")), "{app}");
        let path = app["evidence_file"].as_str().expect("a file is named");
        eventually("it names slow requests", || {
            let case: serde_json::Value = serde_json::from_str(&cutover.file(path)).unwrap_or_default();
            let first = &case["first_slow_requests"][0];
            first["status"] == 200 && first["milliseconds"].as_f64() >= Some(150.0)
        });
    }
}
