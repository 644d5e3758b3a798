//! Gathers what a deploy acts on: one service, its two Compose projects, its env files, and the proxy before them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::ServiceStatus;
use crate::api::client::{Client, ClientError};
use crate::config::{Check, Config, Deploy, EnvFile, Problem, Protocol, Service};
use crate::deploy::base_url::{BaseUrl, BaseUrlError, ProbeError, ProbeScheme};
use crate::deploy::compose::Compose;
use crate::deploy::files::beside;
use crate::docker::{Container, ContainerSelector, DockerError};
use crate::domain::Color;
use crate::domain::release::Strategy;
use crate::http_client::says_ready;
use crate::ledger::redact::Secrets;
use crate::ledger::{self, Line, Place};

/// How long one probe of a color may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that stays the same while a deploy runs.
pub struct DeployTarget<'a> {
    /// The whole configuration.
    pub config: &'a Config,
    /// The service that is deployed.
    pub service: &'a Service,
    /// The client of the proxy's admin API.
    pub client: Client,
    /// Both colors' env files, by [`Color::index`].
    env_files: [Option<PathBuf>; 2],
}

impl<'a> DeployTarget<'a> {
    /// Describes `service`, and checks what `strategy` needs of its colors.
    ///
    /// # Errors
    /// [`TargetError::NoEnvFile`], or [`TargetError::SameProject`] where both colors share a Compose project.
    pub fn new(config: &'a Config, service: &'a Service, strategy: Strategy) -> Result<Self, TargetError> {
        let env_files = [Color::Blue, Color::Green].map(|color| service.colors[color.index()].env_file.clone());
        let site = DeployTarget { config, service, client: Client::new(&config.admin), env_files };
        match strategy {
            Strategy::Recreate => {}
            Strategy::BlueGreen => {
                Color::BOTH.into_iter().try_for_each(|color| site.check_env_file(color))?;
                let [blue, green] = Color::BOTH.map(|color| site.project(color));
                if blue == green {
                    return Err(TargetError::SameProject { service: service.name.clone(), project: blue });
                }
            }
        }
        Ok(site)
    }

    /// Checks that a color can be brought up at all.
    ///
    /// # Errors
    /// [`TargetError::NoEnvFile`]
    pub fn check_env_file(&self, color: Color) -> Result<(), TargetError> {
        match self.env_files[color.index()] {
            Some(_) => Ok(()),
            None => Err(TargetError::NoEnvFile { service: self.service.name.clone(), color }),
        }
    }

    /// Returns the settings of `[service.NAME.deploy]`.
    pub fn deploy(&self) -> &Deploy {
        &self.service.deploy
    }

    /// Returns the Compose project of a color.
    pub fn project(&self, color: Color) -> String {
        let named = self.service.colors[color.index()].project.clone();
        named.unwrap_or_else(|| format!("{}_{color}", self.service.name))
    }

    /// Returns the env file in force. The color must have passed [`DeployTarget::check_env_file`].
    pub fn env_file(&self, color: Color) -> &Path {
        self.env_files[color.index()].as_deref().expect("no color without an env file is brought up")
    }

    /// Returns the path of the env file with the new tag, beside the one in force.
    pub fn candidate(&self, color: Color) -> PathBuf {
        beside(self.env_file(color), ".next")
    }

    /// Reads an env file.
    ///
    /// # Errors
    /// [`TargetError::EnvFile`]: it cannot be read, or a line is no assignment.
    pub fn read_env(&self, path: &Path) -> Result<EnvFile, TargetError> {
        EnvFile::load(path).map_err(TargetError::EnvFile)
    }

    /// Returns the secrets of a color's env file, which are hidden in its logs; none where the file cannot be read.
    pub fn secrets(&self, color: Color) -> Secrets {
        self.read_env(self.env_file(color)).as_ref().map(Secrets::of).unwrap_or_default()
    }

    /// Returns the image tag that a color's env file names.
    ///
    /// # Errors
    /// As [`DeployTarget::read_env`].
    pub fn tag(&self, color: Color) -> Result<Option<String>, TargetError> {
        Ok(self.read_env(self.env_file(color))?.get("IMAGE_TAG").map(|(tag, _)| tag.to_owned()))
    }

    /// Returns the tag that the present tag of a color has replaced, according to the ledger.
    pub fn tag_before(&self, color: Color) -> Option<String> {
        let now = self.tag(color).ok()??;
        let lines = ledger::tail(&self.config.state.ledger, usize::MAX).ok()?;
        tag_before(&lines, &self.service.name, &now)
    }

    /// Returns Compose for a color, with the env file in force.
    ///
    /// # Errors
    /// As [`DeployTarget::read_env`].
    pub fn compose(&self, color: Color) -> Result<Compose, TargetError> {
        let env = self.read_env(self.env_file(color))?;
        Ok(Compose {
            project: self.project(color),
            file: self.deploy().compose_file.clone(),
            env_file: self.env_file(color).to_owned(),
            variables: env.keys().map(str::to_owned).collect(),
        })
    }

    /// Returns Compose for a color, with the [candidate](DeployTarget::candidate) env file.
    ///
    /// # Errors
    /// As [`DeployTarget::read_env`].
    pub fn compose_candidate(&self, color: Color) -> Result<Compose, TargetError> {
        Ok(self.compose(color)?.with_env_file(&self.candidate(color)))
    }

    /// Selects the `api` containers of a color.
    pub fn containers(&self, color: Color) -> ContainerSelector {
        ContainerSelector::Project(self.project(color))
    }

    /// Returns whether any `api` container of a color runs.
    ///
    /// # Errors
    /// [`DockerError`]. It must not be read as "no": an undo stops what did not run before.
    pub async fn runs(&self, color: Color) -> Result<bool, DockerError> {
        let found = self.containers(color).find().await?;
        Ok(found.iter().any(Container::runs))
    }

    /// Returns where a color is probed directly: its first upstream.
    ///
    /// # Errors
    /// [`TargetError::Address`]
    pub fn base(&self, color: Color) -> Result<BaseUrl, TargetError> {
        let address = &self.service.colors[color.index()].upstreams[0];
        let url = match &self.service.health.check {
            Check::Http(Protocol::Http1) => format!("http://{address}"),
            Check::Http(Protocol::H2c) => format!("h2c://{address}"),
            Check::Grpc(service) => format!("grpc://{address}/{service}"),
        };
        let base: Result<BaseUrl, _> = url.parse();
        base.map(|base| base.announced(self.service.upstream.proxy_protocol))
            .map_err(|error| TargetError::Address { address: address.to_string(), error })
    }

    /// Returns the tag of the image that the `api` containers of a color run, as the engine knows it. It is `None`
    /// where none runs, or where they run different images. The env file does not tell: it may have been edited, or an
    /// undo may have failed.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn running_tag(&self, color: Color) -> Result<Option<String>, DockerError> {
        let found = self.containers(color).find().await?;
        let mut tags = found.iter().filter(|container| container.runs()).map(Container::tag);
        let first = tags.next().flatten();
        Ok(if tags.all(|tag| tag == first) { first.map(str::to_owned) } else { None })
    }

    /// Returns the services among `services` of which a container runs in a color.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn running_services(&self, color: Color, services: &[String]) -> Result<Vec<String>, DockerError> {
        let found = ContainerSelector::All(self.project(color)).find().await?;
        let runs = |service: &&String| {
            found.iter().any(|container| container.runs() && container.service.as_ref() == Some(*service))
        };
        Ok(services.iter().filter(runs).cloned().collect())
    }

    /// Probes a color directly, as the proxy's own probes do.
    ///
    /// # Errors
    /// [`NotReady`]
    pub async fn probe(&self, color: Color) -> Result<(), NotReady> {
        let base = self.base(color).map_err(NotReady::Target)?;
        let path = match base.scheme() {
            ProbeScheme::Get(_) => &*self.service.health.path,
            ProbeScheme::Grpc => "",
        };
        let url = format!("{base}{path}");
        if base.scheme() == ProbeScheme::Grpc {
            return base.check_grpc(PROBE_TIMEOUT).await.map_err(|error| NotReady::Probe { url, error });
        }
        match base.get(path, PROBE_TIMEOUT).await {
            Ok((status, body)) if status == 200 => says_ready(&body).map_err(|body| NotReady::Body { url, body }),
            Ok((status, _)) => Err(NotReady::Status { url, status: status.as_u16() }),
            Err(error) => Err(NotReady::Probe { url, error }),
        }
    }

    /// Asks the proxy for the status of the service.
    ///
    /// # Errors
    /// [`ClientError`]; it is [`ClientError::Strange`] where the proxy does not know the service.
    pub async fn status(&self) -> Result<ServiceStatus, ClientError> {
        let mut services = self.client.status().await?.services;
        services.remove(&self.service.name).ok_or_else(|| ClientError::Strange {
            address: self.config.admin.listen.to_string(),
            what: format!("it has no service {:?}; does it run with this config?", self.service.name),
        })
    }

    /// Appends a line to the ledger. No deploy stops for a ledger that cannot be written; the returned text tells
    /// people.
    pub fn record(&self, line: &Line) -> Option<String> {
        let place = Place::new(&self.config.state.ledger, &self.config.state.dir);
        let unwritten = |error| format!("the ledger {} was not written: {error}", place.path.display());
        ledger::append(&place, line).map_or_else(Some, |appended| appended.unsynced).map(unwritten)
    }
}

/// Explains why a service cannot be deployed as it is configured.
#[derive(Debug)]
pub enum TargetError {
    /// The color has no env file, so its Compose project is unknown.
    NoEnvFile {
        /// The service.
        service: String,
        /// The color.
        color: Color,
    },
    /// Both colors name the same Compose project.
    SameProject {
        /// The service.
        service: String,
        /// The project.
        project: String,
    },
    /// An env file cannot be read.
    EnvFile(Vec<Problem>),
    /// The address of an upstream cannot be probed.
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        error: BaseUrlError,
    },
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::NoEnvFile { service, color } => write!(
                f,
                "{service}: {color} has no env_file, so nobody knows its Compose project; write in [service.{service}] \
                 {color} = {{ env_file = \"deploy/.env.{color}\" }}"
            ),
            TargetError::SameProject { service, project } => {
                write!(f, "{service}: both colors are the Compose project {project}; give each a COMPOSE_PROJECT_NAME")
            }
            TargetError::EnvFile(problems) => {
                f.write_str(&problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
            TargetError::Address { address, error } => write!(f, "{address}: {error}"),
        }
    }
}

impl std::error::Error for TargetError {}

/// Explains why a color did not pass a direct probe.
#[derive(Debug)]
pub enum NotReady {
    /// The color has no address that can be probed.
    Target(TargetError),
    /// There was no usable response.
    Probe {
        /// The URL that was probed.
        url: String,
        /// Why not.
        error: ProbeError,
    },
    /// The status is not 200.
    Status {
        /// The URL that was probed.
        url: String,
        /// The status.
        status: u16,
    },
    /// The body says that the application is not ready.
    Body {
        /// The URL that was probed.
        url: String,
        /// The part that says so.
        body: String,
    },
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::Target(error) => error.fmt(f),
            NotReady::Probe { url, error } => write!(f, "{url}: {error}"),
            NotReady::Status { url, status } => write!(f, "{url} answers {status}"),
            NotReady::Body { url, body } => write!(f, "{url} answers 200 with {body}"),
        }
    }
}

impl std::error::Error for NotReady {}

/// Returns the tag that the last deploy or rollback of `tag` replaced.
fn tag_before(lines: &[String], service: &str, tag: &str) -> Option<String> {
    let begins = |intent: &str, line: &str| line.contains(&format!("] {intent} {service}: begin tag={tag} "));
    let line = lines.iter().rev().find(|line| begins("deploy", line) || begins("rollback", line))?;
    let before = line.split(' ').find_map(|word| word.strip_prefix("before="))?;
    (before != tag && !before.starts_with('"')).then(|| before.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::deploy::target::*;

    #[test]
    fn the_tag_before_is_what_the_present_one_replaced() {
        let lines: Vec<String> = [
            "[2026-11-23T09:00:00Z] deploy app: begin tag=sha-2 color=blue before=sha-1 strategy=recreate by=cli",
            "[2026-11-23T09:00:01Z] deploy app: kept tag=sha-2 color=blue verdict=x by=cli",
            "[2026-11-23T09:01:00Z] deploy app: begin tag=sha-3 color=blue before=sha-2 strategy=recreate by=cli",
            "[2026-11-23T09:01:01Z] deploy app: failed tag=sha-3 color=blue step=up why=x by=cli",
            "[2026-11-23T09:02:00Z] deploy shop: begin tag=sha-2 color=blue before=sha-9 strategy=recreate by=cli",
            "[2026-11-23T09:03:00Z] deploy app: begin tag=sha-4 color=blue before=\"no tag\" strategy=recreate by=cli",
        ]
        .map(str::to_owned)
        .into();
        for (case, tag, want) in [
            ("what was kept", "sha-2", Some("sha-1")),
            ("the first one ever", "sha-4", None),
            ("brought up by hand", "sha-7", None),
        ] {
            assert_eq!(tag_before(&lines, "app", tag).as_deref(), want, "{case}");
        }
    }
}
