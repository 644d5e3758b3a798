//! The proxy sends requests of its own to both colors while one of them is watched, so that a service without traffic
//! is judged as well.
//!
//! They are sent where the config names a path, on connections of their own. The watch counts them as it counts a
//! user's, all as those of one client, so that a path that fails alone while users are served well takes nothing back.
//! No other counter has them, and how slow they are is not judged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::api::{Answered, SyntheticStatus};
use crate::config::{self, ColorConfig};
use crate::control::service::probe;
use crate::control::service::sampler::SyntheticSample;
use crate::control::service::upstreams::Upstreams;
use crate::control::service::watch_record::WatchRecord;
use crate::domain::cutover::Cutover;
use crate::domain::watch::{Outcomes, Stratum, WatchCounts};
use crate::http_client::wire;
use crate::os::clock;
use crate::os::resource_shortage::is_local_shortage;
use crate::routing::{FailedRequest, FailedRequests, ModeCell, RequestSource, Side, Symptom, Upstream};

/// So many requests are under way at once; while there are, none is added.
const IN_FLIGHT_MAX: usize = 8;
/// The `User-Agent`, for the application.
const NAME: &str = "cutover-synthetic";
/// The client, for the watch. Its number is not that of the loopback addresses, which all users have who come through
/// a proxy on this machine.
const CLIENT: &str = "cutover itself";

/// How synthetic requests were answered under the watched epoch.
#[derive(Debug, Default)]
struct SyntheticCounts {
    /// What ended, as the watch counts it, and what is in flight.
    sample: SyntheticSample,
    /// All responses, evidence or not; indexed by [`Side`].
    sides: [Answered; 2],
}

/// What is requested of whom. When any of it changes, the requests begin anew.
#[derive(Debug, PartialEq)]
struct SyntheticScope {
    epoch: u64,
    settings: config::Synthetic,
    colors: [ColorConfig; 2],
}

/// The task that sends the requests; it ends when this is dropped.
struct RunningSynthetic {
    scope: SyntheticScope,
    mode: Arc<ModeCell>,
    task: AbortHandle,
}

impl Drop for RunningSynthetic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The synthetic requests of one service.
#[derive(Default)]
pub(in crate::control) struct SyntheticState {
    /// While a color is watched, where the config names a path.
    running: Option<RunningSynthetic>,
    /// Of the watched epoch.
    counts: Arc<Mutex<SyntheticCounts>>,
}

/// What a task needs to send the requests.
struct SyntheticSender {
    settings: config::Synthetic,
    to: config::Upstream,
    host: Option<String>,
    source: RequestSource,
    /// Indexed by [`Side`].
    upstreams: [Arc<[Arc<Upstream>]>; 2],
    mode: Arc<ModeCell>,
    counts: Arc<Mutex<SyntheticCounts>>,
    failed: FailedRequests,
}

/// How one request ended.
struct SyntheticResult {
    /// The address it was sent to.
    upstream: String,
    status: Option<StatusCode>,
    fault: Option<SyntheticFault>,
}

impl SyntheticResult {
    fn is_bad(&self) -> bool {
        self.fault.is_some() || self.status.is_some_and(|status| status.is_server_error())
    }
}

/// Why a request got no whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyntheticFault {
    NotConnected,
    Garbage,
    Reset,
    Timeout,
}

impl SyntheticFault {
    /// The access log's word for the same fault.
    fn as_str(self) -> &'static str {
        match self {
            SyntheticFault::NotConnected => "upstream_connect",
            SyntheticFault::Garbage => "upstream_garbage",
            SyntheticFault::Reset => "upstream_reset",
            SyntheticFault::Timeout => "upstream_timeout",
        }
    }
}

impl SyntheticState {
    /// Begins, ends or leaves the requests as the service is now. `watch` says where failures are described.
    pub(in crate::control) fn update(
        &mut self,
        config: &config::Service,
        machine: &Cutover,
        upstreams: &Upstreams,
        watch: &mut WatchRecord,
    ) {
        let (Some(settings), Some(mode)) = (&config.watch.synthetic, machine.mode()) else {
            self.running = None;
            return;
        };
        let scope =
            SyntheticScope { epoch: machine.epoch(), settings: settings.clone(), colors: config.colors.clone() };
        if let Some(running) = self.running.as_ref().filter(|running| running.scope == scope) {
            return running.mode.set(Some(mode));
        }
        // Requests of the task before are no more: they end with it.
        self.running = None;
        lock(&self.counts).sample.in_flight = 0;
        let active = machine.active();
        let mode = Arc::new(ModeCell::new(Some(mode)));
        let sender = SyntheticSender {
            settings: settings.clone(),
            to: config.upstream.clone(),
            host: config.hosts.iter().find(|host| !host.starts_with('*')).cloned(),
            source: RequestSource::new(CLIENT.as_bytes(), settings.path.as_bytes()),
            upstreams: [active, active.other()].map(|color| upstreams.shared(color)),
            mode: Arc::clone(&mode),
            counts: Arc::clone(&self.counts),
            failed: watch.failed_requests(),
        };
        let task = tokio::spawn(send_each_interval(Arc::new(sender))).abort_handle();
        self.running = Some(RunningSynthetic { scope, mode, task });
    }

    /// Another epoch begins, and its counts with it.
    pub(in crate::control) fn begin_epoch(&mut self) {
        self.counts = Arc::default();
    }

    /// How the requests were answered so far, as the watch counts it.
    pub(in crate::control) fn sample(&self) -> SyntheticSample {
        lock(&self.counts).sample
    }

    /// The same for the status; `None` where nothing is configured.
    pub(in crate::control) fn status(&self, config: &config::Service) -> Option<SyntheticStatus> {
        let settings = config.watch.synthetic.as_ref()?;
        let [new_color, old_color] = lock(&self.counts).sides;
        Some(SyntheticStatus { path: settings.path.clone(), new_color, old_color })
    }
}

fn lock(counts: &Mutex<SyntheticCounts>) -> MutexGuard<'_, SyntheticCounts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends both colors a request once an interval, until it is aborted.
async fn send_each_interval(sender: Arc<SyntheticSender>) {
    let mut timer = tokio::time::interval(sender.settings.interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    for turn in 0.. {
        timer.tick().await;
        while under_way.try_join_next().is_some() {}
        if under_way.len() + 2 > IN_FLIGHT_MAX {
            continue;
        }
        for side in [Side::New, Side::Old] {
            let sender = Arc::clone(&sender);
            under_way.spawn(async move { sender.send_and_count(side, turn).await });
        }
    }
}

impl SyntheticSender {
    async fn send_and_count(&self, side: Side, turn: usize) {
        let Some(mode) = self.mode.get() else { return };
        let stratum = match side {
            Side::New if self.source.is_excluded(&mode) => Some(Stratum::Excluded),
            Side::New => Some(mode.phase()),
            // What the old color answers while it has no part of the traffic is compared with nothing.
            Side::Old if mode.keep_one_in > 0 => Some(Stratum::Old),
            Side::Old => None,
        };
        if side == Side::New {
            lock(&self.counts).sample.in_flight += 1;
        }
        let (at, began, request_id) = (clock::unix_ms(), Instant::now(), format!("{:032x}", fastrand::u128(..)));
        let result = self.send(side, turn, &request_id).await;
        let mut counts = lock(&self.counts);
        if side == Side::New {
            counts.sample.in_flight = counts.sample.in_flight.saturating_sub(1);
        }
        let Some(result) = result else { return };
        counts.sides[side as usize].answered += 1;
        counts.sides[side as usize].failed += u64::from(result.is_bad());
        if let Some(stratum) = stratum {
            count(&mut counts.sample.seen, stratum, self.source, &result);
        }
        drop(counts);
        let is_evidence = result.is_bad() && side == Side::New && stratum != Some(Stratum::Excluded);
        if is_evidence && self.failed.has_room(Symptom::Failed) {
            self.failed.add(Symptom::Failed, self.describe(result, at, began.elapsed(), request_id));
        }
    }

    fn describe(&self, result: SyntheticResult, at_unix_ms: u64, took: Duration, request_id: String) -> FailedRequest {
        FailedRequest {
            at_unix_ms,
            method: "GET",
            target: self.settings.path.clone(),
            status: result.status.map(|status| status.as_u16()),
            fault: result.fault.map(SyntheticFault::as_str),
            took,
            request_id,
            upstream: result.upstream,
            replay: None,
            synthetic: true,
        }
    }

    /// Sends one request. `None` stands for a shortage of our own, which says nothing about the color.
    async fn send(&self, side: Side, turn: usize, request_id: &str) -> Option<SyntheticResult> {
        let all = &self.upstreams[side as usize];
        let upstream = &all[turn % all.len()].address;
        let result = |status, fault| Some(SyntheticResult { upstream: upstream.to_string(), status, fault });
        let stream = match timeout(self.to.connect_timeout, probe::connect(upstream, self.to.proxy_protocol)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_local_shortage(&error) => return None,
            Ok(Err(_)) | Err(_) => return result(None, Some(SyntheticFault::NotConnected)),
        };
        let request = Request::get(&self.settings.path)
            .header(HOST, self.host.clone().unwrap_or_else(|| upstream.to_string()))
            .header(USER_AGENT, NAME)
            .header("x-cutover-synthetic", "1")
            .header("x-request-id", request_id)
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            // It fails where the configured path is one that no request can have.
            .ok()?;
        let mut status = None;
        let exchange = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(wire(stream, self.to.protocol))).await?;
            let mut driver = JoinSet::new(); // ends with this request, however it ends
            driver.spawn(async move { drop(connection.await) });
            let mut response = sender.send_request(request).await?;
            status = Some(response.status());
            while let Some(frame) = response.frame().await {
                frame?;
            }
            Ok::<(), hyper::Error>(())
        };
        let fault = match timeout(self.settings.timeout, exchange).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) if error.is_parse() => Some(SyntheticFault::Garbage),
            Ok(Err(_)) => Some(SyntheticFault::Reset),
            Err(_) => Some(SyntheticFault::Timeout),
        };
        result(status, fault)
    }
}

/// Counts a result as the data plane counts the result of a user's request.
fn count(seen: &mut WatchCounts, stratum: Stratum, source: RequestSource, result: &SyntheticResult) {
    let add = |outcomes: &mut Outcomes| {
        if result.is_bad() { outcomes.bad += 1 } else { outcomes.good += 1 }
    };
    add(&mut seen.strata[stratum as usize]);
    match stratum {
        Stratum::Old | Stratum::Excluded => {}
        Stratum::Calm | Stratum::WarmUp | Stratum::Split | Stratum::WarmUpSplit => {
            add(&mut seen.spread.clients[usize::from(source.client)]);
            add(&mut seen.spread.routes[usize::from(source.route)]);
        }
    }
    if result.fault == Some(SyntheticFault::NotConnected) && stratum != Stratum::Old {
        seen.refused += 1;
    }
}

#[cfg(test)]
mod tests {
    use crate::control::service::synthetic::*;

    #[test]
    fn the_proxy_itself_is_a_client_of_its_own() {
        let number = |client: &str| RequestSource::new(client.as_bytes(), b"/").client;
        assert!(["127.0.0.1", "::1"].into_iter().all(|loopback| number(loopback) != number(CLIENT)));
    }

    #[test]
    fn an_answer_counts_where_its_request_began() {
        let source = RequestSource::new(CLIENT.as_bytes(), b"/check");
        let of = |status: u16, fault| SyntheticResult {
            upstream: String::new(),
            status: StatusCode::from_u16(status).ok(),
            fault,
        };
        let mut seen = WatchCounts::default();
        count(&mut seen, Stratum::Calm, source, &of(200, None));
        count(&mut seen, Stratum::Split, source, &of(0, Some(SyntheticFault::NotConnected)));
        count(&mut seen, Stratum::Old, source, &of(0, Some(SyntheticFault::NotConnected)));
        count(&mut seen, Stratum::Excluded, source, &of(500, None));
        assert_eq!((seen.new_color().good, seen.new_color().bad, seen.of(Stratum::Old).bad), (1, 2, 1));
        assert_eq!(seen.refused, 1, "of the new color only");
        let (clients, routes) = (seen.spread.clients, seen.spread.routes);
        assert_eq!((clients[usize::from(source.client)].all(), routes[usize::from(source.route)].all()), (2, 2));
    }
}
