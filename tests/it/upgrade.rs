//! An upgrade in place: a new process serves on the same sockets, the old one finishes what it has, and a binary that
//! cannot start changes nothing.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Client, Cutover, Setup, Upstream, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// A successor is nobody's child once its predecessor has ended. Killed when dropped.
struct Successor(i32);

impl Drop for Successor {
    fn drop(&mut self) {
        // SAFETY: kill has no memory effects; the pid was that of a process we had started, and it runs until this.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

/// A copy of the binary in the folder of the test, which can be replaced.
fn own_binary(cutover: &Cutover) -> PathBuf {
    let path = cutover.path("cutover");
    install(&path, &fs::read(env!("CARGO_BIN_EXE_cutover")).unwrap());
    path
}

/// Puts another program in the place of one, as a package manager does: a new file of the same name.
fn install(program: &Path, content: &[u8]) {
    let new = program.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    // A program that another test starts at that moment has our file open for writing until it has become itself, and
    // what is open for writing cannot be run. A lease to read is only had where nobody writes.
    let file = fs::File::open(&new).unwrap();
    eventually("nobody writes to the program", || {
        // SAFETY: fcntl with these arguments touches no memory.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0 }
    });
    fs::rename(&new, program).unwrap();
}

fn start_own(setup: Setup) -> (Cutover, PathBuf) {
    let mut cutover = setup.prepared();
    let program = own_binary(&cutover);
    cutover.spawn_program(&program);
    eventually("the colors are ready", || {
        Client::try_connect(("127.0.0.1", cutover.setup.admin_port)).is_ok()
            && ["blue", "green"].iter().all(|color| cutover.app()["colors"][color]["ready"] == true)
    });
    (cutover, program)
}

fn pid(cutover: &Cutover) -> i32 {
    i32::try_from(cutover.status()["pid"].as_i64().unwrap()).unwrap()
}

/// Upgrades by the verb.
fn upgrade(cutover: &Cutover) -> Successor {
    let (code, said) = cutover.cli_code(&["upgrade"]);
    assert_eq!(code, 0, "{said}");
    let mut now = 0;
    eventually("the successor answers", || {
        now = pid(cutover);
        said.contains(&format!("process {now} serves"))
    });
    Successor(now)
}

/// Waits until the predecessor has ended, which its successor hears.
fn alone(cutover: &Cutover) {
    eventually("the process before has ended", || cutover.log().contains("the previous process has ended"));
}

#[test]
fn no_request_fails_while_the_binary_is_replaced() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let (mut cutover, program) = start_own(Setup::of(&blue, &green).set("admin.socket", "'admin.sock'"));
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let port = cutover.port();
    let successor = thread::scope(|scope| {
        let (stop, done) = (&stop, &done);
        for _ in 0..4 {
            // Kept connections: one that is told to close is replaced, as every client does.
            scope.spawn(move || {
                let mut client = Client::connect(port);
                while !stop.load(Relaxed) {
                    let answer = client.ask(GET);
                    assert_eq!((answer.status, answer.text()), (200, "blue"));
                    done.fetch_add(1, Relaxed);
                    if answer.header("connection") == Some("close") {
                        client = Client::connect(port);
                    }
                }
            });
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    assert_eq!(Client::get(port, "/").text(), "blue");
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        // The running one is "(deleted)" from now on.
        install(&program, &fs::read(&program).unwrap());
        let before = done.load(Relaxed);
        let successor = upgrade(&cutover);
        assert_eq!(cutover.ended().code(), Some(0));
        let after = done.load(Relaxed);
        eventually("the successor serves", || done.load(Relaxed) > after + 50);
        stop.store(true, Relaxed);
        assert!(after > before);
        successor
    });
    alone(&cutover);
    assert!(cutover.path("admin.sock").exists(), "the socket's file is the successor's");
    assert!(cutover.ledger().contains(&format!("to_pid={}", successor.0)), "{}", cutover.ledger());
}

#[test]
fn counters_go_on_and_color_and_epoch_stay() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let (mut cutover, _) = start_own(Setup::of(&blue, &green).set("service.app.watch.window", "'0s'"));
    cutover.must_flip("green");
    for _ in 0..7 {
        assert_eq!(cutover.get("/").text(), "green");
    }
    let metric = |cutover: &Cutover, name: &str| {
        let text = cutover.admin_with("GET", "/metrics", "", "").text().to_owned();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains("green"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    eventually("all are counted", || metric(&cutover, "cutover_requests_total{") as u64 == 7);
    let _successor = upgrade(&cutover);
    assert_eq!(cutover.ended().code(), Some(0));
    alone(&cutover);
    assert_eq!((cutover.app()["active"].as_str(), cutover.app()["epoch"].as_u64()), (Some("green"), Some(2)));
    assert_eq!(metric(&cutover, "cutover_requests_total{") as u64, 7);
    assert_eq!(metric(&cutover, "cutover_flips_total{") as u64, 1);
    assert_eq!(cutover.get("/").text(), "green");
    eventually("it goes on from there", || metric(&cutover, "cutover_requests_total{") as u64 == 8);
}

#[test]
fn nothing_changes_color_while_the_old_process_finishes_a_request() {
    let blue = Upstream::start(|conn| {
        conn.request()?;
        thread::sleep(Duration::from_millis(1500));
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
    });
    let green = Upstream::saying("green");
    // Blue answers its probes late as well, and counts as ready.
    let setup = Setup::of(&blue, &green).set("service.app.health.timeout", "'2s'");
    let mut cutover = setup.set("service.app.health.interval", "'3s'").start();
    let mut busy = cutover.client();
    busy.send(GET);
    eventually("the request is in flight", || cutover.app()["colors"]["blue"]["in_flight"] == 1);
    let _successor = upgrade(&cutover);
    assert_eq!(cutover.app()["colors"]["blue"]["in_flight"], 1, "the successor shows what its predecessor holds");
    let (status, refused) = cutover.admin("POST", "/v1/services/app/flip", &json!({ "to": "green", "force": true }));
    assert_eq!((status, refused["error"]["code"].as_str()), (409, Some("cutover_under_way")), "{refused}");
    assert_eq!(busy.answer().text(), "late", "the old process finishes it");
    assert_eq!(cutover.ended().code(), Some(0));
    alone(&cutover);
    eventually("flips are taken again", || {
        cutover.admin("POST", "/v1/services/app/flip", &json!({ "to": "green", "force": true })).0 == 200
    });
    assert_eq!(cutover.app()["colors"]["blue"]["in_flight"], 0);
}

#[test]
fn a_binary_that_cannot_start_changes_nothing() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let (mut cutover, program) = start_own(Setup::of(&blue, &green).set("admin.socket", "'admin.sock'"));
    let old = pid(&cutover);
    let good = cutover.setup.text();
    let fails = |cutover: &Cutover, why: &str| {
        let (code, said) = cutover.cli_code(&["upgrade"]);
        assert!(code == 1 && said.contains(why), "{code} {said}");
        assert_eq!(pid(cutover), old);
        assert_eq!(cutover.get("/").text(), "blue");
        assert!(cutover.ledger().lines().last().unwrap().contains("upgrade failed"), "{}", cutover.ledger());
    };
    let replace = |text: &str| install(&program, text.as_bytes());
    replace("#!/bin/sh\nexit 7\n");
    fails(&cutover, "exit status: 7");
    replace("#!/bin/sh\nkill -SEGV $$\n");
    fails(&cutover, "signal: 11");
    replace("not a program");
    fails(&cutover, "it exited before it served");
    fs::remove_file(&program).unwrap();
    fails(&cutover, "No such file");
    own_binary(&cutover);
    // Some fail when they have the sockets already.
    let unwritable = good.replace("'state'", "'/proc/cutover'");
    for (config, why) in [("nonsense = 1\n[admin]\n", "nonsense"), (&*unwritable, "/proc/cutover")] {
        cutover.write("cutover.toml", config);
        // The verb reads the config as well, for where the proxy is: it is asked without it.
        let (status, refused) = cutover.admin("POST", "/v1/upgrade", &json!({}));
        assert_eq!((status, refused["error"]["code"].as_str()), (500, Some("upgrade_failed")), "{refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(why) && message.contains("(exit status: "), "it ends by itself: {refused}");
        assert_eq!((pid(&cutover), cutover.get("/").text()), (old, "blue"));
        UnixStream::connect(cutover.path("admin.sock")).expect("its own door stays open");
    }
    cutover.write("cutover.toml", &good);
    cutover.must_flip("green");
    assert!(cutover.is_running());
}

#[test]
fn a_stop_is_heard_while_a_successor_is_waited_for() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let (mut cutover, program) = start_own(Setup::of(&blue, &green));
    install(&program, b"#!/bin/sh\nexec sleep 60\n");
    cutover.signal(libc::SIGUSR2);
    eventually("the successor is started", || cutover.log().contains("upgrading in place"));
    cutover.signal(libc::SIGTERM);
    assert_eq!(cutover.ended().code(), Some(0));
    let log = cutover.log();
    assert!(log.contains("a stop was requested meanwhile") && log.contains("stopped: all requests are done"), "{log}");
}

#[test]
fn the_lock_on_the_state_goes_over() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let (mut cutover, _program) = start_own(Setup::of(&blue, &green));
    let folder = cutover.path("state");
    let _successor = upgrade(&cutover);
    let mut second = Setup::of(&blue, &green).set("state.dir", format!("'{}'", folder.display())).prepared();
    for who_holds_it in ["both", "the successor"] {
        second.spawn();
        assert_eq!(second.ended().code(), Some(1), "{who_holds_it}: {}", second.log());
        assert!(
            second.log().contains(&format!("in use by another cutover: process {}", pid(&cutover))),
            "{who_holds_it}"
        );
        alone(&cutover);
        assert!(cutover.ended().success());
    }
    cutover.must_flip("green");
}

#[test]
fn usr2_upgrades() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).start();
    let old = pid(&cutover);
    cutover.signal(libc::SIGUSR2);
    cutover.signal(libc::SIGUSR2);
    assert_eq!(cutover.ended().code(), Some(0));
    let now = pid(&cutover);
    assert_ne!(now, old);
    let _successor = Successor(now);
    assert_eq!(cutover.get("/").text(), "blue");
    assert_eq!(cutover.ledger().matches("upgrade: from_pid").count(), 1, "{}", cutover.ledger());
    assert!(cutover.ledger().contains("by=USR2"), "{}", cutover.ledger());
}

#[test]
fn a_running_watch_goes_along_with_what_it_has_weighed() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green).set("service.app.watch.window", "'10m'");
    let mut cutover = setup.set("service.app.watch.warm_up", "'0s'").set("service.app.watch.split", false).start();
    // The other color would answer in place of a GET.
    let post = || cutover.client().ask("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n").status;
    (0..200).for_each(|_| assert_eq!(post(), 200));
    cutover.must_flip("green");
    green.behave(|conn| conn.answer_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"));
    // Fewer than a watch wants to have seen before it judges anybody.
    (0..4).for_each(|_| assert_eq!(post(), 500));
    let before = cutover.until_app("they are weighed", |app| app["watch"]["failed"] == 4);
    // No probe of the successor's own says anything in time.
    cutover.configure("service.app.health.interval", "'1m'");
    let _successor = upgrade(&cutover);
    let ready = |app: &Value| ["blue", "green"].map(|color| app["colors"][color]["ready"] == true);
    assert_eq!(ready(&cutover.app()), [true, true], "it has its way back from the first moment");
    let number = |app: &Value, key: &str| app["watch"][key].as_f64().unwrap_or(-1.0);
    let after = cutover.until_app("the successor goes on", |app| app["watch"]["failed"] == 4);
    let (was, is) = (number(&before, "evidence"), number(&after, "evidence"));
    assert!((was - is).abs() < 0.01 && is > 0.0, "{before} {after}");
    let (was, is) = (number(&before, "remaining_seconds"), number(&after, "remaining_seconds"));
    assert!(is <= was && is > was - 30.0, "its end stays: {was} {is}");
    let is_back = (0..100).any(|_| {
        cutover.client().send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n").try_answer(false).unwrap();
        cutover.app()["active"] == "blue"
    });
    assert!(is_back, "the successor takes it back: {}", cutover.app());
    assert_eq!((cutover.app()["epoch"].as_u64(), cutover.get("/").text()), (Some(3), "blue"));
    assert_eq!(cutover.ended().code(), Some(0));
    cutover
        .until_app("green is drained", |app| app["phase"] == "rolled_back" && app["colors"]["green"]["in_flight"] == 0);
    eventually("the ledger says all", || {
        let ledger = cutover.ledger();
        ledger.contains("rollback app: green -> blue epoch=3 reason=verdict") && ledger.contains("drained app")
    });
}

#[test]
fn a_successor_that_ends_with_the_watch_in_its_hands_leaves_it_to_the_old_process() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let setup = Setup::of(&blue, &green).set("service.app.watch.window", "'10m'");
    let (cutover, program) = start_own(setup.set("service.app.watch.warm_up", "'0s'"));
    let old = pid(&cutover);
    cutover.must_flip("green");
    let script = "#!/bin/bash\nset -- $CUTOVER_HANDED_OVER\necho '\"ready\"' >&$2\nread -r known <&$2\n\
                  case $known in *tolerated*) exit 4;; *) exit 5;; esac\n";
    install(&program, script.as_bytes());
    let (status, refused) = cutover.admin("POST", "/v1/upgrade", &json!({}));
    assert_eq!((status, refused["error"]["code"].as_str()), (500, Some("upgrade_failed")), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("exit status: 4"), "it had the watch: {refused}");
    green.behave(|conn| conn.answer_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"));
    eventually("the old process takes it back", || {
        cutover.client().send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n").try_answer(false).unwrap();
        cutover.app()["phase"] == "rolled_back"
    });
    assert_eq!((pid(&cutover), cutover.app()["epoch"].as_u64()), (old, Some(3)));
}

#[test]
fn a_socket_of_systemd_s_is_taken() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).prepared();
    // As systemd does: it listens, and who connects before the service runs waits and is answered.
    let listener = TcpListener::bind(("127.0.0.1", cutover.port())).unwrap();
    let mut early = Client::connect(cutover.port());
    early.send(GET);
    let notified = std::os::unix::net::UnixDatagram::bind(cutover.path("notify")).unwrap();
    let fd = listener.as_raw_fd();
    // The shell gives the socket its place and, by `exec`, its own process id to the service.
    let script = format!("exec 3<&{fd}; LISTEN_FDS=1 LISTEN_PID=$$ exec {} serve", env!("CARGO_BIN_EXE_cutover"));
    let log = fs::File::create(cutover.path("stderr")).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(cutover.dir.path()).stdin(Stdio::null()).stderr(log);
    command.env_remove("CUTOVER_CONFIG").env("NOTIFY_SOCKET", cutover.path("notify"));
    // SAFETY: between fork and exec it only clears a flag of a descriptor.
    unsafe {
        command.pre_exec(move || {
            libc::fcntl(fd, libc::F_SETFD, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    let _service = Successor(i32::try_from(child.id()).unwrap());
    drop(listener);
    let mut text = [0; 200];
    notified.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let read = notified.recv(&mut text).unwrap();
    assert_eq!(String::from_utf8_lossy(&text[..read]), format!("MAINPID={}\nREADY=1", child.id()));
    assert_eq!(early.answer().status, 200, "{}", cutover.log());
    drop(_service);
    child.wait().unwrap();
}
