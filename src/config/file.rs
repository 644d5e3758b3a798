//! The config file as a whole: from its tables to a valid [`Config`], or to every problem at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::problem::{Problem, Problems};
use super::proxy::{Proxy, proxy};
use super::section::{Reader, Section, Source, Value};
use super::service::{Service, services};
use super::tls::tls;
use super::values::path;
use crate::tls::Settings;

/// Everything that was configured, valid, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from, absolute. Relative paths in the file are relative to the working directory.
    pub path: PathBuf,
    /// `[proxy]`
    pub proxy: Proxy,
    /// `[tls]`
    pub tls: Settings,
    /// `[admin]`
    pub admin: Admin,
    /// `[state]`
    pub state: State,
    /// `[log]`
    pub log: Log,
    /// `[service.*]`, by name.
    pub services: Vec<Service>,
}

/// Where a config is looked for when none is named, in this order; `$CUTOVER_CONFIG` comes before them.
pub const PLACES: [&str; 3] = ["cutover.toml", "config/cutover.toml", "/etc/cutover/cutover.toml"];

/// Where the ledger is when no config says so.
pub const LEDGER: &str = "deploy/releases.log";

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every problem of the file and of the files it names.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Config::parse(&text_of(path)?, path)
    }

    /// Checks `text`, the content of `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Problems> {
        match read(text, path, Reader::Proxy) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// For a client of a running proxy, which may well run although its file has been broken since: whatever can be
    /// read of it, and its problems. Certificates and keys are not read.
    ///
    /// # Errors
    /// There is nothing to be read: no file, or no TOML in it.
    pub fn load_for_client(path: &Path) -> Result<(Self, Option<Problems>), Problems> {
        match read(&text_of(path)?, path, Reader::Client) {
            (Some(config), problems) if problems.is_empty() => Ok((config, None)),
            (Some(config), problems) => Ok((config, Some(Problems(problems)))),
            (None, problems) => Err(Problems(problems)),
        }
    }
}

fn text_of(path: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(path).map_err(|error| {
        let help = "name another file with --config or $CUTOVER_CONFIG";
        Problems(vec![Problem::with_file(path, format!("cannot be read: {error}"), help)])
    })
}

/// The file to load: the one named on the command line, else `$CUTOVER_CONFIG`, else the first of [`PLACES`].
///
/// # Errors
/// There is none; the problem says where it was looked for.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Problems> {
    // A variable that is empty is one that was not set, as for every shell.
    let from_environment = || std::env::var_os("CUTOVER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_owned).or_else(from_environment) {
        return Ok(path);
    }
    PLACES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
        let message = format!("no config: looked for --config, $CUTOVER_CONFIG, {}", PLACES.join(", "));
        let help = "write cutover.toml with [service.NAME], blue = 8000 and green = 8001";
        Problems(vec![Problem::with_file(Path::new("cutover.toml"), message, help)])
    })
}

/// `[admin]`: the API, `/metrics` and the dashboard.
#[derive(Clone, PartialEq)]
pub struct Admin {
    /// Default `127.0.0.1:9900`.
    pub listen: SocketAddr,
    /// The content of `token_file`, without its line end; required when `listen` is not loopback.
    pub token: Option<String>,
    /// A unix socket, mode 0600; none by default.
    pub socket: Option<PathBuf>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("listen", &self.listen)
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .field("socket", &self.socket)
            .finish()
    }
}

/// `[state]`: what survives a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Default `state`.
    pub dir: PathBuf,
    /// Default [`LEDGER`].
    pub ledger: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// One line per request; off by default.
    pub access: AccessLog,
    /// Where access lines go; standard output by default.
    pub access_file: Option<PathBuf>,
}

/// The form of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nothing is written.
    Off,
    /// One JSON object per line.
    Json,
    /// The Apache/nginx "combined" form, with our fields behind it.
    Combined,
}

/// Parses `text`, the content of `path`: what could be made of it, with defaults in place of what is wrong, and every
/// problem of the file and of the files it names. `None` when it is not TOML.
fn read(text: &str, path: &Path, reader: Reader) -> (Option<Config>, Vec<Problem>) {
    let source = Source { path, text, reader, problems: Default::default() };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            let message = format!("not TOML: {}", error.message().trim());
            return (None, vec![Problem::at(path, text, span, message, "config/cutover.toml shows every key")]);
        }
    };
    let top = Section::top(&source, &table);
    let proxy = proxy(&top.section("proxy"));
    let state = state(&top.section("state"));
    let tls = tls(&top.section("tls"), top.section("proxy").get("listen_tls"), &state.dir, proxy.http2.enabled);
    let config = Config {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        admin: admin(&top.section("admin"), &proxy),
        state,
        log: log(&top.section("log")),
        services: services(&top, &proxy),
        proxy,
        tls,
    };
    top.refuse_unknown();
    let mut problems = source.problems.into_inner();
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    (Some(config), problems)
}

fn state(section: &Section<'_, '_>) -> State {
    let state = State {
        dir: path(section, "dir", "\"state\"").unwrap_or_else(|| "state".into()),
        ledger: path(section, "ledger", "\"deploy/releases.log\"").unwrap_or_else(|| LEDGER.into()),
    };
    section.refuse_unknown();
    state
}

fn log(section: &Section<'_, '_>) -> Log {
    let words = [("off", AccessLog::Off), ("json", AccessLog::Json), ("combined", AccessLog::Combined)];
    let access = section.word("access", words);
    let log = Log { access, access_file: path(section, "access_file", "\"access.log\"") };
    section.refuse_unknown();
    log
}

fn admin(section: &Section<'_, '_>, proxy: &Proxy) -> Admin {
    let listen = match section.string("listen", "\"127.0.0.1:9900\"") {
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, 9900)),
        Some((text, value)) => text.parse().unwrap_or_else(|_| {
            section.problem("listen", value, "is not an address", "an IP address and a port: \"127.0.0.1:9900\"");
            SocketAddr::from((Ipv4Addr::LOCALHOST, 9900))
        }),
    };
    let place = section.get("listen").map_or_else(|| section.span.clone(), Value::span);
    for (key, taken) in [("listen", &proxy.listen), ("listen_tls", &proxy.listen_tls)] {
        if listen.port() != 0 && taken.contains(&listen) {
            let message = format!("admin.listen is also an address of proxy.{key}");
            section.source.problem(place.clone(), message, "give it a port of its own");
        }
    }
    let token =
        section.string("token_file", "\"/etc/cutover/token\"").and_then(|(path, value)| match std::fs::read_to_string(
            path,
        ) {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Ok(_) => {
                section.problem("token_file", value, "names an empty file", "write a long random token into it");
                None
            }
            Err(error) => {
                let message = format!("cannot be read: {error}");
                section.problem(
                    "token_file",
                    value,
                    &message,
                    "write a long random token into it, readable by cutover only",
                );
                None
            }
        });
    if !listen.ip().is_loopback() && section.get("token_file").is_none() {
        let help = "set admin.token_file, or listen on 127.0.0.1";
        section.source.problem(place, "admin.listen is not loopback and there is no token: anybody could flip", help);
    }
    let admin = Admin { listen, token, socket: path(section, "socket", "\"/run/cutover/admin.sock\"") };
    section.refuse_unknown();
    admin
}
