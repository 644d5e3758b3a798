//! Runs `flip`, `rollback` and `drain`: asks for the change, shows the progress of the drain, and reports how it ended.
//!
//! The API could wait for the drain itself. The verb waits in a second request instead and polls the status meanwhile,
//! so that the user sees what it waits for, and learns at once when the release is taken back.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::{How, pick};
use super::failure::{Failure, ROLLED_BACK, UNDER_WAY};
use super::output::{Form, complain, print, print_json};
use crate::api::client::{Client, ClientError};
use crate::api::{Changed, Drained, Phase, Refusal, RefusalCode, ServiceStatus};
use crate::config::Config;
use crate::deploy::journal::Journal;
use crate::domain::Color;
use crate::domain::release::state::Block;

/// The verb polls a drain this often.
const LOOK: Duration = Duration::from_millis(100);
/// The verb prints a progress line this often where it cannot redraw one.
const LINE: Duration = Duration::from_secs(2);
/// A flip to a color, or a rollback if there is no color.
pub(super) struct ChangeOptions {
    pub(super) to: Option<Color>,
    pub(super) how: How,
}

/// Tells how the wait for a drain ended.
#[derive(Debug, PartialEq)]
enum WaitEnd {
    Drained(Drained),
    /// The watch took the traffic back; the status's sentence says so.
    TakenBack(String),
    /// Somebody else changed the color; the status's present sentence says so.
    Overtaken(String),
}

/// Asks for the change, and follows its drain unless the user does not want to wait.
pub(super) async fn change(
    config: &Config,
    service: Option<&str>,
    what: &ChangeOptions,
    form: Form,
) -> Result<ExitCode, Failure> {
    let client = Client::new(&config.admin);
    let status = client.status().await?;
    let known: Vec<_> = status.services.keys().map(String::as_str).collect();
    let service = pick(service, &known).map_err(Failure::Usage)?;
    let request = what.how.request(what.to);
    if !request.force {
        refuse_unproven(config, service, what.to, status.services[service].active)?;
    }
    let mut changed = match what.to {
        Some(_) => client.flip(service, &request, None).await?,
        None => client.rollback(service, &request, None).await?,
    };
    if changed.dry_run || what.how.no_wait {
        say(&changed, None, form);
        return Ok(ExitCode::SUCCESS);
    }
    let drain = config.services.iter().find(|known| known.name == service).map(|known| known.drain.timeout);
    let end = follow(&client, &changed, drain).await?;
    if let WaitEnd::Drained(drained) = end {
        changed.drain = Some(drained);
    }
    say(&changed, Some(&end), form);
    Ok(match end {
        WaitEnd::Drained(_) => ExitCode::SUCCESS,
        WaitEnd::TakenBack(_) => ExitCode::from(ROLLED_BACK),
        WaitEnd::Overtaken(_) => ExitCode::from(UNDER_WAY),
    })
}

/// Refuses a color in which a deploy is bringing a release up, or was killed while it did: such a color may be ready,
/// but its release is not verified.
fn refuse_unproven(config: &Config, service: &str, to: Option<Color>, active: Color) -> Result<(), Failure> {
    let refuse = |code, message| Err(Failure::Client(ClientError::Refused(Refusal { code, message })));
    let target = to.unwrap_or(active.other());
    let journal = match (Journal::peek(&config.state.dir, service), to) {
        (Ok(journal), _) => journal,
        (Err(trouble), Some(_)) => {
            let message = format!(
                "{service}: cannot tell whether a deploy has left an unproven release in {target}, so nothing was \
                 changed: {trouble} To change color anyway, use --force"
            );
            return refuse(RefusalCode::NotReady, message);
        }
        // Nothing may keep an operator from a rollback.
        (Err(trouble), None) => {
            complain(&format!("cutover: cannot tell whether a deploy is under way: {trouble}\n"));
            None
        }
    };
    // Whether the deploy still runs is for the proxy to find out.
    let block = |journal: &Journal| journal.release.blocks(target, false);
    let Some((journal, block)) = journal.and_then(|journal| block(&journal).map(|block| (journal, block))) else {
        return Ok(());
    };
    let (tag, reached) = (&journal.tag, journal.release.reached);
    if block == Block::NotUndone {
        let message = format!(
            "{service}: {target} may still run {tag}, which failed or was taken back and is not undone. `cutover deploy` \
             undoes it first; or use --force"
        );
        return refuse(RefusalCode::CutoverUnderWay, message);
    }
    let message = format!(
        "{service}: a deploy of {tag} to {target} is under way, at {reached}: what runs there has not passed its \
         gates. Wait for it; if it was killed, `cutover deploy` continues or undoes it; or use --force"
    );
    refuse(RefusalCode::CutoverUnderWay, message)
}

/// Waits for the drain. `limit` is the configured timeout, for the display only.
async fn follow(client: &Client, changed: &Changed, limit: Option<Duration>) -> Result<WaitEnd, Failure> {
    let mut progress = Progress::new();
    let drained = tokio::select! {
        drained = client.drain(&changed.service) => drained,
        end = look(client, changed, limit, &mut progress) => {
            progress.clear();
            return end;
        }
    };
    progress.clear();
    let drained = WaitEnd::Drained(drained?);
    // The traffic may have been taken back between the last poll and the end of the drain.
    let service = client.status().await?.services.remove(&changed.service);
    Ok(service.and_then(|service| ended_early(&service, changed.epoch)).unwrap_or(drained))
}

/// Shows the progress of the drain; returns only if another epoch begins.
async fn look(
    client: &Client,
    changed: &Changed,
    limit: Option<Duration>,
    progress: &mut Progress,
) -> Result<WaitEnd, Failure> {
    let began = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(service) = client.status().await?.services.remove(&changed.service) else {
            let message = format!("{}: a reload removed the service while it was drained", changed.service);
            return Err(Failure::Failed(message));
        };
        if let Some(end) = ended_early(&service, changed.epoch) {
            return Ok(end);
        }
        let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
        match in_flight(&service, changed.from) {
            0 => {}
            held => progress.show(&waiting(changed.from, held, left)),
        }
    }
}

/// Returns how the wait ended, if another epoch has begun.
fn ended_early(service: &ServiceStatus, epoch: u64) -> Option<WaitEnd> {
    if service.epoch == epoch {
        return None;
    }
    let summary = service.summary.clone();
    Some(match service.phase {
        Phase::RolledBack => WaitEnd::TakenBack(service.last_verdict.clone().unwrap_or(summary)),
        Phase::Steady | Phase::Draining | Phase::Watching => WaitEnd::Overtaken(summary),
    })
}

fn in_flight(service: &ServiceStatus, color: Color) -> u64 {
    service.colors.get(&color).map_or(0, |status| status.in_flight)
}

/// Waits until the idle color holds no request.
pub(super) async fn drain(client: &Client, service: Option<&str>, dry_run: bool, form: Form) -> Result<(), Failure> {
    let status = client.status().await?;
    let known: Vec<_> = status.services.keys().map(String::as_str).collect();
    let service = pick(service, &known).map_err(Failure::Usage)?;
    let idle = status.services[service].active.other();
    let held = in_flight(&status.services[service], idle);
    if dry_run {
        match form {
            Form::Json => {
                print_json(&json!({ "service": service, "color": idle, "in_flight": held, "dry_run": true }));
            }
            Form::Text if held == 0 => {
                print(&format!("{service}: {idle} has nothing in flight; there is nothing to wait for\n"))
            }
            Form::Text => print(&format!("{service}: would wait until {idle} has finished {}\n", requests(held))),
        }
        return Ok(());
    }
    let mut progress = Progress::new();
    if held > 0 {
        progress.show(&waiting(idle, held, None));
    }
    let drained = client.drain(service).await;
    progress.clear();
    let drained = drained?;
    match form {
        Form::Json => print_json(&drained),
        Form::Text => print(&format!("{service}: {}\n", how_drained(idle, drained))),
    }
    Ok(())
}

/// A progress line on standard error: a terminal redraws it, and elsewhere a new line appears now and then.
struct Progress {
    is_terminal: bool,
    last: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Progress { is_terminal: std::io::stderr().is_terminal(), last: None }
    }

    fn show(&mut self, line: &str) {
        if self.is_terminal {
            complain(&format!("\r\x1b[K{line}"));
        } else if self.last.is_none_or(|last| last.elapsed() >= LINE) {
            complain(&format!("{line}\n"));
        } else {
            return;
        }
        self.last = Some(Instant::now());
    }

    fn clear(&mut self) {
        if self.is_terminal && self.last.take().is_some() {
            complain("\r\x1b[K");
        }
    }
}

fn say(changed: &Changed, end: Option<&WaitEnd>, form: Form) {
    match form {
        Form::Text => print(&sentence(changed, end)),
        Form::Json => {
            let mut value = serde_json::to_value(changed).expect("our own types have a JSON form");
            match end {
                Some(WaitEnd::TakenBack(why)) => value["rolled_back"] = json!(why),
                Some(WaitEnd::Overtaken(why)) => value["overtaken"] = json!(why),
                Some(WaitEnd::Drained(_)) | None => {}
            }
            print_json(&value);
        }
    }
}

fn sentence(changed: &Changed, end: Option<&WaitEnd>) -> String {
    let Changed { service, from, to, epoch, dry_run, drain: _ } = changed;
    if *dry_run {
        return format!("{service}: would go {from} -> {to} (epoch {epoch}); nothing was changed\n");
    }
    let made = format!("{service}: {from} -> {to} (epoch {epoch})");
    match end {
        None => format!("{made}, not waiting for {from} to drain\n"),
        Some(WaitEnd::Drained(drained)) => format!("{made}, {}\n", how_drained(*from, *drained)),
        Some(WaitEnd::TakenBack(why)) => format!("{made}, and back: {to} was judged bad\n  {why}\n"),
        Some(WaitEnd::Overtaken(why)) => format!("{made}, but somebody else has changed it since\n  {why}\n"),
    }
}

fn waiting(color: Color, held: u64, left: Option<Duration>) -> String {
    let left = left.map_or(String::new(), |left| format!(", {}s left", left.as_secs()));
    format!("{color} still has {} in flight{left}", requests(held))
}

fn how_drained(color: Color, drained: Drained) -> String {
    let cut = if drained.cut == 0 { String::new() } else { format!(", {} cut at the deadline", requests(drained.cut)) };
    let took = match drained.seconds {
        seconds if seconds < 1.0 => format!("{:.0}ms", seconds * 1000.0),
        seconds => format!("{seconds:.1}s"),
    };
    format!("{color} drained in {took}{cut}")
}

fn requests(n: u64) -> String {
    if n == 1 { "1 request".into() } else { format!("{n} requests") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(dry_run: bool) -> Changed {
        Changed { service: "recall".into(), from: Color::Blue, to: Color::Green, epoch: 2, dry_run, drain: None }
    }

    #[test]
    fn every_end_has_its_sentence() {
        let drained = |seconds, cut| Some(WaitEnd::Drained(Drained { seconds, cut }));
        for (dry_run, end, want) in [
            (true, None, "recall: would go blue -> green (epoch 2); nothing was changed\n"),
            (false, None, "recall: blue -> green (epoch 2), not waiting for blue to drain\n"),
            (false, drained(0.4, 0), "recall: blue -> green (epoch 2), blue drained in 400ms\n"),
            (
                false,
                drained(30.0, 1),
                "recall: blue -> green (epoch 2), blue drained in 30.0s, 1 request cut at the deadline\n",
            ),
            (
                false,
                Some(WaitEnd::TakenBack("9 of 10 answers failed".into())),
                "recall: blue -> green (epoch 2), and back: green was judged bad\n  9 of 10 answers failed\n",
            ),
        ] {
            assert_eq!(sentence(&changed(dry_run), end.as_ref()), want);
        }
    }

    #[test]
    fn a_wait_says_for_what_and_how_long() {
        assert_eq!(
            waiting(Color::Blue, 3, Some(Duration::from_secs(12))),
            "blue still has 3 requests in flight, 12s left"
        );
        assert_eq!(waiting(Color::Blue, 1, None), "blue still has 1 request in flight");
    }

    #[test]
    fn another_epoch_ends_the_wait() {
        let service = |epoch, phase| ServiceStatus {
            active: Color::Blue,
            epoch,
            flip_pending: false,
            phase,
            summary: "a summary".into(),
            watch: None,
            last_verdict: (phase == Phase::RolledBack).then(|| "a verdict".into()),
            verdict: None,
            evidence_file: None,
            rehearsal: None,
            freeze: None,
            colors: [].into(),
        };
        assert_eq!(ended_early(&service(2, Phase::Watching), 2), None);
        assert_eq!(ended_early(&service(3, Phase::RolledBack), 2), Some(WaitEnd::TakenBack("a verdict".into())));
        assert_eq!(ended_early(&service(3, Phase::Watching), 2), Some(WaitEnd::Overtaken("a summary".into())));
    }
}
