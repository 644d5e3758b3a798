//! Moves the traffic to a release: the flip, the watch, and the end of the old color.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::client::ClientError;
use crate::api::{ChangeRequest, Phase, RefusalCode, ServiceStatus, Verdict};
use crate::config::Retire;
use crate::deploy::journal::Intent;
use crate::deploy::run::{DeployRun, FailureCause, POLL, StepError};
use crate::domain::Color;
use crate::domain::release::Step;
use crate::domain::release::state::TakenBackBy;

/// How long the proxy may be away during the watch, because it is being restarted.
const PROXY_AWAY_MAX: Duration = Duration::from_secs(60);
/// How long the deploy asks whether a flip was made whose response was lost.
const FLIP_UNKNOWN_MAX: Duration = Duration::from_secs(15);

impl DeployRun<'_> {
    /// Asks the proxy to make the color active. The proxy refuses if anybody has moved the traffic since the deploy
    /// began.
    pub(super) async fn flip(&mut self) -> Result<String, StepError> {
        let color = self.color();
        let epoch = self.request_flip(self.journal.release.epoch).await?;
        self.journal.release.flipped = Some(epoch);
        Ok(format!("{} -> {color}, epoch {epoch}", color.other()))
    }

    /// Flips away from `epoch`, and returns the new one.
    async fn request_flip(&mut self, epoch: u64) -> Result<u64, StepError> {
        let by = Some(self.journal.by.clone());
        let request = ChangeRequest { to: Some(self.color()), wait: Some(false), by, ..ChangeRequest::default() };
        let (client, service) = (&self.target.client, &self.journal.service);
        let mut flipped = client.flip(service, &request, Some(epoch)).await;
        if let Err(ClientError::Refused(refusal)) = &flipped
            && refusal.code == RefusalCode::RehearsalFailed
            && self.journal.intent == Intent::Rollback
        {
            // An older release is meant to answer otherwise. Everything else that the gate checks has just been proven.
            let request = ChangeRequest { force: true, ..request };
            flipped = client.flip(service, &request, Some(epoch)).await;
        }
        match flipped {
            Ok(changed) => Ok(changed.epoch),
            Err(ClientError::Refused(refusal)) => Err(StepError::Refused(refusal)),
            Err(error) => self.find_out_flip(epoch, error).await,
        }
    }

    /// Finds out whether a flip away from `epoch` was made whose response was lost.
    async fn find_out_flip(&self, epoch: u64, error: ClientError) -> Result<u64, StepError> {
        let deadline = Instant::now() + FLIP_UNKNOWN_MAX;
        while Instant::now() < deadline {
            match self.target.status().await {
                Ok(status) if status.active == self.color() => return Ok(status.epoch),
                Ok(status) if status.epoch == epoch => return Err(FailureCause::FlipLost(error).into()),
                Ok(status) => return Err(taken_back(status)),
                Err(_) => sleep(POLL).await,
            }
        }
        Err(StepError::ProxyLost(error))
    }

    /// Follows the proxy's watch to its end.
    pub(super) async fn watch(&mut self) -> Result<String, StepError> {
        if self.target.service.watch.window.is_zero() {
            return Ok("watch.window is 0s: not watched".into());
        }
        let mut away_since = None;
        loop {
            match self.target.status().await {
                Ok(status) => {
                    away_since = None;
                    if let Some(verdict) = self.watch_result(status)? {
                        return Ok(verdict);
                    }
                }
                Err(error) => {
                    if away_since.get_or_insert_with(Instant::now).elapsed() >= PROXY_AWAY_MAX {
                        return Err(StepError::ProxyLost(error));
                    }
                    self.progress.wait(Step::Watch, &error.to_string());
                }
            }
            sleep(POLL).await;
        }
    }

    /// Reads the end of the watch from a status; `None` while it runs.
    fn watch_result(&mut self, status: ServiceStatus) -> Result<Option<String>, StepError> {
        if status.active != self.color() {
            return Err(taken_back(status));
        }
        if self.journal.release.flipped != Some(status.epoch) {
            let ServiceStatus { active, epoch, .. } = status;
            let why = format!("somebody has moved the traffic since the flip: it is on {active} in epoch {epoch}");
            return Err(StepError::Overtaken(why));
        }
        match (status.phase, &status.watch) {
            (Phase::Watching, Some(watch)) => {
                let (failed, answered) = (watch.failed, watch.answered);
                let (evidence, left) = (watch.evidence, watch.remaining_seconds);
                let what = format!("{left:.0}s left, {failed} of {answered} failed, evidence {evidence:.2}");
                self.progress.wait(Step::Watch, &what);
                Ok(None)
            }
            (Phase::Watching, None) => Ok(None),
            (Phase::Steady | Phase::Draining | Phase::RolledBack, _) => {
                let text = status.last_verdict.unwrap_or_else(|| "over".into());
                match status.verdict {
                    Some(Verdict::NowhereToGo) => Err(StepError::NowhereToGo(text)),
                    Some(Verdict::Keep | Verdict::NotEnoughTraffic | Verdict::Superseded) | None => Ok(Some(text)),
                }
            }
        }
    }

    /// Waits until the old color holds no request.
    pub(super) async fn drain(&mut self) -> Result<String, StepError> {
        let old = self.color().other();
        let drained = self.target.client.drain(&self.journal.service).await.map_err(StepError::ProxyLost)?;
        let cut =
            if drained.cut == 0 { "nothing was cut".into() } else { format!("{} cut at the deadline", drained.cut) };
        Ok(format!("{old} is drained, {cut}"))
    }

    /// Moves the singletons away from the old color, and stops it unless it is to be kept.
    pub(super) async fn retire(&mut self) -> Result<String, StepError> {
        let old = self.color().other();
        self.move_singletons(Some(old)).await?;
        match self.target.deploy().retire {
            Retire::Keep => return Ok(format!("{old} goes on running: `cutover rollback` is one flip")),
            Retire::Stop => {}
        }
        // An operator may have gone back to the old color since the watch.
        self.check_still_idle(old).await?;
        // Requests with a preview pass may have come since the drain.
        self.target.client.drain(&self.journal.service).await.map_err(StepError::ProxyLost)?;
        let stop = self.target.compose(old)?.stop();
        self.progress.command(&stop);
        stop.run(self.target.deploy().up_timeout).await?;
        self.until_unready(old).await;
        if let Err(error) = self.check_still_idle(old).await {
            // Somebody went back to the old color while it was being stopped, so it is needed now.
            let up = self.target.compose(old)?.up();
            self.progress.command(&up);
            up.run(self.target.deploy().up_timeout).await?;
            return Err(error);
        }
        Ok(format!("{old} is stopped"))
    }

    async fn check_still_idle(&self, old: Color) -> Result<(), StepError> {
        let status = self.target.status().await.map_err(StepError::ProxyLost)?;
        if status.active == old { Err(taken_back(status)) } else { Ok(()) }
    }

    /// Waits until the proxy has found that a stopped color is not ready. Until then a rollback would still go there.
    /// It takes a few probes; a proxy that does not answer is not waited for.
    pub(super) async fn until_unready(&mut self, color: Color) {
        let health = &self.target.service.health;
        let deadline = Instant::now() + (health.interval + health.timeout) * health.fall.min(100) + POLL;
        while Instant::now() < deadline {
            match self.target.status().await {
                Ok(status) if status.active != color && may_roll_back_to(&status, color) => {}
                Ok(_) | Err(_) => return,
            }
            sleep(POLL).await;
        }
    }
}

/// Explains traffic that is on the old color again.
fn taken_back(status: ServiceStatus) -> StepError {
    match status.phase {
        Phase::RolledBack => StepError::TakenBack(TakenBackBy::Verdict, status.last_verdict.unwrap_or(status.summary)),
        Phase::Steady | Phase::Draining | Phase::Watching => {
            StepError::TakenBack(TakenBackBy::Operator, status.summary)
        }
    }
}

/// Mirrors the proxy's gate of a rollback: one upstream that the probes have not found down is enough.
fn may_roll_back_to(status: &ServiceStatus, color: Color) -> bool {
    status.colors.get(&color).is_some_and(|color| color.upstreams.iter().any(|upstream| upstream.ready))
}
