//! The rules of others, with the defaults or examples of their own documentation. Each says after how many requests the
//! new color is given up, or `None`. They are given all they could wish for: every request goes to the new color, every
//! failure is told at once, and what they do once they have decided takes no time.

use super::stream::Stream;

/// Flagger's `request-success-rate` of at least 99 in each `interval` of one minute (the values of its documentation);
/// a release is given up at the `failed`-th check that fails. Its examples wait for 5 or 10; 1 is the fastest there is.
fn flagger(stream: &Stream, failed: usize) -> Option<usize> {
    let minute = 60 * stream.recipe.rate;
    let checks = stream.new.chunks(minute).map(|answers| bad(answers) * 100 > answers.len());
    let failures = checks.enumerate().filter(|(_, fails)| *fails);
    failures.map(|(check, _)| (check + 1) * minute).nth(failed - 1)
}

/// Flagger at the first failed check.
pub fn flagger_1(stream: &Stream) -> Option<usize> {
    flagger(stream, 1)
}

/// Flagger at the fifth.
pub fn flagger_5(stream: &Stream) -> Option<usize> {
    flagger(stream, 5)
}

/// HAProxy's `observe layer7` with the documented `error-limit 10`: ten failures in a row, any good answer between them
/// begins the count anew. With `on-error mark-down`; the default, `fail-check`, counts as one failed probe only.
pub fn haproxy(stream: &Stream) -> Option<usize> {
    let mut row = 0;
    let given_up = stream.new.iter().position(|bad| {
        row = if *bad { row + 1 } else { 0 };
        row == 10
    });
    given_up.map(|at| at + 1)
}

/// A fixed threshold over a sliding window, as alerts and circuit breakers have it: more than 5 % of at least 20
/// requests of the last 10 s. Nobody's default; the numbers are as good as any.
pub fn sliding(stream: &Stream) -> Option<usize> {
    let span = 10 * stream.recipe.rate;
    let mut failed = 0;
    (0..stream.new.len()).find_map(|at| {
        failed += usize::from(stream.new[at]);
        failed -= usize::from(at >= span && stream.new[at - span]);
        let asked = span.min(at + 1);
        (asked >= 20 && failed * 20 > asked).then_some(at + 1)
    })
}

/// Failures among them.
pub fn bad(answers: &[bool]) -> usize {
    answers.iter().filter(|bad| **bad).count()
}
