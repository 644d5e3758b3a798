//! Sets up the stage of the story: a temporary folder, four free ports, two apps, and this binary as the proxy between
//! them.
//!
//! Dropping the stage removes everything on it: the proxy by its process id, the apps, and the folder.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::app::{App, Release};
use crate::domain::Color;

/// The name of the only service in the demo's config.
pub const SERVICE: &str = "demo";

/// The new color is judged for this long after a flip. The default is 15 minutes, but nobody watches a demo for that
/// long.
const WATCH_SECONDS: u32 = 4;

/// The proxy has this long for a graceful stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Says why the demo could not be played.
#[derive(Debug)]
pub enum Trouble {
    /// The temporary folder, or a file in it, could not be written.
    Folder(PathBuf, io::Error),
    /// There is no free port on 127.0.0.1.
    Port(io::Error),
    /// A sample app did not start.
    App(SocketAddr, io::Error),
    /// The load did not start.
    Load(io::Error),
    /// The proxy's process could not be started or checked.
    Spawn(io::Error),
    /// The proxy ended by itself; the text is the end of its log.
    ProxyEnded(ExitStatus, String),
    /// The admin API did not respond as expected; the first field names the request.
    Admin(&'static str, String),
    /// An expected event did not happen in time; the last field is the end of the proxy's log.
    Late(String, String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Folder(path, error) => {
                write!(f, "{}: {error}; set TMPDIR to a folder to write in", path.display())
            }
            Trouble::Port(error) => write!(f, "no free port on 127.0.0.1: {error}"),
            Trouble::App(address, error) => write!(f, "the sample app did not start on {address}: {error}"),
            Trouble::Load(error) => write!(f, "the load did not start: {error}"),
            Trouble::Spawn(error) => write!(f, "cannot run this binary as the proxy: {error}"),
            Trouble::ProxyEnded(status, log) => write!(f, "the proxy ended ({status}); the end of its log:\n{log}"),
            Trouble::Admin(asked, answer) => write!(f, "the admin API did not {asked}: {answer}"),
            Trouble::Late(what, log) => write!(f, "waited too long until {what}; the end of the proxy's log:\n{log}"),
        }
    }
}

/// The stage is set up piece by piece as the story goes.
pub struct Stage {
    /// The address to which users send their requests.
    pub proxy: SocketAddr,
    /// The address to which operators send theirs.
    pub admin: SocketAddr,
    process: Option<Child>,
    colors: [SocketAddr; 2],
    apps: [Option<App>; 2],
    folder: Folder,
    /// These sockets are bound but do not listen: nobody else is given their ports, while a listener may still share
    /// them.
    _reserved: [Socket; 4],
}

impl Stage {
    /// Finds ports, makes the folder and writes the config; nothing runs yet.
    ///
    /// # Errors
    /// [`Trouble::Port`], [`Trouble::Folder`].
    pub fn set() -> Result<Stage, Trouble> {
        let ports = || -> io::Result<_> { Ok([reserve()?, reserve()?, reserve()?, reserve()?]) };
        let [proxy, admin, blue, green] = ports().map_err(Trouble::Port)?;
        let folder = Folder::create()?;
        let stage = Stage {
            proxy: proxy.1,
            admin: admin.1,
            process: None,
            colors: [blue.1, green.1],
            apps: [None, None],
            folder,
            _reserved: [proxy.0, admin.0, blue.0, green.0],
        };
        let path = stage.config();
        fs::write(&path, stage.config_text()).map_err(|error| Trouble::Folder(path, error))?;
        Ok(stage)
    }

    /// Returns the path of the config file.
    pub fn config(&self) -> PathBuf {
        self.folder.0.join("cutover.toml")
    }

    fn config_text(&self) -> String {
        let folder = self.folder.0.display();
        let [blue, green] = self.colors.map(|address| address.port());
        format!(
            "[proxy]\nlisten = [\"{}\"]\n\n[admin]\nlisten = \"{}\"\n\n\
             [state]\ndir = '{folder}/state'\nledger = '{folder}/releases.log'\n\n\
             [service.{SERVICE}]\nblue = {blue}\ngreen = {green}\n\n\
             [service.{SERVICE}.health]\ninterval = \"250ms\"\ntimeout = \"1s\"\n\n\
             [service.{SERVICE}.watch]\nwindow = \"{WATCH_SECONDS}s\"\n",
            self.proxy, self.admin
        )
    }

    /// Replaces the app in `color` by `release`, as a deploy does in the idle color.
    ///
    /// # Errors
    /// [`Trouble::App`].
    pub fn deploy(&mut self, color: Color, release: Release) -> Result<(), Trouble> {
        self.stop(color);
        let address = self.colors[color.index()];
        let app = App::start(release, address).map_err(|error| Trouble::App(address, error))?;
        self.apps[color.index()] = Some(app);
        Ok(())
    }

    /// Stops the app in `color`, at once.
    pub fn stop(&mut self, color: Color) {
        self.apps[color.index()] = None;
    }

    /// Starts this binary as the proxy. It may take a moment until the proxy listens.
    ///
    /// # Errors
    /// [`Trouble::Spawn`], [`Trouble::Folder`].
    pub fn start_proxy(&mut self) -> Result<(), Trouble> {
        let path = self.log();
        let output = File::create(&path).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = output.map_err(|error| Trouble::Folder(path, error))?;
        let exe = std::env::current_exe().map_err(Trouble::Spawn)?;
        let child = Command::new(exe)
            .arg("serve")
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // The demo handles a Ctrl-C at the terminal itself, so that everything stops in its order.
            .process_group(0)
            .spawn()
            .map_err(Trouble::Spawn)?;
        self.process = Some(child);
        Ok(())
    }

    /// Checks that the proxy still runs, or was not started yet.
    ///
    /// # Errors
    /// [`Trouble::ProxyEnded`].
    pub fn check_proxy(&mut self) -> Result<(), Trouble> {
        let Some(child) = &mut self.process else { return Ok(()) };
        match child.try_wait().map_err(Trouble::Spawn)? {
            Some(status) => Err(Trouble::ProxyEnded(status, self.log_end())),
            None => Ok(()),
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.0.join("cutover.log")
    }

    /// Returns the last lines of the proxy's log.
    pub fn log_end(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.split(|&byte| byte == b'\n').map(String::from_utf8_lossy).collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Returns the lines of the ledger.
    pub fn ledger(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.0.join("releases.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(child) = self.process.take() {
            end(child);
        }
    }
}

/// Asks the process to stop, waits for it, and kills it when it takes too long.
fn end(mut child: Child) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id fits its own type");
    let asked = Instant::now();
    // SAFETY: kill takes two numbers. The id is ours: the child is not reaped before `try_wait` below says so.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    while asked.elapsed() < STOP_LIMIT {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// A folder of this process, which is removed with its content when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Folder, Trouble> {
        let name = format!("cutover-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // This fails if the folder exists: in a shared /tmp it would belong to somebody else.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Folder(path)),
            Err(error) => Err(Trouble::Folder(path, error)),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Binds a free port, which the system then gives to nobody who does not ask for it by number.
fn reserve() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Listeners set this too, and two sockets that both do may share a port as long as one does not listen.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket().expect("it was bound to an IPv4 address");
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::super::app::Quality;
    use super::*;

    mod stage {
        use super::*;

        #[test]
        fn leaves_no_folder_behind() {
            let stage = Stage::set().expect("a stage");
            let folder = stage.folder.0.clone();
            assert!(stage.config().exists());
            drop(stage);
            assert!(!folder.exists());
        }

        #[test]
        fn writes_a_config_that_is_valid() {
            let stage = Stage::set().expect("a stage");
            let config = crate::config::Config::load(&stage.config()).expect("the config is valid");
            assert_eq!(config.proxy.listen, [stage.proxy]);
            assert_eq!(config.services.len(), 1);
        }

        #[test]
        fn keeps_its_ports_for_its_apps() {
            let mut stage = Stage::set().expect("a stage");
            let address = stage.colors[Color::Blue.index()];
            let refused = std::net::TcpStream::connect(address).expect_err("nothing listens yet");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            for number in [1, 3] {
                stage.deploy(Color::Blue, Release { number, quality: Quality::Good }).expect("the port is ours");
                std::net::TcpStream::connect(address).expect("the app listens");
            }
        }
    }
}
