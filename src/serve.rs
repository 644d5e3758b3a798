//! Composes `cutover serve`: this is the only file that knows both planes.
//!
//! A start runs in this order: limits, logs, listeners (so that a taken port is reported before anything is changed),
//! control plane (state is restored), data plane, admin. A stop runs in this order: listeners, requests in flight,
//! admin, control plane.

mod signals;

use std::fmt;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::admin;
use crate::api::Upgraded;
use crate::config::Config;
use crate::control::{self, Control, DataPlaneLinks, Handle, UpgradeError};
use crate::handover::{
    Inherited, Launcher, PassedOn, RunningSuccessor, UPGRADE_STATE_VERSION, UpgradeLink, UpgradeMessage, UpgradeState,
    notify_ready,
};
use crate::os::clock;
use crate::os::line_writer::Lines;
use crate::proxy::{self, AccessLog, DataPlane, Listener, Scheme};
use crate::routing::ClientTerminations;
use crate::tls::acme;
use crate::tls::{Acme, Terminator};
use signals::{ProcessCommand, SignalHandler, StopRequests};

/// Says why the proxy could not start, and what the operator can do.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// After an upgrade, an idle kept connection stays open for this long. A client that sends a request in that time gets
/// its response and is told to close; only a client that is silent for so long is closed without notice.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// The upgraded process reports its remaining counts this often.
const REPORT: Duration = Duration::from_millis(200);
/// The predecessor has this long to send its counters.
const UPGRADE_STATE_LIMIT: Duration = Duration::from_secs(20);

/// Serves until a signal ends it, on the inherited sockets and its own. The exit code is 0 after a stop, and 1 when it
/// could not start.
pub fn run(config: Config, mut inherited: Inherited) -> ExitCode {
    clock::now();
    let logs = match init_logs() {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("cutover: cannot start the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match start(&config, &mut inherited) {
        Ok(running) => running.run_to_end(&config),
        Err(error) => {
            inherited.refuse(&error.to_string());
            tracing::error!("cannot start: {error}");
            ExitCode::FAILURE
        }
    };
    logs.finish();
    code
}

/// Sets up the log: text on a terminal, JSON elsewhere. `RUST_LOG` narrows or widens it; the default is `info`.
fn init_logs() -> io::Result<Lines> {
    let lines = Lines::to(io::stderr(), "log")?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone());
    if io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
    Ok(lines)
}

/// The running proxy.
struct Running {
    plane: DataPlane,
    log: AccessLog,
    control: JoinHandle<()>,
    stop_control: watch::Sender<bool>,
    asked: std::sync::mpsc::Receiver<ProcessCommand>,
    stops: Arc<StopRequests>,
    handle: Handle,
    /// Duplicates of every listening socket.
    sockets: Vec<OwnedFd>,
    socket_file: Arc<AtomicBool>,
    /// The lock on the state folder, once more; `None` where locks cannot be had.
    state_lock: Option<OwnedFd>,
    launcher: io::Result<Launcher>,
}

fn start(config: &Config, inherited: &mut Inherited) -> Result<Running, StartError> {
    let launcher = Launcher::find();
    raise_file_limit();
    let BoundSockets { listeners, admin, sockets, socket_file } = bind_sockets(config, inherited)?;
    let log = open_access_log(config)?;
    let terminator = (!config.proxy.listen_tls.is_empty()).then(|| Terminator::new(&config.tls)).transpose();
    let terminator =
        terminator.map_err(|error| StartError(format!("cannot make keys for TLS sessions: {error}")))?.map(Arc::new);

    let client_ends: Arc<ClientTerminations> = Arc::default();
    // The control plane needs the data plane's wakers, and the data plane needs the control plane's table.
    let plane_cell: Arc<OnceLock<PlaneHandles>> = Arc::default();
    let (wake, count) = (Arc::clone(&plane_cell), Arc::clone(&plane_cell));
    let links = DataPlaneLinks {
        workers: config.proxy.workers,
        wake_workers: Arc::new(move || {
            if let Some(plane) = wake.get() {
                (plane.wake)();
            }
        }),
        connections: Arc::new(move || count.get().map_or(0, |plane| (plane.connections)())),
        terminator: terminator.clone(),
        client_ends: Arc::clone(&client_ends),
    };
    let mut control = control::start(config.clone(), links, inherited.state_lock.take())
        .map_err(|error| StartError(error.to_string()))?;
    let state_lock = control.state_lock();

    let (heard_log, log_config) = (log.clone(), config.log.clone());
    control.other_problem_by(Box::new(move || heard_log.problem(&log_config)));

    let predecessor = match &mut inherited.link {
        Some(link) => Some(take_over(link, &mut control)?),
        None => None,
    };

    let table = Arc::clone(&control.table);
    let (stop_control, stopped) = watch::channel(false);
    let (ask, asked) = std::sync::mpsc::channel();
    let upgrades = ask.clone();
    control.upgrade_by(Box::new(move || {
        // Without a main thread there is nothing to upgrade.
        let _ = upgrades.send(ProcessCommand::Upgrade);
    }));
    let handle = control.handle.clone();
    let stops: Arc<StopRequests> = Arc::default();
    // Signals are handled before anything is served, so that a TERM in the first millisecond is a stop like any other.
    let signals = SignalHandler {
        asked: ask.clone(),
        stops: Arc::clone(&stops),
        handle: handle.clone(),
        access_log: log.clone(),
    };
    signals.open().map_err(|error| StartError(format!("cannot install signal handlers: {error}")))?;
    let token = config.admin.token.clone();
    let ordered = config.tls.acme.clone().zip(terminator.clone());
    let control = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            run_control(control, admin, token, ordered, stopped);
            // A main thread that told the control thread to end no longer receives this.
            let _ = ask.send(ProcessCommand::GiveUp);
        })
        .map_err(|error| StartError(format!("cannot start the control thread: {error}")))?;
    let plane = DataPlane::start(&config.proxy, &table, listeners, terminator.as_ref(), &log, &client_ends)
        .map_err(|error| StartError(format!("cannot start the workers: {error}")))?;
    let _ = plane_cell.set(PlaneHandles { wake: Box::new(plane.waker()), connections: Box::new(plane.connections()) });
    say_what_is_served(config);
    if let (Some(successor), Some(link)) = (predecessor, inherited.link.take()) {
        let heard = follow_predecessor(link, successor, handle.clone());
        heard.map_err(|error| StartError(format!("the previous process is gone: {error}")))?;
    }
    if let Err(error) = notify_ready() {
        tracing::warn!("cannot tell systemd that the proxy serves: {error}");
    }
    Ok(Running { plane, log, control, stop_control, asked, stops, handle, sockets, socket_file, state_lock, launcher })
}

/// Holds every listener, and a duplicate of each socket.
struct BoundSockets {
    listeners: Vec<Listener>,
    admin: admin::Bound,
    sockets: Vec<OwnedFd>,
    socket_file: Arc<AtomicBool>,
}

fn bind_sockets(config: &Config, inherited: &mut Inherited) -> Result<BoundSockets, StartError> {
    let listeners = bind(config, inherited)?;
    let admin = admin::bind(&config.admin, inherited).map_err(|error| StartError(error.to_string()))?;
    for left in inherited.left() {
        tracing::warn!("the inherited socket at {left} is closed: nothing in the config listens there");
    }
    let sockets = duplicates(&listeners, &admin)
        .map_err(|error| StartError(format!("cannot keep the sockets for an upgrade: {error}")))?;
    Ok(BoundSockets { listeners, socket_file: admin.stays(), admin, sockets })
}

fn open_access_log(config: &Config) -> Result<AccessLog, StartError> {
    AccessLog::open(&config.log).map_err(|error| {
        StartError(match &config.log.access_file {
            Some(path) => format!("log.access_file {}: {error}", path.display()),
            None => format!("the access log: {error}"),
        })
    })
}

struct PlaneHandles {
    wake: Box<dyn Fn() + Send + Sync>,
    connections: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Running {
    /// Waits for a signal and then stops, or for an upgrade and then leaves.
    fn run_to_end(self, config: &Config) -> ExitCode {
        let limit = config.proxy.shutdown_timeout;
        loop {
            match self.asked.recv() {
                Ok(ProcessCommand::Upgrade) => {
                    if let Some(started) = self.upgrade() {
                        return self.leave(started, limit);
                    }
                }
                Ok(ProcessCommand::Stop) => return self.stop(limit, ExitCode::SUCCESS),
                Ok(ProcessCommand::GiveUp) | Err(_) => return self.stop(limit, ExitCode::FAILURE),
            }
        }
    }

    fn stop(self, limit: Duration, code: ExitCode) -> ExitCode {
        tracing::info!(limit = ?limit, "stopping: no new connections, requests in flight may finish");
        drop(self.sockets);
        let stopped = self.plane.stop(limit, Duration::ZERO, || self.stops.again());
        self.stop_control.send_replace(true);
        let _ = self.control.join();
        self.log.finish();
        match (stopped.cut, self.stops.again()) {
            (0, _) => tracing::info!("stopped: all requests are done"),
            (cut, false) => tracing::warn!(cut, "stopped at the deadline: {cut} cut"),
            (cut, true) => tracing::warn!(cut, "stopped by a second signal: {cut} cut"),
        }
        code
    }

    /// Starts a successor. The control plane learns whether it serves.
    fn upgrade(&self) -> Option<RunningSuccessor> {
        let started = self.start_successor();
        if started.is_ok() {
            // The successor listens on the socket's file.
            self.socket_file.store(true, Relaxed);
        }
        let (outcome, started) = match started {
            Ok(started) => (Ok(Upgraded { from_pid: std::process::id(), to_pid: started.pid }), Some(started)),
            Err(error) => (Err(error), None),
        };
        self.handle.upgrade_ended(outcome);
        started
    }

    fn start_successor(&self) -> Result<RunningSuccessor, UpgradeError> {
        let launcher = self.launcher.as_ref().map_err(|error| UpgradeError::NoProgram(error.to_string()))?;
        if std::process::id() == 1 {
            return Err(UpgradeError::FirstProcess);
        }
        tracing::info!(program = %launcher.program().display(), "upgrading in place");
        let passed = PassedOn { sockets: &self.sockets, state_lock: self.state_lock.as_ref() };
        let started = launcher.start(passed, || self.handle.hand_over_blocking(), || self.stops.any());
        started.map_err(UpgradeError::Launch)
    }

    /// Finishes the requests in flight while the successor serves, and sends it what they add to the counters.
    fn leave(self, started: RunningSuccessor, limit: Duration) -> ExitCode {
        let RunningSuccessor { pid, mut link } = started;
        tracing::info!(pid, limit = ?limit, "the new process serves: requests in flight here may finish");
        let observed = self.handle.observe_blocking();
        let last = observed.map(|observed| observed.stats);
        drop(self.sockets);
        self.stop_control.send_replace(true);
        let mut report = || {
            if let Some(stats) = &last {
                // A successor that is gone has taken its counters with it.
                let counters = control::counters(stats);
                let _ = link.say(&UpgradeState { version: UPGRADE_STATE_VERSION, counters, ..UpgradeState::default() });
            }
        };
        // The successor begins to judge when it receives the first report.
        report();
        let mut reported = Instant::now();
        let stopped = self.plane.stop(limit, IDLE_GRACE.min(limit), || {
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                report();
            }
            self.stops.again()
        });
        report();
        let _ = self.control.join();
        self.log.finish();
        tracing::info!(cut = stopped.cut, "stopped: process {pid} serves");
        ExitCode::SUCCESS
    }
}

/// Tells the predecessor that config, state and sockets are in order, and receives its counters.
fn take_over(link: &mut UpgradeLink, control: &mut Control) -> Result<control::InheritedCounters, StartError> {
    let failed = |error| StartError(format!("the previous process does not hand over: {error}"));
    link.say(&UpgradeMessage::Ready).map_err(failed)?;
    let state = match link.hear::<UpgradeState>(Some(UPGRADE_STATE_LIMIT)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%error, "the previous process's counters are not understood, and left out");
            UpgradeState { version: UPGRADE_STATE_VERSION, ..UpgradeState::default() }
        }
        state => state.map_err(failed)?,
    };
    Ok(control.succeed(&state))
}

/// Tells the predecessor that this process serves; then the predecessor leaves, and its reports are received until it
/// has ended.
fn follow_predecessor(mut link: UpgradeLink, successor: control::InheritedCounters, handle: Handle) -> io::Result<()> {
    link.say(&UpgradeMessage::Serving)?;
    let hear = move || {
        let mut judges = false;
        loop {
            match link.hear::<UpgradeState>(None) {
                Ok(state) => drop(successor.take(&state)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => break,
            }
            if !std::mem::replace(&mut judges, true) {
                handle.judge();
            }
        }
        successor.end();
        tracing::info!("the previous process has ended");
        handle.be_alone();
    };
    std::thread::Builder::new().name("predecessor".into()).spawn(hear).map(drop)
}

/// A proxy needs two descriptors per connection; the soft limit is often 1,024.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct they are given.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        tracing::warn!("cannot raise the limit of open files: {}", io::Error::last_os_error());
    }
}

fn duplicates(listeners: &[Listener], admin: &admin::Bound) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = listeners.iter().map(Listener::duplicate).collect::<io::Result<Vec<_>>>()?;
    sockets.extend(admin.duplicate()?);
    Ok(sockets)
}

fn bind(config: &Config, inherited: &mut Inherited) -> Result<Vec<Listener>, StartError> {
    let bind = |(address, scheme, key): (SocketAddr, Scheme, &str)| {
        let bound = match inherited.tcp(address) {
            Some(socket) => proxy::adopt(socket, scheme),
            None => proxy::bind(address, scheme),
        };
        bound.map_err(|error| {
            let help = match error.kind() {
                io::ErrorKind::AddrInUse => "; another process listens there: `ss -ltnp` names it",
                io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
                io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
                _ => "",
            };
            StartError(format!("{key} {address}: {error}{help}"))
        })
    };
    let plain = config.proxy.listen.iter().map(|&address| (address, Scheme::Http, "proxy.listen"));
    let secured = config.proxy.listen_tls.iter().map(|&address| (address, Scheme::Https, "proxy.listen_tls"));
    plain.chain(secured).map(bind).collect()
}

fn say_what_is_served(config: &Config) {
    for address in &config.proxy.listen {
        tracing::info!(%address, workers = config.proxy.workers, "proxy listens");
    }
    for warning in config.tls.warnings(clock::unix_seconds()) {
        tracing::warn!("{warning}");
    }
    for address in &config.proxy.listen_tls {
        tracing::info!(%address, workers = config.proxy.workers, "proxy listens for TLS");
    }
    tracing::info!(address = %config.admin.listen, socket = ?config.admin.socket, "admin listens");
}

/// Runs the control thread, with the cutover machines and the admin API.
fn run_control(
    control: Control,
    admin: admin::Bound,
    token: Option<String>,
    ordered: Option<(Acme, Arc<Terminator>)>,
    stopped: watch::Receiver<bool>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the control plane cannot run"),
    };
    runtime.block_on(async {
        let handle = control.handle.clone();
        // The control plane ends after the last response of the API was sent.
        let (end_control, end) = watch::channel(false);
        let serve_admin = admin::serve(admin, token, handle.clone(), stopped);
        let served = tokio::spawn(async move {
            serve_admin.await;
            end_control.send_replace(true);
        });
        if let Some((settings, terminator)) = ordered {
            let handle = handle.clone();
            tokio::spawn(acme::keep(settings, terminator, async move || {
                let _ = handle.reload("acme").await; // a refusal is among the problems
            }));
        }
        control.run(end).await;
        let _ = served.await;
    });
    // A probe's resolver may block for longer than a stop may take, and nobody waits for its result.
    runtime.shutdown_background();
}
