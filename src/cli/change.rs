//! `flip`, `rollback` and `drain`: ask, show how the drain goes, say how it ended.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, print, service_name};
use crate::admin::client::Client;
use crate::domain::Color;
use crate::status::{ChangeRequest, Changed, Drained, Phase, ServiceStatus};

/// Which change.
#[derive(Clone, Copy)]
pub enum Kind {
    /// To a color that is named.
    Flip,
    /// To the color before.
    Rollback,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Kind::Flip => "flip",
            Kind::Rollback => "rollback",
        }
    }
}

/// Time between two looks at a drain that is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// It was flipped, judged bad and rolled back.
const ROLLED_BACK: u8 = 4;

/// Asks for the change and waits for its drain, unless the request says otherwise.
pub async fn run(
    client: Client,
    kind: Kind,
    service: Option<String>,
    request: ChangeRequest,
    json: bool,
) -> Result<ExitCode, Failure> {
    let name = service_name(&client, service).await?;
    let path = format!("/v1/services/{name}/{}", kind.path());
    let changed: Changed = {
        let asked = client.post(&path, &request, None);
        let shown = show_drain(&client, &name);
        tokio::select! {
            changed = asked => changed?,
            () = shown => unreachable_drain(),
        }
    };
    let now: Option<ServiceStatus> = client.get(&format!("/v1/services/{name}")).await.ok();
    let taken_back =
        !changed.dry_run && now.as_ref().is_some_and(|now| now.phase == Phase::RolledBack && now.epoch > changed.epoch);
    if json {
        print(&changed);
    } else {
        say(&changed);
        if taken_back {
            println!("{}", now.map(|now| now.summary).unwrap_or_default());
        }
    }
    Ok(if taken_back { ExitCode::from(ROLLED_BACK) } else { ExitCode::SUCCESS })
}

/// `show_drain` never returns.
fn unreachable_drain() -> ! {
    unreachable!("the display of a drain does not end by itself")
}

/// Waits until the idle color holds no request.
pub async fn drain(client: Client, service: Option<String>, dry_run: bool, json: bool) -> Result<ExitCode, Failure> {
    let name = service_name(&client, service).await?;
    let status: ServiceStatus = client.get(&format!("/v1/services/{name}")).await?;
    let idle = status.active.other();
    let held = status.colors.get(&idle).map_or(0, |color| color.in_flight);
    if dry_run {
        if json {
            print(&serde_json::json!({"service": name, "idle": idle, "in_flight": held, "dry_run": true}));
        } else {
            println!("{name}: {idle} holds {}; nothing was waited for", requests(held));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let drained: Drained = {
        let path = format!("/v1/services/{name}/drain");
        let request = ChangeRequest::default();
        let asked = client.post(&path, &request, None);
        let shown = show_drain(&client, &name);
        tokio::select! {
            drained = asked => drained?,
            () = shown => unreachable_drain(),
        }
    };
    if json {
        print(&drained);
    } else {
        println!("{name}: {}", how_drained(idle, &drained));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says every now and then what the idle color still holds: over itself on a terminal, in lines elsewhere.
async fn show_drain(client: &Client, name: &str) {
    let path = format!("/v1/services/{name}");
    let is_terminal = std::io::stderr().is_terminal();
    let mut before = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(status) = client.get::<ServiceStatus>(&path).await else { continue };
        let idle = status.active.other();
        let held = status.colors.get(&idle).map_or(0, |color| color.in_flight);
        if held == 0 || (held == before && !is_terminal) {
            continue;
        }
        before = held;
        let mut err = std::io::stderr();
        // The display is a courtesy: a closed standard error does not end the wait.
        let _ = if is_terminal {
            write!(err, "\r\x1b[K{idle} still holds {}", requests(held)).and_then(|()| err.flush())
        } else {
            writeln!(err, "{idle} still holds {}", requests(held))
        };
    }
}

fn say(changed: &Changed) {
    let Changed { service, from, to, epoch, dry_run, drain } = changed;
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    if *dry_run {
        println!("{service}: {from} -> {to} would be made (epoch {epoch}); nothing was changed");
        return;
    }
    match drain {
        Some(drained) => println!("{service}: {from} -> {to} (epoch {epoch}), {}", how_drained(*from, drained)),
        None => println!("{service}: {from} -> {to} (epoch {epoch}); not waiting for {from} to drain"),
    }
}

fn how_drained(color: Color, drained: &Drained) -> String {
    match drained.cut {
        0 => format!("{color} drained in {:.3} s", drained.seconds),
        cut => format!("{color} drained in {:.3} s, {} cut at the deadline", drained.seconds, requests(cut)),
    }
}

fn requests(n: u64) -> String {
    if n == 1 { "1 request".into() } else { format!("{n} requests") }
}
