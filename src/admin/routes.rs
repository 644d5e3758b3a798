//! Routes a request to its response. Every route is listed in `Route::of`; `route` gives the order of the checks.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::context::AdminContext;
use super::events;
use super::guard::{self, Endpoint};
use super::response::{self, AdminResponse, ApiError};
use crate::admin::metrics;
use crate::api::client::Verb;
use crate::api::{ChangeRequest, Changed, FreezeRequest, Refusal, RefusalCode, ServiceStatus, ThawRequest};
use crate::control::StatusSnapshot;

/// Limits a request's body; a longer one gets 413.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Limits the concurrent readers of events; any further reader is told to poll.
const READERS_MAX: usize = 64;
/// Limits the name that is written to the ledger, so that it stays a name and not a text.
const BY_BYTES_MAX: usize = 100;

/// A pass is valid for this long by default.
const PASS: Duration = Duration::from_secs(3600);
/// No pass is valid for longer, because there is no list from which a pass could be revoked.
const PASS_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Says which resource a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Dashboard,
    Healthz,
    Readyz,
    Version,
    Metrics,
    Status,
    Service(&'a str),
    Rehearsal(&'a str),
    Preview(&'a str),
    Events,
    Change(&'a str, Verb),
    Reload,
    Upgrade,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let segments: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        Some(match segments[..] {
            [""] => Route::Dashboard,
            ["healthz"] => Route::Healthz,
            ["readyz"] => Route::Readyz,
            ["version"] => Route::Version,
            ["metrics"] => Route::Metrics,
            ["v1", "status"] => Route::Status,
            ["v1", "events"] => Route::Events,
            ["v1", "reload"] => Route::Reload,
            ["v1", "upgrade"] => Route::Upgrade,
            ["v1", "services", name] if !name.is_empty() => Route::Service(name),
            ["v1", "services", name, "rehearsal"] if !name.is_empty() => Route::Rehearsal(name),
            ["v1", "services", name, "preview"] if !name.is_empty() => Route::Preview(name),
            ["v1", "services", name, verb] if !name.is_empty() => {
                Route::Change(name, Verb::ALL.into_iter().find(|known| known.as_str() == verb)?)
            }
            _ => return None,
        })
    }

    /// Returns whether the resource is served without the token, because it holds nothing worth hiding.
    fn is_open(self) -> bool {
        match self {
            Route::Dashboard | Route::Healthz | Route::Readyz | Route::Version => true,
            Route::Metrics
            | Route::Status
            | Route::Service(_)
            | Route::Rehearsal(_)
            | Route::Preview(_)
            | Route::Events
            | Route::Change(..)
            | Route::Reload
            | Route::Upgrade => false,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Route::Change(..) | Route::Preview(_) | Route::Reload | Route::Upgrade => "POST",
            Route::Dashboard
            | Route::Healthz
            | Route::Readyz
            | Route::Version
            | Route::Metrics
            | Route::Status
            | Route::Service(_)
            | Route::Rehearsal(_)
            | Route::Events => "GET, HEAD",
        }
    }

    fn allows(self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Says why there is no response of the kind that the client wants.
enum RouteError {
    ApiError(ApiError),
    Refusal(Refusal),
}

impl From<ApiError> for RouteError {
    fn from(failure: ApiError) -> Self {
        RouteError::ApiError(failure)
    }
}

impl From<Refusal> for RouteError {
    fn from(refusal: Refusal) -> Self {
        RouteError::Refusal(refusal)
    }
}

/// Answers one request.
pub(super) async fn answer(context: &AdminContext, endpoint: Endpoint, request: Request<Incoming>) -> AdminResponse {
    match route(context, endpoint, request).await {
        Ok(answer) => answer,
        Err(RouteError::ApiError(failure)) => failure.into_response(),
        Err(RouteError::Refusal(refusal)) => response::refused(&refusal),
    }
}

async fn route(
    context: &AdminContext,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> Result<AdminResponse, RouteError> {
    let (head, body) = request.into_parts();
    guard::check_host(endpoint, context.host_check, &head.headers, head.uri.authority())?;
    let route = Route::of(head.uri.path());
    // A link to the dashboard may stand on any page: the dashboard itself holds no data and cannot be framed.
    if route != Some(Route::Dashboard) {
        guard::check_origin(&head.headers)?;
    }
    if !route.is_some_and(Route::is_open) {
        guard::check_token(endpoint, context.token.as_deref(), &head.headers)?;
    }
    let route = route.ok_or_else(|| ApiError::not_found(head.uri.path()))?;
    if !route.allows(&head.method) {
        return Err(ApiError::wrong_method(route.methods()).into());
    }
    match route {
        Route::Dashboard => Ok(response::dashboard()),
        Route::Healthz => Ok(response::whole(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")),
        Route::Readyz => Ok(readyz(&context.handle.observe().await?)),
        Route::Version => {
            Ok(response::json(StatusCode::OK, &json!({ "service": "cutover", "version": env!("CARGO_PKG_VERSION") })))
        }
        Route::Metrics => {
            let text = metrics::text(&context.handle.observe().await?);
            Ok(response::whole(StatusCode::OK, metrics::CONTENT_TYPE, text))
        }
        Route::Status => Ok(response::json(StatusCode::OK, &context.handle.observe().await?.status)),
        Route::Service(name) => {
            let service = service(context, name).await?;
            Ok(response::with_epoch(response::json(StatusCode::OK, &service), service.epoch))
        }
        Route::Rehearsal(name) => Ok(response::json(StatusCode::OK, &context.handle.rehearsal(name.to_owned()).await?)),
        Route::Preview(name) => preview(context, name, &head.headers, body).await,
        Route::Events => {
            let permit = context.readers.clone().try_acquire_owned();
            let permit = permit.map_err(|_| ApiError::too_many_readers(READERS_MAX))?;
            Ok(response::stream(events::stream(context.handle.events(), context.stop.clone(), permit)))
        }
        Route::Change(name, verb) => change(context, name, verb, &head.headers, body).await,
        Route::Reload => {
            let by = asker(context, &head.headers, body).await?;
            Ok(response::json(StatusCode::OK, &context.handle.reload(&by).await?))
        }
        Route::Upgrade => {
            let by = asker(context, &head.headers, body).await?;
            Ok(response::json(StatusCode::OK, &context.handle.upgrade(&by).await?))
        }
    }
}

/// Creates the permits for readers of events.
pub(super) fn readers() -> tokio::sync::Semaphore {
    tokio::sync::Semaphore::new(READERS_MAX)
}

/// Reports ready when every service has a color that can take its requests.
fn readyz(observed: &StatusSnapshot) -> AdminResponse {
    let waits = |service: &ServiceStatus| {
        service.colors.get(&service.active).is_none_or(|color| color.upstreams.iter().all(|upstream| !upstream.ready))
    };
    let waiting = observed.status.services.iter().filter(|(_, service)| waits(service));
    let waiting: Vec<_> = waiting.map(|(name, _)| name).collect();
    if waiting.is_empty() {
        return response::json(StatusCode::OK, &json!({ "ready": true }));
    }
    response::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "not_ready": waiting }))
}

async fn service(context: &AdminContext, name: &str) -> Result<ServiceStatus, RouteError> {
    let mut services = context.handle.observe().await?.status.services;
    services.remove(name).ok_or_else(|| {
        let known: Vec<_> = services.into_keys().collect();
        let message = format!("there is no service {name:?}; there is: {}", known.join(", "));
        Refusal { code: RefusalCode::UnknownService, message }.into()
    })
}

async fn change(
    context: &AdminContext,
    name: &str,
    verb: Verb,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<AdminResponse, RouteError> {
    let (name, if_epoch) = (name.to_owned(), guard::if_match(headers)?);
    if if_epoch.is_some() && matches!(verb, Verb::Drain | Verb::Freeze | Verb::Thaw) {
        return Err(ApiError::bad_request(format!("{} takes no If-Match", verb.as_str())).into());
    }
    let changed: Changed = match verb {
        Verb::Flip => {
            let request = read(context, headers, body).await?;
            check_fields(verb, &request)?;
            context.handle.flip(name, if_epoch, request).await?
        }
        Verb::Rollback => {
            let request = read(context, headers, body).await?;
            check_fields(verb, &request)?;
            context.handle.rollback(name, if_epoch, request).await?
        }
        Verb::Drain => {
            check_fields(verb, &read(context, headers, body).await?)?;
            return Ok(response::json(StatusCode::OK, &context.handle.drain(name).await?));
        }
        Verb::Freeze => {
            let request: FreezeRequest = read(context, headers, body).await?;
            [&request.by, &request.why].into_iter().try_for_each(check_text)?;
            return Ok(response::json(StatusCode::OK, &context.handle.freeze(name, request).await?));
        }
        Verb::Thaw => {
            let request: ThawRequest = read(context, headers, body).await?;
            check_text(&request.by)?;
            return Ok(response::json(StatusCode::OK, &context.handle.thaw(name, request).await?));
        }
    };
    let answer = response::json(StatusCode::OK, &changed);
    Ok(if changed.dry_run { answer } else { response::with_epoch(answer, changed.epoch) })
}

/// Refuses fields that the verb would ignore, because the client meant them to have an effect.
fn check_fields(verb: Verb, request: &ChangeRequest) -> Result<(), ApiError> {
    let ChangeRequest { to, force, wait, dry_run, by } = request;
    let is_drain = verb == Verb::Drain;
    let unused = [
        ("\"to\"", to.is_some() && verb != Verb::Flip),
        ("\"force\"", *force && is_drain),
        ("\"wait\"", wait.is_some() && is_drain),
        ("\"dry_run\"", *dry_run && is_drain),
    ];
    if let Some((what, _)) = unused.iter().find(|(_, given)| *given) {
        return Err(ApiError::bad_request(format!("{} takes no {what}", verb.as_str())));
    }
    if verb == Verb::Flip && to.is_none() {
        return Err(ApiError::bad_request("a flip needs its color: {\"to\":\"blue\"} or {\"to\":\"green\"}"));
    }
    check_text(by)
}

/// Refuses a text that is too long for the ledger.
fn check_text(text: &Option<String>) -> Result<(), ApiError> {
    if text.as_ref().is_some_and(|text| text.len() > BY_BYTES_MAX) {
        return Err(ApiError::bad_request(format!("\"by\" and \"why\" are at most {BY_BYTES_MAX} bytes long")));
    }
    Ok(())
}

/// The body of `POST /v1/services/{name}/preview`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviewRequest {
    for_seconds: Option<u64>,
    by: Option<String>,
}

/// Creates a preview pass. It changes nothing about the service, but it opens access, so a page must not be able to ask
/// for it with a GET.
async fn preview(
    context: &AdminContext,
    name: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<AdminResponse, RouteError> {
    let PreviewRequest { for_seconds, by } = read(context, headers, body).await?;
    if guard::if_match(headers)?.is_some() {
        return Err(ApiError::bad_request("a preview takes no If-Match: a pass is for whichever color is idle").into());
    }
    let lasting = Duration::from_secs(for_seconds.unwrap_or(PASS.as_secs()));
    if lasting.is_zero() || lasting > PASS_MAX {
        let message =
            format!("a pass is valid for 1 s to 30 days: \"for_seconds\" is from 1 to {}", PASS_MAX.as_secs());
        return Err(ApiError::bad_request(message).into());
    }
    check_text(&by)?;
    let by = by.unwrap_or_else(|| "api".into());
    Ok(response::json(StatusCode::OK, &context.handle.preview(name.to_owned(), lasting, by).await?))
}

/// The body of `POST /v1/reload` and `POST /v1/upgrade`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByRequest {
    by: Option<String>,
}

async fn asker(context: &AdminContext, headers: &HeaderMap, body: Incoming) -> Result<String, RouteError> {
    let request: ByRequest = read(context, headers, body).await?;
    if guard::if_match(headers)?.is_some() {
        return Err(ApiError::bad_request("this takes no If-Match: an epoch belongs to one service").into());
    }
    check_text(&request.by)?;
    Ok(request.by.unwrap_or_else(|| "api".into()))
}

/// Reads the body as JSON, within limits of size and time; an empty body is the default.
async fn read<T: DeserializeOwned + Default>(
    context: &AdminContext,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<T, ApiError> {
    guard::check_content_type(headers)?;
    let collected = tokio::time::timeout(context.limits.body, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let bytes: Bytes = match collected {
        Err(_) => return Err(ApiError::too_slow()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(ApiError::too_large(BODY_BYTES_MAX)),
        Ok(Err(error)) => return Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| ApiError::bad_request(format!("the body: {error}")))
}

#[cfg(test)]
mod route {
    use super::*;

    #[test]
    fn is_an_exact_path() {
        for (path, want) in [
            ("/", Some(Route::Dashboard)),
            ("/metrics", Some(Route::Metrics)),
            ("/v1/services/recall", Some(Route::Service("recall"))),
            ("/v1/services/recall/flip", Some(Route::Change("recall", Verb::Flip))),
            ("/v1/services/recall/rollback", Some(Route::Change("recall", Verb::Rollback))),
            ("/v1/services/recall/rehearsal", Some(Route::Rehearsal("recall"))),
            ("/v1/services/recall/preview", Some(Route::Preview("recall"))),
            ("/v1/services/recall/drain", Some(Route::Change("recall", Verb::Drain))),
            ("/v1/services/recall/freeze", Some(Route::Change("recall", Verb::Freeze))),
            ("/v1/services/recall/thaw", Some(Route::Change("recall", Verb::Thaw))),
            ("/v1/services/recall/flip/", None),
            ("/v1/services/", None),
            ("/v1/services//flip", None),
            ("/v1/services/recall/explode", None),
            ("/v1/status/", None),
            ("//", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(Route::of(path), want, "{path}");
        }
    }

    #[test]
    fn of_a_change_takes_no_get_and_of_a_read_no_post() {
        assert!(Route::Upgrade.allows(&Method::POST) && !Route::Upgrade.is_open());
        assert!(Route::Reload.allows(&Method::POST) && !Route::Reload.allows(&Method::GET));
        assert!(Route::Status.allows(&Method::GET) && Route::Status.allows(&Method::HEAD));
        assert!(!Route::Status.allows(&Method::POST) && !Route::Status.allows(&Method::OPTIONS));
    }

    #[test]
    fn refuses_fields_its_verb_would_not_look_at() {
        use crate::domain::Color;
        let to_green = ChangeRequest { to: Some(Color::Green), ..ChangeRequest::default() };
        let waits = ChangeRequest { wait: Some(false), ..ChangeRequest::default() };
        let long = ChangeRequest { by: Some("x".repeat(101)), ..to_green.clone() };
        for (case, verb, request, want) in [
            ("a flip", Verb::Flip, &to_green, true),
            ("a flip to nowhere", Verb::Flip, &waits, false),
            ("a rollback", Verb::Rollback, &waits, true),
            ("a rollback to a color", Verb::Rollback, &to_green, false),
            ("a drain", Verb::Drain, &ChangeRequest::default(), true),
            ("a drain that does not wait", Verb::Drain, &waits, false),
            ("an essay in the ledger", Verb::Flip, &long, false),
        ] {
            assert_eq!(check_fields(verb, request).is_ok(), want, "{case}");
        }
    }
}
