//! Announces the phases of a deploy, and runs the operator's hooks at their points.
//!
//! A hook receives one JSON object on its standard input. The ledger records how it ended, and the last line of its
//! output.

use serde_json::json;

use crate::deploy::command::{Command, last_lines};
use crate::deploy::outcome::DeployReport;
use crate::deploy::run::{DeployRun, FailureCause, StepError};
use crate::domain::release::{HookPoint, Step};
use crate::ledger::without_secrets;

/// How much of a hook's output the ledger gets.
const SAID_CHARS_MAX: usize = 200;

impl DeployRun<'_> {
    /// Announces the phase that begins with `step`, and runs the hooks that come before it.
    ///
    /// # Errors
    /// [`StepError::Failed`]: a required hook failed.
    pub async fn prepare(&mut self, step: Step) -> Result<(), StepError> {
        if let Some(phase) = self.journal.release.strategy.phase_beginning_with(step) {
            self.progress.say(phase);
        }
        for point in self.journal.release.strategy.hooks_before(step) {
            if let Err(error) = self.hook(*point, None).await
                && self.target.deploy().hooks.required.contains(point)
            {
                return Err(StepError::Failed(FailureCause::Hook { point: *point, error: Box::new(error) }));
            }
        }
        Ok(())
    }

    /// Runs the hooks that come once the traffic is where it stays, whatever the outcome. The journal still exists, so
    /// that the next run makes up for hooks that an interruption left out.
    pub async fn run_final_hooks(&mut self, report: &DeployReport) {
        // Failures are shown and recorded, and change nothing any more.
        let _ = self.hook(HookPoint::Unfreeze, Some(report)).await;
        let _ = self.hook(HookPoint::Completion, Some(report)).await;
    }

    /// Runs a hook, unless none is configured or it has run already. What was never frozen is not unfrozen.
    async fn hook(&mut self, point: HookPoint, report: Option<&DeployReport>) -> Result<(), StepError> {
        let hooks = &self.target.deploy().hooks;
        let [program, args @ ..] = hooks.at(point) else { return Ok(()) };
        let has_run = |point| self.journal.hooks.contains(&point);
        let is_pointless =
            point == HookPoint::Unfreeze && !hooks.at(HookPoint::Freeze).is_empty() && !has_run(HookPoint::Freeze);
        if has_run(point) || is_pointless {
            return Ok(());
        }
        let command = Command::new(program, args.to_vec());
        self.progress.command(&command);
        let input = self.hook_input(point, report).to_string();
        let ran = command.run_with_input(input.as_bytes(), hooks.timeout).await;
        let (word, output) = match &ran {
            Ok(output) => ("done", output.stdout.clone()),
            Err(error) => ("failed", error.to_string()),
        };
        let last = last_lines(&output, 1).trim().chars().take(SAID_CHARS_MAX).collect::<String>();
        let line = self.line(&format!("hook {point} {word}"));
        self.record(if last.is_empty() { line } else { line.with("said", &last) });
        self.progress.note(&format!("hook {point} {word}{}{last}", if last.is_empty() { "" } else { ": " }));
        ran?;
        self.journal.hooks.push(point);
        self.save()
    }

    /// Builds the JSON that a hook receives.
    fn hook_input(&self, point: HookPoint, report: Option<&DeployReport>) -> serde_json::Value {
        let journal = &self.journal;
        json!({
            "moment": point,
            "service": journal.service,
            "intent": journal.intent,
            "strategy": journal.release.strategy,
            "tag": journal.tag,
            "tag_before": journal.tag_before,
            "color": journal.release.color,
            "by": journal.by,
            "began": journal.began,
            "snapshot": journal.snapshot,
            "outcome": report.map(|report| report.outcome.as_str()),
            "detail": report.map(|report| without_secrets(&report.sentence)),
        })
    }
}
