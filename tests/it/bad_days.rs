//! What the machine takes away: descriptors, room on the disk. The proxy goes on with what it has.

use super::harness::{Client, Cutover, Setup, Upstream, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// Limits the descriptors of a running proxy.
pub fn limit_descriptors(cutover: &Cutover, soft: u64) {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: 4096 };
    let pid = i32::try_from(cutover.pid()).unwrap();
    // SAFETY: it only reads the struct; the process is our own child.
    let done = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn without_descriptors_open_connections_are_served_and_new_ones_wait() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    // Rare probes: they would need descriptors as well.
    let setup = Setup::of(&blue, &green).set("service.app.health.interval", "'60s'");
    let cutover =
        setup.set("service.app.health.timeout", "'1s'").set("service.app.upstream.idle_timeout", "'60s'").start();
    let mut kept = cutover.client();
    assert_eq!(kept.ask(GET).text(), "blue");
    // Below what is open already, which stays open.
    limit_descriptors(&cutover, 10);
    let mut waiting = Client::connect(cutover.port());
    waiting.send(GET);
    eventually("it says so", || {
        cutover.log().contains("cannot accept a connection") && cutover.log().contains("os error 24")
    });
    for _ in 0..50 {
        assert_eq!(kept.ask(GET).text(), "blue", "what is open is served");
    }
    cutover.must_rest(); // it waits and does not spin
    limit_descriptors(&cutover, 4096);
    assert_eq!(waiting.answer().text(), "blue", "who waited is answered");
}

#[test]
fn an_access_log_on_a_full_disk_stops_nothing() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    // Every write there fails as on a full disk.
    let setup = Setup::of(&blue, &green).set("log.access_file", "'/dev/full'");
    let cutover = setup.set("service.app.watch.window", "'0s'").start();
    for color in ["green", "blue", "green"] {
        cutover.must_flip(color);
        assert_eq!(cutover.get("/").text(), color);
    }
}

#[test]
fn without_a_descriptor_for_the_application_the_client_is_told_and_the_release_is_not_to_blame() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green).set("service.app.health.interval", "'60s'");
    let cutover = setup.set("service.app.health.timeout", "'1s'").start();
    cutover.must_flip("green");
    let mut clients: Vec<_> = (0..20).map(|_| cutover.client()).collect();
    eventually("they are accepted", || cutover.status()["connections"] == 20);
    limit_descriptors(&cutover, 10);
    for client in &mut clients {
        let answer = client.ask(GET);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.text().contains("no room for more connections"), "{answer:?}");
    }
    limit_descriptors(&cutover, 4096);
    let app = cutover.app();
    assert_eq!((&app["active"], &app["phase"]), (&"green".into(), &"watching".into()), "{app}");
    assert_eq!(app["watch"]["failed"], 0, "{app}");
    assert_eq!(cutover.get("/").text(), "green");
}

#[test]
fn a_ledger_that_cannot_be_written_is_said_at_once() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).set("state.ledger", "'/dev/full'").start();
    cutover.must_flip("green");
    eventually("the status says so", || cutover.status()["problems"].to_string().contains("/dev/full"));
}
