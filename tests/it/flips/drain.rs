//! What is in flight when the color changes.

use serde_json::json;

use super::{held, holding};
use crate::harness::{Setup, Upstream, eventually};

#[test]
fn requests_in_flight_finish_on_the_old_color_and_flip_waits_for_them() {
    let (blue, go) = holding("blue");
    let green = Upstream::saying("green");
    let cutover = Setup::of(&blue, &green).start();
    let mut client = held(&cutover);
    let mut kept = cutover.client();
    assert_eq!(kept.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n").text(), "blue");
    std::thread::scope(|scope| {
        let flip = scope.spawn(|| cutover.must_flip("green"));
        cutover.until_app("green is active", |app| app["active"] == "green");
        assert_eq!(cutover.get("/").text(), "green", "new connections go to the new color");
        assert_eq!(kept.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n").text(), "green", "and kept ones");
        let app = cutover.app();
        assert_eq!(app["colors"]["blue"]["in_flight"], 1, "{app}");
        assert!(!flip.is_finished(), "flip waits for the drain");
        go.send(()).unwrap();
        let changed = flip.join().unwrap();
        assert_eq!(changed["drain"]["cut"], 0, "{changed}");
    });
    assert_eq!(client.answer().text(), "blue");
    assert!(cutover.ledger().contains("] drained app: blue epoch=1"), "{}", cutover.ledger());
}

#[test]
fn the_command_waits_too_and_says_what_is_held() {
    let (blue, go) = holding("blue");
    let green = Upstream::saying("green");
    let cutover = Setup::of(&blue, &green).start();
    let mut client = held(&cutover);
    std::thread::scope(|scope| {
        let flip = scope.spawn(|| cutover.cli_code(&["flip", "green"]));
        cutover.until_app("green is active", |app| app["active"] == "green");
        assert!(!flip.is_finished());
        go.send(()).unwrap();
        let (code, said) = flip.join().unwrap();
        assert!(code == 0 && said.contains("blue drained"), "{code} {said}");
    });
    assert_eq!(client.answer().text(), "blue");
}

#[test]
fn without_waiting_flip_returns_at_once_and_drain_waits() {
    let (blue, go) = holding("blue");
    let green = Upstream::saying("green");
    let cutover = Setup::of(&blue, &green).start();
    let mut client = held(&cutover);
    let (code, said) = cutover.cli_code(&["flip", "green", "--no-wait"]);
    assert!(code == 0 && said.contains("not waiting"), "{code} {said}");
    assert_eq!(cutover.app()["colors"]["blue"]["in_flight"], 1, "it came back before the drain");
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| cutover.cli_code(&["drain"]));
        let by_api = scope.spawn(|| cutover.admin("POST", "/v1/services/app/drain", &json!({})));
        std::thread::sleep(std::time::Duration::from_millis(100)); // long enough to have come back wrongly
        assert!(!drain.is_finished() && !by_api.is_finished());
        go.send(()).unwrap();
        assert_eq!(drain.join().unwrap().0, 0);
        assert_eq!(by_api.join().unwrap().0, 200);
    });
    assert_eq!(client.answer().text(), "blue");
}

#[test]
fn past_its_deadline_the_rest_is_cut() {
    let (blue, _go) = holding("blue");
    let green = Upstream::saying("green");
    let cutover = Setup::of(&blue, &green).set("service.app.drain.timeout", "'200ms'").start();
    let mut client = held(&cutover);
    let changed = cutover.must_flip("green");
    assert_eq!(changed["drain"]["cut"], 1, "{changed}");
    assert_eq!(client.answer().status, 503, "nothing of an answer was sent yet");
    eventually("the ledger says so", || cutover.ledger().contains(" cut=1"));
    assert_eq!(cutover.get("/").text(), "green");
}

#[test]
fn past_its_deadline_a_tunnel_and_half_an_answer_are_cut() {
    let blue = Upstream::start(|conn| {
        let request = conn.request()?;
        if request.header("upgrade").is_some() {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")?;
        } else {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")?;
        }
        conn.rest().map(drop)
    });
    let green = Upstream::saying("green");
    let cutover = Setup::of(&blue, &green).set("service.app.drain.timeout", "'200ms'").start();
    let (mut tunnel, mut half) = (cutover.client(), cutover.client());
    tunnel.send("GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    half.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    assert!(tunnel.head().unwrap().contains(" 101 ") && half.head().unwrap().contains(" 200 "));
    assert_eq!(cutover.must_flip("green")["drain"]["cut"], 2);
    assert!(tunnel.rest().0.is_empty());
    assert!(half.rest().0.len() < 10, "a part, and then the end");
}

#[test]
fn a_late_failure_of_the_old_color_is_not_the_new_one_s() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let blue = Upstream::start(move |conn| {
        conn.request()?;
        let _ = gone.lock().unwrap().recv();
        conn.send(crate::harness::plain("500 Internal Server Error", "late"))
    });
    let green = Upstream::saying("green");
    let cutover = Setup::of(&blue, &green).start();
    let mut clients: Vec<_> = (0..20).map(|_| cutover.client()).collect();
    for client in &mut clients {
        client.send(super::HOLD);
    }
    cutover.until_app("all are held", |app| app["colors"]["blue"]["in_flight"] == 20);
    std::thread::scope(|scope| {
        let flip = scope.spawn(|| cutover.must_flip("green"));
        cutover.until_app("green is active", |app| app["active"] == "green");
        drop(go);
        flip.join().unwrap();
    });
    assert!(clients.iter_mut().all(|client| client.answer().status == 500));
    let app = cutover.app();
    assert_eq!((&app["active"], &app["phase"]), (&json!("green"), &json!("watching")), "{app}");
    assert_eq!((&app["colors"]["blue"]["errors"], &app["colors"]["green"]["errors"]), (&json!(20), &json!(0)));
    assert_eq!((&app["watch"]["failed"], &app["watch"]["evidence"]), (&json!(0), &json!(0.0)), "{app}");
}
