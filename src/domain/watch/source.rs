//! One looping client, or one broken route that hardly anybody uses, is not the release.
//!
//! Before a color is found guilty, its worst client and its worst route are left out, each for itself. Where the rest
//! is served well, and is enough to have shown the same fault, the fault is that client's own: it is excluded, and the
//! others are judged on. A route is excluded in the same way as long as it is rare. At most one client and one route
//! are: what hits two hits more.

use super::sample::{Excluded, Outcomes, SOURCES, SourceCounts};
use crate::domain::verdict::{Batch, Bets};

/// Failures that the rest must have been expected to show, were the fault everybody's.
const EXPECTED: f64 = 5.0;
/// Evidence in the rest below which it is served well.
const CALM: f64 = 1.0;

/// What leaving the worst source out says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// It is the release.
    No,
    /// Others ask too, but not enough to tell yet.
    TooEarly,
    /// The fault is theirs alone.
    Yes(Excluded),
}

/// Who is alone with the failures of an episode, whose counts are `of`; `usual` are those since the flip. `rare` is the
/// share of requests below which a route is rare, `bets` are those that found the color guilty.
pub(super) fn alone(of: &SourceCounts, usual: &SourceCounts, already: Excluded, rare: f64, bets: &Bets) -> Isolation {
    let mut found = Isolation::No;
    for (sources, is_client) in [(&of.clients, true), (&of.routes, false)] {
        let taken = if is_client { already.client } else { already.route };
        let Some((at, worst, all)) = worst(sources).filter(|_| taken.is_none()) else { continue };
        // In the episode it is not: that begins with its failures.
        let is_rare = share(&usual.routes, at) <= rare;
        if !is_client && !is_rare {
            continue;
        }
        let rest = batch(all - worst);
        let evidence = bets.evidence_of(rest);
        let expected = rest.requests * all.bad as f64 / all.all() as f64;
        if evidence < CALM && expected >= EXPECTED {
            let excluded = Excluded {
                client: if is_client { Some(at) } else { already.client },
                route: if is_client { already.route } else { Some(at) },
            };
            return Isolation::Yes(excluded);
        }
        if evidence < CALM && rest.requests > 0.0 {
            found = Isolation::TooEarly;
        }
    }
    found
}

/// The share of all requests that source number `at` has.
fn share(sources: &[Outcomes; SOURCES], at: u8) -> f64 {
    let all: u64 = sources.iter().map(|source| source.all()).sum();
    sources[usize::from(at)].all() as f64 / all as f64
}

/// The source with the most bad ends, and the sum over all.
fn worst(sources: &[Outcomes; SOURCES]) -> Option<(u8, Outcomes, Outcomes)> {
    let mut all = Outcomes::default();
    sources.iter().for_each(|source| all += *source);
    let (at, worst) = sources.iter().enumerate().max_by_key(|(_, source)| source.bad)?;
    (worst.bad > 0).then_some((u8::try_from(at).ok()?, *worst, all))
}

pub(super) fn batch(ended: Outcomes) -> Batch {
    Batch::new(ended.all() as f64, ended.bad as f64)
}

/// What was counted since `before`.
pub(super) fn since(now: &SourceCounts, before: &SourceCounts) -> SourceCounts {
    let of = |now: &[Outcomes; SOURCES], before: &[Outcomes; SOURCES]| std::array::from_fn(|at| now[at] - before[at]);
    SourceCounts { clients: of(&now.clients, &before.clients), routes: of(&now.routes, &before.routes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(good: u64, bad: u64) -> Outcomes {
        Outcomes { good, bad }
    }

    /// Clients and routes by number; the others have nothing.
    fn spread(clients: &[Outcomes], routes: &[Outcomes]) -> SourceCounts {
        let mut spread = SourceCounts::default();
        spread.clients[..clients.len()].copy_from_slice(clients);
        spread.routes[..routes.len()].copy_from_slice(routes);
        spread
    }

    #[test]
    fn a_fault_is_a_source_s_own_where_the_others_are_served_well() {
        let bets = Bets::new(0.002, 1.0);
        let client = |client| Isolation::Yes(Excluded { client: Some(client), route: None });
        for (case, of, want) in [
            ("the only client", spread(&[ended(0, 50)], &[ended(0, 50)]), Isolation::No),
            ("a looping one", spread(&[ended(500, 0), ended(0, 50)], &[ended(500, 0), ended(0, 50)]), client(1)),
            ("too early", spread(&[ended(3, 0), ended(0, 50)], &[ended(3, 0), ended(0, 50)]), Isolation::TooEarly),
            ("two clients", spread(&[ended(0, 25), ended(0, 25)], &[ended(0, 50)]), Isolation::No),
            (
                "a rare route",
                spread(&[ended(990, 4), ended(990, 6)], &[ended(1980, 0), ended(0, 10)]),
                Isolation::Yes(Excluded { client: None, route: Some(1) }),
            ),
            (
                "a route that is not rare",
                spread(&[ended(500, 40), ended(500, 60)], &[ended(1000, 0), ended(0, 100)]),
                Isolation::No,
            ),
            ("an outage", spread(&[ended(500, 100), ended(500, 120)], &[ended(1000, 220)]), Isolation::No),
        ] {
            assert_eq!(alone(&of, &of, Excluded::default(), 0.02, &bets), want, "{case}");
        }
    }

    #[test]
    fn a_second_client_is_not_set_aside() {
        let of = spread(&[ended(500, 0), ended(0, 50)], &[ended(500, 50)]);
        let already = Excluded { client: Some(7), route: None };
        assert_eq!(alone(&of, &of, already, 0.02, &Bets::new(0.002, 1.0)), Isolation::No);
    }
}
