//! Starts `cutover deploy` and `cutover rollback --to-tag`: takes the lock, resumes an interrupted run, begins a new
//! one.
//!
//! The order of the steps, and what undoes them, is decided in `domain::release::sequence`. `run` carries it out.

use crate::api::client::ClientError;
use crate::api::{ChangeRequest, Phase};
use crate::config::{Config, Service};
use crate::deploy::journal::{Intent, Journal, JournalError, JournalStart, Lock};
use crate::deploy::outcome::{DeployReport, Outcome, of_refusal};
use crate::deploy::plan;
use crate::deploy::progress::Progress;
use crate::deploy::request::{DeployRequest, Mode};
use crate::deploy::run::{DeployRun, FailureCause};
use crate::deploy::signals::StopSignals;
use crate::deploy::target::DeployTarget;
use crate::domain::Color;
use crate::domain::release::resume::{ResumePoint, resume_point};
use crate::domain::release::sequence::{Sequence, Wanted};
use crate::domain::release::state::{Observed, ReleaseState, TakenBackBy};
use crate::domain::release::{Decision, Strategy};

/// Tells whether the release of an interrupted run is still the one that is asked for.
fn wanted(journal: &Journal, request: &DeployRequest) -> Wanted {
    let Journal { tag, intent, release, .. } = journal;
    let is_same = *tag == request.tag && *intent == request.intent && release.strategy == request.strategy;
    if is_same { Wanted::Same } else { Wanted::Other }
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
            let wanted = wanted(&journal, request);
            let decided = journal.release.decided.as_ref();
            let had_failed = decided.is_some_and(|decided| decided.decision == Decision::Undo);
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
    let Journal { service, intent, tag, began, by, .. } = journal;
    let (intent, color, reached) = (intent.as_str(), journal.release.color, journal.release.reached);
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
    if let Err(error) = target.check_env_file(journal.release.color) {
        return DeployReport::new(Outcome::Config, error.to_string());
    }
    let status = match target.status().await {
        Ok(status) => status,
        Err(error) => return DeployReport::proxy_lost(&error),
    };
    let observed = Observed { active: status.active, epoch: status.epoch };
    let by = match status.phase {
        Phase::RolledBack => TakenBackBy::Verdict,
        Phase::Steady | Phase::Draining | Phase::Watching => TakenBackBy::Operator,
    };
    let why = status.last_verdict.unwrap_or(status.summary);
    let mut run = DeployRun::new(target, lock, journal, progress);
    run.progress.say(match (resume_point(&run.journal.release, observed), wanted) {
        (ResumePoint::Begin, Wanted::Same) => {
            "  going on from the beginning; a snapshot or a migration that was made stays made"
        }
        (ResumePoint::Begin, Wanted::Other) => "  another release is wanted now: undoing this one first",
        (ResumePoint::Follow, _) => "  it has the traffic: following its watch",
        (ResumePoint::End(Decision::Undo), _) => "  it had failed: undoing the rest of it",
        (ResumePoint::End(Decision::TakenBack), _) => "  its traffic was taken back: undoing the rest of it",
        (ResumePoint::End(Decision::Keep), _) => "  it was kept: going on with the old color",
    });
    let sequence = Sequence::resume(&mut run.journal.release, observed, wanted, by, &why);
    let report = run.drive(sequence, signals).await;
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
    // The engine says what runs. The env file does not, after an undo that failed or an edit.
    let running = match target.running_tag(color).await {
        Ok(running) => running,
        Err(error) => return DeployReport::new(Outcome::Failed, format!("{name}: {error}")),
    };
    let still_runs = running.as_ref() == Some(tag) && tag_before.as_ref() == Some(tag) && is_ready;
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
    let singletons_before = match singletons_in(target, color).await {
        Ok(services) => services,
        Err(error) => return DeployReport::new(Outcome::Failed, format!("{name}: {error}")),
    };
    let release = ReleaseState::begin(request.strategy, color, status.epoch);
    let sequence = Sequence::begin(&release);
    let journal = Journal::begin(JournalStart {
        service: name.clone(),
        intent: request.intent,
        tag: tag.clone(),
        tag_before,
        ran_before,
        singletons_before,
        by: request.by.clone(),
        release,
    });
    let mut run = DeployRun::new(target, lock, journal, progress);
    let line = run.line("begin").with("before", has).with("strategy", request.strategy).with("by", &request.by);
    run.record(line);
    let report = run.drive(sequence, signals).await;
    run.release_held().await;
    report
}

/// Returns the singletons that run in a color before a deploy. An undo has to leave them running.
async fn singletons_in(target: &DeployTarget<'_>, color: Color) -> Result<Vec<String>, FailureCause> {
    let singletons = target.compose(color)?.singletons().await?;
    if singletons.is_empty() {
        return Ok(singletons);
    }
    Ok(target.running_services(color, &singletons).await?)
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
