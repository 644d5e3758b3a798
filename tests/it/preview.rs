//! Whoever has a pass is answered by the idle color, under the real host name, and nobody else notices.

use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::harness::{Answer, Authority, Cutover, Setup, Upstream, eventually, free_port, plain, secured};

/// Blue is active, green is idle.
fn previewed(setup: impl FnOnce(Setup) -> Setup) -> (Cutover, Upstream, Upstream) {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup_of = Setup::of(&blue, &green).set("service.app.preview.enabled", "true");
    (setup(setup_of).start(), blue, green)
}

fn pass_of(cutover: &Cutover, service: &str, seconds: u64) -> String {
    let path = format!("/v1/services/{service}/preview");
    let (status, pass) = cutover.admin("POST", &path, &json!({ "for_seconds": seconds }));
    assert_eq!(status, 200, "{pass}");
    pass["token"].as_str().expect("a token").to_owned()
}

fn pass(cutover: &Cutover) -> String {
    pass_of(cutover, "app", 3600)
}

fn get(cutover: &Cutover, fields: &str) -> Answer {
    cutover.client().ask(&format!("GET / HTTP/1.1\r\nHost: app\r\n{fields}\r\n"))
}

fn with(pass: &str) -> String {
    format!("X-Cutover-Preview: {pass}\r\n")
}

fn metrics(cutover: &Cutover) -> String {
    cutover.admin_with("GET", "/metrics", "", "").text().to_owned()
}

#[test]
fn a_pass_leads_to_the_idle_color_by_header_and_by_cookie() {
    let (cutover, blue, green) = previewed(|setup| setup);
    let pass = pass(&cutover);
    assert_eq!(get(&cutover, "").text(), "blue");
    for fields in [with(&pass), format!("Cookie: a=1; cutover_preview={pass}; b=2\r\n")] {
        let answer = get(&cutover, &fields);
        assert_eq!((answer.status, answer.text()), (200, "green"), "{fields}");
        assert_eq!(answer.header("x-cutover-preview"), Some("green"));
        assert_eq!(answer.header("cache-control"), Some("private, no-store"));
        assert_eq!(answer.header("vary"), Some("Cookie, X-Cutover-Preview"));
    }
    let seen = green.text();
    assert!(!seen.contains(&pass) && !seen.contains("utover-"), "the application never sees a pass: {seen}");
    assert!(seen.contains("\r\nCookie: a=1; b=2\r\n"), "other cookies stay: {seen}");
    assert_eq!(get(&cutover, "").text(), "blue", "everybody else stays");
    assert!(!blue.text().contains("preview"), "{}", blue.text());
    for (color, count) in [("blue", 2), ("green", 2)] {
        let line =
            format!(r#"cutover_requests_total{{service="app",color="{color}",code_class="2xx",method="GET"}} {count}"#);
        eventually(&line, || metrics(&cutover).contains(&line)); // a request is counted just after its last byte
    }
}

#[test]
fn a_pass_that_is_no_good_changes_nothing_but_is_said() {
    let (b, nobody) = (Upstream::saying("b"), Upstream::stopped());
    let second = |setup: Setup| setup.service("b", &[&b], &[&nobody]).set("service.b.hosts", "['b']");
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = second(Setup::of(&blue, &green)).set("service.b.preview.enabled", "true");
    let cutover = setup.set("service.app.preview.enabled", "true").start_unready();
    cutover.until_app("both are ready", |app| app["colors"]["green"]["ready"] == true);
    let (pass, short, other) = (pass(&cutover), pass_of(&cutover, "app", 1), pass_of(&cutover, "b", 3600));
    let changed = pass.replacen(|c: char| c.is_ascii_digit(), "9", 1);
    eventually("its second has passed", || get(&cutover, &with(&short)).text() == "blue");
    for (case, pass, want) in [
        ("expired", &*short, "expired"),
        ("another service's", &*other, "invalid"),
        ("longer than it was made for", &*changed, "invalid"),
        ("nothing", "", "invalid"),
        ("anything", "let me in", "invalid"),
    ] {
        for fields in [with(pass), format!("Cookie: cutover_preview={pass}\r\n")] {
            let answer = get(&cutover, &fields);
            assert_eq!((answer.status, answer.text()), (200, "blue"), "{case}");
            assert_eq!(answer.header("x-cutover-preview"), Some(want), "{case}");
            assert_eq!(answer.header("cache-control"), Some("private, no-store"), "no cache keeps the note: {case}");
        }
    }
    let seen = blue.text().to_lowercase();
    assert!(!seen.contains("preview") && !seen.contains("let me in"), "{seen}");
    assert_eq!(get(&cutover, "").header("x-cutover-preview"), None);
}

#[test]
fn a_good_cookie_wins_over_one_that_a_stranger_added() {
    let (cutover, _blue, _green) = previewed(|setup| setup);
    let pass = pass(&cutover);
    let answer = get(&cutover, &format!("Cookie: cutover_preview=x; cutover_preview={pass}\r\n"));
    assert_eq!(answer.text(), "green");
    let answer = get(&cutover, &format!("Cookie: {}cutover_preview={pass}\r\n", "cutover_preview=x; ".repeat(4)));
    assert_eq!(answer.text(), "blue", "not behind any number of them");
}

#[test]
fn answers_are_for_the_tester_s_browser_alone() {
    let (cutover, _blue, green) = previewed(|setup| setup);
    let head = "Cache-Control: public, max-age=600\r\nCDN-Cache-Control: max-age=600\r\nExpires: 0\r\nETag: \"1\"\r\n\
                Vary: Accept-Encoding\r\nvary: Origin\r\nSurrogate-Control: max-age=5\r\nX-Cutover-Preview: blue\r\n";
    green.behave(move |conn| {
        loop {
            let request = conn.request()?;
            let (status, length) =
                if request.header("if-none-match").is_some() { ("304 Not Modified", 0) } else { ("200 OK", 5) };
            let body = if length == 0 || request.head.starts_with("HEAD") { "" } else { "green" };
            conn.send(format!("HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\n\r\n{body}"))?;
        }
    });
    green.stop_connections();
    let mut client = cutover.client();
    let pass = with(&pass(&cutover));
    for (request, status, body) in [
        ("GET / HTTP/1.1\r\nHost: app\r\n", 200, "green"),
        ("HEAD / HTTP/1.1\r\nHost: app\r\n", 200, ""),
        ("GET / HTTP/1.1\r\nHost: app\r\nIf-None-Match: \"1\"\r\n", 304, ""),
        ("GET / HTTP/1.1\r\nHost: app\r\n", 200, "green"),
    ] {
        let answer = client.ask(&format!("{request}{pass}\r\n"));
        assert_eq!((answer.status, answer.text()), (status, body), "{request}");
        let of = |name: &str| {
            let fields = answer.head.lines().filter_map(|line| line.split_once(": "));
            fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(of("cache-control"), ["private, no-store"]);
        assert_eq!(of("vary"), ["Accept-Encoding, Origin, Cookie, X-Cutover-Preview"]);
        assert_eq!(of("x-cutover-preview"), ["green"], "an application cannot say it");
        assert_eq!(of("etag"), ["\"1\""], "the rest stays");
        for gone in ["cdn-cache-control", "expires", "surrogate-control"] {
            assert!(of(gone).is_empty(), "{gone}");
        }
    }
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n").text(), "blue", "on the same connection");
}

#[test]
fn bodies_of_any_size_go_both_ways() {
    let (cutover, blue, green) = previewed(|setup| setup);
    let body = "x".repeat(3 << 20);
    let answer = plain("200 OK", &body);
    green.behave(move |conn| conn.answer_all(&answer));
    green.stop_connections();
    let (mut client, pass) = (cutover.client(), with(&pass(&cutover)));
    for _ in 0..2 {
        let head = format!("POST / HTTP/1.1\r\nHost: app\r\n{pass}Content-Length: {}\r\n\r\n", body.len());
        client.send(head).send(&body);
        assert_eq!(client.answer().body.len(), body.len());
    }
    assert!(green.seen().concat().len() > 2 * body.len() && blue.text().is_empty());
}

#[test]
fn it_is_no_evidence_for_a_watch_and_not_replayed() {
    let (cutover, blue, _green) = previewed(|setup| setup.set("service.app.watch.window", "'60s'"));
    cutover.must_flip("green");
    blue.behave(|conn| conn.answer_all(&plain("500 Internal Server Error", "broken")));
    blue.stop_connections();
    let pass = with(&pass(&cutover));
    for _ in 0..30 {
        let answer = get(&cutover, &pass);
        assert_eq!((answer.status, answer.text()), (500, "broken"), "after a flip a pass leads to the old color");
        assert_eq!((answer.header("x-cutover-preview"), answer.header("x-cutover-replayed")), (Some("blue"), None));
    }
    assert_eq!(get(&cutover, "").text(), "green");
    let app = cutover.until_app("the live request counts", |app| app["watch"]["answered"] == 1);
    assert_eq!((&app["watch"]["failed"], &app["watch"]["evidence"]), (&json!(0), &json!(0.0)), "{app}");
    assert_eq!((&app["phase"], &app["colors"]["blue"]["errors"]), (&json!("watching"), &json!(30)), "{app}");
}

#[test]
fn a_color_that_is_not_up_is_said_and_the_active_one_is_not_asked() {
    let (cutover, blue, mut green) = previewed(|setup| setup);
    let pass = with(&pass(&cutover));
    let mut client = cutover.client();
    let mut refused = |when: &str| {
        let answer = client.ask(&format!("GET / HTTP/1.1\r\nHost: app\r\n{pass}\r\n"));
        assert_eq!((answer.status, answer.header("x-cutover-preview")), (503, Some("green")), "{when}");
        assert!(answer.text().contains("the idle color is not up"), "{when}: {}", answer.text());
    };
    green.be_ready(false);
    cutover.until_app("green is not ready", |app| app["colors"]["green"]["ready"] == false);
    refused("not ready");
    green.be_ready(true);
    cutover.until_app("green is ready", |app| app["colors"]["green"]["ready"] == true);
    green.stop();
    refused("stopped, and perhaps no probe has found out");
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: app\r\n\r\n").text(), "blue", "the connection goes on");
    assert_eq!(blue.text().matches("GET / ").count(), 1, "{}", blue.text());
}

/// Holds an answer until told.
fn holding(upstream: &Upstream) -> Sender<()> {
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    upstream.behave(move |conn| {
        loop {
            conn.request()?;
            // A sender that is gone is a test that has ended.
            let _ = wait.lock().unwrap().recv();
            conn.send(plain("200 OK", "late"))?;
        }
    });
    upstream.stop_connections();
    go
}

#[test]
fn a_drain_waits_for_guests() {
    let (cutover, _blue, green) = previewed(|setup| setup);
    let go = holding(&green);
    let mut guest = cutover.client();
    guest.send(format!("GET / HTTP/1.1\r\nHost: app\r\n{}\r\n", with(&pass(&cutover))));
    cutover.until_app("the guest is in flight", |app| app["colors"]["green"]["in_flight"] == 1);
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| cutover.admin("POST", "/v1/services/app/drain", &json!({})));
        // Answered meanwhile: the task does not wait for the guest.
        assert_eq!(cutover.app()["colors"]["green"]["in_flight"], 1);
        assert!(!drain.is_finished());
        go.send(()).unwrap();
        let (status, drained) = drain.join().unwrap();
        assert_eq!((status, &drained["cut"]), (200, &json!(0)), "{drained}");
    });
    assert_eq!(guest.answer().text(), "late");
}

#[test]
fn guests_that_stay_are_cut_at_the_deadline_and_others_are_not() {
    let (cutover, blue, green) = previewed(|setup| setup.set("service.app.drain.timeout", "'200ms'"));
    let (_green_waits, go_on) = (holding(&green), holding(&blue));
    let (mut guest, mut user) = (cutover.client(), cutover.client());
    guest.send(format!("GET / HTTP/1.1\r\nHost: app\r\n{}\r\n", with(&pass(&cutover))));
    user.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    let both = |app: &Value| ["blue", "green"].iter().all(|&color| app["colors"][color]["in_flight"] == 1);
    cutover.until_app("both are in flight", both);
    let (status, drained) = cutover.admin("POST", "/v1/services/app/drain", &json!({}));
    assert_eq!((status, &drained["cut"]), (200, &json!(1)), "{drained}");
    assert_eq!(guest.answer().status, 503);
    cutover.until_app("the guest is gone", |app| app["colors"]["green"]["in_flight"] == 0);
    go_on.send(()).unwrap();
    assert_eq!(user.answer().text(), "late", "nobody else is cut");
}

#[test]
fn the_door_sets_a_cookie_and_takes_it_back() {
    let (cutover, blue, _green) = previewed(|setup| setup);
    let pass = pass(&cutover);
    let knock = |path: &str| cutover.client().ask(&format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n"));
    let entered = knock(&format!("/.cutover/preview?token={pass}"));
    assert_eq!((entered.status, entered.header("location")), (303, Some("/")), "{}", entered.head);
    assert_eq!(entered.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(entered.header("cache-control"), Some("no-store"));
    let cookie = entered.header("set-cookie").expect("a cookie");
    let (value, more) = cookie.split_once("; ").expect("attributes");
    assert_eq!(value, format!("cutover_preview={pass}"));
    assert!(more.contains("Path=/; HttpOnly; SameSite=Lax") && !more.contains("Secure"), "{cookie}");
    let age: u64 = more.strip_prefix("Max-Age=").and_then(|rest| rest.split(';').next()?.parse().ok()).unwrap();
    assert!((3500..=3600).contains(&age), "as long as the pass: {cookie}");
    assert_eq!(get(&cutover, &format!("Cookie: {value}\r\n")).text(), "green");
    let left = knock("/.cutover/preview/leave");
    assert_eq!(left.status, 303);
    assert!(left.header("set-cookie").is_some_and(|cookie| cookie.starts_with("cutover_preview=; Max-Age=0; Path=/;")));
    for wrong in ["/.cutover/preview", "/.cutover/preview?token=", "/.cutover/preview?token=2000000000.00"] {
        let refused = knock(wrong);
        assert_eq!((refused.status, refused.header("set-cookie")), (403, None), "{wrong}");
        assert!(refused.text().contains("cutover preview"), "{}", refused.text());
    }
    let mut client = cutover.client();
    let posted = client.ask("POST /.cutover/preview HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(blue.text(), "", "no application sees the door");
}

#[test]
fn over_tls_the_cookie_stays_there() {
    let (authority, port) = (Authority::new(), free_port());
    let (cert, key) = authority.sign(&["app.example"]);
    let (cutover, _blue, _green) = previewed(|setup| {
        setup
            .set("proxy.listen_tls", format!("['127.0.0.1:{port}']"))
            .set("tls.certificates", "[{ cert = 'app.pem', key = 'app.key' }]")
            .set("service.app.path_prefix", "'/shop'")
            .file("app.pem", &cert)
            .file("app.key", &key)
    });
    let mut client = secured(port, "app.example", &authority.trusted()).expect("a handshake");
    let knock = format!("GET /shop/.cutover/preview?token={} HTTP/1.1\r\nHost: app.example\r\n\r\n", pass(&cutover));
    let entered = client.ask(&knock);
    assert_eq!((entered.status, entered.header("location")), (303, Some("/shop")));
    let cookie = entered.header("set-cookie").expect("a cookie");
    assert!(cookie.ends_with("Path=/shop; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
}

#[test]
fn passes_are_in_no_log() {
    let (cutover, _blue, _green) =
        previewed(|setup| setup.set("log.access", "'json'").set("log.access_file", "'access.log'"));
    let pass = pass(&cutover);
    get(&cutover, &with(&pass));
    get(&cutover, &format!("Cookie: cutover_preview={pass}\r\n"));
    cutover.get(&format!("/.cutover/preview?token={pass}"));
    cutover.get("/.cutover/preview?token=wrong-one");
    cutover.get("/last");
    eventually("all is logged", || cutover.file("access.log").contains("/last"));
    let logged: Vec<Value> =
        cutover.file("access.log").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> =
        logged.iter().map(|line| (line["color"].as_str().unwrap(), line["end"].as_str().unwrap())).collect();
    assert_eq!(
        said,
        [("green", "preview"), ("green", "preview"), ("", "pass_taken"), ("", "pass_refused"), ("blue", "ok")]
    );
    let mac = pass.split_once('.').unwrap().1;
    for log in [cutover.file("access.log"), cutover.log(), cutover.ledger()] {
        assert!(!log.contains(mac) && !log.contains("wrong-one"), "{log}");
    }
    assert!(cutover.log().contains("a preview pass was made"), "that one was made is: {}", cutover.log());
}

#[test]
fn it_is_off_unless_it_is_enabled_and_a_reload_is_enough() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).start();
    let (status, refused) = cutover.admin("POST", "/v1/services/app/preview", &Value::Null);
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("preview_off")), "{refused}");
    let (code, said) = cutover.cli_code(&["preview"]);
    assert!(code == 2 && said.contains("[service.app.preview]"), "{code} {said}");
    assert_eq!(cutover.get("/.cutover/preview/leave").text(), "blue", "nothing of ours is in the way");
    cutover.configure("service.app.preview.enabled", "true");
    assert_eq!(cutover.cli_code(&["reload"]).0, 0);
    let pass = pass(&cutover);
    assert_eq!(get(&cutover, &with(&pass)).text(), "green");
    let mode = cutover.path("state/preview.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    cutover.kill();
    cutover.run();
    cutover.until_app("both are ready", |app| app["colors"]["green"]["ready"] == true);
    assert_eq!(get(&cutover, &with(&pass)).text(), "green", "a restart voids no pass");
    cutover.configure("service.app.preview.enabled", "false");
    assert_eq!(cutover.cli_code(&["reload"]).0, 0);
    let answer = get(&cutover, &with(&pass));
    assert_eq!((answer.text(), answer.header("x-cutover-preview"), answer.header("vary")), ("blue", None, None));
}

#[test]
fn the_verb_prints_what_works() {
    let (cutover, _blue, _green) = previewed(|setup| setup);
    let (code, said) = cutover.cli_code(&["preview", "--for", "10m", "--json"]);
    let shown: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &shown["color"]), (0, &json!("green")), "{said}");
    let base = format!("http://127.0.0.1:{}", cutover.port());
    let pass = shown["token"].as_str().unwrap();
    assert_eq!(get(&cutover, &with(pass)).text(), "green");
    assert_eq!(shown["curl"], format!("curl -H 'X-Cutover-Preview: {pass}' {base}/"));
    let enter = shown["enter"].as_str().unwrap();
    assert_eq!(cutover.get(enter.strip_prefix(&base).unwrap()).status, 303, "{enter}");
    assert_eq!(shown["leave"], format!("{base}/.cutover/preview/leave"));
    let (code, said) = cutover.cli_code(&["preview", "app", "--url", "https://shop.example/"]);
    assert!(code == 0 && said.contains("https://shop.example/.cutover/preview?token="), "{said}");
    assert_eq!(cutover.cli_code(&["preview", "--for", "31d"]).0, 2);
    assert_eq!(cutover.cli_code(&["preview", "nobody"]).0, 2);
}

#[test]
fn a_tunnel_can_be_previewed_and_a_rehearsal_does_not_copy_guests() {
    let (cutover, _blue, green) = previewed(|setup| setup.set("service.app.rehearse.share", "1.0"));
    cutover.until_app("the rehearsal runs", |app| !app["rehearsal"].is_null());
    let pass = with(&pass(&cutover));
    assert_eq!(get(&cutover, &pass).text(), "green");
    green.behave(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
        let said = conn.exactly(4)?;
        conn.send(said)
    });
    green.stop_connections();
    let mut client = cutover.client();
    let upgrade = format!("GET / HTTP/1.1\r\nHost: app\r\n{pass}Connection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.ask(&upgrade).status, 101);
    assert_eq!(client.send("ping").exactly(4).unwrap(), b"ping");
    assert!(!green.text().contains("X-Cutover-Rehearsal"), "{}", green.text());
}
