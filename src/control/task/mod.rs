//! The control task: the only owner of every machine. It takes events in and does what the machines say, in the order
//! in which they say it.
//!
//! Nothing here waits for a disk, an upstream or a client: saves, ledger lines, probes, reloads and answers run beside
//! it and come back as events. [`Task`] has a field for each concern, which alone writes to its fields; the files of
//! this folder connect them. `effects` has the way of an event through a machine, `commands` what operators ask.

mod commands;
pub(super) mod counters;
pub(super) mod drain;
pub(super) mod drains;
mod effects;
pub(super) mod evidence;
mod freeze;
mod overview;
pub(super) mod preview;
pub(super) mod reload;
pub(super) mod reporter;
pub(super) mod saves;
pub(super) mod schedule;
pub mod upgrade;
pub mod upgrade_tracker;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use crate::api::EventKind;
use crate::config::Config;
use crate::control::handle::Command;
use crate::control::service::probe::ProbeReport;
use crate::control::service::sampler::{BELL_TICK, HISTORY_TICK};
use crate::control::service::{OutageChange, ServiceState};
use crate::control::task::counters::ChangeCounters;
use crate::control::task::drains::{DrainEnd, Drains, ReportColors};
use crate::control::task::evidence::EvidenceResult;
use crate::control::task::reload::{Loaded, Reloads};
use crate::control::task::reporter::Reporter;
use crate::control::task::saves::{SaveQueue, Saved};
use crate::control::task::schedule::Schedule;
use crate::control::task::upgrade_tracker::UpgradeTracker;
use crate::domain::cutover::Event;
use crate::os::clock;
use crate::routing::preview_token::PreviewKey;
use crate::routing::{ClientTerminations, HostTable};
use crate::tls::Terminator;

/// The end waits so long for ledger and state.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// First probes are this far apart, so that a thousand services do not begin in one burst.
const PROBE_SPREAD: Duration = Duration::from_micros(500);

/// Says what is wrong elsewhere in the process; `None` when nothing is.
pub type OtherProblem = Box<dyn Fn() -> Option<String> + Send>;

/// What the control plane has of the data plane.
pub(super) struct DataPlane {
    /// Which host leads to which service; published at a reload.
    pub(super) table: Arc<ArcSwap<HostTable>>,
    /// The threads that lease: a route has a part for each.
    pub(super) workers: usize,
    /// Rung when a request of a watched color fails.
    pub(super) failure_bell: Arc<Notify>,
    /// The open client connections.
    pub(super) connections: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// What TLS listeners meet their clients with; `None` where there are none.
    pub(super) terminator: Option<Arc<Terminator>>,
    pub(super) client_ends: Arc<ClientTerminations>,
}

/// Everything the control task owns.
pub(super) struct Task {
    /// In force. What is only read at start stays as it was then.
    pub(super) config: Config,
    pub(super) services: BTreeMap<String, ServiceState>,
    pub(super) data_plane: DataPlane,
    /// Passes to idle colors are signed with it.
    pub(super) preview_key: Arc<PreviewKey>,
    pub(super) drains: Drains,
    pub(super) saves: SaveQueue,
    pub(super) reporter: Reporter,
    pub(super) counters: ChangeCounters,
    pub(super) reloads: Reloads,
    pub(super) upgrade: UpgradeTracker,
    pub(super) schedule: Schedule,
    /// Given to every prober.
    pub(super) probe_reports: mpsc::Sender<ProbeReport>,
    /// Given to whoever writes an evidence file.
    pub(super) evidence_results: mpsc::Sender<EvidenceResult>,
    /// Why the state folder could not be written at the start, until something has been saved.
    pub(super) disk_problem: Option<String>,
    /// What was wrong at start and stays worth knowing.
    pub(super) start_problems: Vec<String>,
    /// What is wrong where the control plane does not look.
    pub(super) other_problem: OtherProblem,
    /// The start of the process, in UTC.
    pub(super) started: String,
}

/// Where everything that runs beside the task reports.
pub(super) struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) probes: mpsc::Receiver<ProbeReport>,
    pub(super) saved: mpsc::Receiver<Saved>,
    pub(super) evidence: mpsc::Receiver<EvidenceResult>,
    pub(super) loaded: mpsc::Receiver<Loaded>,
    pub(super) changed_files: mpsc::Receiver<()>,
}

impl Task {
    /// Probes, watches and changes color until `stop` turns true, or its sender is gone. At the end ledger and state
    /// have been written, or had 2 s each for it.
    pub(super) async fn run(mut self, mut inbox: Inbox, mut stop: watch::Receiver<bool>) {
        self.start_probes();
        self.save_new();
        let mut stopped = pin!(async move { drop(stop.wait_for(|stop| *stop).await) });
        loop {
            let now = clock::now();
            // What two processes would decide, none does.
            let judges = self.upgrade.judges();
            let wake = if judges { self.next_wake() } else { now + HISTORY_TICK };
            let colors = if judges { ReportColors::Yes } else { ReportColors::No };
            let (bell, pause) = (Arc::clone(&self.data_plane.failure_bell), self.schedule.bell_pause(now));
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = heard(&bell, pause), if judges && self.schedule.any_watch() => self.on_bell(),
                () = sleep(wake.saturating_sub(now)) => if judges { self.on_time() },
                end = self.drains.next(colors) => match end {
                    DrainEnd::Color(drained) => self.on_drained(drained),
                    DrainEnd::Route => {}
                },
                Some(saved) = inbox.saved.recv() => self.on_saved(saved),
                Some(result) = inbox.evidence.recv() => self.on_evidence(result),
                Some(command) = inbox.commands.recv() => self.on_command(command),
                Some(report) = inbox.probes.recv() => self.on_probe(report),
                Some(loaded) = inbox.loaded.recv() => self.on_loaded(loaded),
                Some(()) = inbox.changed_files.recv() => self.request_reload("file change", None),
            }
        }
        for name in self.services.keys().cloned().collect::<Vec<_>>() {
            self.stop_freeze(&name);
        }
        self.reporter.flush(STOP_WAIT).await;
        // Without the task the saving thread ends, after the last save.
        drop(self);
        let saved = async { while inbox.saved.recv().await.is_some() {} };
        drop(tokio::time::timeout(STOP_WAIT, saved).await);
    }

    fn next_wake(&mut self) -> Duration {
        let drains: Vec<Duration> = self.idle_deadlines().collect();
        self.schedule.next_wake(&self.services, drains.into_iter())
    }

    fn on_bell(&mut self) {
        let now = clock::now();
        self.schedule.on_bell(now);
        self.sample_watched(now);
    }

    fn on_time(&mut self) {
        let now = clock::now();
        if self.schedule.takes_history(now) {
            for service in self.services.values_mut() {
                service.sample(now);
                service.note_latency(now);
            }
            if self.schedule.takes_failed_saves(now) {
                self.save_failed_again();
            }
        }
        if self.schedule.is_sample_due(now) {
            self.sample_watched(now);
        }
        if self.schedule.is_deadline_due(now) {
            self.end_freezes(now);
            self.cut_idle(now);
            for name in self.names_where(|service| service.machine.deadline().is_some_and(|until| until <= now)) {
                self.handle_event(&name, Event::Tick);
            }
        }
    }

    fn sample_watched(&mut self, now: Duration) {
        self.schedule.on_sampled(now);
        for name in self.names_where(|service| service.machine.is_watching()) {
            let Some(service) = self.services.get_mut(&name) else { continue };
            let (epoch, sample) = (service.machine.epoch(), service.sample(now));
            self.handle_event(&name, Event::Sample { epoch, sample: Box::new(sample) });
            if let Some(service) = self.services.get_mut(&name) {
                service.forget_failures_when_calm();
            }
        }
    }

    pub(super) fn names_where(&self, is: impl Fn(&ServiceState) -> bool) -> Vec<String> {
        self.services.iter().filter(|(_, service)| is(service)).map(|(name, _)| name.clone()).collect()
    }

    fn on_probe(&mut self, ProbeReport { service: name, upstream, outcome }: ProbeReport) {
        let Some(service) = self.services.get_mut(&*name) else { return };
        let changed = service.upstreams.on_probe(upstream, outcome);
        // Also after a probe that changed nothing: after one that failed, another release may be there.
        service.update_rehearsal();
        let Some(change) = changed else { return };
        let message = match change.is_ready {
            true => format!("{} is ready", change.address),
            false => format!("{} is not ready: {}", change.address, change.why),
        };
        let outage = service.look_for_outage();
        self.reporter.emit(EventKind::Health, Some(&name), message);
        self.report_outage(&name, outage);
        if self.upgrade.blocks_changes().is_none() {
            self.flip_by_config(&name);
        }
    }

    /// Says in the log that the active color serves nobody, or serves again.
    pub(super) fn report_outage(&self, name: &str, change: Option<OutageChange>) {
        let (Some(change), Some(service)) = (change, self.services.get(name)) else { return };
        match change {
            OutageChange::Began => tracing::error!(service = name, "{}", service.outage().unwrap_or_default()),
            OutageChange::Ended => {
                tracing::info!(service = name, "{} has an upstream again that may serve", service.machine.active());
            }
        }
    }

    fn on_evidence(&mut self, result: EvidenceResult) {
        if let Some(service) = self.services.get_mut(&result.service) {
            evidence::on_written(service, result, &self.reporter);
        }
    }

    /// Probes every upstream that has no prober yet, the first ones spread over at most their interval.
    pub(super) fn start_probes(&mut self) {
        let mut begun = 0;
        for service in self.services.values_mut() {
            let interval = service.config.health.interval;
            service.upstreams.start_probers(&service.config, &self.probe_reports, || {
                begun += 1;
                (PROBE_SPREAD * (begun - 1)).min(interval)
            });
        }
    }
}

/// Waits for a failure to be counted; at most one a millisecond is looked at.
async fn heard(bell: &Notify, pause: Duration) {
    if !pause.is_zero() {
        sleep(pause.max(BELL_TICK)).await;
    }
    bell.notified().await;
}
