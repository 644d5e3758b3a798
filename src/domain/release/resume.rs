//! Decides where an interrupted release is resumed.

use super::state::{Observed, ReleaseState};
use super::{Decision, Step, Strategy};

/// Says where an interrupted release is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumePoint {
    /// Begin with the first step; see [`Step::is_repeated`].
    Begin,
    /// Follow the watch, because the release has the traffic.
    Follow,
    /// Carry out what was decided, or what has happened since.
    End(Decision),
}

/// Returns where a release is resumed, given where the traffic is now.
pub fn resume_point(release: &ReleaseState, observed: Observed) -> ResumePoint {
    match release.decided.as_ref().map(|decided| decided.decision) {
        Some(decided) => ResumePoint::End(decided),
        // The color has the traffic from the start, and no flip gives or takes it.
        None if release.strategy == Strategy::Recreate => ResumePoint::Begin,
        // This holds even if somebody else flipped to it: stopping what has the traffic would be an outage.
        None if observed.active == release.color && release.done.contains(&Step::Up) => ResumePoint::Follow,
        // Nobody knows whether the color runs the release: it was not seen to come up there.
        None if observed.active == release.color => ResumePoint::End(Decision::Undo),
        // The flip was made, and traffic went back while no deploy was running.
        None if release.reached >= Step::Flip && observed.epoch > release.epoch => {
            ResumePoint::End(Decision::TakenBack)
        }
        None => ResumePoint::Begin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Color;
    use crate::domain::release::state::Decided;

    #[test]
    fn an_interrupted_release_goes_on_where_the_traffic_is() {
        let release = |reached, decided: Option<Decision>| {
            let decided = decided.map(|decision| Decided { decision, why: String::new() });
            let done = Step::ALL.into_iter().filter(|step| *step < reached).collect();
            ReleaseState { reached, done, decided, ..ReleaseState::begin(Strategy::BlueGreen, Color::Green, 4) }
        };
        let recreate = |reached, decided| ReleaseState { strategy: Strategy::Recreate, ..release(reached, decided) };
        for (case, release, active, epoch, want) in [
            ("killed early", release(Step::Up, None), Color::Blue, 4, ResumePoint::Begin),
            ("killed before the flip", release(Step::EnvFile, None), Color::Blue, 4, ResumePoint::Begin),
            ("killed at the flip, not flipped", release(Step::Flip, None), Color::Blue, 4, ResumePoint::Begin),
            ("killed at the flip, flipped", release(Step::Flip, None), Color::Green, 5, ResumePoint::Follow),
            ("killed in the watch", release(Step::Watch, None), Color::Green, 5, ResumePoint::Follow),
            ("taken back meanwhile", release(Step::Watch, None), Color::Blue, 6, ResumePoint::End(Decision::TakenBack)),
            ("flipped and back", release(Step::Flip, None), Color::Blue, 6, ResumePoint::End(Decision::TakenBack)),
            ("others flipped to it", release(Step::Healthy, None), Color::Green, 5, ResumePoint::Follow),
            (
                "others flipped to what may be it",
                release(Step::Up, None),
                Color::Green,
                5,
                ResumePoint::End(Decision::Undo),
            ),
            ("others flipped twice", release(Step::Up, None), Color::Blue, 6, ResumePoint::Begin),
            (
                "killed while undoing",
                release(Step::Up, Some(Decision::Undo)),
                Color::Blue,
                4,
                ResumePoint::End(Decision::Undo),
            ),
            ("killed in the gap", recreate(Step::Up, None), Color::Green, 4, ResumePoint::Begin),
            (
                "killed going back",
                recreate(Step::Up, Some(Decision::Undo)),
                Color::Green,
                4,
                ResumePoint::End(Decision::Undo),
            ),
            (
                "killed in the drain",
                release(Step::Drain, Some(Decision::Keep)),
                Color::Green,
                5,
                ResumePoint::End(Decision::Keep),
            ),
        ] {
            assert_eq!(resume_point(&release, Observed { active, epoch }), want, "{case}");
        }
    }
}
