//! Tells the story in three acts: a release at work, a good one that takes over, a bad one that is taken back.
//!
//! It acts as an operator would, through the admin API and nothing else, and records each action and its time. The load
//! records what users saw, and `verdict` decides whether the promise held.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::app::{Quality, Release};
use super::figures::ms;
use super::load::{CONNECTIONS, Load, RATE};
use super::screen::Screen;
use super::stage::{SERVICE, Stage, Trouble};
use super::verdict::{Act, Told, judge};
use super::{Options, api};
use crate::api::{Phase, RefusalCode, ServiceStatus};
use crate::domain::Color;

/// Limits each wait of the story; each takes a second or a few.
const LATE: Duration = Duration::from_secs(15);

/// The story asks for the status this often while it waits.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const V1: Release = Release { number: 1, quality: Quality::Good };
const V2: Release = Release { number: 2, quality: Quality::Good };
const V3: Release = Release { number: 3, quality: Quality::Bad { share_of_500: 0.3 } };

/// A story that was told to its end. Its stage still runs, and stops when this is dropped.
pub struct Played {
    /// Whether the promise held.
    pub held: bool,
    screen: Screen,
    stage: Stage,
}

/// Plays the whole story.
///
/// # Errors
/// Fails when the story could not be played to its end.
pub async fn play(options: Options) -> Result<Played, Trouble> {
    let screen = Screen::new(options.json);
    let mut stage = Stage::set()?;
    stage.deploy(Color::Blue, V1)?;
    stage.start_proxy()?;
    until(&mut stage, "blue is ready", |service| service.colors[&Color::Blue].ready).await?;
    screen.say(&format!(
        "cutover demo: http://{} answers from {}, later from {}; {RATE} requests a second, {CONNECTIONS} users",
        stage.proxy,
        screen.color(Color::Blue),
        screen.color(Color::Green)
    ));

    let load = Load::start(stage.proxy).map_err(Trouble::Load)?;
    let told = tell(&screen, &mut stage, &load).await?;
    let verdict = judge(&load.finish(), &told);
    if !options.json {
        screen.head("What the ledger says");
        for line in stage.ledger() {
            screen.say(&format!("  {line}"));
        }
    }
    screen.verdict(&verdict);
    Ok(Played { held: verdict.held, screen, stage })
}

impl Played {
    /// Tells the user what is running, and keeps the load running until the process ends.
    ///
    /// # Errors
    /// Fails when the load cannot be started again.
    pub async fn stay(&self) -> Result<Infallible, Trouble> {
        let Played { screen, stage, .. } = self;
        let exe = std::env::current_exe().map_err(Trouble::Spawn)?;
        let (exe, config) = (exe.display(), stage.config());
        let config = config.display();
        screen.head("Everything keeps running until Ctrl-C");
        screen.say(&format!("  the service    http://{}/", stage.proxy));
        screen.say(&format!("  the dashboard  http://{}/", stage.admin));
        screen.say(&format!("  the metrics    http://{}/metrics", stage.admin));
        screen.say("  v2 is active on green; the bad v3 still runs on blue: flip to it and see it taken back again");
        for verb in ["status --watch", "flip blue", "rollback", "ledger"] {
            screen.say(&format!("  {exe} {verb} --config {config}"));
        }
        screen.say("");
        let load = Load::start(stage.proxy).map_err(Trouble::Load)?;
        screen.during(&load, std::future::pending()).await
    }
}

async fn tell(screen: &Screen, stage: &mut Stage, load: &Load) -> Result<Told, Trouble> {
    let mut acts = Vec::new();
    let mut open = |heading: &str, name| {
        screen.head(heading);
        acts.push(Act { name, began: load.now() });
    };

    open("1  v1 is at work on blue", "v1 on blue");
    screen.during(load, tokio::time::sleep(Duration::from_secs(3))).await;
    screen.close(load);

    open("2  v2 comes up on green and takes over, with users at work", "v2 on green, flipped under load");
    stage.deploy(Color::Green, V2)?;
    screen.during(load, until(stage, "green is ready", |service| service.colors[&Color::Green].ready)).await?;
    screen.say("  green is ready: flip to green");
    let asked = load.now();
    let flip = screen.during(load, api::flip(stage.admin, Color::Green, api::Wait::UntilDrained)).await?;
    let v1_drained = load.now();
    let changed = flip.map_err(|refusal| Trouble::Admin("flip to green", refusal.message))?;
    screen.say(&format!(
        "  done after {:.0} ms, epoch {}: users are on green, blue has finished what it had in flight, {} cut",
        ms(v1_drained - asked),
        changed.epoch,
        changed.drain.map_or(0, |drain| drain.cut)
    ));
    let judged =
        screen.during(load, until(stage, "the watch is over", |service| service.phase == Phase::Steady)).await?;
    screen.say(&format!("  the watch: {}", judged.last_verdict.as_deref().unwrap_or("no verdict")));
    screen.close(load);

    open("3  v3 comes up on blue. It says it is ready; 3 answers in 10 will be a 500", "v3 on blue is bad, taken back");
    stage.stop(Color::Blue);
    screen.during(load, until(stage, "blue is down", |service| !service.colors[&Color::Blue].ready)).await?;
    let early = screen.during(load, api::flip(stage.admin, Color::Blue, api::Wait::No)).await?;
    let gate_held = matches!(&early, Err(refusal) if refusal.code == RefusalCode::NotReady);
    screen.say(&match early {
        Err(refusal) => format!("  flip to blue, too early. {}", refusal.message),
        Ok(_) => "  flip to blue, too early, and NOT refused although blue is down".into(),
    });
    stage.deploy(Color::Blue, V3)?;
    screen.during(load, until(stage, "blue is ready", |service| service.colors[&Color::Blue].ready)).await?;
    screen.say("  blue is ready: flip to blue");
    let flip = screen.during(load, api::flip(stage.admin, Color::Blue, api::Wait::No)).await?;
    let epoch = flip.map_err(|refusal| Trouble::Admin("flip to blue", refusal.message))?.epoch;
    let back = |service: &ServiceStatus| service.phase == Phase::RolledBack || service.epoch > epoch + 1;
    // If the release is not taken back, the story ends too, but the promise did not hold.
    let rolled_back = match screen.during(load, until(stage, "v3 is taken back", back)).await {
        Ok(service) if service.active == Color::Green && service.epoch == epoch + 1 => {
            screen.say(&format!("  taken back: {}", service.last_verdict.as_deref().unwrap_or("no verdict")));
            Some(load.now())
        }
        Ok(_) | Err(Trouble::Late(..)) => None,
        Err(trouble) => return Err(trouble),
    };
    screen.during(load, tokio::time::sleep(Duration::from_secs(2))).await;
    screen.close(load);

    Ok(Told { acts, v1_drained, gate_held, rolled_back })
}

/// Asks for the status until it is `so`; at most [`LATE`].
async fn until(stage: &mut Stage, what: &str, so: impl Fn(&ServiceStatus) -> bool) -> Result<ServiceStatus, Trouble> {
    let asked = Instant::now();
    while asked.elapsed() < LATE {
        stage.check_proxy()?;
        // A missing response is no error yet, because the proxy may still be starting.
        if let Ok(mut status) = api::status(stage.admin).await
            && let Some(service) = status.services.remove(SERVICE)
            && so(&service)
        {
            return Ok(service);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Trouble::Late(what.into(), stage.log_end()))
}
