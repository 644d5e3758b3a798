//! Our rule beside those of others, on the same seeded streams of requests:
//! `cargo run --release --example verdict_table`.
//!
//! How often is a good release taken back in a whole watch of 15 minutes, and what does a bad one cost until it is? The
//! numbers do not depend on the machine: the same seed prints the same tables. `--svg FILE` draws the picture of
//! `docs/verdict.md` instead.

mod ours;
mod peers;
mod picture;
mod stream;

use std::process::ExitCode;

use cutover::domain::verdict::DetectorConfig;
use cutover::domain::watch::Decision;
use ours::Trial;
use stream::{Recipe, Stream};

/// The rules, in the order of [`outcomes`].
const RULES: [&str; 5] = ["cutover", "Flagger, 1 check", "Flagger, 5 checks", "HAProxy", "sliding 10 s"];
const RATES: [usize; 3] = [5, 50, 500];
const BASELINES: [f64; 3] = [0.001, 0.01, 0.05];
/// What breaks: the share of failures that is added, and from which second on.
const FAULTS: [(f64, usize); 5] = [(1.0, 3), (0.2, 3), (0.05, 3), (1.0, 480), (0.05, 480)];

/// A release that was taken back.
#[derive(Clone, Copy)]
struct TakenBack {
    /// Failures since the fault began.
    failed: u64,
    /// Since then.
    seconds: f64,
}

fn main() -> ExitCode {
    let (mut seed, mut watches, mut svg) = (1, 500, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        let is_known = match arg.as_str() {
            "--seed" => value.parse().map(|value| seed = value).is_ok(),
            "--watches" => value.parse().map(|value: u64| watches = value.max(1)).is_ok(),
            "--svg" => {
                svg = Some(value);
                true
            }
            _ => false,
        };
        if !is_known {
            eprintln!("usage: verdict_table [--seed N] [--watches N] [--svg FILE]");
            return ExitCode::from(2);
        }
    }
    if let Some(file) = svg {
        return match std::fs::write(&file, picture::draw()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{file} cannot be written: {error}");
                ExitCode::FAILURE
            }
        };
    }
    println!("seed {seed}; `--seed {seed} --watches {watches}` prints the same again");
    let false_rollbacks = show_good(seed, watches);
    show_bad(seed, watches.min(101));
    let all = watches * (RATES.len() * BASELINES.len()) as u64;
    println!("\ncutover took back {false_rollbacks} of {all} good releases; at most 1 in 1000 is promised");
    if false_rollbacks > most_expected(all, DetectorConfig::DEFAULT.max_false_rollbacks) {
        eprintln!("that is more than chance explains: the promise is broken");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Good releases; returns how many of them our rule took back.
fn show_good(seed: u64, watches: u64) -> u64 {
    println!(
        "\nGood releases, as bad as the old color and no worse: taken back needlessly, of {watches} watches of 15 min"
    );
    println!("| requests/s | usual failures | {} |", RULES.join(" | "));
    println!("|---|---|{}", "---|".repeat(RULES.len()));
    let mut ours = 0;
    for rate in RATES {
        for baseline in BASELINES {
            let all = outcomes(Recipe { rate, baseline, fault: None }, seed, watches);
            let taken_back = all.map(|rule| rule.iter().flatten().count() as u64);
            ours += taken_back[0];
            println!("| {rate} | {:.1} % | {} |", baseline * 100.0, taken_back.map(|n| n.to_string()).join(" | "));
        }
    }
    ours
}

fn show_bad(seed: u64, watches: u64) {
    println!("\nBad releases, usual failures 0.1 %: failed requests and time until taken back, medians of {watches}");
    println!("| requests/s | fault | {} |", RULES.join(" | "));
    println!("|---|---|{}", "---|".repeat(RULES.len()));
    for rate in [50, 500] {
        for fault in FAULTS {
            let all = outcomes(Recipe { rate, baseline: 0.001, fault: Some(fault) }, seed, watches);
            let when = if fault.1 > 60 { format!(" after {} min", fault.1 / 60) } else { String::new() };
            println!("| {rate} | {:.0} %{when} | {} |", fault.0 * 100.0, all.map(|rule| median(&rule)).join(" | "));
        }
    }
}

/// What each rule does on the same streams.
fn outcomes(recipe: Recipe, seed: u64, watches: u64) -> [Vec<Option<TakenBack>>; RULES.len()] {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get()) as u64;
    let seeds =
        |thread| (0..watches).filter(move |watch| watch % threads == thread).map(move |watch| seed_of(seed, watch));
    let judged: Vec<[Option<TakenBack>; RULES.len()]> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || seeds(thread).map(|seed| judge(&Stream::new(recipe, seed))).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a thread that only counts")).collect()
    });
    std::array::from_fn(|rule| judged.iter().map(|each| each[rule]).collect())
}

/// Far apart, so that two bases share no stream.
fn seed_of(base: u64, watch: u64) -> u64 {
    base.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(watch)
}

fn judge(stream: &Stream) -> [Option<TakenBack>; RULES.len()] {
    let peers = [peers::flagger_1, peers::flagger_5, peers::haproxy, peers::sliding];
    let mut judged = [ours(stream); RULES.len()];
    for (place, rule) in judged[1..].iter_mut().zip(peers) {
        *place = rule(stream).map(|asked| {
            let from = stream.fault().min(asked);
            let failed = peers::bad(&stream.new[from..asked.min(stream.new.len())]) as u64;
            TakenBack { failed, seconds: (asked - from) as f64 / stream.recipe.rate as f64 }
        });
    }
    judged
}

fn ours(stream: &Stream) -> Option<TakenBack> {
    let mut trial = Trial::new(stream, DetectorConfig::DEFAULT);
    let mut before = 0;
    loop {
        if trial.asked() == stream.fault() {
            before = trial.failed();
        }
        match trial.ask()? {
            Decision::RollBack(_) => break,
            Decision::Hold => {}
            Decision::Keep | Decision::NotEnoughTraffic | Decision::NowhereToGo(_) => return None,
        }
    }
    let asked = trial.asked().saturating_sub(stream.fault());
    Some(TakenBack { failed: trial.failed() - before, seconds: asked as f64 / stream.recipe.rate as f64 })
}

/// Of those that were taken back; "never" where at least half were not.
fn median(outcomes: &[Option<TakenBack>]) -> String {
    let mut found: Vec<_> = outcomes.iter().flatten().collect();
    let middle = outcomes.len() / 2;
    if found.len() <= middle {
        return "never".to_owned();
    }
    found.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let seconds = found[middle].seconds;
    found.sort_by_key(|one| one.failed);
    format!("{}, {seconds:.1} s", found[middle].failed)
}

/// So many of `all`, each with the chance `share`, are passed by chance once in a million.
fn most_expected(all: u64, share: f64) -> u64 {
    let mean = all as f64 * share;
    let mut term = (-mean).exp();
    let mut below = term;
    let mut most = 0;
    while 1.0 - below > 1e-6 {
        most += 1;
        term *= mean / most as f64;
        below += term;
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_releases_stay_within_the_promise() {
        let mut taken_back = 0;
        for (rate, watches) in [(5, 12), (50, 8), (500, 2)] {
            for baseline in BASELINES {
                let all = outcomes(Recipe { rate, baseline, fault: None }, 1, watches);
                taken_back += all[0].iter().flatten().count() as u64;
            }
        }
        assert!(taken_back <= most_expected(66, 0.001), "{taken_back} of 66");
    }

    #[test]
    fn bad_releases_are_taken_back_sooner_than_by_others() {
        for fault in [(1.0, 3), (0.2, 3), (0.05, 60)] {
            let [ours, others @ ..] = outcomes(Recipe { rate: 50, baseline: 0.001, fault: Some(fault) }, 1, 5);
            let cost = |rule: &[Option<TakenBack>]| {
                rule.iter().map(|one| one.map_or(u64::MAX, |one| one.failed)).max().unwrap_or_default()
            };
            assert!(cost(&ours) < u64::MAX, "{fault:?}");
            // HAProxy's ten in a row is as good where everything fails, and finds nothing else.
            for (rule, outcomes) in
                RULES[1..].iter().zip(&others).filter(|(rule, _)| **rule != "HAProxy" || fault.0 < 1.0)
            {
                assert!(cost(&ours) < cost(outcomes), "{rule} {fault:?}: {} and {}", cost(&ours), cost(outcomes));
            }
        }
    }

    #[test]
    fn the_picture_in_the_docs_is_of_this_rule() {
        let drawn = picture::draw();
        let is_same = drawn == include_str!("../../docs/verdict.svg");
        assert!(is_same, "docs/verdict.svg is stale: cargo run --example verdict_table -- --svg docs/verdict.svg");
    }
}
