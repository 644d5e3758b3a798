//! The applications of both colors, and probes of them whose results come late, in another order or never.

use super::*;
use crate::domain::health::{ProbeOutcome, Readiness, UpstreamHealth};

const RISE: u32 = 2;
const FALL: u32 = 3;

pub(super) struct Probes {
    apps: [Application; 2],
    /// Results on their way.
    under_way: Vec<(Color, ProbeOutcome)>,
}

#[derive(Default)]
struct Application {
    is_well: bool,
    health: UpstreamHealth,
    /// A probe has found it ready since this process began.
    was_ready: bool,
}

impl Probes {
    pub(super) fn new() -> Self {
        let mut probes = Probes { apps: [Application::default(), Application::default()], under_way: Vec::new() };
        probes.apps.iter_mut().for_each(|app| app.is_well = true);
        probes
    }

    /// One app breaks or is mended; most of the time they are well.
    pub(super) fn stir(&mut self, dice: &mut Dice) {
        let at = dice.roll(2) as usize;
        self.apps[at].is_well = dice.chance(75);
    }

    /// Asks both.
    pub(super) fn ask(&mut self, dice: &mut Dice) {
        for color in [Color::Blue, Color::Green] {
            let found = match (self.app(color).is_well, dice.roll(20)) {
                (_, 0) => ProbeOutcome::Missing("too many open files".into()),
                (true, _) => ProbeOutcome::Ready,
                (false, _) => ProbeOutcome::Failed("503".into()),
            };
            self.under_way.push((color, found));
        }
    }

    /// Hears some of the results, in any order; one in ten is lost.
    pub(super) fn hear(&mut self, dice: &mut Dice) {
        for _ in 0..dice.roll(5) {
            let Some((color, found)) = dice.draw(&mut self.under_way) else { return };
            if dice.chance(90) {
                let app = &mut self.apps[at(color)];
                app.was_ready |= found == ProbeOutcome::Ready;
                app.health.on(found, RISE, FALL);
            }
        }
    }

    pub(super) fn restart(&mut self) {
        self.under_way.clear();
        for app in &mut self.apps {
            (app.health, app.was_ready) = (UpstreamHealth::default(), false);
        }
    }

    pub(super) fn gate(&self, color: Color) -> Result<(), GateError> {
        let passes = self.app(color).health.passes_gate(RISE);
        passes.map_err(|why| GateError::NotReady(UpstreamNotReady { address: color.to_string(), why }))
    }

    pub(super) fn is_up(&self, color: Color) -> bool {
        self.app(color).health.readiness() == Readiness::Up
    }

    pub(super) fn is_well(&self, color: Color) -> bool {
        self.app(color).is_well
    }

    pub(super) fn was_ready(&self, color: Color) -> bool {
        self.app(color).was_ready
    }

    fn app(&self, color: Color) -> &Application {
        &self.apps[at(color)]
    }
}

fn at(color: Color) -> usize {
    match color {
        Color::Blue => 0,
        Color::Green => 1,
    }
}
