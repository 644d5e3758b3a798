//! The control task: the only owner of every machine. It takes events in and does what the machines say, in the order
//! in which they say it.
//!
//! Nothing here waits for a disk, an upstream or a client: saves, ledger lines, probes, reloads and answers run beside
//! it and come back as events.

pub mod commands;
pub mod drain;
pub mod evidence;
pub mod freeze;
pub mod preview;
pub mod reload;
pub mod upgrade;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::sleep;

use super::service::{ReplacedRoute, ServiceState};
use super::{Command, Control, OtherProblem};
use crate::api::status::{self, Drained, EventKind};
use crate::config::Config;
use crate::control::file_watch::Contents;
use crate::control::messages::{api_verdict, noted, refusal, seconds, verdict, words};
use crate::control::service::probe::ProbeReport;
use crate::control::service::sampler::{BELL_TICK, HISTORY_TICK, WATCH_TICK};
use crate::control::task::commands::refused_of;
use crate::control::task::drain::{DrainCause, PendingDrain, first_drained, first_over};
use crate::control::task::evidence::EvidenceResult;
use crate::control::task::reload::{LoadedConfig, ReloadRequest};
use crate::control::task::upgrade::Handover;
use crate::domain::Color;
use crate::domain::cutover::{
    ChangeError, ChangeRequest, Effect, Event, Notice, Reason, Requested, SavedState, UnderWay, WatchEnd,
};
use crate::domain::health::Readiness;
use crate::ledger::Ledger;
use crate::os::clock;
use crate::routing::preview_token::PreviewKey;
use crate::routing::{ClientTerminations, HostTable};
use crate::tls::Terminator;

/// How long an answer waits for its line to be in the ledger; a hanging disk must not keep a caller for ever.
pub(super) const LEDGER_WAIT: Duration = Duration::from_secs(2);
/// How long the end waits for ledger and state.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// After a failed save it is tried again this often.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// First probes are this far apart, so that a thousand services do not begin in one burst.
const PROBE_SPREAD: Duration = Duration::from_micros(500);

/// A state on its way to the disk.
pub(super) struct Save {
    pub(super) service: String,
    pub(super) serial: u64,
    pub(super) state: SavedState,
    /// The monotonic time that the moments in `state` are relative to.
    pub(super) now: Duration,
}

/// How a save went.
pub(super) struct Saved {
    pub(super) service: String,
    pub(super) serial: u64,
    pub(super) outcome: Result<(), String>,
}

/// Everything the control task owns.
pub(super) struct Task {
    pub(super) config: Config,
    pub(super) workers: usize,
    pub(super) table: Arc<ArcSwap<HostTable>>,
    pub(super) terminator: Option<Arc<Terminator>>,
    pub(super) client_ends: Arc<ClientTerminations>,
    pub(super) services: BTreeMap<String, ServiceState>,
    /// What passes to idle colors are made with.
    pub(super) key: Arc<PreviewKey>,
    pub(super) leaving: Vec<ReplacedRoute>,
    pub(super) draining: Vec<PendingDrain>,
    pub(super) bell: Arc<Notify>,
    pub(super) wake_workers: Arc<dyn Fn() + Send + Sync>,
    pub(super) connections: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(super) saves: SyncSender<Save>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) events: broadcast::Sender<status::Event>,
    pub(super) found: mpsc::Sender<ProbeReport>,
    pub(super) reloads: mpsc::Sender<ReloadRequest>,
    pub(super) kept: mpsc::Sender<EvidenceResult>,
    /// What the config in force, or refused last, was read from.
    pub(super) files: watch::Sender<Contents>,
    /// What was wrong at start and stays worth knowing.
    pub(super) start_problems: Vec<String>,
    /// What is wrong where the control plane does not look.
    pub(super) other_problem: OtherProblem,
    /// Why the config on disk is not in force.
    pub(super) reload_problem: Option<String>,
    pub(super) reloads_ok: u64,
    pub(super) reloads_failed: u64,
    pub(super) flips: BTreeMap<(String, Color, Reason), u64>,
    /// By service and `words::WATCH_ENDS`.
    pub(super) watch_ends: BTreeMap<(String, &'static str), u64>,
    pub(super) started: String,
    pub(super) schedule: Schedule,
    pub(super) handover: Handover,
}

/// What time has to bring next.
pub(super) struct Schedule {
    /// Machines have moved since the two below were found.
    pub(super) is_stale: bool,
    deadline: Option<Duration>,
    any_watch: bool,
    next_sample: Duration,
    next_history: Duration,
    next_save: Duration,
    bell_after: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        let zero = Duration::ZERO;
        Schedule {
            is_stale: true,
            deadline: None,
            any_watch: false,
            next_sample: zero,
            next_history: zero,
            next_save: zero,
            bell_after: zero,
        }
    }
}

/// Where everything that runs beside the task reports.
pub(super) struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) found: mpsc::Receiver<ProbeReport>,
    pub(super) saved: mpsc::Receiver<Saved>,
    pub(super) kept: mpsc::Receiver<EvidenceResult>,
    pub(super) loaded: mpsc::Receiver<LoadedConfig>,
    pub(super) changed_files: mpsc::Receiver<()>,
}

impl Control {
    /// Probes, watches and changes color until `stop` turns true, or its sender is gone.
    ///
    /// Call it on a current-thread runtime with time and io. At the end ledger and state have been written, or had 2 s
    /// each for it.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Control { mut task, mut inbox, loader, file_watch, .. } = self;
        let (loader, file_watch) = (tokio::spawn(loader), tokio::spawn(file_watch));
        task.start_probes();
        task.save_new();
        let mut stopped = pin!(async move { drop(stop.wait_for(|stop| *stop).await) });
        loop {
            let now = clock::now();
            // What two processes would decide, none does.
            let judges = task.handover.judges();
            let wake = if judges { task.next_wake() } else { now + HISTORY_TICK };
            let (bell, bell_after) = (Arc::clone(&task.bell), task.schedule.bell_after);
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = ring(&bell, bell_after.saturating_sub(now)), if judges && task.schedule.any_watch => task.on_bell(),
                () = sleep(wake.saturating_sub(now)) => if judges { task.on_time() },
                drained = first_drained(&mut task.draining), if judges => task.on_drained(drained),
                over = first_over(&mut task.leaving) => drop(task.leaving.swap_remove(over)),
                Some(saved) = inbox.saved.recv() => task.on_saved(saved),
                Some(kept) = inbox.kept.recv() => task.on_kept(kept),
                Some(command) = inbox.commands.recv() => task.on_command(command),
                Some(found) = inbox.found.recv() => task.on_found(found),
                Some(loaded) = inbox.loaded.recv() => task.on_loaded(loaded),
                Some(()) = inbox.changed_files.recv() => task.request_reload("file change", None),
            }
        }
        for name in task.services.keys().cloned().collect::<Vec<_>>() {
            task.stop_freeze(&name);
        }
        loader.abort();
        file_watch.abort();
        drop(tokio::time::timeout(STOP_WAIT, task.ledger.reached()).await);
        // Without the task the saving thread ends, after the last save.
        drop(task);
        let saved = async { while inbox.saved.recv().await.is_some() {} };
        drop(tokio::time::timeout(STOP_WAIT, saved).await);
    }
}

/// A failure was counted; at most one a millisecond is looked at.
async fn ring(bell: &Notify, quiet: Duration) {
    if !quiet.is_zero() {
        sleep(quiet.max(BELL_TICK)).await;
    }
    bell.notified().await;
}

impl Task {
    fn next_wake(&mut self) -> Duration {
        if std::mem::take(&mut self.schedule.is_stale) {
            let machines = || self.services.values().map(|managed| &managed.machine);
            let thaws = self.services.values().filter_map(|managed| managed.frost.freezer.deadline());
            let due = machines().filter_map(|machine| machine.deadline()).chain(thaws).chain(self.idle_deadlines());
            (self.schedule.deadline, self.schedule.any_watch) =
                (due.min(), machines().any(|machine| machine.is_watching()));
        }
        let schedule = &self.schedule;
        let sample = schedule.any_watch.then_some(schedule.next_sample);
        [schedule.deadline, sample].into_iter().flatten().fold(schedule.next_history, Duration::min)
    }

    fn on_bell(&mut self) {
        let now = clock::now();
        self.schedule.bell_after = now + BELL_TICK;
        self.sample_watched(now);
    }

    fn on_time(&mut self) {
        let now = clock::now();
        if self.schedule.next_history <= now {
            self.schedule.next_history = now + HISTORY_TICK;
            for managed in self.services.values_mut() {
                managed.sample(now);
                managed.note_latency(now);
            }
            self.save_again(now);
        }
        if self.schedule.next_sample <= now || self.schedule.deadline.is_some_and(|deadline| deadline <= now) {
            self.sample_watched(now);
        }
        if self.schedule.deadline.is_some_and(|deadline| deadline <= now) {
            self.end_freezes(now);
            self.cut_idle(now);
            for name in self.names_where(|managed| managed.machine.deadline().is_some_and(|deadline| deadline <= now)) {
                self.handle_event(&name, Event::Tick);
            }
        }
    }

    fn sample_watched(&mut self, now: Duration) {
        self.schedule.next_sample = now + WATCH_TICK;
        for name in self.names_where(|managed| managed.machine.is_watching()) {
            let Some(managed) = self.services.get_mut(&name) else { continue };
            let (epoch, sample) = (managed.machine.epoch(), managed.sample(now));
            self.handle_event(&name, Event::Sample { epoch, sample: Box::new(sample) });
            if let Some(managed) = self.services.get_mut(&name) {
                managed.forget_what_was_nothing();
            }
        }
    }

    pub(super) fn names_where(&self, is: impl Fn(&ServiceState) -> bool) -> Vec<String> {
        self.services.iter().filter(|(_, managed)| is(managed)).map(|(name, _)| name.clone()).collect()
    }

    /// Tells one machine what happened, and does what it says.
    pub(super) fn handle_event(&mut self, name: &str, event: Event) {
        let Some(managed) = self.services.get_mut(name) else { return };
        let effects = managed.machine.on(event, clock::now());
        self.apply_effects(name, effects);
    }

    pub(super) fn apply_effects(&mut self, name: &str, effects: Vec<Effect>) {
        self.schedule.is_stale = true;
        for effect in effects {
            match effect {
                Effect::Save { serial, state } => self.save(name, serial, state),
                Effect::Publish { color, epoch } => {
                    let Some(managed) = self.services.get_mut(name) else { return };
                    let lives_long = managed.has_long_lived(color.other());
                    let (route_handle, leave) = managed.publish(color, epoch);
                    let service = name.to_owned();
                    self.leaving.push(ReplacedRoute { service: service.clone(), route_handle });
                    self.draining.push(PendingDrain { service, leave, by: DrainCause::Flip { epoch: epoch - 1 } });
                    if lives_long {
                        (self.wake_workers)();
                    }
                }
                Effect::Cut { epoch } => self.cut(name, epoch),
                Effect::Report(told) => self.report(name, &told),
            }
        }
        if let Some(managed) = self.services.get_mut(name) {
            managed.set_mode();
            managed.set_rehearsal();
            managed.set_synthetic();
        }
        self.empty_idle(name);
    }

    fn save(&mut self, name: &str, serial: u64, state: SavedState) {
        let save = Save { service: name.to_owned(), serial, state, now: clock::now() };
        self.handover.saving += 1;
        if self.saves.try_send(save).is_err() {
            let outcome = Err("too many saves wait for the disk".to_owned());
            self.on_saved(Saved { service: name.to_owned(), serial, outcome });
        }
    }

    fn on_saved(&mut self, Saved { service, serial, outcome }: Saved) {
        self.handover.saving -= 1;
        let Some(managed) = self.services.get_mut(&service) else { return };
        if let Err(why) = &outcome {
            tracing::error!(service, "state not saved: {why}");
            self.schedule.next_save = clock::now() + SAVE_AGAIN;
        }
        managed.save_problem = outcome.as_ref().err().cloned();
        managed.refresh_history(clock::now());
        self.handle_event(&service, Event::Saved { serial, outcome });
    }

    /// Saves what a service that is new was found with in the config.
    pub(super) fn save_new(&mut self) {
        for name in self.names_where(|managed| managed.is_unsaved) {
            let Some(managed) = self.services.get_mut(&name) else { continue };
            managed.is_unsaved = false;
            let effects = managed.machine.save_present();
            self.apply_effects(&name, effects);
        }
    }

    fn save_again(&mut self, now: Duration) {
        if now < self.schedule.next_save {
            return;
        }
        self.schedule.next_save = now + SAVE_AGAIN;
        for name in self.names_where(|managed| managed.save_problem.is_some()) {
            let Some(managed) = self.services.get_mut(&name) else { continue };
            let effects = managed.machine.save_present();
            self.apply_effects(&name, effects);
        }
    }

    fn report(&mut self, name: &str, told: &Notice) {
        let mut words = words(name, told);
        if let Notice::RolledBack { change, evidence: Some(found), .. } = told
            && let Some(file) = self.keep_evidence(name, change, found, &words.sentence)
        {
            words = words.with_evidence(&file);
        }
        self.ledger.write(words.line);
        self.emit(words.kind, Some(name), words.sentence.clone());
        let Some(managed) = self.services.get_mut(name) else { return };
        match told {
            Notice::Flipped { change, .. } => {
                (managed.last_verdict, managed.verdict) = (None, None);
                (managed.evidence_file, managed.flipped) = (None, Some(clock::utc()));
                managed.evidence_problem = None;
                *self.flips.entry((name.to_owned(), change.to, change.reason)).or_default() += 1;
                if let Some(asker) = managed.asker.take() {
                    self.answer_made(name, asker, change);
                }
            }
            Notice::RolledBack { change, evidence, .. } => {
                if evidence.is_some() {
                    (managed.last_verdict, managed.verdict) = (Some(words.sentence), None);
                }
                managed.forget_history(change.from);
                *self.flips.entry((name.to_owned(), change.to, change.reason)).or_default() += 1;
            }
            // A flip that was being saved was given up; the other refusals are answered where they are asked.
            Notice::Refused {
                error: error @ (ChangeError::Unsaved { .. } | ChangeError::UnderWay { what: UnderWay::Overtaken }),
                ..
            } => {
                if let Some(asker) = managed.asker.take() {
                    self.reply(asker.answer, Err(refusal(name, error)));
                }
            }
            Notice::Noted { color, note, .. } => managed.note(noted(*color, note)),
            Notice::Refused { .. } => {}
            Notice::WatchEnded { color, end, .. } => {
                if matches!(end, WatchEnd::Superseded) {
                    // It was left unproven: no yardstick either.
                    managed.forget_history(*color);
                }
                (managed.last_verdict, managed.verdict) = (Some(words.sentence), Some(api_verdict(end)));
                managed.failures = None;
                *self.watch_ends.entry((name.to_owned(), verdict(end).0)).or_default() += 1;
            }
            Notice::Drained { epoch, took, cut, .. } => {
                managed.last_drain = Drained { seconds: seconds(*took), cut: *cut };
                self.answer_drained(name, *epoch);
            }
        }
    }

    /// Tells the event stream and the log.
    pub(super) fn emit(&self, kind: EventKind, service: Option<&str>, message: String) {
        match kind {
            EventKind::Rollback | EventKind::Refused => tracing::warn!(service, kind = kind.as_str(), "{message}"),
            EventKind::Flip
            | EventKind::Drained
            | EventKind::Verdict
            | EventKind::Freeze
            | EventKind::Thaw
            | EventKind::Health
            | EventKind::Reload
            | EventKind::Upgrade => {
                tracing::info!(service, kind = kind.as_str(), "{message}");
            }
        }
        let event = status::Event { at: clock::utc(), kind, service: service.map(str::to_owned), message };
        // Nobody may be listening.
        drop(self.events.send(event));
    }

    fn on_found(&mut self, ProbeReport { service, upstream, probe }: ProbeReport) {
        let Some(managed) = self.services.get_mut(&*service) else { return };
        let (rise, fall) = (managed.config.health.rise, managed.config.health.fall);
        // A probe of an upstream that a reload has just removed.
        let Some(probed) = managed.upstream(upstream) else { return };
        let changed = probed.health.on(probe, rise, fall);
        // Also by a probe that changed no standing: after one that failed, another release may be there.
        managed.set_rehearsal();
        let Some(standing) = changed else { return };
        let Some(probed) = managed.upstream(upstream) else { return };
        probed.upstream.set_down(standing == Readiness::Down);
        let (address, why) = (probed.upstream.address.to_string(), probed.health.reason().unwrap_or_default());
        let message = match standing {
            Readiness::Up => format!("{address} is ready"),
            Readiness::Down | Readiness::Unknown => format!("{address} is not ready: {why}"),
        };
        self.emit(EventKind::Health, Some(&service), message);
        if self.held().is_none() {
            self.flip_by_config(&service);
        }
    }

    /// Lets the machine see a changed `active` of the config, as soon as the probes know its color: before that the
    /// gate would say no whatever is there. Says what comes of it; `None` where nothing has changed.
    pub(super) fn flip_by_config(&mut self, name: &str) -> Option<String> {
        let managed = self.services.get_mut(name)?;
        let by = managed.config_flip_due.take()?;
        let active = managed.config.active;
        if active != managed.machine.active() && !managed.is_known(active) {
            managed.config_flip_due = Some(by);
            return Some(format!("{name}: `active` changed: a flip to {active} as soon as its probes know how it is"));
        }
        let request = ChangeRequest { by, if_epoch: None, force: false, gate: managed.gate(active) };
        let effects = managed.machine.on(Event::ConfigActive { active, request }, clock::now());
        let refused = refused_of(&effects, Requested::Flip(active)).map(|why| refusal(name, why).message);
        self.apply_effects(name, effects);
        Some(match refused {
            None => format!("{name}: `active` changed to {active}"),
            Some(why) => format!("{name}: `active` changed, and the flip to {active} was refused: {why}"),
        })
    }

    /// Probes every upstream that has no prober yet, the first ones spread over at most their interval.
    pub(super) fn start_probes(&mut self) {
        let mut begun = 0;
        for managed in self.services.values_mut() {
            let interval = managed.config.health.interval;
            managed.probe(&self.found, || {
                begun += 1;
                (PROBE_SPREAD * (begun - 1)).min(interval)
            });
        }
    }
}
