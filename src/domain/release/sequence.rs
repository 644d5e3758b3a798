//! Drives one release as a machine: it names one action, and is told what came of it.
//!
//! Everything that must survive a crash is in [`ReleaseState`], which is saved where the machine says so. The saved
//! state is a lock as well: the proxy reads it, and refuses flips to a color that [it blocks](ReleaseState::blocks).
//!
//! The machine never touches a color on the strength of what it saw earlier. Before each step that touches one it has
//! the state saved, which blocks flips to that color from then on, and looks at the active color and the epoch after
//! that. Where these are not what the release expects, the step is not made.

use super::resume::{ResumePoint, resume_point};
use super::state::{Decided, Observed, ReleaseState, TakenBackBy};
use super::touch::{Touch, touch};
use super::{Decision, Step, Strategy, Undo, undo_from};

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the hooks before a step.
    Prepare(Step),
    /// Write the state to the disk.
    Save,
    /// Ask the proxy where the traffic is; [`ActionResult::Observed`].
    Observe,
    /// Make a step; [`ActionResult::Flipped`] for a flip.
    Perform(Step),
    /// Ask the proxy to roll back.
    RollBack,
    /// Wait until the idle color has finished its requests.
    Drain,
    /// Undo something.
    Undo(Undo),
    /// The deploy is over.
    Finish(DeployEnd),
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionResult {
    /// It was done; the text is for people.
    Done(String),
    /// The flip was made, in this epoch.
    Flipped(u64),
    /// Where the traffic is.
    Observed(Observed),
    /// It was not done.
    Failed(ActionError),
}

/// Why an action was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionError {
    /// It failed by itself.
    Failed(String),
    /// The proxy refused it.
    Refused(FlipRefusal, String),
    /// Traffic is back on the old color.
    TakenBack(TakenBackBy, String),
    /// The release is bad, and the old color was not up to take the traffic.
    NowhereToGo(String),
    /// Somebody else has moved the traffic since the flip, so that the verdict is not about this release.
    Overtaken(String),
    /// The proxy does not answer.
    ProxyLost,
    /// A signal asked the deploy to stop.
    Stopped(&'static str),
    /// The operator wants the traffic back.
    RollbackWanted,
}

/// How the proxy refused a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlipRefusal {
    /// A gate is closed.
    Gate,
    /// Another cutover is under way.
    UnderWay,
    /// Anything else.
    Other,
}

/// Why a release is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UndoCause {
    /// This step failed.
    Step(Step),
    /// The proxy refused the flip.
    Refused(FlipRefusal),
    /// Another release is wanted, or the deploy was stopped.
    Unwanted,
}

/// How the deploy ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployEnd {
    /// The release is in production, and the old color is as it should be.
    Kept(String),
    /// The release is in production, but the old color is not as it should be. The journal stays.
    Unfinished(Step, String),
    /// The release was undone before the flip, except for what is left.
    Undone(UndoCause, String, Vec<Left>),
    /// The traffic was taken back, and the release undone, except for what is left.
    TakenBack(TakenBackBy, String, Vec<Left>),
    /// The release is bad and keeps the traffic.
    NowhereToGo(Step, String),
    /// Somebody else gave the release the traffic before its gates were passed. It is left as it is.
    FlippedByOthers(String),
    /// Somebody else moved the traffic after the flip. Nothing more is done.
    Overtaken(String),
    /// The proxy does not answer. The journal stays.
    ProxyLost,
    /// A signal ended the run. The journal stays.
    Stopped(&'static str),
    /// The state could not be saved, so nothing more is done. The journal stays.
    Stuck(String),
}

/// Something that could not be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What was not undone.
    pub undo: Undo,
    /// Why not.
    pub why: String,
}

impl DeployEnd {
    /// Returns whether something is left to do, so that the journal must stay. In place there is no idle color to keep
    /// traffic from: the next release replaces whatever an undo has left.
    pub fn keeps_journal(&self, strategy: Strategy) -> bool {
        match self {
            DeployEnd::Unfinished(..) | DeployEnd::ProxyLost | DeployEnd::Stopped(_) | DeployEnd::Stuck(_) => true,
            DeployEnd::Undone(_, _, left) | DeployEnd::TakenBack(_, _, left) => {
                strategy == Strategy::BlueGreen && !left.is_empty()
            }
            DeployEnd::Kept(_)
            | DeployEnd::NowhereToGo(..)
            | DeployEnd::FlippedByOthers(_)
            | DeployEnd::Overtaken(_) => false,
        }
    }
}

/// Whether the release of an interrupted deploy is still the one that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is.
    Same,
    /// Another one is asked for.
    Other,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepStage {
    Prepare,
    Begin,
    Observe,
    Perform,
    Record,
}

/// Where an undo stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UndoStage {
    Decide,
    ObserveFirst,
    Drain,
    Observe(Undo),
    Perform(Undo),
    Record,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Step(Step, StepStage),
    /// Saves the decision to keep a release that was not watched.
    Keep,
    RollBack,
    Undo(UndoStage),
    Over(DeployEnd),
}

/// The machine of one release. Its persistent half is a [`ReleaseState`].
#[derive(Clone, Debug)]
pub struct Sequence {
    stage: Stage,
    cause: UndoCause,
    left: Vec<Left>,
}

impl Sequence {
    fn at(stage: Stage) -> Self {
        Sequence { stage, cause: UndoCause::Unwanted, left: Vec::new() }
    }

    /// Begins a new release.
    pub fn begin(state: &ReleaseState) -> Self {
        Self::at(Stage::Step(state.strategy.steps()[0], StepStage::Prepare))
    }

    /// Resumes an interrupted release, given where the traffic is now. `why` and `by` explain traffic that went back
    /// meanwhile.
    pub fn resume(state: &mut ReleaseState, observed: Observed, wanted: Wanted, by: TakenBackBy, why: &str) -> Self {
        let mut sequence = Self::begin(state);
        match (resume_point(state, observed), wanted) {
            (ResumePoint::Begin, Wanted::Same) => {
                // All gates are passed anew: the present epoch is the one that counts, and nothing is proven any more.
                state.epoch = observed.epoch;
                state.done.retain(|step| !step.is_repeated());
                sequence.enter_next(state, None);
            }
            (ResumePoint::Begin, Wanted::Other) => {
                let why = format!("interrupted at {}, and another release is wanted now", state.reached);
                sequence.undo(state, UndoCause::Unwanted, why);
            }
            (ResumePoint::Follow, _) => {
                // Somebody gave it the traffic: the watch of the present epoch is the one to follow.
                state.flipped = Some(observed.epoch);
                sequence.enter(state, Step::EnvFile);
            }
            (ResumePoint::End(Decision::Undo), _) => {
                let flipped = || format!("somebody flipped to {} before the release was brought up", state.color);
                let why = if state.decided.is_some() { state.why() } else { flipped() };
                let cause = UndoCause::Step(state.reached);
                sequence.undo(state, cause, why);
            }
            (ResumePoint::End(Decision::TakenBack), _) => {
                let by = state.taken_back_by.unwrap_or(by);
                let why = if state.decided.is_some() { state.why() } else { why.to_owned() };
                sequence.take_back(state, by, why);
            }
            (ResumePoint::End(Decision::Keep), _) => match state.strategy {
                Strategy::BlueGreen => sequence.enter(state, Step::Drain),
                // There is no old color; only the end was not reported.
                Strategy::Recreate => sequence.stage = Stage::Over(DeployEnd::Kept(state.why())),
            },
        }
        sequence
    }

    /// Returns what is to be done now.
    pub fn action(&self) -> Action {
        match &self.stage {
            Stage::Step(step, StepStage::Prepare) => Action::Prepare(*step),
            Stage::Step(_, StepStage::Begin | StepStage::Record) | Stage::Keep => Action::Save,
            Stage::Step(_, StepStage::Observe) => Action::Observe,
            Stage::Step(step, StepStage::Perform) => Action::Perform(*step),
            Stage::RollBack => Action::RollBack,
            Stage::Undo(UndoStage::Decide | UndoStage::Record) => Action::Save,
            Stage::Undo(UndoStage::ObserveFirst | UndoStage::Observe(_)) => Action::Observe,
            Stage::Undo(UndoStage::Drain) => Action::Drain,
            Stage::Undo(UndoStage::Perform(undo)) => Action::Undo(*undo),
            Stage::Over(end) => Action::Finish(end.clone()),
        }
    }

    /// Takes in what came of the present action.
    pub fn on(&mut self, state: &mut ReleaseState, event: ActionResult) {
        match self.stage.clone() {
            Stage::Step(step, stage) => match event {
                ActionResult::Failed(failure) => self.fail(state, step, failure),
                ActionResult::Observed(observed) => self.check(state, step, observed),
                ActionResult::Flipped(epoch) => {
                    state.flipped = Some(epoch);
                    self.complete(state, step, "");
                }
                ActionResult::Done(detail) => self.advance(state, step, stage, &detail),
            },
            Stage::Keep => match event {
                ActionResult::Failed(failure) => self.stage = Stage::Over(DeployEnd::Stuck(text_of(&failure))),
                ActionResult::Done(_) | ActionResult::Flipped(_) | ActionResult::Observed(_) => {
                    self.stage = Stage::Over(DeployEnd::Kept(state.why()));
                }
            },
            Stage::RollBack => match event {
                ActionResult::Done(why) => self.take_back(state, TakenBackBy::Operator, why),
                ActionResult::Failed(_) | ActionResult::Flipped(_) | ActionResult::Observed(_) => {
                    self.stage = Stage::Over(DeployEnd::ProxyLost);
                }
            },
            Stage::Undo(stage) => self.on_undo(state, stage, event),
            Stage::Over(_) => {}
        }
    }

    /// Moves on within a step whose present action is done.
    fn advance(&mut self, state: &mut ReleaseState, step: Step, stage: StepStage, detail: &str) {
        let next = match stage {
            StepStage::Prepare => {
                if !state.strategy.has_begun(state.reached, step) {
                    state.reached = step;
                }
                StepStage::Begin
            }
            StepStage::Begin => match touch(state.strategy, step) {
                Touch::Nothing => StepStage::Perform,
                Touch::Idle | Touch::Old | Touch::Active => StepStage::Observe,
            },
            StepStage::Observe => StepStage::Observe,
            StepStage::Perform => return self.complete(state, step, detail),
            StepStage::Record => return self.enter_next(state, Some(step)),
        };
        self.stage = Stage::Step(step, next);
    }

    /// Marks a step as finished, and has that saved.
    fn complete(&mut self, state: &mut ReleaseState, step: Step, detail: &str) {
        if !state.done.contains(&step) {
            state.done.push(step);
        }
        if step == Step::Watch {
            state.decided = Some(Decided { decision: Decision::Keep, why: detail.to_owned() });
        }
        self.stage = Stage::Step(step, StepStage::Record);
    }

    /// Enters the first step behind `last` that is to be made, or ends the deploy.
    fn enter_next(&mut self, state: &mut ReleaseState, last: Option<Step>) {
        let steps = state.strategy.steps().iter().copied();
        let mut rest =
            steps.skip_while(|step| last.is_some_and(|last| *step != last)).skip(usize::from(last.is_some()));
        match rest.find(|step| step.is_repeated() || !state.done.contains(step)) {
            Some(step) => self.enter(state, step),
            None if state.decided.is_none() => {
                let why = "not watched: it was recreated in place".to_owned();
                state.decided = Some(Decided { decision: Decision::Keep, why });
                self.stage = Stage::Keep;
            }
            None => self.stage = Stage::Over(DeployEnd::Kept(state.why())),
        }
    }

    fn enter(&mut self, state: &mut ReleaseState, step: Step) {
        if state.done.contains(&step) {
            // Its hooks have run before.
            self.advance(state, step, StepStage::Prepare, "");
        } else {
            self.stage = Stage::Step(step, StepStage::Prepare);
        }
    }

    /// Compares where the traffic is with what the step expects.
    fn check(&mut self, state: &mut ReleaseState, step: Step, Observed { active, epoch }: Observed) {
        let (color, old) = (state.color, state.old());
        let perform = Stage::Step(step, StepStage::Perform);
        match touch(state.strategy, step) {
            Touch::Nothing => self.stage = perform,
            Touch::Old if active == old => {
                let why = format!("{old} has the traffic again, in epoch {epoch}");
                self.take_back(state, TakenBackBy::Operator, why);
            }
            Touch::Old if state.flipped == Some(epoch) => self.stage = perform,
            Touch::Old => {
                let why = format!("somebody has moved the traffic since the flip: it is on {active} in epoch {epoch}");
                self.stage = Stage::Over(DeployEnd::Overtaken(why));
            }
            // The release was flipped to by an earlier run, or by somebody else.
            Touch::Idle if active == color && (step == Step::Flip || state.flipped == Some(epoch)) => {
                state.flipped = Some(epoch);
                if step == Step::Flip { self.complete(state, step, "") } else { self.stage = perform }
            }
            Touch::Idle | Touch::Active if active == old && epoch == state.epoch => self.stage = perform,
            Touch::Idle | Touch::Active => {
                let expected = format!("{old} in epoch {}", state.epoch);
                let why = format!("the traffic is on {active} in epoch {epoch}, and not on {expected} any more");
                self.undo(state, UndoCause::Refused(FlipRefusal::UnderWay), why);
            }
        }
    }

    /// Decides what follows a step that was not made.
    fn fail(&mut self, state: &mut ReleaseState, step: Step, failure: ActionError) {
        let has_flipped = state.strategy.has_begun(step, Step::Flip);
        let is_kept = state.strategy.has_begun(step, Step::Drain);
        self.stage = match failure {
            ActionError::ProxyLost if has_flipped => Stage::Over(DeployEnd::ProxyLost),
            ActionError::Stopped(signal) if has_flipped => Stage::Over(DeployEnd::Stopped(signal)),
            ActionError::RollbackWanted => Stage::RollBack,
            ActionError::TakenBack(by, why) => return self.take_back(state, by, why),
            ActionError::NowhereToGo(why) => Stage::Over(DeployEnd::NowhereToGo(step, why)),
            ActionError::Overtaken(why) => Stage::Over(DeployEnd::Overtaken(why)),
            failure @ (ActionError::Failed(_) | ActionError::Refused(..)) if is_kept => {
                Stage::Over(DeployEnd::Unfinished(step, text_of(&failure)))
            }
            ActionError::Refused(refusal, why) => return self.undo(state, UndoCause::Refused(refusal), why),
            failure @ ActionError::Stopped(_) => return self.undo(state, UndoCause::Unwanted, text_of(&failure)),
            failure @ (ActionError::Failed(_) | ActionError::ProxyLost) => {
                return self.undo(state, UndoCause::Step(step), text_of(&failure));
            }
        };
    }

    fn undo(&mut self, state: &mut ReleaseState, cause: UndoCause, why: String) {
        self.cause = cause;
        state.decided = Some(Decided { decision: Decision::Undo, why });
        self.stage = Stage::Undo(UndoStage::Decide);
    }

    fn take_back(&mut self, state: &mut ReleaseState, by: TakenBackBy, why: String) {
        state.taken_back_by = Some(by);
        state.decided = Some(Decided { decision: Decision::TakenBack, why });
        self.stage = Stage::Undo(UndoStage::Decide);
    }

    fn on_undo(&mut self, state: &mut ReleaseState, stage: UndoStage, event: ActionResult) {
        match (stage, event) {
            (UndoStage::Decide, ActionResult::Failed(failure)) => {
                self.stage = Stage::Over(DeployEnd::Stuck(text_of(&failure)))
            }
            (UndoStage::Decide, _) => match state.strategy {
                // The color has the traffic, and is put back under it.
                Strategy::Recreate => self.next_undo(state),
                Strategy::BlueGreen => self.stage = Stage::Undo(UndoStage::ObserveFirst),
            },
            (UndoStage::ObserveFirst | UndoStage::Observe(_), ActionResult::Observed(Observed { active, .. }))
                if active == state.color =>
            {
                self.stage = Stage::Over(match state.decided.as_ref().map(|decided| decided.decision) {
                    Some(Decision::TakenBack) => DeployEnd::Overtaken(state.why()),
                    Some(Decision::Undo | Decision::Keep) | None => DeployEnd::FlippedByOthers(state.why()),
                });
            }
            (UndoStage::ObserveFirst, ActionResult::Observed(_)) => {
                let was_flipped = state.decided.as_ref().is_some_and(|it| it.decision == Decision::TakenBack);
                if was_flipped { self.stage = Stage::Undo(UndoStage::Drain) } else { self.next_undo(state) }
            }
            (UndoStage::Drain | UndoStage::Record, ActionResult::Done(_)) => self.next_undo(state),
            (UndoStage::Observe(undo), ActionResult::Observed(_)) => self.stage = Stage::Undo(UndoStage::Perform(undo)),
            (UndoStage::Perform(undo), ActionResult::Done(_)) => {
                state.undone.push(undo);
                self.stage = Stage::Undo(UndoStage::Record);
            }
            (_, ActionResult::Failed(ActionError::Stopped(signal))) => {
                self.stage = Stage::Over(DeployEnd::Stopped(signal))
            }
            (_, ActionResult::Failed(ActionError::ProxyLost)) => self.stage = Stage::Over(DeployEnd::ProxyLost),
            (UndoStage::Perform(undo), ActionResult::Failed(failure)) => {
                self.left.push(Left { undo, why: text_of(&failure) });
                self.next_undo(state);
            }
            // What was undone is repeated by the next run, which does no harm.
            (UndoStage::Record | UndoStage::Drain, ActionResult::Failed(_)) => self.next_undo(state),
            (_, ActionResult::Failed(failure)) => self.stage = Stage::Over(DeployEnd::Stuck(text_of(&failure))),
            (_, ActionResult::Done(_) | ActionResult::Flipped(_) | ActionResult::Observed(_)) => self.next_undo(state),
        }
    }

    /// Goes on to what is still to be undone, or ends the deploy.
    fn next_undo(&mut self, state: &ReleaseState) {
        let is_left = |undo: Undo| self.left.iter().any(|left| left.undo == undo);
        let mut rest = undo_from(state.strategy, state.reached).filter(|undo| !state.undone.contains(undo));
        let next = rest.find(|undo| !is_left(*undo));
        // The project must not be started with an env file that is not back.
        if next == Some(Undo::Project) && is_left(Undo::EnvFile) {
            let why = "the env file is not as it was".to_owned();
            self.left.push(Left { undo: Undo::Project, why });
            return self.next_undo(state);
        }
        self.stage = match next {
            Some(undo @ Undo::Candidate) => Stage::Undo(UndoStage::Perform(undo)),
            Some(undo) => Stage::Undo(match state.strategy {
                Strategy::BlueGreen => UndoStage::Observe(undo),
                Strategy::Recreate => UndoStage::Perform(undo),
            }),
            None => {
                let (why, left) = (state.why(), std::mem::take(&mut self.left));
                Stage::Over(match state.taken_back_by {
                    Some(by) => DeployEnd::TakenBack(by, why, left),
                    None => DeployEnd::Undone(self.cause, why, left),
                })
            }
        };
    }
}

fn text_of(failure: &ActionError) -> String {
    match failure {
        ActionError::Failed(why)
        | ActionError::Refused(_, why)
        | ActionError::TakenBack(_, why)
        | ActionError::NowhereToGo(why)
        | ActionError::Overtaken(why) => why.clone(),
        ActionError::ProxyLost => "the proxy does not answer".into(),
        ActionError::Stopped(signal) => format!("stopped by {signal}"),
        ActionError::RollbackWanted => "the traffic is wanted back on the old color".into(),
    }
}
