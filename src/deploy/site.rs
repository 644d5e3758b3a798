//! The place of a deploy: one service with its two Compose projects, its env files and the proxy before them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::client::{Client, ClientError};
use crate::api::status::ServiceStatus;
use crate::config::{Check, Config, Deploy, EnvFile, Protocol, Service};
use crate::deploy::compose::Compose;
use crate::deploy::files::{self, beside};
use crate::deploy::http::{Base, Scheme};
use crate::deploy::journal::Trouble;
use crate::docker::Containers;
use crate::domain::Color;
use crate::domain::release::Strategy;
use crate::http_client::says_ready;
use crate::ledger::redact::Secrets;
use crate::ledger::{self, Line, Place};

/// For one question to a color.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that does not change while a deploy runs.
pub struct Site<'a> {
    /// The whole configuration.
    pub config: &'a Config,
    /// The service.
    pub service: &'a Service,
    /// The proxy's API.
    pub client: Client,
    /// Both colors' env files, by [`Color::index`].
    env_files: [Option<PathBuf>; 2],
}

impl<'a> Site<'a> {
    /// The place of `service`.
    ///
    /// # Errors
    /// No color has an env file, or a blue-green release lacks one, or both colors have one project; a sentence.
    pub fn new(config: &'a Config, service: &'a Service, strategy: Strategy) -> Result<Self, String> {
        let env_files = [Color::Blue, Color::Green].map(|color| service.colors[color.index()].env_file.clone());
        let site = Site { config, service, client: Client::new(&config.admin), env_files };
        match strategy {
            Strategy::Recreate => {}
            Strategy::BlueGreen => {
                Color::BOTH.into_iter().try_for_each(|color| site.check_env_file(color))?;
                let [blue, green] = Color::BOTH.map(|color| site.project(color));
                if blue == green {
                    let name = &service.name;
                    return Err(format!(
                        "{name}: both colors are the Compose project {blue}; give each a COMPOSE_PROJECT_NAME"
                    ));
                }
            }
        }
        Ok(site)
    }

    /// Whether a color can be brought up at all.
    ///
    /// # Errors
    /// It has no env file; a sentence.
    pub fn check_env_file(&self, color: Color) -> Result<(), String> {
        let name = &self.service.name;
        match self.env_files[color.index()] {
            Some(_) => Ok(()),
            None => Err(format!(
                "{name}: {color} has no env_file, so nobody knows its Compose project; write in [service.{name}] \
                 {color} = {{ env_file = \"deploy/.env.{color}\" }}"
            )),
        }
    }

    /// `[service.NAME.deploy]`
    pub fn deploy(&self) -> &Deploy {
        &self.service.deploy
    }

    /// The Compose project of a color.
    pub fn project(&self, color: Color) -> String {
        let named = self.service.colors[color.index()].project.clone();
        named.unwrap_or_else(|| format!("{}_{color}", self.service.name))
    }

    /// The env file in force. Only for a color that [`Site::check_env_file`] has found to have one.
    pub fn env_file(&self, color: Color) -> &Path {
        self.env_files[color.index()].as_deref().expect("no color without an env file is brought up")
    }

    /// The env file with the new tag, beside it.
    pub fn candidate(&self, color: Color) -> PathBuf {
        beside(self.env_file(color), ".next")
    }

    /// The content of an env file.
    ///
    /// # Errors
    /// It cannot be read, or is not well-formed; a sentence.
    pub fn read_env(&self, path: &Path) -> Result<EnvFile, String> {
        EnvFile::load(path).map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    /// What a color's env file has that must not be told of its logs; nothing where it cannot be read.
    pub fn secrets(&self, color: Color) -> Secrets {
        self.read_env(self.env_file(color)).as_ref().map(Secrets::of).unwrap_or_default()
    }

    /// The image tag of a color, as its env file has it.
    ///
    /// # Errors
    /// As [`Site::read_env`].
    pub fn tag(&self, color: Color) -> Result<Option<String>, String> {
        Ok(self.read_env(self.env_file(color))?.get("IMAGE_TAG").map(|(tag, _)| tag.to_owned()))
    }

    /// The image tag that a color had before the one it has, as the ledger tells it.
    pub fn tag_before(&self, color: Color) -> Option<String> {
        let now = self.tag(color).ok()??;
        let lines = ledger::tail(&self.config.state.ledger, usize::MAX).ok()?;
        tag_before(&lines, &self.service.name, &now)
    }

    /// Compose for a color, with the env file in force.
    ///
    /// # Errors
    /// As [`Site::read_env`].
    pub fn compose(&self, color: Color) -> Result<Compose, String> {
        let env = self.read_env(self.env_file(color))?;
        Ok(Compose {
            project: self.project(color),
            file: self.deploy().compose_file.clone(),
            env_file: self.env_file(color).to_owned(),
            variables: env.keys().map(str::to_owned).collect(),
        })
    }

    /// Compose for a color, with the env file beside the one in force.
    ///
    /// # Errors
    /// As [`Site::read_env`].
    pub fn compose_candidate(&self, color: Color) -> Result<Compose, String> {
        Ok(self.compose(color)?.with_env_file(&self.candidate(color)))
    }

    /// The containers of `api` in a color.
    pub fn containers(&self, color: Color) -> Containers {
        Containers::Project(self.project(color))
    }

    /// Whether any of them runs.
    ///
    /// # Errors
    /// Docker does not say; a sentence. It is no "no": what was taken for stopped would be stopped.
    pub async fn runs(&self, color: Color) -> Result<bool, String> {
        let found = self.containers(color).find().await?;
        Ok(found.iter().any(|container| container.state == "running" || container.state == "restarting"))
    }

    /// Where a color is asked directly: its first upstream.
    ///
    /// # Errors
    /// Its address is not one; a sentence.
    pub fn base(&self, color: Color) -> Result<Base, String> {
        let address = &self.service.colors[color.index()].upstreams[0];
        let url = match &self.service.health.check {
            Check::Http(Protocol::Http1) => format!("http://{address}"),
            Check::Http(Protocol::H2c) => format!("h2c://{address}"),
            Check::Grpc(service) => format!("grpc://{address}/{service}"),
        };
        let base: Result<Base, _> = url.parse();
        base.map(|base| base.announced(self.service.upstream.proxy_protocol))
            .map_err(|error| format!("{address}: {error}"))
    }

    /// Asks a color directly whether it is ready, as the proxy's probes do.
    ///
    /// # Errors
    /// It is not; a sentence.
    pub async fn ask_ready(&self, color: Color) -> Result<(), String> {
        let (base, path) = (self.base(color)?, &self.service.health.path);
        if base.scheme() == Scheme::Grpc {
            return base.check_grpc(ANSWER_TIMEOUT).await.map_err(|why| format!("{base}: {why}"));
        }
        match base.get(path, ANSWER_TIMEOUT).await {
            Ok((status, body)) if status == 200 => {
                says_ready(&body).map_err(|why| format!("{base}{path} answers 200 with {why}"))
            }
            Ok((status, _)) => Err(format!("{base}{path} answers {}", status.as_u16())),
            Err(why) => Err(format!("{base}{path}: {why}")),
        }
    }

    /// What the proxy says of the service.
    ///
    /// # Errors
    /// [`ClientError`]; also when the proxy does not know the service.
    pub async fn status(&self) -> Result<ServiceStatus, ClientError> {
        let mut services = self.client.status().await?.services;
        services.remove(&self.service.name).ok_or_else(|| ClientError::Strange {
            address: self.config.admin.listen.to_string(),
            what: format!("it has no service {:?}; does it run with this config?", self.service.name),
        })
    }

    /// Puts the env file in force back to what `kept` holds, if there is such a file.
    ///
    /// # Errors
    /// [`Trouble::File`]
    pub fn restore_env(&self, color: Color, kept: &Path) -> Result<(), Trouble> {
        if !kept.exists() {
            return Ok(());
        }
        let path = self.env_file(color);
        let restored = std::fs::read(kept).and_then(|content| files::replace(path, &content, Some(path)));
        restored.map_err(|error| Trouble::File(path.to_owned(), error))
    }

    /// Writes a line to the ledger. A ledger that cannot be written stops no deploy; the sentence is for people.
    pub fn record(&self, line: &Line) -> Option<String> {
        let place = Place::new(&self.config.state.ledger, &self.config.state.dir);
        let unwritten = |error| format!("the ledger {} was not written: {error}", place.path.display());
        ledger::append(&place, line).map_or_else(Some, |appended| appended.unsynced).map(unwritten)
    }
}

/// What the last deploy or rollback of `tag` replaced.
fn tag_before(lines: &[String], service: &str, tag: &str) -> Option<String> {
    let begins = |intent: &str, line: &str| line.contains(&format!("] {intent} {service}: begin tag={tag} "));
    let line = lines.iter().rev().find(|line| begins("deploy", line) || begins("rollback", line))?;
    let before = line.split(' ').find_map(|word| word.strip_prefix("before="))?;
    (before != tag && !before.starts_with('"')).then(|| before.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::deploy::site::*;

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
