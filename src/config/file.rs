//! Reads the config file as a whole: turns its tables into a valid [`Config`], or into every problem at once.

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

/// The whole configuration; it is valid, and its defaults are filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The absolute path of the file. Relative paths in the file are relative to the working directory.
    pub path: PathBuf,
    /// The section `[proxy]`.
    pub proxy: Proxy,
    /// The section `[tls]`.
    pub tls: Settings,
    /// The section `[admin]`.
    pub admin: Admin,
    /// The section `[state]`.
    pub state: State,
    /// The section `[log]`.
    pub log: Log,
    /// The sections `[service.*]`, by name.
    pub services: Vec<Service>,
}

/// A config is looked for in these places, in this order, when none is named; `$CUTOVER_CONFIG` comes before them.
pub const PLACES: [&str; 3] = ["cutover.toml", "config/cutover.toml", "/etc/cutover/cutover.toml"];

/// The ledger is here when the config does not say otherwise.
pub const LEDGER: &str = "deploy/releases.log";

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Reports every problem of the file and of the files it names.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Config::parse(&text_of(path)?, path)
    }

    /// Checks `text`, the content of `path`.
    ///
    /// # Errors
    /// Fails like [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Problems> {
        match read(text, path, Reader::Proxy) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// Reads the config for a client of a running proxy. The proxy may run well although its file has been broken
    /// since, so this returns whatever can be read of the file, and its problems. Certificates and keys are not read.
    ///
    /// # Errors
    /// Fails when there is nothing to read: the file is missing, or it is not TOML.
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

/// Returns the file to load: the one named on the command line, else `$CUTOVER_CONFIG`, else the first of [`PLACES`].
///
/// # Errors
/// Fails when no file is found; the problem says which places were searched.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Problems> {
    // An empty variable counts as unset, as it does for shells.
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
    /// The listen address. Default `127.0.0.1:9900`.
    pub listen: SocketAddr,
    /// The content of `token_file`, without its line end; required when `listen` is not loopback.
    pub token: Option<String>,
    /// The path of a unix socket with mode 0600; none by default.
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

/// The section `[state]`: the files that survive a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The state folder. Default `state`.
    pub dir: PathBuf,
    /// The ledger file. Default [`LEDGER`].
    pub ledger: PathBuf,
}

/// The section `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The form of the access log, which has one line per request; off by default.
    pub access: AccessLog,
    /// The file of the access log; standard output by default.
    pub access_file: Option<PathBuf>,
}

/// The form of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nothing is written.
    Off,
    /// One JSON object per line.
    Json,
    /// The Apache/nginx "combined" form is used, with fields of the proxy's own behind it.
    Combined,
}

/// Parses `text`, the content of `path`. Returns the config, with defaults in place of wrong values, and every problem
/// of the file and of the files it names. The config is `None` when the text is not TOML.
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
