//! The promise: a good release costs no request.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::two_colors;
use crate::harness::{Cutover, Load, Setup, Upstream, eventually};

#[test]
fn by_all_ways_cost_no_request() {
    let (_blue, _green, mut cutover) = two_colors();
    let load = Load::start(cutover.port(), 4);
    let mut epoch = 1;
    for _ in 0..12 {
        for way in ["cli", "api", "hup"] {
            let to = if epoch % 2 == 1 { "green" } else { "blue" };
            let before = load.answered();
            match way {
                "cli" => assert_eq!(cutover.cli_code(&["flip", to]).0, 0),
                "api" => drop(cutover.must_flip(to)),
                _ => {
                    // Three ways and two colors: it always differs from the value last loaded.
                    cutover.configure("service.app.active", format!("'{to}'"));
                    cutover.signal(libc::SIGHUP);
                }
            }
            epoch += 1;
            cutover.until_app("it has flipped", |app| app["epoch"] == epoch && app["active"] == to);
            eventually("the load goes on", || load.answered() > before + 20);
        }
    }
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{} of {answered} failed: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
    assert_eq!(cutover.app()["epoch"], 37);
}

/// Load the route, then count: between the two a drain could see nobody, and the old color be stopped. Here it really
/// is stopped, at every "drained".
#[test]
fn with_the_old_color_stopped_at_every_drained_cost_no_request() {
    let (mut blue, mut green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.health.interval", "'10ms'").start();
    let load = Load::start(cutover.port(), 4);
    let until = Instant::now() + Duration::from_secs(4);
    let mut flips = 0;
    while flips < 50 || Instant::now() < until {
        let (to, old) = if flips % 2 == 0 { ("green", &mut blue) } else { ("blue", &mut green) };
        let changed = force_flip(&cutover, to);
        old.stop();
        assert_eq!(changed["drain"]["cut"], 0);
        old.restart();
        flips += 1;
    }
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{} of {answered} failed: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
    assert!(answered > 500, "{answered} requests prove nothing");
    assert_eq!(cutover.app()["epoch"], flips + 1);
}

/// The target has just been started, and a probe that met it before may still say otherwise.
fn force_flip(cutover: &Cutover, to: &str) -> Value {
    let (status, changed) = cutover.admin("POST", "/v1/services/app/flip", &json!({"to": to, "force": true}));
    assert_eq!(status, 200, "{changed}");
    changed
}

#[test]
fn the_same_with_slow_answers_and_uploads() {
    let slow = |name: &'static str| {
        Upstream::start(move |conn| {
            loop {
                let request = conn.request()?;
                conn.body(&request)?;
                conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for _ in 0..3 {
                    std::thread::sleep(Duration::from_millis(3));
                    conn.send(format!("{:x}\r\n{name}\r\n", name.len()))?;
                }
                conn.send("0\r\n\r\n")?;
            }
        })
    };
    let (mut blue, mut green) = (slow("blue"), slow("green"));
    let cutover = Setup::of(&blue, &green).set("service.app.health.interval", "'10ms'").start();
    let load = Load::start(cutover.port(), 8);
    for flip in 0..40 {
        let (to, old) = if flip % 2 == 0 { ("green", &mut blue) } else { ("blue", &mut green) };
        force_flip(&cutover, to);
        old.stop();
        old.restart();
    }
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{} of {answered} failed: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
}
