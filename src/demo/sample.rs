//! Runs the sample app in a container: one static binary, whose environment says which release it is and how well it
//! works.
//!
//! The tests of `cutover deploy` build an image of each kind of it; nothing else of the product uses it.
//!
//! `SAMPLE_RELEASE` is the version that `/version` reports, `SAMPLE_PORT` the port (8000), and `SAMPLE_BEHAVIOR` says
//! how well the app works. `SAMPLE_SCHEMA` is the file that stands for the database, and `SAMPLE_MIGRATION` says what a
//! migration does to it: `ok`, `slow`, `fail` or `breaks`, after which no other release works.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// A slow start takes this long.
const SLOW_START: Duration = Duration::from_secs(3);
/// A slow migration takes this long.
const SLOW_MIGRATION: Duration = Duration::from_secs(4);
/// A crashing release runs for this long.
const CRASH_AFTER: Duration = Duration::from_millis(300);
/// Limits a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A job of the sample app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Responds to requests, until TERM.
    Serve,
    /// Changes the schema file.
    Migrate,
    /// Prints the schema file, like a dump of a database.
    Dump,
    /// Requests this URL and expects a 200; it is the health check of an image that contains nothing else.
    Probe(String),
}

/// Says how well a release works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    Good,
    SlowStart,
    NeverReady,
    WrongVersion,
    FailAfterStart,
    CrashLoop,
    PlainHealth,
}

impl Behavior {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "good" => Behavior::Good,
            "slow-start" => Behavior::SlowStart,
            "never-ready" => Behavior::NeverReady,
            "wrong-version" => Behavior::WrongVersion,
            "fail-after-start" => Behavior::FailAfterStart,
            "crash-loop" => Behavior::CrashLoop,
            "plain-health" => Behavior::PlainHealth,
            _ => return None,
        })
    }
}

/// A release, as its environment describes it.
struct Sample {
    release: String,
    behavior: Behavior,
    port: u16,
    schema: Option<String>,
    migration: String,
}

/// Runs one job; the exit code is 0 if it was done.
pub fn run(job: &Job) -> ExitCode {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(perform(job)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("sample app: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn perform(job: &Job) -> Result<(), String> {
    match job {
        Job::Serve => Sample::of_environment()?.serve().await,
        Job::Migrate => Sample::of_environment()?.migrate(),
        Job::Dump => {
            print!("{}", Sample::of_environment()?.schema_text());
            Ok(())
        }
        Job::Probe(url) => probe(url).await,
    }
}

impl Sample {
    fn of_environment() -> Result<Self, String> {
        let variable = |name: &str| std::env::var(format!("SAMPLE_{name}")).ok().filter(|value| !value.is_empty());
        let behavior = variable("BEHAVIOR").unwrap_or_else(|| "good".into());
        let port = variable("PORT").unwrap_or_else(|| "8000".into());
        Ok(Sample {
            release: variable("RELEASE").unwrap_or_else(|| "dev".into()),
            behavior: Behavior::of(&behavior).ok_or_else(|| format!("{behavior:?} is not a behavior"))?,
            port: port.parse().map_err(|_| format!("{port:?} is not a port"))?,
            schema: variable("SCHEMA"),
            migration: variable("MIGRATION").unwrap_or_else(|| "ok".into()),
        })
    }

    fn schema_text(&self) -> String {
        self.schema.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    }

    fn migrate(&self) -> Result<(), String> {
        let path = self.schema.as_deref().ok_or("there is no SAMPLE_SCHEMA to migrate")?;
        if self.migration == "fail" {
            return Err("the migration fails".into());
        }
        if self.migration == "slow" {
            std::thread::sleep(SLOW_MIGRATION);
        }
        let text = format!("{}{} {}\n", self.schema_text(), self.release, self.migration);
        std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))?;
        println!("migrated to {}", self.release);
        Ok(())
    }

    /// Whether the schema comes from another release whose migration broke it for this one.
    fn is_broken(&self) -> bool {
        let text = self.schema_text();
        text.lines().last().is_some_and(|last| last.ends_with(" breaks") && !last.starts_with(&self.release))
    }

    async fn serve(self) -> Result<(), String> {
        let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        match self.behavior {
            Behavior::CrashLoop => {
                tokio::time::sleep(CRASH_AFTER).await;
                return Err("this release crashes".into());
            }
            Behavior::SlowStart => tokio::time::sleep(SLOW_START).await,
            Behavior::Good
            | Behavior::NeverReady
            | Behavior::WrongVersion
            | Behavior::FailAfterStart
            | Behavior::PlainHealth => {}
        }
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port));
        let listener = TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
        println!("{} listens on {address}", self.release);
        let sample = Arc::new(self);
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    let sample = Arc::clone(&sample);
                    let service = hyper::service::service_fn(move |request| {
                        let answer = sample.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    tokio::spawn(async move { drop(http.serve_connection(TokioIo::new(stream), service).await) });
                },
                _ = term.recv() => return Ok(()),
            }
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let is_broken = self.is_broken();
        let (status, body) = match request.uri().path() {
            "/health" if self.behavior == Behavior::PlainHealth => (200, "ok".to_owned()),
            "/readyz" | "/healthz" if self.behavior == Behavior::PlainHealth => (404, String::new()),
            "/readyz" if self.behavior == Behavior::NeverReady => (503, r#"{"ready":false}"#.to_owned()),
            // Some applications respond like this: with a 200 whose body says that they are not ready.
            "/readyz" if is_broken => (200, r#"{"ready":false}"#.to_owned()),
            "/readyz" => (200, r#"{"ready":true}"#.to_owned()),
            "/healthz" => (200, r#"{"ok":true}"#.to_owned()),
            "/version" if self.behavior == Behavior::WrongVersion => {
                (200, r#"{"service":"sample","version":"something-else"}"#.to_owned())
            }
            "/version" => (200, format!(r#"{{"service":"sample","version":"{}"}}"#, self.release)),
            _ if is_broken || self.behavior == Behavior::FailAfterStart => {
                (500, format!(r#"{{"error":"{} fails"}}"#, self.release))
            }
            _ => (200, format!(r#"{{"release":"{}"}}"#, self.release)),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status of the table above");
        let json = hyper::header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
        response
    }
}

async fn probe(url: &str) -> Result<(), String> {
    let uri: hyper::Uri = url.parse().map_err(|_| format!("{url:?} is not a URL"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url:?} names no host"))?.to_string();
    let address: SocketAddr = authority.parse().map_err(|_| format!("{authority:?} is not an address with a port"))?;
    let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    let request = Request::get(path).header(hyper::header::HOST, &authority).body(Full::default());
    let request = request.map_err(|error| error.to_string())?;
    let exchange = async { crate::http_client::send(TcpStream::connect(address).await?, request, 64 * 1024).await };
    match tokio::time::timeout(PROBE_TIMEOUT, exchange).await {
        Ok(Ok((StatusCode::OK, _))) => Ok(()),
        Ok(Ok((status, _))) => Err(format!("{url} answered {status}")),
        Ok(Err(error)) => Err(format!("{url}: {error}")),
        Err(_) => Err(format!("{url}: no answer within {PROBE_TIMEOUT:?}")),
    }
}
