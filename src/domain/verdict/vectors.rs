//! Known answers: `vectors.tsv` holds what an independent implementation of the same formulas gives.
//!
//! A name says what was fed in; "10/2" is two bad ones among ten requests. Evidence is a natural logarithm. The
//! detectors are fed one look per 100 ms until they are done; the answer is the number of the look that found
//! something.

use std::time::Duration;

use super::evidence::Stake;
use super::failures::failure_detector;
use super::slowness::slowness_detector;
use super::*;

const TABLE: &str = include_str!("vectors.tsv");
/// Absolute, on logarithms.
const PRECISION: f64 = 1e-9;
const TOLERATED: f64 = 0.002;

/// The answers of this implementation, by name.
#[derive(Default)]
struct Answers(Vec<(String, f64)>);

impl Answers {
    fn note(&mut self, name: impl Into<String>, answer: f64) {
        self.0.push((name.into(), answer));
    }
}

fn of(requests: u32, bad: u32) -> Batch {
    Batch::new(f64::from(requests), f64::from(bad))
}

#[test]
fn all_are_met() {
    let mut answers = Answers::default();
    tolerances(&mut answers);
    bets(&mut answers);
    evidence_of_a_busy_service(&mut answers);
    evidence_after_long_peace(&mut answers);
    evidence_with_requests_in_flight(&mut answers);
    evidence_in_the_warm_up(&mut answers);
    histories(&mut answers);
    comparisons(&mut answers);
    detectors_of_failures(&mut answers);
    for rate in [0.2, 20.0, 50.0, 1000.0] {
        answers.note(format!("kept share at {rate}/s"), kept_share(rate));
    }
    detectors_of_slowness(&mut answers);

    let wanted = TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, number) = line.split_once('\t').expect("a name, a tab, a number");
        (name, number.parse::<f64>().expect("a number"))
    });
    let wanted: Vec<_> = wanted.collect();
    assert_eq!((wanted.len(), answers.0.len()), (84, 84));
    for ((name, wanted), (asked, answer)) in wanted.into_iter().zip(answers.0) {
        assert_eq!(name, asked, "the order of the table");
        assert!((wanted - answer).abs() <= PRECISION, "{name}: {answer} instead of {wanted}");
    }
}

fn tolerances(answers: &mut Answers) {
    for (requests, bad) in [(72_000, 0), (72_000, 72), (17_280, 0), (100, 3), (6_000_000, 60_000), (0, 0)] {
        answers.note(format!("upper bound of {requests}/{bad}"), upper_bound(of(requests, bad), f64::ln(4_000.0)));
    }
    for (requests, bad, dispersion) in [
        (72_000, 0, 1.0),
        (72_000, 72, 1.0),
        (72_000, 72, 8.0),
        (6_000_000, 60_000, 1.0),
        (40, 0, 1.0),
        (0, 0, 1.0),
        (100, 30, 1.0),
    ] {
        let share = tolerated_share(of(requests, bad), dispersion, &DetectorConfig::default());
        answers.note(format!("tolerated after {requests}/{bad}, dispersion {dispersion}"), share);
    }
}

fn bets(answers: &mut Answers) {
    for (tolerated, dispersion) in [(TOLERATED, 1.0), (0.3, 1.0), (TOLERATED, 4.0)] {
        let bets = Bets::new(tolerated, dispersion);
        for at in [0, 3, 7] {
            let (gain, loss) = bets.gain_and_loss(at);
            answers.note(format!("gain of bet {at} against {tolerated}, dispersion {dispersion}"), gain);
            answers.note(format!("loss of bet {at} against {tolerated}, dispersion {dispersion}"), loss);
        }
    }
}

fn evidence_of_a_busy_service(answers: &mut Answers) {
    let (bets, mut evidence) = (Bets::new(TOLERATED, 1.0), Evidence::new(9_000.0));
    let batches = [(10, 0), (10, 0), (10, 1), (0, 0), (10, 2), (10, 0), (10, 5), (2_000, 2_000), (2_000, 0)];
    for (at, (requests, bad)) in batches.into_iter().enumerate() {
        let sum = evidence.look(&bets, of(requests, bad), Stake::Usual);
        answers.note(format!("busy {at}: evidence after {requests}/{bad}"), sum.ln());
    }
    answers.note("busy: held back", evidence.held_back());
    let sum = evidence.look(&bets, of(10, 0), Stake::Large);
    answers.note("busy 9: evidence after 10/0 with the large stake", sum.ln());
    answers.note("busy: held back after the large stake", evidence.held_back());
}

fn evidence_after_long_peace(answers: &mut Answers) {
    let (bets, mut evidence) = (Bets::new(TOLERATED, 1.0), Evidence::new(9_000.0));
    for _ in 0..4_800 {
        evidence.look(&bets, of(100, 0), Stake::Usual);
    }
    answers.note("late: evidence after 4800 times 100/0", evidence.sum().ln());
    answers.note("late: held back", evidence.held_back());
    for (at, bad) in [1, 5, 5].into_iter().enumerate() {
        let sum = evidence.look(&bets, of(100, bad), Stake::Usual);
        answers.note(format!("late {at}: evidence after 100/{bad}"), sum.ln());
    }
}

fn evidence_with_requests_in_flight(answers: &mut Answers) {
    let (bets, mut evidence) = (Bets::new(TOLERATED, 1.0), Evidence::new(181.0));
    for (at, bad) in [1, 1, 0, 1].into_iter().enumerate() {
        let sum = evidence.look(&bets, of(1, bad), Stake::Usual);
        answers.note(format!("quiet {at}: evidence after 1/{bad}"), sum.ln());
        answers.note(format!("quiet {at}: the same with 3 in flight"), evidence.sum_if_good(&bets, 3.0).ln());
    }
}

fn evidence_in_the_warm_up(answers: &mut Answers) {
    let (mild, mut evidence) = (Bets::new(0.3, 1.0), Evidence::new(9_000.0));
    for (at, bad) in [2, 10].into_iter().enumerate() {
        let sum = evidence.look(&mild, of(10, bad), Stake::Usual);
        answers.note(format!("warm-up {at}: evidence after 10/{bad}"), sum.ln());
    }
    answers.note("warm-up 1: the same with 3 in flight", evidence.sum_if_good(&mild, 3.0).ln());
}

fn histories(answers: &mut Answers) {
    let rule = DetectorConfig::default();
    let mut history = [of(20, 0); 60];
    history[30] = of(20, 12);
    leave_outages_out(&mut history);
    answers.note("dispersion of 60 s of 20/0, one second of them 20/12", dispersion(&history, &rule));
    history[30..34].fill(of(20, 15));
    leave_outages_out(&mut history);
    let left: Batch = history.iter().copied().sum();
    answers.note("requests left of 60 s of 20/0, four seconds of them 20/15", left.requests);
    answers.note("dispersion of what is left", dispersion(&history, &rule));
    history.fill(of(20, 0));
    history[30] = of(20, 20);
    answers.note("dispersion against 0.01 of 60 s of 20/0, one second of them 20/20", dispersion_at(&history, 0.01));
}

fn comparisons(answers: &mut Answers) {
    let mut comparison = Comparison::new(TOLERATED);
    for (at, (new, old)) in [
        (of(1, 1), of(1, 0)),
        (of(2, 2), of(2, 0)),
        (of(10, 0), of(10, 0)),
        (of(5, 5), of(5, 5)),
        (of(0, 0), of(0, 0)),
        (of(7, 7), of(0, 0)),
        (of(500, 50), of(500, 0)),
    ]
    .into_iter()
    .enumerate()
    {
        comparison.look(new, old);
        let shown = [new.requests, new.bad, old.requests, old.bad].map(|n| n.to_string());
        let [n, k, m, f] = shown;
        answers.note(format!("comparison {at}: worse after new {n}/{k}, old {m}/{f}"), comparison.worse().ln());
    }
}

/// The look number `at` of a detector that began `begin_ms` after the flip.
fn look<const CRITERIA: usize>(
    begin_ms: u64,
    at: u64,
    new: [Batch; CRITERIA],
    old: [Batch; CRITERIA],
    is_split: bool,
) -> Observation<CRITERIA> {
    let now = Duration::from_millis(begin_ms + 100 * at);
    Observation {
        now,
        since: now,
        new,
        old,
        compared: new,
        is_split,
        in_flight: 0.0,
        corroboration: Corroboration::BothColors,
    }
}

/// Number of the first look with a verdict; -1 without one.
fn guilty_at(mut looks: impl Iterator<Item = Detection>) -> f64 {
    looks.position(|finding| finding == Detection::Guilty).map_or(-1.0, |at| at as f64)
}

fn detectors_of_failures(answers: &mut Answers) {
    let none = Batch::default();
    for (name, begin_ms, alone, shared) in [
        ("dead at once", 0, of(4, 4), [of(2, 2), of(2, 0)]),
        ("dead at once, the old color as well", 0, of(4, 4), [of(2, 2), of(2, 2)]),
        ("a tenth bad after the warm-up", 2_000, of(20, 2), [of(10, 1), of(10, 0)]),
        ("both dead 70 s after the flip", 70_000, of(4, 4), [of(2, 2), of(2, 2)]),
    ] {
        let mut detector = failure_detector(TOLERATED, 40.0, 1.0, DetectorConfig::default());
        let found = guilty_at((0..200).map(|at| {
            let is_split = detector.is_in_doubt();
            let [new, old] = if is_split { shared } else { [alone, none] };
            detector.look(look(begin_ms, at, [new], [old], is_split))
        }));
        answers.note(format!("detector of failures: {name}"), found);
    }
    let mut detector = failure_detector(TOLERATED, 1_000.0, 1.0, DetectorConfig::default());
    let mut doubted = None;
    for at in 0..60 {
        let is_split = detector.is_in_doubt();
        let stumbles = at < 20;
        let [new, old] = match (is_split, stumbles) {
            (true, true) => [of(10, 1), of(90, 0)],
            (true, false) => [of(10, 0), of(90, 0)],
            (false, true) => [of(100, 5), none],
            (false, false) => [of(100, 0), none],
        };
        detector.look(look(0, at, [new], [old], is_split));
        doubted = doubted.or(detector.is_in_doubt().then_some(at));
    }
    answers.note("detector of failures: the doubt in a warm-up of 5 % bad", doubted.map_or(-1.0, |at| at as f64));
    answers.note("detector of failures: evidence 4 s after that warm-up", detector.ln_evidence());
}

fn detectors_of_slowness(answers: &mut Answers) {
    for (name, begin_ms) in [("after the warm-up", 2_000), ("from the flip on", 0)] {
        let mut detector = slowness_detector(40.0, [1.0; 3], DetectorConfig::default());
        let found = guilty_at((0..200).map(|at| {
            let is_split = detector.is_in_doubt();
            let (new, old) = if is_split {
                ([of(2, 2), of(2, 1), of(2, 0)], [of(2, 1), of(2, 0), of(2, 0)])
            } else {
                ([of(4, 4), of(4, 2), of(4, 0)], [Batch::default(); 3])
            };
            detector.look(look(begin_ms, at, new, old, is_split))
        }));
        answers.note(format!("detector of slowness: slow {name}"), found);
        answers.note(format!("detector of slowness: evidence then, slow {name}"), detector.ln_evidence());
    }
}
