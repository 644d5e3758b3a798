//! Requests of the proxy's own, to both colors, while one of them is watched: a service without traffic is judged by
//! them.
//!
//! They are asked where the config names a path, on connections of their own. The watch counts them as it counts a
//! user's, all as those of one client, so that a path that fails alone while users are served well takes nothing back.
//! No other counter has them, and how slow they are is not judged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::api::status::{Answered, SyntheticStatus};
use crate::config::{self, ColorConfig};
use crate::control::service::probe;
use crate::control::service::{ServiceState, route_of};
use crate::control::task::evidence::FailureLog;
use crate::domain::watch::{Stratum, WatchCounts};
use crate::http_client::wire;
use crate::os::clock;
use crate::os::resource_shortage::is_local_shortage;
use crate::routing::{FailedRequest, FailedRequests, ModeCell, RequestSource, Side, Symptom, Upstream};

/// Requests under way at once; while there are so many, none is added.
const IN_FLIGHT_MAX: usize = 8;
/// Who asks, to the application.
const NAME: &str = "cutover-synthetic";
/// Who asks, to the watch: a client whose number is not that of the loopback addresses, which all users have who come
/// through a proxy on this machine.
const CLIENT: &str = "cutover itself";

/// How they were answered under the watched epoch.
#[derive(Debug, Default)]
pub(in crate::control) struct Asked {
    /// As the watch counts them.
    pub(in crate::control) seen: WatchCounts,
    /// Of the new color.
    pub(in crate::control) in_flight: u64,
    /// By [`Side`], evidence or not.
    sides: [Answered; 2],
}

/// What is asked of whom. Another one of these begins anew.
#[derive(Debug, PartialEq)]
struct Subject {
    epoch: u64,
    settings: config::Synthetic,
    colors: [ColorConfig; 2],
}

/// They are being asked; that ends when this is dropped.
pub(in crate::control) struct Synthetic {
    subject: Subject,
    mode: Arc<ModeCell>,
    task: AbortHandle,
}

impl Drop for Synthetic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the asking needs.
struct Stage {
    settings: config::Synthetic,
    to: config::Upstream,
    host: Option<String>,
    source: RequestSource,
    /// By [`Side`].
    upstreams: [Arc<[Arc<Upstream>]>; 2],
    mode: Arc<ModeCell>,
    asked: Arc<Mutex<Asked>>,
    failed: FailedRequests,
}

/// How one request ended.
struct Ended {
    /// Where it was sent.
    upstream: String,
    status: Option<StatusCode>,
    /// In the access log's words.
    fault: Option<&'static str>,
}

const NOT_CONNECTED: &str = "upstream_connect";

impl ServiceState {
    /// Begins, ends or leaves the asking as things are now.
    pub(in crate::control) fn set_synthetic(&mut self) {
        let (Some(settings), Some(mode)) = (&self.config.watch.synthetic, self.machine.mode()) else {
            self.synthetic = None;
            return;
        };
        let epoch = self.machine.epoch();
        if let Some(synthetic) = &self.synthetic {
            let Subject { epoch: since, settings: asked, colors } = &synthetic.subject;
            if (*since, asked, colors) == (epoch, settings, &self.config.colors) {
                return synthetic.mode.set(Some(mode));
            }
        }
        let settings = settings.clone();
        // Those of the asking before are no more: their task ends with it.
        self.synthetic = None;
        lock(&self.asked).in_flight = 0;
        let active = self.machine.active();
        let mode_cell = Arc::new(ModeCell::new(Some(mode)));
        let stage = Stage {
            to: self.config.upstream.clone(),
            host: self.config.hosts.iter().find(|host| !host.starts_with('*')).cloned(),
            source: RequestSource::new(CLIENT.as_bytes(), settings.path.as_bytes()),
            upstreams: [active, active.other()].map(|color| route_of(&self.upstreams[color.index()])),
            mode: Arc::clone(&mode_cell),
            asked: Arc::clone(&self.asked),
            failed: self.failures.get_or_insert_with(FailureLog::new).place.clone(),
            settings: settings.clone(),
        };
        let task = tokio::spawn(run(Arc::new(stage))).abort_handle();
        let subject = Subject { epoch, settings, colors: self.config.colors.clone() };
        self.synthetic = Some(Synthetic { subject, mode: mode_cell, task });
    }

    /// How they were answered so far, as the watch counts it: what ended, and what is in flight.
    pub(in crate::control) fn asked(&self) -> (WatchCounts, u64) {
        let asked = lock(&self.asked);
        (asked.seen, asked.in_flight)
    }

    /// The same for the status; `None` where none was asked under this epoch.
    pub(in crate::control) fn synthetic_status(&self) -> Option<SyntheticStatus> {
        let settings = self.config.watch.synthetic.as_ref()?;
        let [new_color, old_color] = lock(&self.asked).sides;
        Some(SyntheticStatus { path: settings.path.clone(), new_color, old_color })
    }
}

fn lock(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks both colors once an interval, until it is aborted.
async fn run(stage: Arc<Stage>) {
    let mut timer = tokio::time::interval(stage.settings.interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking = JoinSet::new();
    for turn in 0.. {
        timer.tick().await;
        while asking.try_join_next().is_some() {}
        if asking.len() + 2 > IN_FLIGHT_MAX {
            continue;
        }
        for side in [Side::New, Side::Old] {
            let stage = Arc::clone(&stage);
            asking.spawn(async move { stage.ask_and_count(side, turn).await });
        }
    }
}

impl Stage {
    async fn ask_and_count(&self, side: Side, turn: usize) {
        let Some(mode) = self.mode.get() else { return };
        let phase = match side {
            Side::New if self.source.is_excluded(&mode) => Some(Stratum::Excluded),
            Side::New => Some(mode.phase()),
            // What the old color answers while it has no part of the traffic is compared with nothing.
            Side::Old if mode.keep_one_in > 0 => Some(Stratum::Old),
            Side::Old => None,
        };
        if side == Side::New {
            lock(&self.asked).in_flight += 1;
        }
        let (at, began, request_id) = (clock::unix_ms(), Instant::now(), format!("{:032x}", fastrand::u128(..)));
        let ended = self.ask(side, turn, &request_id).await;
        let mut asked = lock(&self.asked);
        if side == Side::New {
            asked.in_flight = asked.in_flight.saturating_sub(1);
        }
        let Some(Ended { upstream, status, fault }) = ended else { return };
        let is_bad = fault.is_some() || status.is_some_and(|status| status.is_server_error());
        asked.sides[side as usize].answered += 1;
        asked.sides[side as usize].failed += u64::from(is_bad);
        if let Some(phase) = phase {
            asked.count(phase, self.source, is_bad, fault);
        }
        if is_bad && side == Side::New && phase != Some(Stratum::Excluded) && self.failed.has_room(Symptom::Failed) {
            let request = FailedRequest {
                at_unix_ms: at,
                method: "GET",
                target: self.settings.path.clone(),
                status: status.map(|status| status.as_u16()),
                fault,
                took: began.elapsed(),
                request_id,
                upstream,
                replay: None,
                synthetic: true,
            };
            self.failed.add(Symptom::Failed, request);
        }
    }

    /// `None`: a shortage of our own, which says nothing about the color.
    async fn ask(&self, side: Side, turn: usize, request_id: &str) -> Option<Ended> {
        let all = &self.upstreams[side as usize];
        let upstream = &all[turn % all.len()].address;
        let ended = |status, fault| Some(Ended { upstream: upstream.to_string(), status, fault });
        let stream = match timeout(self.to.connect_timeout, probe::connect(upstream, self.to.proxy_protocol)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_local_shortage(&error) => return None,
            Ok(Err(_)) | Err(_) => return ended(None, Some(NOT_CONNECTED)),
        };
        let request = Request::get(&self.settings.path)
            .header(HOST, self.host.clone().unwrap_or_else(|| upstream.to_string()))
            .header(USER_AGENT, NAME)
            .header("x-cutover-synthetic", "1")
            .header("x-request-id", request_id)
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            // The path is one that no request can have.
            .ok()?;
        let mut status = None;
        let exchange = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(wire(stream, self.to.protocol))).await?;
            let mut driver = JoinSet::new(); // ends with this request, however it ends
            driver.spawn(async move { drop(connection.await) });
            let mut answer = sender.send_request(request).await?;
            status = Some(answer.status());
            while let Some(frame) = answer.frame().await {
                frame?;
            }
            Ok::<(), hyper::Error>(())
        };
        let fault = match timeout(self.settings.timeout, exchange).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) if error.is_parse() => Some("upstream_garbage"),
            Ok(Err(_)) => Some("upstream_reset"),
            Err(_) => Some("upstream_timeout"),
        };
        ended(status, fault)
    }
}

impl Asked {
    fn count(&mut self, phase: Stratum, source: RequestSource, is_bad: bool, fault: Option<&str>) {
        let add = |ended: &mut crate::domain::watch::Outcomes| {
            if is_bad { ended.bad += 1 } else { ended.good += 1 }
        };
        add(&mut self.seen.strata[phase as usize]);
        match phase {
            Stratum::Old | Stratum::Excluded => {}
            Stratum::Calm | Stratum::WarmUp | Stratum::Split | Stratum::WarmUpSplit => {
                add(&mut self.seen.spread.clients[usize::from(source.client)]);
                add(&mut self.seen.spread.routes[usize::from(source.route)]);
            }
        }
        // As the data plane counts it.
        if fault == Some(NOT_CONNECTED) && phase != Stratum::Old {
            self.seen.refused += 1;
        }
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
        let mut asked = Asked::default();
        asked.count(Stratum::Calm, source, false, None);
        asked.count(Stratum::Split, source, true, Some(NOT_CONNECTED));
        asked.count(Stratum::Old, source, true, Some(NOT_CONNECTED));
        asked.count(Stratum::Excluded, source, true, None);
        let seen = &asked.seen;
        assert_eq!((seen.new_color().good, seen.new_color().bad, seen.of(Stratum::Old).bad), (1, 2, 1));
        assert_eq!(seen.refused, 1, "of the new color only");
        let (clients, routes) = (seen.spread.clients, seen.spread.routes);
        assert_eq!((clients[usize::from(source.client)].all(), routes[usize::from(source.route)].all()), (2, 2));
    }
}
