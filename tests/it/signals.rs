//! Signals of log rotation and of a graceful stop, sent to the real process.

use super::harness::{Setup, Upstream, eventually};

const GET: &str = "GET /first HTTP/1.1\r\nHost: app\r\n\r\n";

fn logging(blue: &Upstream, green: &Upstream) -> Setup {
    Setup::of(blue, green).set("log.access", "'combined'").set("log.access_file", "'access.log'")
}

#[test]
fn usr1_opens_the_renamed_access_log_anew() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = logging(&blue, &green).start();
    assert_eq!(cutover.client().ask(GET).status, 200);
    eventually("the first line is written", || cutover.file("access.log").contains("/first"));
    std::fs::rename(cutover.path("access.log"), cutover.path("access.log.1")).expect("a log can be renamed");
    cutover.signal(libc::SIGUSR1);
    eventually("the file is there again", || cutover.path("access.log").exists());
    assert_eq!(cutover.get("/second").status, 200);
    eventually("the second line is in the new file", || cutover.file("access.log").contains("/second"));
    assert!(!cutover.file("access.log.1").contains("/second"), "and not in the old one");
    assert!(cutover.is_running());
}

#[test]
fn a_removed_access_log_is_noticed_without_a_signal() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = logging(&blue, &green).start();
    assert_eq!(cutover.get("/first").status, 200);
    eventually("the first line is written", || cutover.file("access.log").contains("/first"));
    std::fs::remove_file(cutover.path("access.log")).expect("a log can be removed");
    eventually("lines are in a new file", || {
        assert_eq!(cutover.get("/later").status, 200);
        cutover.path("access.log").exists() && cutover.file("access.log").contains("/later")
    });
}

#[test]
fn hup_opens_the_access_log_anew_as_well() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = logging(&blue, &green).start();
    assert_eq!(cutover.get("/first").status, 200);
    eventually("the first line is written", || cutover.file("access.log").contains("/first"));
    std::fs::rename(cutover.path("access.log"), cutover.path("access.log.1")).expect("a log can be renamed");
    cutover.signal(libc::SIGHUP);
    eventually("the file is there again", || cutover.path("access.log").exists());
}

#[test]
fn quit_is_a_graceful_stop() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let mut cutover = Setup::of(&blue, &green).start();
    assert_eq!(cutover.get("/").status, 200);
    cutover.signal(libc::SIGQUIT);
    assert_eq!(cutover.ended().code(), Some(0));
    assert!(cutover.log().contains("stopped: all requests are done"), "{}", cutover.log());
}

#[test]
fn usr1_ends_no_other_verb() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).start();
    let config = cutover.path("cutover.toml");
    let mut verb = std::process::Command::new(env!("CARGO_BIN_EXE_cutover"))
        .args(["status", "--watch", "--config"])
        .arg(config)
        .stdout(std::fs::File::create(cutover.path("watched")).expect("a file can be made"))
        .spawn()
        .expect("the binary runs");
    eventually("it has printed", || !cutover.file("watched").is_empty());
    let pid = i32::try_from(verb.id()).expect("a process id is small");
    // SAFETY: the process is our child and was not waited for, so its number is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGUSR1) }, 0);
    let printed = cutover.file("watched").len();
    eventually("it goes on printing", || cutover.file("watched").len() > printed);
    assert!(verb.try_wait().expect("it can be asked").is_none(), "it still runs");
    verb.kill().expect("it can be ended");
    verb.wait().expect("it ends");
}
