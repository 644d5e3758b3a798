//! What the machine takes away and gives back: a state folder that is read-only, a full disk, an address, the right
//! time. The proxy has a mount namespace of its own for it, so nothing of the machine is touched.

use std::net::UdpSocket;

use serde_json::{Value, json};

use super::harness::{Cutover, Load, Setup, Upstream, eventually, have, have_root};

fn can_mount() -> bool {
    ["unshare", "nsenter", "mount"].iter().all(|tool| have(tool)) && have_root()
}

fn pair() -> (Upstream, Upstream) {
    (Upstream::saying("blue"), Upstream::saying("green"))
}

/// Starts it behind `script`, and waits for both colors.
fn start(setup: Setup, script: &str) -> Cutover {
    let mut cutover = setup.prepared();
    cutover.run_in_mounts(script);
    cutover.until_app("both are ready", |app| {
        ["blue", "green"].iter().all(|&color| app["colors"][color]["ready"] == true)
    });
    cutover
}

fn problems(cutover: &Cutover) -> String {
    cutover.status()["problems"].to_string()
}

#[test]
fn on_a_read_only_state_folder_it_serves_refuses_flips_goes_back_and_recovers() {
    if !can_mount() {
        return;
    }
    let (blue, green) = pair();
    let setup = Setup::of(&blue, &green).set("service.app.watch.window", "'60s'");
    let cutover = start(setup, "mkdir state; mount -t tmpfs tmpfs state");
    let load = Load::of_gets(cutover.port(), 4);
    cutover.must_flip("green");

    cutover.in_mounts("mount -o remount,ro state");
    let (status, said) = cutover.flip("blue");
    assert_eq!(status, 503, "{said}");
    assert!(said.to_string().contains("Read-only file system") && said.to_string().contains("saved"), "{said}");
    assert_eq!(cutover.app()["active"], "green", "what cannot be saved is not flipped");
    eventually("the status says so", || {
        problems(&cutover).contains("state of app is not saved (Read-only file system")
    });
    let (code, said) = cutover.cli_code(&["rollback"]);
    assert_eq!(code, 0, "the way back needs no disk: {said}");
    assert_eq!(cutover.get("/").text(), "blue");
    assert!(problems(&cutover).contains("Read-only file system"));

    cutover.in_mounts("mount -o remount,rw state");
    eventually("it is well again", || cutover.status()["problems"] == json!([]));
    let kept: Value = serde_json::from_str(&cutover.file_in_mounts("state/app.json")).unwrap();
    assert_eq!((&kept["active"], &kept["epoch"]), (&json!("blue"), &json!(3)), "the rollback is kept by now");
    cutover.must_flip("green");
    let (answered, failures) = load.end();
    assert!(answered > 20 && failures.is_empty(), "{answered} {failures:?}");
}

#[test]
fn an_access_log_whose_disk_is_full_is_said_and_goes_on_when_there_is_room() {
    if !can_mount() {
        return;
    }
    let (blue, green) = pair();
    let setup = Setup::of(&blue, &green).set("log.access", "'json'").set("log.access_file", "'logs/access.log'");
    let cutover = start(setup, "mkdir logs; mount -t tmpfs -o size=16k tmpfs logs");
    let mut client = cutover.client();
    let mut ask = |path: &str| {
        let answer = client.ask(&format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n"));
        assert_eq!((answer.status, answer.text()), (200, "blue"));
    };
    // What fits on the disk, what fits in memory, and some more, which is lost.
    (0..600).for_each(|i| ask(&format!("/{i}")));
    eventually("the status says so", || problems(&cutover).contains("access log logs/access.log: No space left"));
    cutover.must_flip("green");
    cutover.must_flip("blue");

    cutover.in_mounts("mount -o remount,size=8m logs");
    eventually("it is well again, though nobody asks for anything", || cutover.status()["problems"] == json!([]));
    ask("/after");
    eventually("lines are written again", || cutover.file_in_mounts("logs/access.log").contains("\"/after\""));
    let log = cutover.file_in_mounts("logs/access.log");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("no line is torn")).collect();
    let lost: u64 = lines.iter().filter_map(|line| line["dropped_lines"].as_u64()).sum();
    let written = lines.iter().filter(|line| line["path"].is_string()).count() as u64;
    assert!(lost > 0 && lost + written == 601, "{lost} lost and {written} written are all");
}

#[test]
fn a_name_that_moves_is_followed_by_busy_connections_as_well() {
    if !can_mount() {
        return;
    }
    let green = Upstream::saying("green");
    let old = Upstream::saying_at("127.0.0.2", &green, "old");
    let new = Upstream::saying_at("127.0.0.3", &green, "new");
    let setup = Setup::of(&old, &green)
        .set("service.app.blue", format!("'blue.example:{}'", old.port))
        .set("service.app.green", format!("'127.0.0.1:{}'", green.port))
        .set("service.app.upstream.idle_timeout", "'60s'")
        .file("hosts", "127.0.0.2 blue.example\n");
    let cutover = start(setup, "mount --bind hosts /etc/hosts");
    let load = Load::of_gets(cutover.port(), 2);
    assert_eq!(cutover.get("/").text(), "old");
    cutover.in_mounts("echo 127.0.0.3 blue.example > hosts");
    // A connection in use is 30 s old at most.
    eventually("the address before is asked no more", || {
        old.forget();
        let before = load.answered();
        eventually("requests go on", || load.answered() > before + 10);
        !old.text().contains("/load ")
    });
    let (answered, failures) = load.end();
    assert!(answered > 20 && failures.is_empty(), "{answered} {failures:?}");
    assert!(new.text().contains("/load "));
}

#[test]
fn a_resolver_that_never_answers_is_asked_once_and_holds_up_no_stop() {
    const RESOLVER: &str = "127.0.0.77";
    let Some(resolver) = can_mount().then(|| UdpSocket::bind((RESOLVER, 53)).ok()).flatten() else { return };
    resolver.set_nonblocking(true).unwrap();
    let (blue, green) = pair();
    let setup = Setup::of(&blue, &green)
        .set("service.app.blue", format!("'blue.example:{}'", blue.port))
        .set("service.app.health.interval", "'60s'") // a probe asks for the name too
        .set("service.app.health.timeout", "'1s'")
        .set("service.app.upstream.connect_timeout", "'200ms'")
        .set("proxy.workers", 1)
        .file("hosts", "127.0.0.1 blue.example\n")
        .file("resolv.conf", &format!("nameserver {RESOLVER}\noptions timeout:30 attempts:5\n"));
    let mut cutover = start(setup, "mount --bind hosts /etc/hosts; mount --bind resolv.conf /etc/resolv.conf");
    cutover.in_mounts("> hosts");
    for _ in 0..4 {
        assert_eq!(cutover.get("/").status, 502);
    }
    let asked = std::iter::from_fn(|| resolver.recv(&mut [0; 512]).ok()).count();
    assert!((1..=2).contains(&asked), "{asked} times; twice is for both kinds of addresses");
    cutover.signal(libc::SIGTERM);
    assert!(cutover.ended().success(), "long before the resolver gives up, after five times 30 s");
}

/// The machine's time as the file `time` has it, which a test may write at any moment.
const FAKED_TIME: &str = "echo +0 > time
    export FAKETIME_TIMESTAMP_FILE=$PWD/time FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
    export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketimeMT.so.1)";

#[test]
fn a_clock_that_jumps_neither_ends_a_watch_nor_prolongs_it() {
    if !can_mount() || !have("faketime") {
        return;
    }
    let (blue, green) = pair();
    let setup = Setup::of(&blue, &green).set("service.app.watch.window", "'4s'");
    let cutover = start(setup, FAKED_TIME);
    let year = || cutover.get("/").header("date").expect("a Date").split(' ').nth(3).expect("a year").to_owned();
    let (load, now) = (Load::of_gets(cutover.port(), 2), year());
    let began = std::time::Instant::now(); // before the flip: the watch is as old as that at most
    cutover.must_flip("green");
    for jump in ["+1500d", "-1500d"] {
        cutover.write("time", jump);
        eventually("the proxy's clock has jumped", || year() != now);
        let app = cutover.app();
        assert!(app["phase"] == "watching" || began.elapsed().as_secs() >= 4, "{jump}: {app}");
        cutover.write("time", "+0");
        eventually("and back", || year() == now);
    }
    let app = cutover.until_app("the watch is over", |app| app["verdict"] == "keep");
    assert!(began.elapsed().as_secs() >= 4, "after {:?}", began.elapsed());
    assert_eq!(app["active"], json!("green"));
    let (answered, failures) = load.end();
    assert!(answered > 20 && failures.is_empty(), "{answered} {failures:?}");
}

#[test]
fn a_clock_that_jumps_neither_ends_a_drain_nor_prolongs_it() {
    if !can_mount() || !have("faketime") {
        return;
    }
    let (blue, green) = pair();
    let setup = Setup::of(&blue, &green).set("service.app.drain.timeout", "'3s'");
    let cutover = start(setup, FAKED_TIME);
    blue.behave(|conn| conn.request().and_then(|_| conn.rest()).map(drop));
    let mut held = cutover.client();
    held.send("GET /held HTTP/1.1\r\nHost: app\r\n\r\n");
    eventually("blue has it", || blue.text().contains("/held"));
    let began = std::time::Instant::now();
    let (code, said) = cutover.cli_code(&["flip", "green", "--no-wait"]);
    assert_eq!(code, 0, "{said}");
    cutover.write("time", "+3d");
    let app = cutover.app();
    assert!(app["colors"]["blue"]["in_flight"] == 1 || began.elapsed().as_secs() >= 3, "{app}");
    cutover.write("time", "-5d");
    eventually("the drain is over", || cutover.ledger().contains("] drained app"));
    assert!(began.elapsed().as_secs() >= 3, "after {:?}", began.elapsed());
    let ledger = cutover.ledger();
    let day = |what: &str| ledger.lines().find(|line| line.contains(what)).map(|line| line[1..11].to_owned());
    assert!(day("] drained app") < day("] flip app"), "the proxy's clock did jump: {ledger}");
}

#[test]
fn on_a_full_disk_it_starts_with_what_was_saved_and_goes_back() {
    if !can_mount() {
        return;
    }
    let (blue, green) = pair();
    let saved = r#"{"version":1,"active":"green","epoch":2,"previous":"blue","config_active":"blue","watch_until_unix_ms":null,"rolled_back":null}"#;
    let full = format!(
        "mkdir state; mount -t tmpfs -o size=64k tmpfs state; echo '{saved}' > state/app.json; \
         dd if=/dev/zero of=state/fill bs=1k 2>/dev/null || true"
    );
    let cutover = start(Setup::of(&blue, &green), &full);
    assert_eq!(cutover.get("/").text(), "green", "the saved color serves");
    assert!(
        problems(&cutover).contains("the state folder state cannot be written: No space left"),
        "{}",
        problems(&cutover)
    );
    let (status, said) = cutover.flip("blue");
    assert!(status == 503 && said.to_string().contains("No space left"), "{said}");
    assert_eq!(cutover.app()["active"], "green");
    let (code, said) = cutover.cli_code(&["rollback"]);
    assert_eq!((code, cutover.get("/").text()), (0, "blue"), "{said}");

    cutover.in_mounts("rm state/fill");
    eventually("it is well again", || cutover.status()["problems"] == json!([]));
    let kept: Value = serde_json::from_str(&cutover.file_in_mounts("state/app.json")).unwrap();
    assert_eq!((&kept["active"], &kept["epoch"]), (&json!("blue"), &json!(3)), "the rollback is kept by now");
}
