//! Routes of the admin API: reads are GET, changes are POST, refusals are JSON with a code and a sentence.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::guard::{self, TurnedAway};
use crate::control::Handle;
use crate::metrics;
use crate::status::{ChangeRequest, Refusal, RefusalCode};

/// A request's body at most.
const BODY_MAX: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence on the event stream after which a comment is sent, so that nobody between us closes it.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The dashboard is one file and loads nothing from anywhere.
const DASHBOARD: &str = include_str!("dashboard.html");
const DASHBOARD_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A whole body, or the event stream.
pub type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// What answers requests of one listener.
#[derive(Clone)]
pub struct Api {
    /// The way to the control plane.
    pub handle: Handle,
    /// What requests must show.
    pub token: Option<Arc<str>>,
    /// The address listened on; `None` on the unix socket.
    pub listen: Option<SocketAddr>,
}

/// What a path names.
enum Route<'a> {
    Dashboard,
    Healthz,
    Readyz,
    Version,
    Metrics,
    Status,
    Events,
    Service(&'a str),
    Change(&'a str, Verb),
    Reload,
}

#[derive(Clone, Copy)]
enum Verb {
    Flip,
    Rollback,
    Drain,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path.strip_prefix('/')?.split('/').collect::<Vec<_>>()[..] {
            [""] => Route::Dashboard,
            ["healthz"] => Route::Healthz,
            ["readyz"] => Route::Readyz,
            ["version"] => Route::Version,
            ["metrics"] => Route::Metrics,
            ["v1", "status"] => Route::Status,
            ["v1", "events"] => Route::Events,
            ["v1", "reload"] => Route::Reload,
            ["v1", "services", name] => Route::Service(name),
            ["v1", "services", name, "flip"] => Route::Change(name, Verb::Flip),
            ["v1", "services", name, "rollback"] => Route::Change(name, Verb::Rollback),
            ["v1", "services", name, "drain"] => Route::Change(name, Verb::Drain),
            _ => return None,
        })
    }

    fn is_change(&self) -> bool {
        matches!(self, Route::Change(..) | Route::Reload)
    }

    /// What an outer load balancer may ask without a token, and the page that asks for it.
    fn is_open(&self) -> bool {
        matches!(self, Route::Healthz | Route::Readyz | Route::Version | Route::Dashboard)
    }
}

impl Api {
    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let Some(route) = Route::of(&path) else {
            return error(
                StatusCode::NOT_FOUND,
                "not_found",
                &format!("there is no {path}; GET /v1/status is a start"),
            );
        };
        if let Err(why) = guard::check_origin(request.method(), request.headers(), self.listen) {
            return turned_away(why);
        }
        if !route.is_open()
            && let Err(why) = guard::check_token(request.headers(), self.token.as_deref())
        {
            return turned_away(why);
        }
        let allowed = if route.is_change() { "POST" } else { "GET, HEAD" };
        if !allowed.split(", ").any(|method| request.method() == method) {
            let mut answer =
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &format!("{path} takes {allowed}"));
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer;
        }
        self.route(route, request).await.unwrap_or_else(|refusal| refused(&refusal))
    }

    async fn route(&self, route: Route<'_>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        match route {
            Route::Dashboard => {
                let mut page = with_type(StatusCode::OK, "text/html; charset=utf-8", DASHBOARD);
                page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(DASHBOARD_POLICY));
                Ok(page)
            }
            Route::Healthz => Ok(with_type(StatusCode::OK, "text/plain", "ok\n")),
            Route::Version => {
                Ok(json_body(StatusCode::OK, &json!({"service": "cutover", "version": env!("CARGO_PKG_VERSION")})))
            }
            Route::Readyz => self.readyz().await,
            Route::Metrics => self.metrics().await,
            Route::Status => Ok(json_body(StatusCode::OK, &self.handle.observe().await?.status)),
            Route::Events => Ok(self.events()),
            Route::Service(name) => {
                let mut status = self.handle.observe().await?.status;
                let service = status.services.remove(name).ok_or_else(|| unknown(name))?;
                Ok(with_epoch(json_body(StatusCode::OK, &service), service.epoch))
            }
            Route::Change(name, verb) => {
                let if_epoch = if_match(&request)?;
                let change = change_request(request).await?;
                self.change(name, verb, if_epoch, change).await
            }
            Route::Reload => {
                change_request(request).await?;
                Ok(json_body(StatusCode::OK, &self.handle.reload("api").await?))
            }
        }
    }

    async fn change(
        &self,
        name: &str,
        verb: Verb,
        if_epoch: Option<u64>,
        mut request: ChangeRequest,
    ) -> Result<Response<Body>, Refusal> {
        let bad = |message: &str| Refusal { code: RefusalCode::BadRequest, message: message.to_owned() };
        request.by.get_or_insert_with(|| "api".to_owned());
        let name = name.to_owned();
        let changed = match verb {
            Verb::Flip if request.to.is_none() => return Err(bad("say where to: {\"to\": \"green\"}")),
            Verb::Flip => self.handle.flip(name, if_epoch, request).await?,
            Verb::Rollback if request.to.is_some() => {
                return Err(bad("a rollback takes no color: it is the one before this"));
            }
            Verb::Rollback => self.handle.rollback(name, if_epoch, request).await?,
            Verb::Drain => return Ok(json_body(StatusCode::OK, &self.handle.drain(name).await?)),
        };
        Ok(with_epoch(json_body(StatusCode::OK, &changed), changed.epoch))
    }

    /// Ready: every service's active color has an upstream that is.
    async fn readyz(&self) -> Result<Response<Body>, Refusal> {
        let status = self.handle.observe().await?.status;
        let down: Vec<_> = status
            .services
            .iter()
            .filter(|(_, service)| {
                !service.colors.get(&service.active).is_some_and(|c| c.upstreams.iter().any(|u| u.ready))
            })
            .map(|(name, _)| name)
            .collect();
        let code = if down.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Ok(json_body(code, &json!({"ready": down.is_empty(), "not_ready": down})))
    }

    async fn metrics(&self) -> Result<Response<Body>, Refusal> {
        let page = metrics::page(&self.handle.observe().await?);
        Ok(match page {
            Ok(page) => with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page),
            Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, "metrics", &why.to_string()),
        })
    }

    /// Server-sent events from now on.
    fn events(&self) -> Response<Body> {
        let mut events = self.handle.events();
        let (mut sender, body) = Channel::new(16);
        tokio::spawn(async move {
            let mut text = String::from(": cutover events\n\n");
            while sender.send_data(Bytes::from(text)).await.is_ok() {
                text = match tokio::time::timeout(HEARTBEAT, events.recv()).await {
                    Err(_silent) => ":\n\n".to_owned(),
                    Ok(Ok(event)) => match serde_json::to_string(&event) {
                        Ok(data) => format!("event: {}\ndata: {data}\n\n", event.kind.as_str()),
                        Err(_) => continue_comment(),
                    },
                    Ok(Err(RecvError::Lagged(lost))) => format!(": {lost} events were lost\n\n"),
                    Ok(Err(RecvError::Closed)) => return,
                };
            }
        });
        let mut answer = Response::new(Either::Right(body));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

fn continue_comment() -> String {
    ": an event could not be written\n\n".to_owned()
}

fn unknown(name: &str) -> Refusal {
    Refusal { code: RefusalCode::UnknownService, message: format!("there is no service {name}") }
}

/// `If-Match: "3"`; `*` and no header are any epoch.
fn if_match(request: &Request<Incoming>) -> Result<Option<u64>, Refusal> {
    let Some(value) = request.headers().get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("").trim();
    if text == "*" {
        return Ok(None);
    }
    text.trim_matches('"').parse().map(Some).map_err(|_| Refusal {
        code: RefusalCode::BadRequest,
        message: format!("If-Match takes the epoch in quotes, as in If-Match: \"3\"; this was {text}"),
    })
}

async fn change_request(request: Request<Incoming>) -> Result<ChangeRequest, Refusal> {
    let bad = |message: String| Refusal { code: RefusalCode::BadRequest, message };
    let body = Limited::new(request.into_body(), BODY_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Err(_) => return Err(bad("the body took too long".into())),
        Ok(Err(why)) => return Err(bad(format!("the body cannot be read: {why}"))),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if body.trim_ascii().is_empty() {
        return Ok(ChangeRequest::default());
    }
    serde_json::from_slice(&body).map_err(|why| bad(format!("the body is not understood: {why}")))
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::CONFLICT);
    json_body(status, &json!({"error": refusal}))
}

fn turned_away(why: TurnedAway) -> Response<Body> {
    let mut answer = error(why.status(), why.code(), why.message());
    if why == TurnedAway::NoToken {
        answer.headers_mut().insert(hyper::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json_body(status, &json!({"error": {"code": code, "message": message}}))
}

fn json_body(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    with_type(status, "application/json", text)
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

fn with_epoch(mut answer: Response<Body>, epoch: u64) -> Response<Body> {
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{epoch}\"")) {
        answer.headers_mut().insert(ETAG, etag);
    }
    answer
}
