//! Composition root of `cutover serve`: the only file that knows both planes.
//!
//! Order of a start: limits, logs, listeners (so that a taken port is said before anything is changed), control plane
//! (state is restored), data plane, admin. Order of a stop: listeners, requests in flight, admin, control plane.

use std::fmt;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::control::{self, Control, Handle};
use crate::lines::Lines;
use crate::proxy::{self, AccessLog, Listener, Plane, Scheme};
use crate::tls::{Acme, Terminator};
use crate::{acme, admin, clock};

/// Why the proxy could not start: what, and what now.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Serves until a signal ends it. Exit code 0 after a stop, 1 when it could not start.
pub fn run(config: Config) -> ExitCode {
    clock::now();
    let logs = match init_logs() {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("cutover: cannot start the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match start(&config) {
        Ok(running) => running.run_to_end(&config),
        Err(error) => {
            tracing::error!("cannot start: {error}");
            ExitCode::FAILURE
        }
    };
    logs.finish();
    code
}

/// People read a terminal, machines read JSON. `RUST_LOG` narrows or widens it; the default is `info`.
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
    plane: Plane,
    log: AccessLog,
    control: JoinHandle<()>,
    stop_control: watch::Sender<bool>,
    signals: std::sync::mpsc::Receiver<()>,
    again: Arc<AtomicBool>,
}

fn start(config: &Config) -> Result<Running, StartError> {
    raise_file_limit();
    let listeners = bind(config)?;
    let log = AccessLog::open(&config.log).map_err(|error| {
        StartError(match &config.log.access_file {
            Some(path) => format!("log.access_file {}: {error}", path.display()),
            None => format!("the access log: {error}"),
        })
    })?;
    let terminator = (!config.proxy.listen_tls.is_empty()).then(|| Terminator::new(&config.tls)).transpose();
    let terminator =
        terminator.map_err(|error| StartError(format!("cannot make keys for TLS sessions: {error}")))?.map(Arc::new);
    let admin = admin::bind(&config.admin).map_err(|error| StartError(error.to_string()))?;

    // The control plane needs the data plane's wakers, and the data plane needs the control plane's table.
    let plane_cell: Arc<OnceLock<PlaneHandles>> = Arc::default();
    let (wake, count) = (Arc::clone(&plane_cell), Arc::clone(&plane_cell));
    let control = control::start(
        config.clone(),
        config.proxy.workers,
        Arc::new(move || {
            if let Some(plane) = wake.get() {
                (plane.wake)();
            }
        }),
        Arc::new(move || count.get().map_or(0, |plane| (plane.connections)())),
        Arc::new(|path| Config::load(path).map_err(|problems| problems.to_string())),
        terminator.clone(),
    )
    .map_err(|error| StartError(error.to_string()))?;

    let table = Arc::clone(&control.table);
    let (stop_control, stopped) = watch::channel(false);
    let (stop_asked, signals) = std::sync::mpsc::channel();
    let again = Arc::new(AtomicBool::new(false));
    let (hearing, heard) = std::sync::mpsc::sync_channel(1);
    let ears = Ears { hearing, stop_asked, again: Arc::clone(&again) };
    let token = config.admin.token.clone();
    let ordered = config.tls.acme.clone().zip(terminator.clone());
    let control = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || run_control(control, admin, token, ordered, stopped, &ears))
        .map_err(|error| StartError(format!("cannot start the control thread: {error}")))?;
    // Not before the signals are heard: a TERM in the first millisecond is a stop like any other.
    if heard.recv().is_err() {
        return Err(StartError("the control plane did not start".into()));
    }
    let plane = Plane::start(&config.proxy, &table, listeners, terminator.as_ref(), &log)
        .map_err(|error| StartError(format!("cannot start the workers: {error}")))?;
    let _ = plane_cell.set(PlaneHandles { wake: Box::new(plane.waker()), connections: Box::new(plane.connections()) });
    say_what_is_served(config);
    Ok(Running { plane, log, control, stop_control, signals, again })
}

struct PlaneHandles {
    wake: Box<dyn Fn() + Send + Sync>,
    connections: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Running {
    /// Waits for a signal, then stops.
    fn run_to_end(self, config: &Config) -> ExitCode {
        // An error means that the control thread has ended without a signal: there is nobody left to judge a release.
        let asked = self.signals.recv();
        let limit = config.proxy.shutdown_timeout;
        tracing::info!(limit = ?limit, "stopping: no new connections, requests in flight may finish");
        let again = Arc::clone(&self.again);
        let stopped = self.plane.stop(limit, move || again.load(Relaxed));
        self.stop_control.send_replace(true);
        let _ = self.control.join();
        self.log.finish();
        match (stopped.cut, self.again.load(Relaxed)) {
            (0, _) => tracing::info!("stopped: all done"),
            (cut, false) => tracing::warn!(cut, "stopped: deadline, {cut} cut"),
            (cut, true) => tracing::warn!(cut, "stopped: second signal, {cut} cut"),
        }
        if asked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
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

fn bind(config: &Config) -> Result<Vec<Listener>, StartError> {
    let bind = |(address, scheme, key): (SocketAddr, Scheme, &str)| {
        proxy::bind(address, scheme).map_err(|error| {
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

/// The control thread: the cutover machines, the admin API and the signals.
fn run_control(
    control: Control,
    admin: admin::Bound,
    token: Option<String>,
    ordered: Option<(Acme, Arc<Terminator>)>,
    stopped: watch::Receiver<bool>,
    ears: &Ears,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the control plane cannot run"),
    };
    runtime.block_on(async {
        let handle = control.handle.clone();
        let served = tokio::spawn(admin::serve(admin, token, handle.clone(), stopped.clone()));
        if let Some((settings, terminator)) = ordered {
            let handle = handle.clone();
            tokio::spawn(acme::keep(settings, terminator, async move || {
                let _ = handle.reload("acme").await; // a refusal is among the problems
            }));
        }
        tokio::select! {
            () = control.run(stopped) => {}
            error = ears.hear(&handle) => tracing::error!(%error, "cannot hear signals"),
        }
        let _ = served.await;
    });
}

/// Where signals are passed on to.
struct Ears {
    /// Told once, when signals are heard.
    hearing: std::sync::mpsc::SyncSender<()>,
    /// Told at each TERM and INT.
    stop_asked: std::sync::mpsc::Sender<()>,
    /// Whether there was more than one.
    again: Arc<AtomicBool>,
}

impl Ears {
    /// HUP reloads. The first TERM or INT asks for a stop, the second for a stop now. Returns why it cannot hear.
    async fn hear(&self, handle: &Handle) -> io::Error {
        let heard = [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [Ok(mut hup), Ok(mut term), Ok(mut int)] = heard else { return io::Error::last_os_error() };
        // Whoever waits for it, and for the stops below, only goes away with the process.
        let _ = self.hearing.send(());
        let mut asked = false;
        loop {
            tokio::select! {
                _ = hup.recv() => {
                    let handle = handle.clone();
                    // A reload may wait for a disk; the next signal must not.
                    tokio::spawn(async move { handle.reload("HUP").await });
                    continue;
                }
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            self.again.store(asked, Relaxed);
            asked = true;
            let _ = self.stop_asked.send(());
        }
    }
}
