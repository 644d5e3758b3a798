//! Starts `cutover deploy` and `cutover rollback --to-tag`: takes the lock, resumes an interrupted run, begins a new
//! one.
//!
//! The order of the steps, and what undoes them, is decided in `domain::release`. `run` performs them.

use crate::api::client::ClientError;
use crate::api::{ChangeRequest, Phase};
use crate::config::{Config, Service};
use crate::deploy::journal::{Intent, Journal, JournalError, JournalStart, Lock};
use crate::deploy::outcome::{DeployReport, Outcome, of_refusal};
use crate::deploy::plan;
use crate::deploy::progress::Progress;
use crate::deploy::run::DeployRun;
use crate::deploy::signals::StopSignals;
use crate::deploy::target::DeployTarget;
use crate::domain::Color;
use crate::domain::release::{self, Decision, ResumePoint, Step, Strategy};

/// What the operator asks for.
#[derive(Clone, Debug)]
pub struct DeployRequest {
    pub intent: Intent,
    pub strategy: Strategy,
    /// The image tag.
    pub tag: String,
    pub mode: Mode,
    /// The operator, as the ledger names them.
    pub by: String,
}

/// Whether a deploy changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Real,
    /// Print the plan and change nothing.
    DryRun,
}

/// How the journal of an interrupted run relates to what is asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Same,
    Other,
}

impl Wanted {
    fn of(journal: &Journal, request: &DeployRequest) -> Self {
        let Journal { tag, intent, strategy, .. } = journal;
        let is_same = *tag == request.tag && *intent == request.intent && *strategy == request.strategy;
        if is_same { Wanted::Same } else { Wanted::Other }
    }
}

/// Deploys `request.tag` to `service`, after finishing or undoing what an interrupted run has left.
///
/// Whatever ends the deploy early, the active color and every file are as before, or the journal says what is left to
/// do.
pub async fn run(config: &Config, service: &Service, request: &DeployRequest, progress: &mut Progress) -> DeployReport {
    let target = match DeployTarget::new(config, service, request.strategy) {
        Ok(target) => target,
        Err(error) => return DeployReport::new(Outcome::Config, error.to_string()),
    };
    let lock = match Lock::take(&config.state.dir, &service.name) {
        Ok(lock) => lock,
        Err(error @ JournalError::Held(..)) => return DeployReport::new(Outcome::UnderWay, error.to_string()),
        Err(error @ (JournalError::File(..) | JournalError::Unparsed(..))) => return failed(&error),
    };
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => {
            return DeployReport::new(Outcome::Failed, format!("the signal handlers cannot be installed: {error}"));
        }
    };
    match (lock.load(), request.mode) {
        (Err(error), _) => return failed(&error),
        (Ok(Some(journal)), Mode::DryRun) => {
            let now = interrupted(&journal);
            let sentence = format!("{now}; the next run without --dry-run goes on or undoes it");
            return DeployReport::new(Outcome::UnderWay, sentence);
        }
        (Ok(Some(journal)), Mode::Real) => {
            let wanted = Wanted::of(&journal, request);
            let had_failed = journal.decided.as_ref().is_some_and(|decided| decided.decision == Decision::Undo);
            let report = resume(&target, &lock, journal, wanted, progress, &mut signals).await;
            // As long as there is a journal something is left to do, and a new deploy would lose track of it.
            let is_over = matches!(lock.load(), Ok(None));
            if !is_over || (wanted == Wanted::Same && !had_failed) {
                return report;
            }
            progress.say(&report.sentence);
        }
        (Ok(None), _) => {}
    }
    begin(&target, &lock, request, progress, &mut signals).await
}

fn failed(error: &JournalError) -> DeployReport {
    DeployReport::new(Outcome::Failed, error.to_string())
}

fn interrupted(journal: &Journal) -> String {
    let Journal { service, intent, tag, color, began, by, reached, .. } = journal;
    let intent = intent.as_str();
    format!("{service}: the {intent} of {tag} to {color}, begun at {began} by {by}, was interrupted at {reached}")
}

/// Takes up an interrupted run: it goes on where the same release is wanted, and is undone otherwise.
async fn resume(
    target: &DeployTarget<'_>,
    lock: &Lock,
    journal: Journal,
    wanted: Wanted,
    progress: &mut Progress,
    signals: &mut StopSignals,
) -> DeployReport {
    progress.say(&interrupted(&journal));
    if let Err(error) = target.check_env_file(journal.color) {
        return DeployReport::new(Outcome::Config, error.to_string());
    }
    let status = match target.status().await {
        Ok(status) => status,
        Err(error) => return DeployReport::proxy_lost(&error),
    };
    let point = release::resume_point(journal.interrupted(), status.active, status.epoch);
    let why = journal.decided.as_ref().map(|decided| decided.why.clone());
    let why = why.unwrap_or_else(|| status.last_verdict.unwrap_or(status.summary));
    let (color, reached) = (journal.color, journal.reached);
    let mut run = DeployRun::new(target, lock, journal, progress);
    let report = match (point, wanted) {
        (ResumePoint::Begin, Wanted::Same) => {
            run.progress.say("  going on from the beginning; a snapshot or a migration that was made stays made");
            run.go(None, signals).await
        }
        (ResumePoint::Begin, Wanted::Other) => {
            let why = format!("interrupted at {reached}, and another release is wanted now");
            run.progress.say("  another release is wanted now: undoing this one first");
            run.undo(Outcome::Failed, &why, signals).await
        }
        (ResumePoint::Follow, _) => {
            run.progress.say(&format!("  {color} has the traffic: following its watch"));
            run.go(Some(Step::EnvFile), signals).await
        }
        (ResumePoint::End(Decision::Undo), _) => {
            run.progress.say("  it had failed: undoing the rest of it");
            let outcome = run.outcome_at(reached);
            run.undo(outcome, &why, signals).await
        }
        (ResumePoint::End(Decision::TakenBack), _) => {
            run.progress.say("  its traffic was taken back: undoing the rest of it");
            run.take_back(&why, signals).await
        }
        (ResumePoint::End(Decision::Keep), _) => {
            run.progress.say("  it was kept: going on with the old color");
            run.go(Some(Step::Drain), signals).await
        }
    };
    run.release_held().await;
    report
}

async fn begin(
    target: &DeployTarget<'_>,
    lock: &Lock,
    request: &DeployRequest,
    progress: &mut Progress,
    signals: &mut StopSignals,
) -> DeployReport {
    let name = &target.service.name;
    let status = match target.status().await {
        Ok(status) => status,
        Err(error) => return DeployReport::proxy_lost(&error),
    };
    match status.phase {
        Phase::Steady | Phase::RolledBack => {}
        Phase::Draining | Phase::Watching => {
            let sentence = format!("{name}: another cutover is under way: {}", status.summary);
            return DeployReport::new(Outcome::UnderWay, sentence);
        }
    }
    let active = status.active;
    let color = match request.strategy {
        Strategy::BlueGreen => active.other(),
        Strategy::Recreate => active,
    };
    if let Err(error) = target.check_env_file(color) {
        return DeployReport::new(Outcome::Config, error.to_string());
    }
    let (tag_before, active_tag) = match (target.tag(color), target.tag(active)) {
        (Ok(before), Ok(active)) => (before, active),
        (Err(error), _) | (_, Err(error)) => return DeployReport::new(Outcome::Failed, error.to_string()),
    };
    let has = active_tag.as_deref().unwrap_or("no tag");
    let (intent, tag, project) = (request.intent.as_str(), &request.tag, target.project(color));
    let how = match request.strategy {
        Strategy::BlueGreen => format!("{active} is active with {has}"),
        Strategy::Recreate => format!("in place of {has}, requests wait meanwhile"),
    };
    progress.say(&format!("{name}: {intent} {tag} to {color} ({project}); {how}, epoch {}", status.epoch));
    let ran_before = match target.runs(color).await {
        Ok(ran) => ran,
        Err(error) => {
            let sentence = format!("{name}: whether {project} runs is not known: {error}");
            return DeployReport::new(Outcome::Failed, sentence);
        }
    };
    let is_ready = status.colors.get(&color).is_some_and(|status| status.ready);
    let still_runs = tag_before.as_ref() == Some(tag) && ran_before && is_ready;
    if request.strategy == Strategy::BlueGreen && request.intent == Intent::Rollback && still_runs {
        return flip_back(target, request, color, progress).await;
    }
    if request.mode == Mode::DryRun {
        return plan::print(target, request, color, ran_before, progress).await;
    }
    // Without a journal nobody needs what an earlier deploy has kept.
    if let Err(error) = lock.forget() {
        return failed(&error);
    }
    let journal = Journal::begin(JournalStart {
        service: name.clone(),
        intent: request.intent,
        strategy: request.strategy,
        tag: tag.clone(),
        color,
        epoch: status.epoch,
        tag_before,
        ran_before,
        by: request.by.clone(),
    });
    let mut run = DeployRun::new(target, lock, journal, progress);
    let line = run.line("begin").with("before", has).with("strategy", request.strategy).with("by", &request.by);
    run.record(line);
    let report = run.go(None, signals).await;
    run.release_held().await;
    report
}

/// Rolls back with a single flip, because the wanted tag still runs in the idle color.
async fn flip_back(
    target: &DeployTarget<'_>,
    request: &DeployRequest,
    color: Color,
    progress: &mut Progress,
) -> DeployReport {
    let name = &target.service.name;
    let is_dry = request.mode == Mode::DryRun;
    let by = Some(request.by.clone());
    let change = ChangeRequest { to: Some(color), wait: Some(false), dry_run: is_dry, by, force: false };
    match target.client.flip(name, &change, None).await {
        Ok(changed) => {
            let would = if is_dry { "would flip" } else { "flipped" };
            progress.say(&format!("  {color} still runs {}: {would} to it", request.tag));
            let sentence = format!("{name}: {} -> {}, epoch {}", changed.from, changed.to, changed.epoch);
            DeployReport::new(Outcome::Kept, sentence)
        }
        Err(ClientError::Refused(refusal)) => DeployReport::new(of_refusal(&refusal), refusal.message),
        Err(error) => DeployReport::proxy_lost(&error),
    }
}
