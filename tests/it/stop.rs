//! Signals, starts that fail, and a config that breaks while it is in force.

use serde_json::json;

use crate::harness::{Client, End, Setup, Upstream, eventually, plain};

fn holding() -> (Upstream, std::sync::mpsc::Sender<()>) {
    let (go, gone) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let upstream = Upstream::start(move |conn| {
        loop {
            if conn.request()?.target() == "/hold" {
                let _ = gone.lock().unwrap().recv();
            }
            conn.send(plain("200 OK", "done"))?;
        }
    });
    (upstream, go)
}

const HOLD: &str = "GET /hold HTTP/1.1\r\nHost: app\r\n\r\n";

#[test]
fn term_lets_requests_finish_and_says_so() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let (blue, go) = holding();
        let mut cutover = Setup::in_front_of(&blue).start();
        let (mut held, mut idle) = (cutover.client(), cutover.client());
        idle.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
        held.send(HOLD);
        cutover.until_app("it is held", |app| app["colors"]["blue"]["in_flight"] == 1);
        cutover.signal(signal);
        assert_eq!(idle.rest(), (Vec::new(), End::Closed), "an idle connection ends at once");
        eventually("nobody is accepted any more", || Client::try_connect(("127.0.0.1", cutover.port())).is_err());
        assert!(cutover.is_running());
        go.send(()).unwrap();
        let answer = held.answer();
        assert_eq!((answer.text(), answer.header("connection")), ("done", Some("close")));
        assert_eq!(cutover.ended().code(), Some(0));
        assert!(cutover.log().contains("stopped: all done"), "{}", cutover.log());
    }
}

#[test]
fn past_its_limit_the_rest_is_cut_and_counted() {
    let (blue, _go) = holding();
    let mut cutover = Setup::in_front_of(&blue).set("proxy.shutdown_timeout", "'300ms'").start();
    let mut held: Vec<_> = (0..3).map(|_| cutover.client()).collect();
    held.iter_mut().for_each(|client| drop(client.send(HOLD)));
    cutover.until_app("they are held", |app| app["colors"]["blue"]["in_flight"] == 3);
    cutover.signal(libc::SIGTERM);
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(cutover.log().contains("stopped: deadline, 3 cut"), "{}", cutover.log());
    for client in &mut held {
        let (rest, _) = client.rest();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn a_second_term_stops_now() {
    let (blue, _go) = holding();
    let mut cutover = Setup::in_front_of(&blue).set("proxy.shutdown_timeout", "'10m'").start();
    let mut held = cutover.client();
    held.send(HOLD);
    cutover.until_app("it is held", |app| app["colors"]["blue"]["in_flight"] == 1);
    cutover.signal(libc::SIGTERM);
    eventually("the first is heard", || cutover.log().contains("stopping"));
    assert!(cutover.is_running());
    cutover.signal(libc::SIGTERM);
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(cutover.log().contains("stopped: second signal, 1 cut"), "{}", cutover.log());
}

#[test]
fn a_tunnel_counts_as_a_request_in_flight() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")?;
        conn.rest().map(drop)
    });
    let mut cutover = Setup::in_front_of(&blue).set("proxy.shutdown_timeout", "'200ms'").start();
    let mut tunnel = cutover.client();
    tunnel.send("GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    tunnel.head().unwrap();
    cutover.signal(libc::SIGTERM);
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(cutover.log().contains("stopped: deadline, 1 cut"), "{}", cutover.log());
}

#[test]
fn a_taken_port_is_said_at_start() {
    let blue = Upstream::saying("ok");
    for key in ["proxy.listen", "admin.listen"] {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let value = if key == "proxy.listen" { format!("['{address}']") } else { format!("'{address}'") };
        let mut cutover = Setup::in_front_of(&blue).set(key, value).prepared();
        cutover.spawn();
        assert_eq!(cutover.ended().code(), Some(1), "{key}");
        let log = cutover.log();
        assert!(log.contains(&address.to_string()) && log.contains("in use") && log.contains(key), "{key}: {log}");
        assert!(!cutover.path("state").exists(), "{key}: nothing was changed");
    }
}

#[test]
fn a_deleted_config_changes_nothing() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).start();
    let text = std::fs::read_to_string(cutover.path("cutover.toml")).unwrap();
    std::fs::remove_file(cutover.path("cutover.toml")).unwrap();
    cutover.signal(libc::SIGHUP);
    eventually("it is said", || cutover.status()["problems"].to_string().contains("cutover.toml"));
    assert_eq!(cutover.get("/").text(), "blue");
    cutover.must_flip("green");
    assert_eq!(cutover.get("/").text(), "green");
    eventually("the folder was seen too", || cutover.log().contains("(file change)"));
    std::fs::write(cutover.path("cutover.toml"), text).unwrap();
    eventually("it is well again", || cutover.status()["problems"] == json!([]));
    assert_eq!(cutover.app()["active"], "green");
}

#[test]
fn a_bad_config_keeps_the_one_in_force() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).start();
    let good = cutover.setup.clone();
    cutover.configure("service.app.active", "'grene'");
    let (status, refused) = cutover.admin("POST", "/v1/reload", &json!({}));
    assert_eq!((status, &refused["error"]["code"]), (422, &json!("bad_config")), "{refused}");
    assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("cutover.toml:")), "{refused}");
    let (code, said) = cutover.cli_code(&["reload"]);
    assert!(code == 2 && said.contains("cutover.toml:"), "{code} {said}");
    cutover.signal(libc::SIGHUP);
    eventually("HUP was refused too", || cutover.log().contains("(HUP)"));
    assert_eq!(cutover.get("/").text(), "blue");
    assert!(cutover.status()["problems"].to_string().contains("cutover.toml"), "{}", cutover.status()["problems"]);
    let metrics = cutover.admin_with("GET", "/metrics", "", "");
    let failed = "cutover_config_reloads_total{result=\"failed\"} ";
    let failed = metrics.text().lines().find_map(|line| line.strip_prefix(failed)).unwrap().to_owned();
    assert!(failed.parse::<f64>().unwrap() >= 3.0, "{failed}");
    eventually("the file was seen too", || cutover.log().contains("(file change)"));
    cutover.setup = good;
    cutover.write_config();
    eventually("it is well again", || cutover.status()["problems"] == json!([]));
}

/// Within the time in which several writes are taken for one: the content is the one that the file watch knew, but not
/// the one that was loaded last.
#[test]
fn a_bad_config_that_is_mended_at_once_is_forgotten() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).start();
    let good = cutover.setup.clone();
    cutover.configure("service.app.active", "'grene'");
    assert_eq!(cutover.admin("POST", "/v1/reload", &json!({})).0, 422);
    cutover.setup = good;
    cutover.write_config();
    eventually("it is well again", || cutover.status()["problems"] == json!([]));
}

#[test]
fn a_reload_moves_a_color_s_address_without_a_failed_request() {
    let (blue, green, moved) = (Upstream::saying("blue"), Upstream::saying("green"), Upstream::saying("moved"));
    let mut cutover = Setup::of(&blue, &green).start();
    let load = crate::harness::Load::start(cutover.port(), 4);
    for target in [&moved, &blue, &moved] {
        cutover.configure("service.app.blue", format!("'127.0.0.1:{}'", target.port));
        cutover.signal(libc::SIGHUP);
        let before = target.text().matches("/load ").count();
        eventually("traffic is there", || target.text().matches("/load ").count() > before + 50);
    }
    let (_, failures) = load.end();
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(cutover.app()["epoch"], 1, "the color is the same");
}

#[test]
fn a_changed_listener_needs_a_restart_and_says_so() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).start();
    let port = crate::harness::free_port();
    cutover.configure("proxy.listen", format!("['127.0.0.1:{port}']"));
    let (status, reloaded) = cutover.admin("POST", "/v1/reload", &json!({}));
    assert!(status == 200 && reloaded["changes"].to_string().contains("needs a restart"), "{status} {reloaded}");
    assert!(Client::try_connect(("127.0.0.1", port)).is_err());
    assert_eq!(cutover.get("/").text(), "blue");
}
