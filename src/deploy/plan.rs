//! `--dry-run`: what a deploy would do, step by step.

use crate::config::Retire;
use crate::deploy::command::Command;
use crate::deploy::deploy::{End, Ended, Order};
use crate::deploy::hold;
use crate::deploy::journal::Intent;
use crate::deploy::show::Show;
use crate::deploy::site::Site;
use crate::domain::Color;
use crate::domain::release::{Moment, Step, Strategy};

/// Shows every step with its exact command; changes nothing.
pub async fn plan(site: &Site<'_>, order: &Order, color: Color, ran_before: bool, show: &mut Show) -> End {
    let compose = match site.compose_candidate(color) {
        Ok(compose) => compose,
        Err(why) => return (Ended::Failed, why),
    };
    // The env file with the new tag is not there yet; which services are marked does not depend on it.
    let singletons = match site.compose(color) {
        Ok(compose) => compose.singletons().await,
        Err(why) => Err(why),
    };
    let singletons = match singletons {
        Ok(singletons) => singletons,
        Err(why) => return (Ended::Failed, why),
    };
    let old = color.other();
    let deploy = site.deploy();
    let migrates = order.intent == Intent::Deploy && !deploy.migrate.command.is_empty();
    let backs_up = order.intent == Intent::Deploy && !deploy.backup.command.is_empty();
    let rehearses = order.intent == Intent::Deploy && site.service.rehearse.share > 0.0;
    let mut held = None;
    for step in order.strategy.steps() {
        let holds = order.strategy.holds(*step, hold::freezes(site, order.intent));
        if holds != held {
            let what = holds.map_or("the proxy lets go what it holds".into(), |what| format!("the proxy holds {what}"));
            show.say(&format!("  {:<10} {what}", holds.map_or("thaw", |_| "freeze")));
            held = holds;
        }
        let (what, command) = match *step {
            Step::Candidate => {
                (format!("write {} with IMAGE_TAG={}", site.candidate(color).display(), order.tag), None)
            }
            Step::Image => ("use the image on this machine, or pull it".into(), Some(compose.pull())),
            Step::Up => (format!("start {}", compose.project), Some(compose.up_without(&singletons))),
            Step::Healthy => {
                (format!("wait at most {:?} until {color} is healthy and ready", deploy.ready_timeout), None)
            }
            Step::Backup if backs_up => {
                let [program, args @ ..] = &deploy.backup.command[..] else { continue };
                let what = format!("keep its output in {}", deploy.backup.folder.display());
                (what, Some(Command::new(program, args.to_vec())))
            }
            Step::Migrate if migrates => ("inside api".into(), Some(compose.exec(&deploy.migrate.command))),
            Step::OldColor if migrates => (format!("see that {old} lives with it"), None),
            Step::Rehearse if rehearses => (format!("compare its answers with those of {old}"), None),
            Step::Backup | Step::Migrate | Step::OldColor | Step::Rehearse => continue,
            Step::Smoke => (format!("ask {color} whether it is ready and is {}", order.tag), None),
            Step::EnvFile => (format!("put it in force as {}", site.env_file(color).display()), None),
            Step::Flip => (format!("{old} -> {color}"), None),
            Step::Watch => (format!("for {:?}; back to {old} if {color} is bad", site.service.watch.window), None),
            Step::Drain => (format!("wait until {old} holds no request"), None),
            Step::Retire => match (deploy.retire, site.compose(old)) {
                (Retire::Stop, Ok(compose)) => (format!("stop {}", compose.project), Some(compose.stop())),
                (Retire::Stop, Err(why)) => return (Ended::Failed, why),
                (Retire::Keep, _) => (format!("{old} goes on running"), None),
            },
        };
        if let Some(phase) = order.strategy.phase_beginning_with(*step) {
            show.say(phase);
        }
        for moment in order.strategy.moments_before(*step) {
            hook(site, *moment, show);
        }
        let moves = *step == Step::Retire || (*step == Step::EnvFile && order.strategy == Strategy::Recreate);
        if moves && !singletons.is_empty() {
            show.say(&format!(
                "  {:<10} {} run in {color} from now on, and nowhere else",
                "singletons",
                singletons.join(", ")
            ));
        }
        show.say(&format!("  {step:<10} {what}"));
        if let Some(command) = command {
            show.command(&command);
        }
    }
    if held.is_some() {
        show.say("  thaw       the proxy lets go what it holds");
    }
    if order.strategy == Strategy::Recreate {
        hook(site, Moment::Unfreeze, show);
    }
    hook(site, Moment::Completion, show);
    let before = if ran_before { "runs again what it ran" } else { "is stopped" };
    let name = &site.service.name;
    (
        Ended::Kept,
        format!("{name}: a dry run, nothing was changed; if it fails before the flip, {} {before}", compose.project),
    )
}

fn hook(site: &Site<'_>, moment: Moment, show: &mut Show) {
    if let [program, args @ ..] = site.deploy().hooks.at(moment) {
        show.say(&format!("  {:<10} {moment}", "hook"));
        show.command(&Command::new(program, args.to_vec()));
    }
}
