//! The run of show: what phase a cutover is in, and the operator's own programs at its moments.
//!
//! A hook gets one JSON object on its standard input. Its end and the last line it said are in the ledger.

use serde_json::json;

use crate::deploy::command::{Command, Failure, last_lines};
use crate::deploy::deploy::End;
use crate::deploy::steps::{Halt, Run};
use crate::domain::release::{Moment, Step};
use crate::ledger::without_secrets;

/// Of what a hook said, so much is in the ledger.
const SAID_CHARS_MAX: usize = 200;

impl Run<'_> {
    /// Says which phase begins with `step`, and runs the hooks that come before it.
    ///
    /// # Errors
    /// A required hook failed, or the journal cannot be written.
    pub async fn before(&mut self, step: Step) -> Result<(), Halt> {
        if let Some(phase) = self.journal.strategy.phase_beginning_with(step) {
            self.show.say(phase);
        }
        for moment in self.journal.strategy.moments_before(step) {
            if let Err(why) = self.hook(*moment, None).await
                && self.site.deploy().hooks.required.contains(moment)
            {
                return Err(Halt::Failed(format!("the hook {moment}: {why}")));
            }
        }
        Ok(())
    }

    /// The moments after the traffic is where it stays, whatever came of it. The journal is still there: what an
    /// interrupted run left, the next one does.
    pub async fn after(&mut self, end: &End) {
        // Failures are told, and change nothing any more.
        let _ = self.hook(Moment::Unfreeze, Some(end)).await;
        let _ = self.hook(Moment::Completion, Some(end)).await;
    }

    /// Runs a hook once; none where none is configured, and no unfreezing of what was not frozen.
    async fn hook(&mut self, moment: Moment, end: Option<&End>) -> Result<(), String> {
        let hooks = &self.site.deploy().hooks;
        let [program, args @ ..] = hooks.at(moment) else { return Ok(()) };
        let has_run = |moment| self.journal.hooks.contains(&moment);
        let is_pointless =
            moment == Moment::Unfreeze && !hooks.at(Moment::Freeze).is_empty() && !has_run(Moment::Freeze);
        if has_run(moment) || is_pointless {
            return Ok(());
        }
        let command = Command::new(program, args.to_vec());
        self.show.command(&command);
        let ran = command.run_with_input(self.told(moment, end).to_string().as_bytes(), hooks.timeout).await;
        let (word, said) = match &ran {
            Ok(output) => ("done", output.stdout.clone()),
            Err(failure) => ("failed", failure.to_string()),
        };
        let last = last_lines(&said, 1).trim().chars().take(SAID_CHARS_MAX).collect::<String>();
        let line = self.line(&format!("hook {moment} {word}"));
        self.record(if last.is_empty() { line } else { line.with("said", &last) });
        self.show.note(&format!("hook {moment} {word}{}{last}", if last.is_empty() { "" } else { ": " }));
        ran.map_err(|failure: Failure| failure.to_string())?;
        self.journal.hooks.push(moment);
        self.save().map_err(|halt| halt.to_string())
    }

    /// What a hook is told.
    fn told(&self, moment: Moment, end: Option<&End>) -> serde_json::Value {
        let journal = &self.journal;
        json!({
            "moment": moment,
            "service": journal.service,
            "intent": journal.intent,
            "strategy": journal.strategy,
            "tag": journal.tag,
            "tag_before": journal.tag_before,
            "color": journal.color,
            "by": journal.by,
            "began": journal.began,
            "snapshot": journal.snapshot,
            "outcome": end.map(|(ended, _)| ended.as_str()),
            "detail": end.map(|(_, sentence)| without_secrets(sentence)),
        })
    }
}
