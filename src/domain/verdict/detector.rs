//! Everything that is weighed at a look: the evidence of one or more criteria, the doubt, the comparison, the finding.
//!
//! Doubt comes long before guilt, at a hundredth of the evidence that a rollback needs. From then on the two colors may
//! share the traffic, and their comparison decides whether the fault is the new color's own. A fault of both is
//! nobody's reason to go back: its evidence is forgotten, or it would convict the new color minutes after the fault is
//! over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bets::{BETS, Bets};
use super::comparison::Comparison;
use super::evidence::{Evidence, Stake};
use super::{Batch, DetectorConfig};

/// Evidence at which a doubt begins.
const DOUBT: f64 = 20.0;
/// Evidence below which all is calm: a doubt ends, and the next bad request begins an episode.
const CALM: f64 = 1.0;
/// The comparison's odds that decide, either way.
pub const CORROBORATED: f64 = 20.0;
/// The strict evidence of a warm-up is heard for this much longer than the warm-up, so that a doubt does not flicker.
const AFTER_WARM_UP: Duration = Duration::from_secs(1);
/// Since a shared fault, before a new doubt begins the comparison anew.
const SETTLING: Duration = Duration::from_secs(10);
/// Shared faults further apart than this are two.
const SHARED_GAP: Duration = Duration::from_secs(1);
/// A shared fault that begins so soon after the flip …
const SUSPECT_WITHIN: Duration = Duration::from_secs(60);
/// … and lasts so long is blamed on the new color: it may have broken what both need.
const SUSPECT_AFTER: Duration = Duration::from_secs(5);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Nothing to speak of.
    Calm,
    /// Something speaks against the new color: it should keep only a share of the traffic until it is settled.
    Doubt,
    /// Both colors suffer; going back would not help.
    Shared,
    /// It is the new color: it should be taken back.
    Guilty,
}

/// Whose word a detector needs to call the new color guilty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corroboration {
    /// The old color's as well: it must have been seen to do better in the same seconds.
    BothColors,
    /// The new color's alone, where the old one cannot be asked, or the fault (a refused connection) cannot be shared.
    NewColor,
}

/// What is told to a detector of `CRITERIA` criteria at a look; every count is of what ended since the last one.
#[derive(Clone, Copy, Debug)]
pub struct Observation<const CRITERIA: usize> {
    /// Since the flip.
    pub now: Duration,
    /// When the last look was: since then the counts were made. What began in the warm-up is judged mildly.
    pub since: Duration,
    /// Of the new color.
    pub new: [Batch; CRITERIA],
    /// Of the old color, and begun while the traffic was split.
    pub old: [Batch; CRITERIA],
    /// What of `new` was begun while the traffic was split, too.
    pub compared: [Batch; CRITERIA],
    /// Whether the traffic is split.
    pub is_split: bool,
    /// Requests of the new color that have not ended; 0 for criteria that judge by age.
    pub in_flight: f64,
    /// Whose word is needed.
    pub corroboration: Corroboration,
}

/// The bad requests since evidence was last calm: what a finding is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Since the flip.
    pub began: Duration,
    /// Requests since then, and the bad ones; of the criterion with the most evidence.
    pub seen: Batch,
    /// Which criterion that is.
    pub criterion: usize,
}

/// One question about each request: did it fail, is it slower than half of the old ones were, …
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Criterion {
    strict: Bets,
    /// For the warm-up; `None` where it is not judged then at all.
    mild: Option<Bets>,
    evidence: Evidence,
    /// What the strict bets would say in the warm-up: enough for a doubt, never for a verdict.
    early: Evidence,
    comparison: Comparison,
    episode: Batch,
}

/// How a criterion begins.
pub(super) struct CriterionSpec {
    /// The share to be tolerated.
    pub(super) tolerated: f64,
    /// The same in the warm-up, where it is judged then.
    pub(super) tolerated_early: Option<f64>,
    /// What evidence is divided by.
    pub(super) dispersion: f64,
}

/// A fault of both colors.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct SharedFault {
    since: Duration,
    last: Duration,
}

/// A running judgement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Detector<const CRITERIA: usize> {
    #[serde(with = "crate::domain::listed")]
    criteria: [Criterion; CRITERIA],
    rule: DetectorConfig,
    bar: f64,
    /// Whether the strict evidence is heard in the warm-up.
    hears_early: bool,
    in_warm_up: bool,
    in_doubt: bool,
    /// After the last look: the mean over the criteria, and what of it is left if everything in flight turns out good.
    sum: f64,
    seen: f64,
    episode: Episode,
    shared: Option<SharedFault>,
}

impl<const CRITERIA: usize> Detector<CRITERIA> {
    /// A detector at the flip. `rate` is the old color's, in requests per second.
    pub(super) fn new(
        criteria: [CriterionSpec; CRITERIA],
        bar: f64,
        rate: f64,
        rule: DetectorConfig,
        hears_early: bool,
    ) -> Self {
        let evidence = Evidence::new(rule.starts(rate));
        let criteria = criteria.map(|CriterionSpec { tolerated, tolerated_early, dispersion }| Criterion {
            strict: Bets::new(tolerated, dispersion),
            mild: tolerated_early.map(|early| Bets::new(early.max(tolerated), dispersion)),
            evidence,
            early: evidence,
            comparison: Comparison::new(tolerated),
            episode: Batch::default(),
        });
        Detector {
            criteria,
            rule,
            bar,
            hears_early,
            in_warm_up: true,
            in_doubt: false,
            sum: 0.0,
            seen: 0.0,
            episode: Episode::default(),
            shared: None,
        }
    }

    /// Takes a look in and says what is found.
    pub fn look(&mut self, look: Observation<CRITERIA>) -> Detection {
        let warms_up = look.since < self.rule.warm_up;
        let has_warmed_up = self.in_warm_up && !warms_up;
        self.in_warm_up = warms_up;
        self.note_episode(&look);
        let early = if warms_up && self.hears_early { self.hear_early(&look) } else { 0.0 };
        self.weigh(&look, if has_warmed_up { Stake::Large } else { Stake::Usual });
        let mut worse = self.compare(&look, has_warmed_up);
        if self.enter_or_leave_doubt(look.now, early) {
            self.begin_comparison(early);
            worse = 1.0;
        }
        let is_guilty = self.seen >= self.bar && self.episode.seen.bad >= f64::from(self.rule.min_failures);
        let was_asked = look.old.iter().any(|old| old.requests > 0.0);
        match look.corroboration {
            Corroboration::NewColor if is_guilty => Detection::Guilty,
            Corroboration::BothColors if is_guilty && worse >= CORROBORATED => Detection::Guilty,
            Corroboration::BothColors if is_guilty && was_asked && worse <= 1.0 / CORROBORATED => self.share(look.now),
            Corroboration::NewColor | Corroboration::BothColors if self.in_doubt => Detection::Doubt,
            Corroboration::NewColor | Corroboration::BothColors => Detection::Calm,
        }
    }

    /// Takes in what began in the warm-up and ended after it: it is judged as mildly as the rest of the warm-up was.
    pub fn hear_late(&mut self, new: [Batch; CRITERIA]) {
        for (criterion, new) in self.criteria.iter_mut().zip(new).filter(|(_, new)| new.requests > 0.0) {
            if let Some(mild) = &criterion.mild {
                criterion.evidence.look(mild, new, Stake::Usual);
                criterion.episode += new;
            }
        }
    }

    /// The bets of the first criterion that are in force.
    pub fn bets(&self) -> &Bets {
        let criterion = &self.criteria[0];
        criterion.mild.as_ref().filter(|_| self.in_warm_up).unwrap_or(&criterion.strict)
    }

    /// How much speaks against the new color, as a natural logarithm.
    pub fn ln_evidence(&self) -> f64 {
        self.sum.ln()
    }

    /// How far the new color is on its way to a verdict: 0.0 not at all, 1.0 there. Logarithmic, so that equal faults
    /// are equal steps.
    pub fn progress(&self) -> f64 {
        let weight = (self.seen.ln() / self.bar.ln()).min(self.episode.seen.bad / f64::from(self.rule.min_failures));
        // Evidence of 0 has a logarithm of minus infinity, and is no step at all.
        weight.clamp(0.0, 1.0)
    }

    /// The bad requests since all was calm.
    pub fn episode(&self) -> Episode {
        self.episode
    }

    /// Whether nothing speaks against the new color any more.
    pub fn is_calm(&self) -> bool {
        self.sum < CALM
    }

    /// Whether the last look was into the warm-up.
    pub fn is_in_warm_up(&self) -> bool {
        self.in_warm_up
    }

    /// Whether the new color should keep only a share of the traffic.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// How much says that the new color is worse than the old one at the same time, as a natural logarithm.
    pub fn ln_worse(&self) -> f64 {
        self.criteria.iter().map(|criterion| criterion.comparison.worse()).sum::<f64>().ln()
    }

    /// Whether a criterion of this detector's, from the flip on, would have found `share` of bad ones in that many
    /// requests.
    pub fn would_find(&self, share: f64, requests: f64) -> bool {
        let needed = (self.bar / Evidence::new(1.0).sum() * BETS as f64).ln();
        let by_bets = self.criteria.iter().any(|criterion| requests * criterion.strict.best_growth(share) >= needed);
        by_bets && requests * share >= f64::from(self.rule.min_failures)
    }

    /// Drops the evidence, where it cannot be acted on: when the way back opens, what counts is whether the fault is
    /// still there, not how bad it has been. What is held back stays, so that it is found again at once.
    pub fn forget(&mut self) {
        (self.sum, self.seen) = (0.0, 0.0);
        self.criteria.iter_mut().for_each(|criterion| criterion.evidence.forget());
    }

    fn note_episode(&mut self, look: &Observation<CRITERIA>) {
        if self.is_calm() {
            self.episode.began = look.since;
            self.criteria.iter_mut().for_each(|criterion| criterion.episode = Batch::default());
        }
        for (criterion, new) in self.criteria.iter_mut().zip(look.new) {
            criterion.episode += judged(criterion.mild.as_ref(), self.in_warm_up, new);
        }
        let by_evidence =
            |a: &(usize, &Criterion), b: &(usize, &Criterion)| a.1.evidence.sum().total_cmp(&b.1.evidence.sum());
        if let Some((criterion, worst)) = self.criteria.iter().enumerate().max_by(by_evidence) {
            (self.episode.criterion, self.episode.seen) = (criterion, worst.episode);
        }
    }

    fn hear_early(&mut self, look: &Observation<CRITERIA>) -> f64 {
        let hear =
            |(criterion, new): (&mut Criterion, Batch)| criterion.early.look(&criterion.strict, new, Stake::Usual);
        self.criteria.iter_mut().zip(look.new).map(hear).sum::<f64>() / CRITERIA as f64
    }

    fn weigh(&mut self, look: &Observation<CRITERIA>, stake: Stake) {
        (self.sum, self.seen) = (0.0, 0.0);
        for (criterion, new) in self.criteria.iter_mut().zip(look.new) {
            let bets = criterion.mild.as_ref().filter(|_| self.in_warm_up).unwrap_or(&criterion.strict);
            let batch = judged(criterion.mild.as_ref(), self.in_warm_up, new);
            self.sum += criterion.evidence.look(bets, batch, stake) / CRITERIA as f64;
            self.seen += criterion.evidence.sum_if_good(bets, look.in_flight) / CRITERIA as f64;
        }
    }

    fn compare(&mut self, look: &Observation<CRITERIA>, begins: bool) -> f64 {
        for ((criterion, new), old) in self.criteria.iter_mut().zip(look.compared).zip(look.old) {
            if begins {
                criterion.comparison.begin([1.0 / (BETS * CRITERIA) as f64; BETS]);
            }
            if look.is_split {
                criterion.comparison.look(new, old);
            } else {
                criterion.comparison.drop_block();
            }
        }
        self.criteria.iter().map(|criterion| criterion.comparison.worse()).sum()
    }

    /// Returns whether a doubt has begun that the comparison is to settle.
    fn enter_or_leave_doubt(&mut self, now: Duration, early: f64) -> bool {
        let alarm = self.sum.max(early);
        let lasts = self.in_doubt && (alarm >= CALM || now < self.rule.warm_up + AFTER_WARM_UP);
        let was_in_doubt = std::mem::replace(&mut self.in_doubt, alarm >= DOUBT || lasts);
        let has_settled = self.shared.is_none_or(|shared| now.saturating_sub(shared.last) > SETTLING);
        self.in_doubt && !was_in_doubt && has_settled
    }

    /// The comparison begins with what raised the doubt: the bets in their present proportions.
    fn begin_comparison(&mut self, early: f64) {
        let is_early = early > self.sum;
        let raised = |criterion: &Criterion| if is_early { criterion.early } else { criterion.evidence };
        let whole: f64 = self.criteria.iter().map(|criterion| raised(criterion).sum()).sum();
        for criterion in &mut self.criteria {
            let evidence = raised(criterion);
            let part = evidence.sum() / whole;
            criterion.comparison.begin(evidence.proportions().map(|share| share * part));
        }
    }

    fn share(&mut self, now: Duration) -> Detection {
        let goes_on = self.shared.filter(|shared| now.saturating_sub(shared.last) <= SHARED_GAP);
        let since = goes_on.map_or(now, |shared| shared.since);
        self.shared = Some(SharedFault { since, last: now });
        self.forget();
        if since <= SUSPECT_WITHIN && now.saturating_sub(since) >= SUSPECT_AFTER {
            Detection::Guilty
        } else {
            Detection::Shared
        }
    }
}

/// What of `new` counts: nothing in the warm-up for a criterion that is not judged then.
fn judged(mild: Option<&Bets>, in_warm_up: bool, new: Batch) -> Batch {
    if in_warm_up && mild.is_none() { Batch::default() } else { new }
}
