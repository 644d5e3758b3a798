//! What happens: the requests of one watch, and the hour before it. Every rule is shown the same.

use cutover::domain::verdict::Batch;

/// How long a watch lasts, in seconds.
pub const WINDOW: usize = 900;
/// How much of the old color's past is known, in seconds.
const HISTORY: usize = 3600;

/// What a stream is made of.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// Requests per second, evenly spaced.
    pub rate: usize,
    /// The share of failures of the old color, and of the new one as long as it is good.
    pub baseline: f64,
    /// What is added to it, and from which second after the flip on.
    pub fault: Option<(f64, usize)>,
}

/// The requests of one watch.
pub struct Stream {
    pub recipe: Recipe,
    pub seed: u64,
    /// Second by second, before the flip.
    pub history: Vec<Batch>,
    /// For each request, whether the new color fails it.
    pub new: Vec<bool>,
    /// Likewise the old one.
    pub old: Vec<bool>,
}

impl Stream {
    pub fn new(recipe: Recipe, seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let Recipe { rate, baseline, fault } = recipe;
        let past = fates(&mut dice, HISTORY * rate, baseline);
        let history =
            past.chunks(rate).map(|second| Batch::new(rate as f64, second.iter().filter(|bad| **bad).count() as f64));
        let history = history.collect();
        let old = fates(&mut dice, WINDOW * rate, baseline);
        let (added, from) = fault.unwrap_or((0.0, WINDOW));
        let mut new = fates(&mut dice, from * rate, baseline);
        new.extend(fates(&mut dice, (WINDOW - from) * rate, (baseline + added).min(1.0)));
        Stream { recipe, seed, history, new, old }
    }

    /// The first request that a fault can fail.
    pub fn fault(&self) -> usize {
        self.recipe.fault.map_or(0, |(_, from)| from * self.recipe.rate)
    }
}

/// Which of `count` requests fail, each with the chance `share`. Drawn from failure to failure: most requests are good.
fn fates(dice: &mut fastrand::Rng, count: usize, share: f64) -> Vec<bool> {
    let mut fates = vec![share >= 1.0; count];
    let mut at = 0;
    while (0.0..1.0).contains(&share) && share > 0.0 {
        // 1 - f64() is above 0, and a skip that is too large for the stream ends it.
        at += ((1.0 - dice.f64()).ln() / (1.0 - share).ln()) as usize;
        let Some(fate) = fates.get_mut(at) else { break };
        *fate = true;
        at += 1;
    }
    fates
}
