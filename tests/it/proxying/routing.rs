//! Which service and which of its upstreams a request goes to.

use std::time::Duration;

use super::{GET, OK};
use crate::harness::{Setup, Upstream, eventually};

#[test]
fn is_by_host_and_the_longest_prefix() {
    let [rest, shop, api, wild, spare] = ["rest", "shop", "api", "wild", "spare"].map(Upstream::saying);
    let cutover = Setup::of(&rest, &spare)
        .service("shop", &[&shop], &[&spare])
        .set("service.shop.hosts", "['shop.example']")
        .service("api", &[&api], &[&spare])
        .set("service.api.hosts", "['shop.example']")
        .set("service.api.path_prefix", "'/api'")
        .service("wild", &[&wild], &[&spare])
        .set("service.wild.hosts", "['*.example']")
        .start();
    for (host, path, want) in [
        ("shop.example", "/", "shop"),
        ("SHOP.example:80", "/x", "shop"),
        ("shop.example", "/api", "api"),
        ("shop.example", "/api/x", "api"),
        ("shop.example", "/api?x", "api"),
        ("shop.example", "/apix", "shop"),
        ("other.example", "/api", "wild"),
        ("a.b.example", "/", "wild"),
        ("example", "/", "rest"),
        ("127.0.0.1", "/api", "rest"),
    ] {
        let answer = cutover.client().ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.text(), want, "{host} {path}");
    }
    assert!(spare.seen().is_empty());
}

#[test]
fn says_404_where_there_is_no_service() {
    let blue = Upstream::saying("ok");
    let cutover = Setup::in_front_of(&blue).set("service.app.hosts", "['app.example']").start();
    let mut client = cutover.client();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert_eq!(answer.status, 404);
    assert!(answer.header("x-request-id").is_some_and(|id| answer.text().contains(id)), "{answer:?}");
    assert!(!answer.text().contains("127.0.0.1") && !answer.text().contains("app.example"), "nothing about the inside");
    assert_eq!(cutover.client().ask("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").status, 200);
}

#[test]
fn takes_the_upstream_with_the_fewest_requests_in_flight() {
    let (busy, idle, green) = (Upstream::saying("busy"), Upstream::saying("idle"), Upstream::saying("green"));
    for upstream in [&busy, &idle] {
        upstream.behave(|conn| {
            loop {
                let request = conn.request()?;
                if request.target() == "/hold" {
                    return conn.rest().map(drop);
                }
                conn.send(OK)?;
            }
        });
    }
    let cutover = Setup::of(&busy, &green).service("app", &[&busy, &idle], &[&green]).set("proxy.workers", 1).start();
    let mut holding: Vec<_> = (0..2).map(|_| cutover.client()).collect();
    for client in &mut holding {
        client.send("GET /hold HTTP/1.1\r\nHost: app\r\n\r\n");
    }
    eventually("each holds one", || busy.text().contains("/hold") && idle.text().contains("/hold"));
    for _ in 0..20 {
        assert_eq!(cutover.get("/quick").status, 200);
    }
    let quick = [&busy, &idle].map(|upstream| upstream.text().matches("/quick").count());
    assert!(quick.iter().all(|&n| n >= 5), "both take their part: {quick:?}");
}

#[test]
fn passes_over_an_upstream_that_cannot_be_connected_to() {
    let (up, down, green) = (Upstream::saying("up"), Upstream::stopped(), Upstream::saying("green"));
    let cutover = Setup::of(&up, &green).service("app", &[&down, &up], &[&green]).start_unready();
    for _ in 0..20 {
        assert_eq!(cutover.get("/").text(), "up");
    }
    let mut client = cutover.client();
    for _ in 0..5 {
        assert_eq!(client.ask("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nab").text(), "up");
    }
}

#[test]
fn tries_the_last_upstream_even_when_it_is_not_ready() {
    let blue = Upstream::saying("still here");
    blue.be_ready(false);
    let cutover = Setup::in_front_of(&blue).start_unready();
    cutover.until_app("it is known not to be ready", |app| app["colors"]["blue"]["upstreams"][0]["reason"].is_string());
    assert_eq!(cutover.client().ask(GET).text(), "still here");
}

#[test]
fn drops_an_upstream_s_connection_before_the_application_does() {
    let blue = Upstream::saying("ok");
    let cutover =
        Setup::in_front_of(&blue).set("service.app.upstream.idle_timeout", "'200ms'").set("proxy.workers", 1).start();
    let mut client = cutover.client();
    client.ask(GET);
    std::thread::sleep(Duration::from_millis(500)); // time itself is what is tested
    client.ask(GET);
    assert_eq!(blue.seen().len(), 2, "the first connection was too old for the second request");
}
