//! Prints the plan of a deploy for `--dry-run`: every step with its exact command.

use std::fmt;

use crate::config::Retire;
use crate::deploy::command::Command;
use crate::deploy::compose::{Compose, ComposeError};
use crate::deploy::journal::Intent;
use crate::deploy::outcome::{DeployReport, Outcome};
use crate::deploy::progress::Progress;
use crate::deploy::request::DeployRequest;
use crate::deploy::run::freeze::freezing;
use crate::deploy::target::{DeployTarget, TargetError};
use crate::domain::Color;
use crate::domain::release::{HookPoint, Step, Strategy};

/// One step of the plan.
struct PlannedStep {
    what: String,
    command: Option<Command>,
}

impl PlannedStep {
    fn of(what: impl Into<String>) -> Self {
        PlannedStep { what: what.into(), command: None }
    }

    fn with(self, command: Command) -> Self {
        PlannedStep { command: Some(command), ..self }
    }
}

/// Explains why there is no plan.
enum PlanError {
    Target(TargetError),
    Compose(ComposeError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::Target(error) => error.fmt(f),
            PlanError::Compose(error) => error.fmt(f),
        }
    }
}

impl From<TargetError> for PlanError {
    fn from(error: TargetError) -> Self {
        PlanError::Target(error)
    }
}

/// What a plan is about.
struct Plan<'a> {
    target: &'a DeployTarget<'a>,
    request: &'a DeployRequest,
    color: Color,
    compose: Compose,
    singletons: Vec<String>,
}

/// Prints every step of a deploy to `color`, and changes nothing.
pub async fn print(
    target: &DeployTarget<'_>,
    request: &DeployRequest,
    color: Color,
    ran_before: bool,
    progress: &mut Progress,
) -> DeployReport {
    let printed = match Plan::new(target, request, color).await {
        Ok(plan) => plan.print(progress).map(|()| plan.compose.project),
        Err(error) => Err(error),
    };
    match printed {
        Ok(project) => {
            let before = if ran_before { "runs again what it ran" } else { "is stopped" };
            let name = &target.service.name;
            let sentence =
                format!("{name}: a dry run, nothing was changed; if it fails before the flip, {project} {before}");
            DeployReport::new(Outcome::Kept, sentence)
        }
        Err(error) => DeployReport::new(Outcome::Failed, error.to_string()),
    }
}

impl<'a> Plan<'a> {
    async fn new(target: &'a DeployTarget<'a>, request: &'a DeployRequest, color: Color) -> Result<Self, PlanError> {
        let compose = target.compose_candidate(color)?;
        // The env file with the new tag does not exist yet. Which services are marked does not depend on the tag.
        let singletons = target.compose(color)?.singletons().await.map_err(PlanError::Compose)?;
        Ok(Plan { target, request, color, compose, singletons })
    }

    fn print(&self, progress: &mut Progress) -> Result<(), PlanError> {
        let Plan { target, request, color, .. } = self;
        let (strategy, freezing) = (request.strategy, freezing(target, request.intent));
        let mut held = None;
        for step in strategy.steps().iter().copied() {
            let holds = strategy.holds(step, freezing);
            if holds != held {
                let what = holds
                    .map_or("the proxy lets the held requests go".into(), |what| format!("the proxy holds {what}"));
                progress.say(&format!("  {:<10} {what}", holds.map_or("thaw", |_| "freeze")));
                held = holds;
            }
            let Some(PlannedStep { what, command }) = self.step(step)? else { continue };
            if let Some(phase) = strategy.phase_beginning_with(step) {
                progress.say(phase);
            }
            for point in strategy.hooks_before(step) {
                self.print_hook(*point, progress);
            }
            let moves = step == Step::Retire || (step == Step::EnvFile && strategy == Strategy::Recreate);
            if moves && !self.singletons.is_empty() {
                let services = self.singletons.join(", ");
                let what = format!("{services} run in {color} from now on, and nowhere else");
                progress.say(&format!("  {:<10} {what}", "singletons"));
            }
            progress.say(&format!("  {step:<10} {what}"));
            if let Some(command) = command {
                progress.command(&command);
            }
        }
        if held.is_some() {
            progress.say("  thaw       the proxy lets the held requests go");
        }
        if strategy == Strategy::Recreate {
            self.print_hook(HookPoint::Unfreeze, progress);
        }
        self.print_hook(HookPoint::Completion, progress);
        Ok(())
    }

    /// Describes a step; `None` where it does nothing with this config.
    fn step(&self, step: Step) -> Result<Option<PlannedStep>, PlanError> {
        let Plan { target, request, color, compose, singletons } = self;
        let (color, old, deploy) = (*color, color.other(), target.deploy());
        let is_deploy = request.intent == Intent::Deploy;
        let planned = match step {
            Step::Candidate => {
                let path = target.candidate(color);
                PlannedStep::of(format!("write {} with IMAGE_TAG={}", path.display(), request.tag))
            }
            Step::Image => PlannedStep::of("use the image on this machine, or pull it").with(compose.pull()),
            Step::Up => PlannedStep::of(format!("start {}", compose.project)).with(compose.up_without(singletons)),
            Step::Healthy => {
                PlannedStep::of(format!("wait at most {:?} until {color} is healthy and ready", deploy.ready_timeout))
            }
            Step::Backup => match &deploy.backup.command[..] {
                [program, args @ ..] if is_deploy => {
                    PlannedStep::of(format!("keep its output in {}", deploy.backup.folder.display()))
                        .with(Command::new(program, args.to_vec()))
                }
                _ => return Ok(None),
            },
            Step::Migrate | Step::OldColor if !is_deploy || deploy.migrate.command.is_empty() => return Ok(None),
            Step::Migrate => PlannedStep::of("inside api").with(compose.exec(&deploy.migrate.command)),
            Step::OldColor => PlannedStep::of(format!("check that {old} still works")),
            Step::Rehearse if !is_deploy || target.service.rehearse.share <= 0.0 => return Ok(None),
            Step::Rehearse => PlannedStep::of(format!("compare its responses with those of {old}")),
            Step::Smoke => PlannedStep::of(format!("check that {color} is ready and is {}", request.tag)),
            Step::EnvFile => PlannedStep::of(format!("move it to {}", target.env_file(color).display())),
            Step::Flip => PlannedStep::of(format!("{old} -> {color}")),
            Step::Watch => {
                let window = target.service.watch.window;
                PlannedStep::of(format!("for {window:?}; back to {old} if {color} is bad"))
            }
            Step::Drain => PlannedStep::of(format!("wait until {old} has no request in flight")),
            Step::Retire => match deploy.retire {
                Retire::Stop => {
                    let compose = target.compose(old)?;
                    PlannedStep::of(format!("stop {}", compose.project)).with(compose.stop())
                }
                Retire::Keep => PlannedStep::of(format!("{old} goes on running")),
            },
        };
        Ok(Some(planned))
    }

    fn print_hook(&self, point: HookPoint, progress: &mut Progress) {
        if let [program, args @ ..] = self.target.deploy().hooks.at(point) {
            progress.say(&format!("  {:<10} {point}", "hook"));
            progress.command(&Command::new(program, args.to_vec()));
        }
    }
}
