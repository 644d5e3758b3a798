//! The control plane end to end: real upstreams on real sockets, a real state folder, leases taken as a worker would.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::api::{ChangeRequest, Changed, Drained, EventKind, Phase, Refusal, RefusalCode, Reloaded};
use crate::config::Config;
use crate::domain::Color;
use crate::domain::cutover::Reason;
use crate::routing::{Access, HostTable, Lease, Method, Outcome};

/// An upstream that is ready while its flag says so; its listener stays until the test ends.
struct App {
    port: u16,
    ready: Arc<AtomicBool>,
}

async fn app(ready: bool) -> App {
    let (app, listener) = silent_app(ready).await;
    app.answer(listener);
    app
}

/// An upstream that takes connections and says nothing yet, so that probes wait.
async fn silent_app(ready: bool) -> (App, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (App { port, ready: Arc::new(AtomicBool::new(ready)) }, listener)
}

impl App {
    fn answer(&self, listener: TcpListener) {
        tokio::spawn(answer_probes(listener, Arc::clone(&self.ready)));
    }
}

async fn answer_probes(listener: TcpListener, flag: Arc<AtomicBool>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = [0; 1024];
        drop(stream.read(&mut head).await);
        let status = if flag.load(Relaxed) { "200 OK" } else { "503 Service Unavailable" };
        drop(stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await);
    }
}

/// A folder with a config, and the control plane that runs on it.
struct Running {
    folder: TempDir,
    handle: Handle,
    table: Arc<ArcSwap<HostTable>>,
    woken: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

const FAST: &str = "health = { interval = \"20ms\", timeout = \"1s\" }\n";

fn write_config(folder: &Path, blue: &App, green: &App, more: &str) {
    let state = format!("[state]\ndir = {:?}\nledger = {:?}\n", folder.join("state"), folder.join("releases.log"));
    let service = format!("[service.recall]\nblue = {}\ngreen = {}\n{FAST}{more}", blue.port, green.port);
    std::fs::write(folder.join("cutover.toml"), state + &service).unwrap();
}

/// A data plane of so many workers and three connections.
fn links(workers: usize, wake_workers: Arc<dyn Fn() + Send + Sync>) -> DataPlaneLinks {
    let connections = Arc::new(|| 3);
    DataPlaneLinks { workers, wake_workers, connections, terminator: None, client_ends: Arc::default() }
}

fn run_in(folder: TempDir) -> Running {
    let config = Config::load(&folder.path().join("cutover.toml")).unwrap();
    let woken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&woken);
    let wake = Arc::new(move || {
        count.fetch_add(1, Relaxed);
    });
    let control = start(config, links(2, wake), None).unwrap();
    let (handle, table) = (control.handle.clone(), Arc::clone(&control.table));
    let (stop, stopped) = watch::channel(false);
    Running { folder, handle, table, woken, stop, task: tokio::spawn(control.run(stopped)) }
}

async fn run(blue: &App, green: &App, more: &str) -> Running {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), blue, green, more);
    run_in(folder)
}

impl Running {
    async fn status(&self) -> crate::api::ServiceStatus {
        self.handle.observe().await.unwrap().status.services.remove("recall").unwrap()
    }

    async fn until(&self, what: &str, is: impl Fn(&crate::api::ServiceStatus) -> bool) {
        for _ in 0..500 {
            if is(&self.status().await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {what} within 5 s: {:#?}", self.status().await);
    }

    /// Until the probes know that the idle color is down, which takes more than one.
    async fn until_down(&self) {
        while !self.lease().standby().upstreams[0].is_down() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_ready(&self, color: Color) {
        self.until("ready", |status| status.colors[&color].ready).await;
    }

    async fn flip(&self, to: Color) -> Result<Changed, Refusal> {
        self.ask(to, ChangeRequest::default()).await
    }

    async fn ask(&self, to: Color, request: ChangeRequest) -> Result<Changed, Refusal> {
        self.handle.flip("recall".into(), None, ChangeRequest { to: Some(to), ..request }).await
    }

    /// A lease as a worker takes it.
    fn lease(&self) -> Lease {
        self.table
            .load()
            .find(b"any", b"/")
            .unwrap()
            .route
            .load()
            .lease(0, Access::Read, std::time::Instant::now())
            .unwrap()
    }

    fn ledger(&self) -> Vec<String> {
        crate::ledger::tail(&self.folder.path().join("releases.log"), 100).unwrap()
    }

    async fn end(self) -> TempDir {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
        self.folder
    }
}

fn answers(lease: &mut Lease, status: u16) {
    let outcome = if status < 500 { Outcome::Good } else { Outcome::Bad };
    lease.record(outcome, Some(status), Method::Get, Duration::from_millis(1));
}

#[tokio::test]
async fn a_ready_color_takes_over_and_the_old_one_drains() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    let mut old = running.lease();
    assert_eq!(old.route().color, Color::Blue);

    let handle = running.handle.clone();
    let request = ChangeRequest { to: Some(Color::Green), by: Some("cli".into()), ..ChangeRequest::default() };
    let flip = tokio::spawn(async move { handle.flip("recall".into(), Some(1), request).await });
    running.until("flipped", |status| status.active == Color::Green).await;
    assert_eq!((running.lease().route().color, running.lease().route().epoch), (Color::Green, 2));
    assert!(!flip.is_finished(), "the answer waits for the drain");
    let second = running.flip(Color::Green).await.unwrap_err();
    assert_eq!(second.code, RefusalCode::CutoverUnderWay);
    answers(&mut old, 200);
    drop(old);

    let changed = flip.await.unwrap().unwrap();
    assert_eq!(
        (changed.from, changed.to, changed.epoch, changed.drain.unwrap().cut),
        (Color::Blue, Color::Green, 2, 0)
    );
    let ledger = running.ledger();
    assert!(ledger[0].contains("] flip recall: blue -> green epoch=2 reason=operator by=cli chain="), "{ledger:#?}");
    assert!(ledger[1].contains("] refused recall: flip to green code=cutover_under_way"), "{ledger:#?}");
    assert!(ledger[2].contains("] drained recall: blue epoch=1"), "{ledger:#?}");
    let observed = running.handle.observe().await.unwrap();
    let flip = FlipCount { service: "recall".into(), to: Color::Green, reason: Reason::Operator, count: 1 };
    assert_eq!(observed.flips, [flip]);
    assert_eq!((observed.status.connections, observed.status.problems.len()), (3, 0));
    running.end().await;
}

#[tokio::test]
async fn a_color_that_is_not_ready_is_refused_and_can_be_forced() {
    let (blue, green) = (app(true).await, app(false).await);
    let running = run(&blue, &green, "").await;
    running.until("probed", |status| status.colors[&Color::Green].upstreams[0].reason.is_some()).await;
    let refused = running.flip(Color::Green).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotReady);
    assert!(refused.message.contains(&format!("127.0.0.1:{}: 503", green.port)), "{refused}");
    assert_eq!((running.status().await.epoch, running.lease().route().color), (1, Color::Blue));
    assert!(running.ledger()[0].contains("code=not_ready reason=operator by=api"), "{:?}", running.ledger());

    let dry = ChangeRequest { dry_run: true, force: true, ..ChangeRequest::default() };
    assert!(running.ask(Color::Green, dry).await.unwrap().dry_run);
    assert_eq!((running.status().await.epoch, running.ledger().len()), (1, 1));

    running.ask(Color::Green, ChangeRequest { force: true, ..ChangeRequest::default() }).await.unwrap();
    assert!(running.ledger()[1].contains("by=api forced=true chain="), "{:?}", running.ledger());
    running.end().await;
}

#[tokio::test]
async fn a_bad_color_is_taken_back_by_itself_and_stays_back() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    let mut events = running.handle.events();
    running.flip(Color::Green).await.unwrap();
    let mut failed = 0;
    loop {
        let mut lease = running.lease();
        if lease.route().epoch == 3 || failed == 1_000 {
            break;
        }
        let status = if lease.color() == Color::Green { 500 } else { 200 };
        failed += u32::from(status == 500);
        answers(&mut lease, status);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(failed < 30, "{failed} failures");
    let status = running.status().await;
    assert_eq!((status.phase, status.active, status.epoch), (Phase::RolledBack, Color::Blue, 3));
    assert!(status.summary.contains("green was bad and blue has the traffic back"), "{}", status.summary);
    assert!(status.last_verdict.unwrap().contains("requests failed within"));
    let twice = running.handle.rollback("recall".into(), None, ChangeRequest::default()).await.unwrap_err();
    assert_eq!(twice.code, RefusalCode::NothingToRollBack);
    assert!(running.ledger().iter().any(|line| line.contains("rollback recall: green -> blue epoch=3 reason=verdict")));
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.kind).collect();
    assert!(told.contains(&EventKind::Flip) && told.contains(&EventKind::Rollback), "{told:?}");
    running.end().await;
}

#[tokio::test]
async fn stragglers_are_cut_at_the_deadline() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "drain = { timeout = \"100ms\" }\n").await;
    running.until_ready(Color::Green).await;
    let straggler = running.lease();
    let woken = Arc::clone(&running.woken);
    let worker = async {
        while !straggler.is_cut() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(woken.load(Relaxed) >= 1, "a cut wakes the workers");
        drop(straggler);
    };
    let (changed, ()) = tokio::join!(running.flip(Color::Green), worker);
    let drained = changed.unwrap().drain.unwrap();
    assert!(drained.cut == 1 && drained.seconds >= 0.1, "{drained:?}");
    running.end().await;
}

#[tokio::test]
async fn color_epoch_and_watch_survive_a_restart() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    running.flip(Color::Green).await.unwrap();
    let folder = running.end().await;

    let running = run_in(folder);
    let status = running.status().await;
    assert_eq!((status.active, status.epoch, status.phase), (Color::Green, 2, Phase::Watching));
    assert_eq!((running.lease().route().color, running.lease().route().epoch), (Color::Green, 2));
    running.until_ready(Color::Blue).await;
    let back = running.handle.rollback("recall".into(), Some(2), ChangeRequest::default()).await.unwrap();
    assert_eq!((back.to, back.epoch), (Color::Blue, 3));
    running.end().await;
}

#[tokio::test]
async fn the_config_flips_only_when_active_changed() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    assert_eq!(running.handle.reload("HUP").await.unwrap(), Reloaded::default());
    assert_eq!(running.status().await.epoch, 1);

    // The file watch finds it; nobody has to ask.
    write_config(running.folder.path(), &blue, &green, "active = \"green\"\n");
    running.until("flipped", |status| status.active == Color::Green).await;
    running.handle.rollback("recall".into(), None, ChangeRequest::default()).await.unwrap();
    running.handle.reload("HUP").await.unwrap();
    assert_eq!((running.status().await.active, running.status().await.epoch), (Color::Blue, 3));
    assert!(running.ledger()[0].contains("reason=config by=\"file change\""), "{:?}", running.ledger());
    running.end().await;
}

#[tokio::test]
async fn a_refused_config_flip_does_not_fire_later() {
    let (blue, green) = (app(true).await, app(false).await);
    let running = run(&blue, &green, "").await;
    running.until_down().await;
    write_config(running.folder.path(), &blue, &green, "active = \"green\"\n");
    let said = running.handle.reload("HUP").await.unwrap().changes.join("\n");
    assert!(said.contains("the flip to green was refused") && said.contains("503"), "{said}");
    assert!(running.ledger()[0].contains("refused recall: flip to green code=not_ready reason=config by=HUP"));
    green.ready.store(true, Relaxed);
    running.until_ready(Color::Green).await;
    running.handle.reload("HUP").await.unwrap();
    let folder = running.end().await;
    let running = run_in(folder);
    running.until_ready(Color::Green).await;
    assert_eq!((running.status().await.active, running.status().await.epoch), (Color::Blue, 1));
    running.end().await;
}

#[tokio::test]
async fn a_config_changed_while_nobody_ran_flips_through_the_gate() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    running.flip(Color::Green).await.unwrap();
    running.until_ready(Color::Blue).await;
    running.flip(Color::Blue).await.unwrap();
    let folder = running.end().await;
    write_config(folder.path(), &blue, &green, "active = \"green\"\n");
    let running = run_in(folder);
    assert_eq!(running.status().await.active, Color::Blue, "nothing is known of green yet");
    running.until("flipped", |status| (status.active, status.epoch) == (Color::Green, 4)).await;
    running.end().await;
}

#[tokio::test]
async fn a_bad_config_changes_nothing_and_says_so_until_it_is_good() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    std::fs::write(running.folder.path().join("cutover.toml"), "[service.recall]\nblue = \"?\"\n").unwrap();
    assert_eq!(running.handle.reload("api").await.unwrap_err().code, RefusalCode::BadConfig);
    std::fs::remove_file(running.folder.path().join("cutover.toml")).unwrap();
    assert_eq!(running.handle.reload("api").await.unwrap_err().code, RefusalCode::BadConfig);
    let observed = running.handle.observe().await.unwrap();
    assert!(observed.reloads_failed >= 2 && observed.reloads_ok == 0);
    assert_eq!(observed.status.problems.len(), 1, "{:?}", observed.status.problems);
    assert_eq!(running.lease().route().color, Color::Blue, "it keeps serving");
    write_config(running.folder.path(), &blue, &green, "");
    running.handle.reload("api").await.unwrap();
    assert!(running.handle.observe().await.unwrap().status.problems.is_empty());
    running.end().await;
}

#[tokio::test]
async fn a_reload_keeps_what_did_not_change() {
    let (blue, green, other) = (app(true).await, app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    answers(&mut running.lease(), 200);
    let upstream = running.lease().route().upstreams[0].id;
    let in_flight = running.lease();

    write_config(running.folder.path(), &blue, &other, "upstream = { response_timeout = \"5s\" }\n");
    let extra = format!("[service.extra]\nhosts = [\"extra.test\"]\nblue = {}\ngreen = {}\n", green.port, other.port);
    let path = running.folder.path().join("cutover.toml");
    let text =
        std::fs::read_to_string(&path).unwrap().replace("[state]", "[proxy]\nlisten = [\"127.0.0.1:1\"]\n[state]");
    // `other` may be green of one service only.
    std::fs::write(&path, text + &extra.replace(&format!("green = {}", other.port), "green = 2")).unwrap();
    let changes = running.handle.reload("api").await.unwrap().changes;
    for part in
        ["proxy.listen changed: needs a restart", "recall: green is now", "recall: upstream changed", "extra: added"]
    {
        assert!(changes.iter().any(|change| change.contains(part)), "{part}: {changes:#?}");
    }
    let lease = running.lease();
    assert_eq!(lease.route().service.upstream.response_timeout, Duration::from_secs(5));
    assert_eq!((lease.route().upstreams[0].id, lease.route().color, lease.route().epoch), (upstream, Color::Blue, 1));
    assert!(running.table.load().find(b"extra.test", b"/").unwrap().info.name == "extra");
    let status = running.status().await;
    assert!(status.colors[&Color::Blue].ready, "its health is kept");
    assert_eq!((status.colors[&Color::Blue].requests, status.phase), (1, Phase::Steady));
    drop(in_flight);

    write_config(running.folder.path(), &blue, &other, "");
    let changes = running.handle.reload("api").await.unwrap().changes;
    assert!(changes.iter().any(|change| change.contains("extra: removed")), "{changes:#?}");
    assert!(running.table.load().find(b"extra.test", b"/").unwrap().info.name == "recall");
    let folder = running.end().await;
    let saved = std::fs::read_to_string(folder.path().join("state/extra.json")).unwrap();
    assert!(saved.contains("\"config_active\": \"blue\""), "a later change of `active` is a flip: {saved}");
}

#[tokio::test]
async fn an_unreadable_state_costs_only_itself() {
    let (blue, green) = (app(true).await, app(true).await);
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), &blue, &green, "");
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/recall.json"), "{\"version\":9}").unwrap();
    let running = run_in(folder);
    let problems = running.handle.observe().await.unwrap().status.problems;
    assert!(problems.len() == 1 && problems[0].contains("newer cutover (version 9"), "{problems:?}");
    assert_eq!(running.status().await.active, Color::Blue);
    running.end().await;
}

#[tokio::test]
async fn a_flip_that_cannot_be_saved_is_refused_and_a_rollback_is_not() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    let state = running.folder.path().join("state");
    let break_disk = || {
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::write(&state, "not a folder").unwrap();
    };
    break_disk();
    assert_eq!(running.flip(Color::Green).await.unwrap_err().code, RefusalCode::StateUnwritable);
    assert_eq!((running.status().await.epoch, running.lease().route().color), (1, Color::Blue));

    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    running.flip(Color::Green).await.unwrap();
    break_disk();
    let back = running.handle.rollback("recall".into(), None, ChangeRequest::default()).await.unwrap();
    assert_eq!((back.to, running.lease().route().color), (Color::Blue, Color::Blue));
    let mut problems = Vec::new();
    for _ in 0..100 {
        problems = running.handle.observe().await.unwrap().status.problems;
        if !problems.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(problems.iter().any(|problem| problem.contains("state of recall is not saved")), "{problems:?}");
    running.end().await;
}

#[tokio::test]
async fn an_unwritable_state_folder_stops_the_start() {
    let (blue, green) = (app(true).await, app(true).await);
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), &blue, &green, "");
    std::fs::write(folder.path().join("state"), "a file").unwrap();
    let config = Config::load(&folder.path().join("cutover.toml")).unwrap();
    let error = start(config, links(1, Arc::new(|| {})), None).err().unwrap();
    assert!(error.to_string().contains("state.dir"), "{error}");
}

#[tokio::test]
async fn a_service_that_comes_back_has_the_color_it_left_with() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    running.flip(Color::Green).await.unwrap();
    let path = running.folder.path().join("cutover.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[service.recall]", "[service.other]")).unwrap();
    running.handle.reload("api").await.unwrap();
    let gone = running.flip(Color::Blue).await.unwrap_err();
    assert_eq!(gone.code, RefusalCode::UnknownService);
    std::fs::write(&path, text).unwrap();
    running.handle.reload("api").await.unwrap();
    assert_eq!((running.status().await.active, running.status().await.epoch), (Color::Green, 2));
    assert_eq!(running.lease().route().color, Color::Green);
    running.end().await;
}

/// Asks that the idle color be empty, and gives what is to be answered.
async fn drain(running: &Running) -> JoinHandle<Result<Drained, Refusal>> {
    let handle = running.handle.clone();
    let asked = tokio::spawn(async move { handle.drain("recall".into()).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    asked
}

const NO_WAIT: ChangeRequest = ChangeRequest { to: None, by: None, wait: Some(false), force: false, dry_run: false };

#[tokio::test]
async fn a_drain_is_of_the_idle_color_whatever_else_drains() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    let on_blue = running.lease();
    running.ask(Color::Green, NO_WAIT).await.unwrap();
    let on_green = running.lease();
    running.handle.rollback("recall".into(), None, NO_WAIT).await.unwrap();
    let asked = drain(&running).await;
    drop(on_blue);
    running.until("drained of the first", |status| !status.summary.contains("blue finishes")).await;
    assert!(!asked.is_finished(), "green still holds a lease");
    drop(on_green);
    assert_eq!(asked.await.unwrap().unwrap().cut, 0);
    running.end().await;
}

#[tokio::test]
async fn a_drain_is_of_the_color_that_is_idle_when_it_is_told() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "drain = { timeout = \"300ms\" }\n").await;
    running.until_ready(Color::Green).await;
    let now = std::time::Instant::now();
    let guest = running.table.load().find(b"any", b"/").unwrap().route.load().preview(0, Access::Read, now);
    let (guest, on_blue) = (guest.unwrap(), running.lease());
    let first = drain(&running).await;
    running.ask(Color::Green, NO_WAIT).await.unwrap();
    let second = drain(&running).await;
    drop(guest);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!first.is_finished() && !second.is_finished(), "blue is the idle one now, and holds a lease");
    while !on_blue.is_cut() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(on_blue);
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    running.end().await;
}

#[tokio::test]
async fn whoever_is_on_a_color_that_serves_again_stays() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "drain = { timeout = \"100ms\" }\n").await;
    running.until_ready(Color::Green).await;
    let now = std::time::Instant::now();
    let guest = running.table.load().find(b"any", b"/").unwrap().route.load().preview(0, Access::Read, now).unwrap();
    let asked = drain(&running).await;
    running.ask(Color::Green, NO_WAIT).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!guest.is_cut(), "green serves");
    drop(guest);
    assert!(asked.await.unwrap().is_ok());
    running.end().await;
}

/// Flips to green, lets it fail until blue has its part of the traffic, and gives a lease of that part.
async fn doubted(running: &Running) -> Lease {
    running.until_ready(Color::Green).await;
    running.flip(Color::Green).await.unwrap();
    for _ in 0..1_000 {
        let mut lease = running.lease();
        if lease.color() == Color::Blue {
            return lease;
        }
        answers(&mut lease, 500);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no traffic is split: {:#?}", running.status().await)
}

#[tokio::test]
async fn a_drain_waits_for_the_old_color_s_part_of_split_traffic() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "drain = { timeout = \"400ms\" }\n").await;
    let old = doubted(&running).await;
    let asked = drain(&running).await;
    assert!(old.close_at(0.0).is_none(), "while the color has its part of the traffic nobody there is meant to go");
    while old.close_at(0.0).is_none() {
        for _ in 0..100 {
            answers(&mut running.lease(), 200);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!asked.is_finished() && !old.is_cut(), "it may finish");
    let new = running.lease();
    while !old.is_cut() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!new.is_cut(), "of the color that serves nobody is cut");
    drop(old);
    assert_eq!((asked.await.unwrap().unwrap().cut, running.status().await.active), (1, Color::Green));
    running.end().await;
}

#[tokio::test]
async fn a_rollback_cuts_nobody_on_the_color_that_it_goes_back_to() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "drain = { timeout = \"100ms\" }\n").await;
    let old = doubted(&running).await;
    let back = running.handle.rollback("recall".into(), None, ChangeRequest::default()).await.unwrap();
    assert_eq!((back.to, back.drain.unwrap().cut), (Color::Blue, 0), "green is drained, whoever is on blue");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!old.is_cut() && old.close_at(0.0).is_none());
    running.ask(Color::Green, NO_WAIT).await.unwrap();
    running.until("blue drains", |status| status.summary.contains("blue finishes 1 in flight")).await;
    drop(old);
    running.until("drained", |status| !status.summary.contains("finishes")).await;
    running.end().await;
}

#[tokio::test]
async fn a_config_flip_waits_until_the_probes_know_its_color() {
    let blue = app(true).await;
    let (green, listener) = silent_app(true).await;
    let running = run(&blue, &green, "").await;
    write_config(running.folder.path(), &blue, &green, "active = \"green\"\n");
    let said = running.handle.reload("HUP").await.unwrap().changes.join("\n");
    assert!(said.contains("flipping to green as soon as its probes have a result"), "{said}");
    assert_eq!((running.status().await.active, running.ledger()), (Color::Blue, vec![]));
    green.answer(listener);
    running.until("flipped", |status| status.active == Color::Green).await;
    let folder = running.end().await;
    let ledger = crate::ledger::tail(&folder.path().join("releases.log"), 10).unwrap();
    assert!(ledger[0].contains("reason=config by="), "{ledger:?}");
}

#[tokio::test]
async fn a_watch_does_not_go_back_to_a_color_that_nobody_has_heard_of() {
    let (blue, green) = (app(true).await, app(true).await);
    let running = run(&blue, &green, "").await;
    running.until_ready(Color::Green).await;
    running.flip(Color::Green).await.unwrap();
    let folder = running.end().await;
    // The machine boots, and blue takes its time.
    let (blue, listener) = silent_app(true).await;
    write_config(folder.path(), &blue, &green, "");
    let running = run_in(folder);
    let fail = async || {
        let mut lease = running.lease();
        lease.record(Outcome::Refused, Some(502), Method::Get, Duration::from_millis(1));
        drop(lease);
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    for _ in 0..100 {
        fail().await;
    }
    assert_eq!((running.status().await.active, running.status().await.epoch), (Color::Green, 2));
    blue.answer(listener);
    running.until_ready(Color::Blue).await;
    for _ in 0..500 {
        if running.status().await.active == Color::Blue {
            break;
        }
        fail().await;
    }
    assert_eq!(running.status().await.active, Color::Blue, "as soon as there is somewhere to go");
    running.end().await;
}
