//! `cutover deploy` and `cutover rollback --to-tag`: a release from its tag to being kept or taken back.
//!
//! The order of steps and what undoes them is `domain::release`'s, what each does is `steps`'. Here is what happens
//! between them: the journal before and after each, what a failure leads to, and where a killed run goes on.

use std::fmt;
use std::pin::pin;

use crate::api::client::ClientError;
use crate::api::status::{ChangeRequest, Phase};
use crate::config::{Config, Service};
use crate::deploy::journal::{Beginning, Intent, Journal, Lock, Trouble};
use crate::deploy::show::Show;
use crate::deploy::site::Site;
use crate::deploy::steps::{Halt, Run};
use crate::deploy::stop::{Answer, Stop, ask};
use crate::domain::Color;
use crate::domain::release::{self, Decided, Next, Step, Strategy, Undo, undo_from};
use crate::ledger::Line;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Order {
    /// Why.
    pub intent: Intent,
    /// How.
    pub strategy: Strategy,
    /// The image tag.
    pub tag: String,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Who asks, for the ledger.
    pub by: String,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The release is in production and stays (or, in a dry run, the plan was printed).
    Kept,
    /// It failed before the flip; nothing was changed.
    Failed,
    /// A gate said no before the flip; nothing was changed.
    GateSaidNo,
    /// It was flipped to, and traffic went back.
    TakenBack,
    /// The config does not say what is needed, or not the proxy's token.
    Config,
    /// Another cutover of the service is under way.
    UnderWay,
    /// The proxy does not answer. What was begun is in the journal.
    NoAnswer,
    /// We were asked to leave it to the next run.
    Left,
}

impl Ended {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Ended::Kept => "kept",
            Ended::Failed => "failed",
            Ended::GateSaidNo => "gate_said_no",
            Ended::TakenBack => "taken_back",
            Ended::Config => "config",
            Ended::UnderWay => "under_way",
            Ended::NoAnswer => "no_answer",
            Ended::Left => "left",
        }
    }

    /// The exit code of the verb.
    pub fn exit_code(self) -> u8 {
        match self {
            Ended::Kept => 0,
            Ended::Failed | Ended::Left => 1,
            Ended::GateSaidNo => 3,
            Ended::TakenBack => 4,
            Ended::Config => 2,
            Ended::UnderWay => 5,
            Ended::NoAnswer => 6,
        }
    }
}

/// How it ended, and a sentence about it.
pub type End = (Ended, String);

/// Deploys `order.tag` to `service`, after what an earlier run left undone.
///
/// Whatever ends it early, the active color and every file are as before, or the journal says what is left to do.
pub async fn run(config: &Config, service: &Service, order: &Order, show: &mut Show) -> End {
    let site = match Site::new(config, service, order.strategy) {
        Ok(site) => site,
        Err(why) => return (Ended::Config, why),
    };
    let lock = match Lock::take(&config.state.dir, &service.name) {
        Ok(lock) => lock,
        Err(trouble @ Trouble::Held(..)) => return (Ended::UnderWay, trouble.to_string()),
        Err(trouble @ (Trouble::File(..) | Trouble::Journal(..))) => return (Ended::Failed, trouble.to_string()),
    };
    let mut stop = match Stop::new() {
        Ok(stop) => stop,
        Err(error) => return (Ended::Failed, format!("signals cannot be heard: {error}")),
    };
    match lock.load() {
        Err(trouble) => return (Ended::Failed, trouble.to_string()),
        Ok(Some(journal)) if order.dry_run => {
            return (
                Ended::UnderWay,
                format!("{}; the next run without --dry-run goes on or undoes it", was_interrupted(&journal)),
            );
        }
        Ok(Some(journal)) => {
            let is_wanted =
                journal.tag == order.tag && journal.intent == order.intent && journal.strategy == order.strategy;
            let had_failed = matches!(journal.decided, Some((Decided::Undo, _)));
            let end = go_on(&site, &lock, journal, is_wanted, show, &mut stop).await;
            // While there is a journal there is something left to do, which a new deploy would make impossible.
            let is_over = matches!(lock.load(), Ok(None));
            if !is_over || (is_wanted && !had_failed) {
                return end;
            }
            show.say(&end.1);
        }
        Ok(None) => {}
    }
    begin(&site, &lock, order, show, &mut stop).await
}

fn was_interrupted(journal: &Journal) -> String {
    let Journal { service, intent, tag, color, began, by, reached, .. } = journal;
    let intent = intent.as_str();
    format!("{service}: the {intent} of {tag} to {color}, begun at {began} by {by}, was interrupted at {reached}")
}

async fn go_on(
    site: &Site<'_>,
    lock: &Lock,
    journal: Journal,
    is_wanted: bool,
    show: &mut Show,
    stop: &mut Stop,
) -> End {
    show.say(&was_interrupted(&journal));
    if let Err(why) = site.check_env_file(journal.color) {
        return (Ended::Config, why);
    }
    let status = match site.status().await {
        Ok(status) => status,
        Err(error) => return lost(&error),
    };
    let next = release::next(journal.interrupted(), status.active, status.epoch);
    let mut run = Run { site, lock, journal, show, answers: None, kept: None };
    let end = match next {
        Next::Begin if is_wanted => {
            run.show.say("  going on from the beginning; a snapshot or a migration that was made stays made");
            run.go(None, stop).await
        }
        Next::Begin => {
            let why = format!("interrupted at {}, and another release is wanted now", run.journal.reached);
            run.show.say("  another release is wanted now: undoing this one first");
            run.undo(Ended::Failed, &why, stop).await
        }
        Next::Follow => {
            let color = run.journal.color;
            run.show.say(&format!("  {color} has the traffic: following its watch"));
            run.go(Some(Step::EnvFile), stop).await
        }
        Next::End(decided) => {
            let why = run
                .journal
                .decided
                .clone()
                .map_or_else(|| status.last_verdict.unwrap_or(status.summary), |(_, why)| why);
            match decided {
                Decided::Undo => {
                    run.show.say("  it had failed: undoing the rest of it");
                    let ended = run.ended_at(run.journal.reached);
                    run.undo(ended, &why, stop).await
                }
                Decided::TakenBack => {
                    run.show.say("  its traffic was taken back: undoing the rest of it");
                    run.take_back(&why, stop).await
                }
                Decided::Keep => {
                    run.show.say("  it was kept: going on with the old color");
                    run.go(Some(Step::Drain), stop).await
                }
            }
        }
    };
    run.let_go().await;
    end
}

async fn begin(site: &Site<'_>, lock: &Lock, order: &Order, show: &mut Show, stop: &mut Stop) -> End {
    let status = match site.status().await {
        Ok(status) => status,
        Err(error) => return lost(&error),
    };
    match status.phase {
        Phase::Steady | Phase::RolledBack => {}
        Phase::Draining | Phase::Watching => {
            let name = &site.service.name;
            return (Ended::UnderWay, format!("{name}: another cutover is under way: {}", status.summary));
        }
    }
    let color = match order.strategy {
        Strategy::BlueGreen => status.active.other(),
        Strategy::Recreate => status.active,
    };
    if let Err(why) = site.check_env_file(color) {
        return (Ended::Config, why);
    }
    let (tag_before, active_tag) = match (site.tag(color), site.tag(status.active)) {
        (Ok(before), Ok(active)) => (before, active),
        (Err(why), _) | (_, Err(why)) => return (Ended::Failed, why),
    };
    let (name, active) = (&site.service.name, status.active);
    let has = active_tag.as_deref().unwrap_or("no tag");
    let (intent, tag) = (order.intent.as_str(), &order.tag);
    let project = site.project(color);
    let how = match order.strategy {
        Strategy::BlueGreen => format!("{active} is active with {has}"),
        Strategy::Recreate => format!("in place of {has}, requests wait meanwhile"),
    };
    show.say(&format!("{name}: {intent} {tag} to {color} ({project}); {how}, epoch {}", status.epoch));
    let ran_before = match site.runs(color).await {
        Ok(ran) => ran,
        Err(why) => return (Ended::Failed, format!("{name}: whether {project} runs is not known: {why}")),
    };
    let is_ready = status.colors.get(&color).is_some_and(|status| status.ready);
    if order.strategy == Strategy::BlueGreen
        && order.intent == Intent::Rollback
        && tag_before.as_ref() == Some(tag)
        && ran_before
        && is_ready
    {
        return flip_back(site, order, color, show).await;
    }
    if order.dry_run {
        return crate::deploy::plan::plan(site, order, color, ran_before, show).await;
    }
    // Without a journal nobody needs what an earlier deploy kept.
    if let Err(trouble) = lock.forget() {
        return (Ended::Failed, trouble.to_string());
    }
    let journal = Journal::begin(Beginning {
        service: name.clone(),
        intent: order.intent,
        strategy: order.strategy,
        tag: tag.clone(),
        color,
        epoch: status.epoch,
        tag_before,
        ran_before,
        by: order.by.clone(),
    });
    let mut run = Run { site, lock, journal, show, answers: None, kept: None };
    let line = run.line("begin").with("before", has).with("strategy", order.strategy).with("by", &order.by);
    run.record(line);
    let end = run.go(None, stop).await;
    run.let_go().await;
    end
}

/// The wanted tag still runs in the idle color: one flip.
async fn flip_back(site: &Site<'_>, order: &Order, color: Color, show: &mut Show) -> End {
    let name = &site.service.name;
    let by = Some(order.by.clone());
    let request = ChangeRequest { to: Some(color), wait: Some(false), dry_run: order.dry_run, by, force: false };
    match site.client.flip(name, &request, None).await {
        Ok(changed) => {
            let would = if order.dry_run { "would flip" } else { "flipped" };
            show.say(&format!("  {color} still runs {}: {would} to it", order.tag));
            (Ended::Kept, format!("{name}: {} -> {}, epoch {}", changed.from, changed.to, changed.epoch))
        }
        Err(ClientError::Refused(refusal)) => (of_code(refusal.code.exit_code()), refusal.message),
        Err(error) => lost(&error),
    }
}

/// What could not be undone.
#[derive(Default)]
struct NotUndone {
    problems: Vec<String>,
    /// What runs in the project may not be what ran before.
    may_run_otherwise: bool,
}

impl NotUndone {
    fn add(&mut self, undo: Undo, why: String) {
        self.problems.push(why);
        self.may_run_otherwise |= match undo {
            Undo::Project | Undo::EnvFile => true,
            Undo::Candidate => false,
        };
    }

    /// `line`, which says so as well.
    fn told_by(&self, line: Line) -> Line {
        if self.problems.is_empty() { line } else { line.with("not_undone", self.problems.join("; ")) }
    }
}

/// As the end of a sentence.
impl fmt::Display for NotUndone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().try_for_each(|why| write!(f, "; not undone: {why}"))
    }
}

impl Run<'_> {
    /// Makes the steps from `first` on (without one, all), and ends it.
    async fn go(&mut self, first: Option<Step>, stop: &mut Stop) -> End {
        let strategy = self.journal.strategy;
        for step in strategy.steps().iter().copied().skip_while(|step| first.is_some_and(|first| *step != first)) {
            if !step.is_repeated() && self.journal.done.contains(&step) {
                continue;
            }
            if !self.journal.done.contains(&step)
                && let Err(halt) = self.before(step).await
            {
                return self.halted(step, halt, stop).await;
            }
            if !strategy.has_begun(self.journal.reached, step) {
                self.journal.reached = step;
            }
            if let Err(halt) = self.save() {
                return self.halted(step, halt, stop).await;
            }
            self.show.begin(step);
            let halt = match self.perform_or_stop(step, stop).await {
                Ok(detail) => {
                    self.show.end(step, true, &detail);
                    self.journal.done.push(step);
                    let saved = if step == Step::Watch { self.decide(Decided::Keep, &detail) } else { self.save() };
                    match saved {
                        Ok(()) => continue,
                        Err(halt) => halt,
                    }
                }
                Err(halt) => halt,
            };
            return self.halted(step, halt, stop).await;
        }
        if self.journal.decided.is_none()
            && let Err(halt) = self.decide(Decided::Keep, "not watched: it was recreated in place")
        {
            return self.stuck(&halt);
        }
        let Journal { service, tag, color, decided, .. } = &self.journal;
        let verdict = decided.as_ref().map_or_else(String::new, |(_, verdict)| verdict.clone());
        let sentence = format!("{service}: {tag} is in production on {color} and stays ({verdict})");
        self.over(Ended::Kept, sentence, self.line("kept").with("verdict", verdict)).await
    }

    async fn perform_or_stop(&mut self, step: Step, stop: &mut Stop) -> Result<String, Halt> {
        if step == Step::Flip {
            // Nobody could say afterwards whether it was made.
            return self.perform(step).await;
        }
        let can_ask = self.show.can_ask();
        let mut work = pin!(self.perform(step));
        loop {
            let name = tokio::select! {
                done = &mut work => return done,
                name = stop.heard() => name,
            };
            match if can_ask { ask(step, stop).await } else { Answer::Stop } {
                Answer::GoOn => {}
                Answer::RollBack => return Err(Halt::BackWanted),
                Answer::Stop => return Err(Halt::Stopped(name)),
            }
        }
    }

    /// Takes the traffic back because the operator wants it so.
    async fn roll_back(&mut self, step: Step, stop: &mut Stop) -> End {
        let request =
            ChangeRequest { wait: Some(false), by: Some(self.journal.by.clone()), ..ChangeRequest::default() };
        match self.site.client.rollback(&self.journal.service, &request, None).await {
            Ok(_) => {
                let why = format!("rolled back by {}", self.journal.by);
                self.show.end(step, false, &why);
                self.take_back(&why, stop).await
            }
            Err(error) => lost(&error),
        }
    }

    /// What a step that did not end well leads to.
    async fn halted(&mut self, step: Step, halt: Halt, stop: &mut Stop) -> End {
        let is_kept = self.journal.strategy.has_begun(step, Step::Drain);
        let why = match halt {
            Halt::Lost(error) if self.has_flipped(step) => return lost(&error),
            Halt::Stopped(name) if self.has_flipped(step) => return self.leave(name),
            Halt::TakenBack(why) => {
                self.show.end(step, false, &why);
                return self.take_back(&why, stop).await;
            }
            Halt::NowhereToGo(why) => {
                self.show.end(step, false, &why);
                self.show_log().await;
                // Nothing is undone and nothing is stopped: what is there is all there is.
                let Journal { service, tag, color, .. } = &self.journal;
                let sentence = format!("{service}: {tag} is bad and keeps the traffic on {color}: {why}");
                return self.over(Ended::Failed, sentence, self.line("bad, and nowhere to go").with("why", why)).await;
            }
            Halt::BackWanted => return self.roll_back(step, stop).await,
            Halt::Refused(code, why) => {
                self.show.end(step, false, &why);
                return self.undo(of_code(code), &why, stop).await;
            }
            Halt::Failed(why) => why,
            Halt::Lost(error) => error.to_string(),
            Halt::Stopped(name) => {
                let why = format!("stopped by {name}");
                self.show.end(step, false, &why);
                return self.undo(Ended::Failed, &why, stop).await;
            }
        };
        self.show.end(step, false, &why);
        if is_kept {
            // The release is in production; only the old color is not as it should be.
            let Journal { service, tag, color, .. } = &self.journal;
            let sentence = format!("{service}: {tag} is in production on {color}, but {}: {why}", step);
            return self.over(Ended::Kept, sentence, self.line("kept").with("step", step).with("problem", why)).await;
        }
        if self.journal.strategy.has_begun(step, Step::Healthy) {
            self.show_log().await;
        }
        self.undo(self.ended_at(step), &why, stop).await
    }

    /// Whether traffic may be on it because of a flip.
    fn has_flipped(&self, step: Step) -> bool {
        self.journal.strategy.has_begun(step, Step::Flip)
    }

    /// What it is called when `step` fails before there was a flip.
    fn ended_at(&self, step: Step) -> Ended {
        match self.journal.strategy {
            // It had the traffic, whatever it did with it.
            Strategy::Recreate if self.journal.strategy.has_begun(step, Step::Up) => Ended::TakenBack,
            Strategy::Recreate | Strategy::BlueGreen if step.is_gate() => Ended::GateSaidNo,
            Strategy::Recreate | Strategy::BlueGreen => Ended::Failed,
        }
    }

    /// Takes back what was done before the flip.
    async fn undo(&mut self, ended: Ended, why: &str, stop: &mut Stop) -> End {
        if let Err(halt) = self.decide(Decided::Undo, why) {
            return self.stuck(&halt);
        }
        let color = self.journal.color;
        if self.journal.strategy == Strategy::BlueGreen {
            // The old color has the traffic and is as it was.
            self.let_go().await;
        }
        let is_active = match (self.journal.strategy, self.site.status().await) {
            (Strategy::Recreate, _) => false,
            (Strategy::BlueGreen, Ok(status)) => status.active == color,
            (Strategy::BlueGreen, Err(error)) => return lost(&error),
        };
        if is_active {
            // Somebody flipped to it by hand. It must not be stopped, and nobody has asked us to flip.
            let sentence = format!(
                "{}: {why}. {color} has the traffic all the same, by somebody else; left as it is",
                self.journal.service
            );
            return self.over(Ended::UnderWay, sentence, self.line("left").with("why", why)).await;
        }
        match self.take_away(stop).await {
            Err(end) => end,
            Ok(left) => {
                let Journal { service, tag, reached, .. } = &self.journal;
                let (ended, now) = self.where_it_is(ended, &left);
                let snapshot = match &self.journal.snapshot {
                    Some(path) if self.journal.migrated => {
                        format!("; the data as it was before the migration is in {}", path.display())
                    }
                    Some(_) | None => String::new(),
                };
                let sentence = format!("{service}: {tag} did not get past {reached}, {now}: {why}{snapshot}{left}");
                let line = left.told_by(self.line("failed").with("step", reached).with("why", why));
                self.over(ended, sentence, line).await
            }
        }
    }

    /// What has the traffic once all but `left` is undone, and what that makes of `ended`.
    fn where_it_is(&self, ended: Ended, left: &NotUndone) -> (Ended, String) {
        match self.journal.strategy {
            Strategy::BlueGreen => (ended, format!("{} stays", self.journal.color.other())),
            // The traffic was taken from the tag before, and nothing gave it back.
            Strategy::Recreate if left.may_run_otherwise => {
                (Ended::Failed, format!("and {} is NOT back", self.tag_before()))
            }
            Strategy::Recreate if !self.journal.ran_before => {
                (ended, "`api` does not run, as before; what else `up` has started goes on".into())
            }
            Strategy::Recreate => (ended, format!("{} stays", self.tag_before())),
        }
    }

    /// Takes back what is left of a release whose traffic was taken back.
    async fn take_back(&mut self, why: &str, stop: &mut Stop) -> End {
        if let Err(halt) = self.decide(Decided::TakenBack, why) {
            return self.stuck(&halt);
        }
        self.let_go().await;
        self.show_log().await;
        // What it still answers is somebody's request.
        tokio::select! {
            drained = self.site.client.drain(&self.journal.service) => if let Err(error) = drained { return lost(&error) },
            name = stop.heard() => return self.leave(name),
        }
        match self.take_away(stop).await {
            Err(end) => end,
            Ok(left) => {
                let Journal { service, tag, color, .. } = &self.journal;
                let old = color.other();
                let sentence = format!("{service}: {tag} was judged bad, traffic is back on {old}: {why}{left}");
                let line = left.told_by(self.line("taken back").with("why", why));
                self.over(Ended::TakenBack, sentence, line).await
            }
        }
    }

    /// Undoes every step that was reached, the last one first.
    async fn take_away(&mut self, stop: &mut Stop) -> Result<NotUndone, End> {
        let color = self.journal.color;
        let mut left = NotUndone::default();
        for undo in undo_from(self.journal.strategy, self.journal.reached) {
            let undone = match undo {
                Undo::EnvFile => self
                    .site
                    .restore_env(color, &self.lock.kept_env())
                    .map(|()| format!("{} is as it was", self.site.env_file(color).display()))
                    .map_err(|trouble| trouble.to_string()),
                Undo::Candidate => {
                    let path = self.site.candidate(color);
                    let removed =
                        crate::deploy::files::remove(&path).map_err(|error| format!("{}: {error}", path.display()));
                    removed.map(|()| format!("{} is gone", path.display()))
                }
                Undo::Project => tokio::select! {
                    put_back = self.put_back() => put_back,
                    name = stop.heard() => return Err(self.leave(name)),
                },
            };
            match undone {
                Ok(said) => self.show.say(&format!("  undone     {said}")),
                Err(why) => {
                    self.show.say(&format!("  NOT undone {why}"));
                    left.add(undo, why);
                }
            }
        }
        Ok(left)
    }

    /// The last line in the ledger, the last hooks, and the journal goes: until then the next run does what is left.
    async fn over(&mut self, ended: Ended, sentence: String, line: Line) -> End {
        self.record(line.with("by", self.journal.by.clone()));
        let _ = crate::deploy::files::remove(&self.site.candidate(self.journal.color));
        self.let_go().await;
        let end = (ended, sentence);
        self.after(&end).await;
        match self.lock.forget() {
            Ok(()) => end,
            Err(trouble) => (end.0, format!("{}. {trouble}", end.1)),
        }
    }

    fn leave(&self, name: &str) -> End {
        let Journal { service, tag, color, reached, .. } = &self.journal;
        let sentence = format!(
            "{service}: left by {name} at {reached}; the proxy goes on by itself with {tag} on {color}. \
             The same command goes on from here"
        );
        (Ended::Left, sentence)
    }

    fn stuck(&self, halt: &Halt) -> End {
        (
            Ended::Failed,
            format!("{}: the journal cannot be written, nothing more is done: {halt}", self.journal.service),
        )
    }
}

fn lost(error: &ClientError) -> End {
    match error {
        ClientError::NoAnswer { .. } => (Ended::NoAnswer, error.to_string()),
        // The token that this config names is not the proxy's.
        ClientError::Denied(_) => (Ended::Config, error.to_string()),
        ClientError::Refused(_) | ClientError::Strange { .. } => (Ended::Failed, error.to_string()),
    }
}

fn of_code(code: u8) -> Ended {
    match code {
        3 => Ended::GateSaidNo,
        5 => Ended::UnderWay,
        _ => Ended::Failed,
    }
}
