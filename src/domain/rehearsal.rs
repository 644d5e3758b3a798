//! What a rehearsal has shown: where the idle color answers otherwise than the active one, and whether that is noise.
//!
//! A field that differs between two answers of the *active* color is noise on its route, from then on and for what was
//! compared before. So nothing is decided while answers come in; the counts are made of what is known when they are asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Routes that are told apart; what more there are goes under one name.
const ROUTES_MAX: usize = 200;
/// Sets of differing fields that are told apart on one route.
const KINDS_MAX: usize = 20;
/// The name of the rest.
const REST: &str = "(the rest)";
/// Latencies that the medians are made of: the last ones.
const LATENCIES_MAX: usize = 500;

/// One thing in which two answers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `status`, `header location`, `body`, or a path in the JSON: `$.items[].price`.
    pub field: String,
    /// What the active color said.
    pub was: String,
    /// What the idle color says.
    pub is: String,
}

/// One request that both colors have answered.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Method and path, with `*` for what looks like an id.
    pub route: String,
    /// Method and path, without the values of the query.
    pub example: String,
    /// Empty: the same.
    pub differences: Vec<Difference>,
    /// Fields in which two answers of the active color differ.
    pub noise: Vec<String>,
    /// How long the active and the idle color took.
    pub took: [Duration; 2],
}

/// What one comparison came to, as far as is known at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// No difference.
    Same,
    /// A difference that counts.
    Different,
    /// Nothing but what differs on the active color as well.
    Noise,
}

/// Comparisons that showed the same set of differing fields on one route.
#[derive(Debug)]
struct Kind {
    count: u64,
    /// Its first one, counted from the first of all.
    first: u64,
    example: String,
    differences: Vec<Difference>,
}

#[derive(Debug, Default)]
struct Route {
    same: u64,
    kinds: BTreeMap<Vec<String>, Kind>,
    noise: BTreeSet<String>,
}

impl Route {
    fn is_noise(&self, field: &str) -> bool {
        // Below a field that comes and goes, everything comes and goes.
        let covers = |noise: &String| {
            field.strip_prefix(noise.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.noise.iter().any(covers)
    }

    /// The kinds that count, with those of their differences that do.
    fn counted(&self) -> impl Iterator<Item = (&Kind, Vec<&Difference>)> {
        self.kinds.values().filter_map(|kind| {
            let counted: Vec<_> = kind.differences.iter().filter(|found| !self.is_noise(&found.field)).collect();
            (!counted.is_empty()).then_some((kind, counted))
        })
    }

    fn compared(&self) -> u64 {
        self.same + self.kinds.values().map(|kind| kind.count).sum::<u64>()
    }
}

/// Everything that was compared since the rehearsal began.
#[derive(Debug, Default)]
pub struct Results {
    routes: BTreeMap<String, Route>,
    latencies: VecDeque<[Duration; 2]>,
    compared: u64,
}

/// The numbers of a rehearsal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that both colors have answered.
    pub compared: u64,
    /// Those answered differently.
    pub different: u64,
    /// Those that differ only in what differs on the active color as well.
    pub noise: u64,
}

impl Totals {
    /// Differing ones among the compared, 0.0 to 1.0.
    pub fn share(&self) -> f64 {
        if self.compared == 0 { 0.0 } else { self.different as f64 / self.compared as f64 }
    }
}

/// One route on which answers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Method and path.
    pub route: String,
    /// Requests compared on it.
    pub compared: u64,
    /// Those answered differently.
    pub different: u64,
    /// One of them.
    pub example: String,
    /// In what that one differs.
    pub differences: Vec<Difference>,
}

impl Results {
    /// Takes a comparison in.
    pub fn add(&mut self, comparison: Comparison) -> Sameness {
        let Comparison { route, example, differences, noise, took } = comparison;
        if self.latencies.len() == LATENCIES_MAX {
            self.latencies.pop_front();
        }
        self.latencies.push_back(took);
        self.compared += 1;
        let is_new = !self.routes.contains_key(&route);
        let name = if is_new && self.routes.len() >= ROUTES_MAX { REST.to_owned() } else { route };
        let route = self.routes.entry(name).or_default();
        route.noise.extend(noise);
        if differences.is_empty() {
            route.same += 1;
            return Sameness::Same;
        }
        let is_noise = differences.iter().all(|found| route.is_noise(&found.field));
        let mut fields: Vec<_> = differences.iter().map(|found| found.field.clone()).collect();
        if route.kinds.len() >= KINDS_MAX && !route.kinds.contains_key(&fields) {
            fields = vec![REST.to_owned()];
        }
        let fresh = Kind { count: 0, first: self.compared, example, differences };
        route.kinds.entry(fields).or_insert(fresh).count += 1;
        if is_noise { Sameness::Noise } else { Sameness::Different }
    }

    /// Whether the differences in `fields` of `route` are all known as noise.
    pub fn knows_as_noise<'f>(&self, route: &str, mut fields: impl Iterator<Item = &'f str>) -> bool {
        self.routes.get(route).is_some_and(|route| fields.all(|field| route.is_noise(field)))
    }

    /// The numbers.
    pub fn totals(&self) -> Totals {
        let differing = |route: &Route| route.kinds.values().map(|kind| kind.count).sum::<u64>();
        let counted = |route: &Route| route.counted().map(|(kind, _)| kind.count).sum::<u64>();
        let different = self.routes.values().map(counted).sum();
        let noise = self.routes.values().map(differing).sum::<u64>() - different;
        Totals { compared: self.compared, different, noise }
    }

    /// The routes with differences, those with the most first.
    pub fn findings(&self) -> Vec<Finding> {
        let finding = |(name, route): (&String, &Route)| {
            let different = route.counted().map(|(kind, _)| kind.count).sum();
            let (kind, differences) = route.counted().max_by_key(|(kind, _)| kind.count)?;
            let differences = differences.into_iter().cloned().collect();
            let (route, compared, example) = (name.clone(), route.compared(), kind.example.clone());
            Some(Finding { route, compared, different, example, differences })
        };
        let mut findings: Vec<_> = self.routes.iter().filter_map(finding).collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.different));
        findings
    }

    /// What is noise, by route.
    pub fn noise(&self) -> impl Iterator<Item = (&str, &str)> {
        self.routes.iter().flat_map(|(name, route)| route.noise.iter().map(move |field| (&**name, &**field)))
    }

    /// The medians of what the active and the idle color took lately.
    pub fn medians(&self) -> Option<[Duration; 2]> {
        (!self.latencies.is_empty()).then(|| {
            [0, 1].map(|color| {
                let mut all: Vec<_> = self.latencies.iter().map(|took| took[color]).collect();
                let middle = all.len() / 2;
                *all.select_nth_unstable(middle).1
            })
        })
    }

    /// Whether a flip may be made as far as this goes. Too few comparisons keep nobody from flipping.
    ///
    /// # Errors
    /// More than `max_differences` (a share) of at least `min_requests` differ: how many, and the first of them.
    pub fn gate(&self, min_requests: u64, max_differences: f64) -> Result<(), String> {
        let totals = self.totals();
        if totals.compared < min_requests || totals.share() <= max_differences {
            return Ok(());
        }
        let counted = self.routes.values().flat_map(Route::counted);
        let first = counted.min_by_key(|(kind, _)| kind.first).map(|(kind, differences)| {
            let what = differences.first().map_or(String::new(), |found| found.to_string());
            format!("; the first is {}: {what}", kind.example)
        });
        let (Totals { compared, different, .. }, share) = (totals, percent(totals.share()));
        let allowed = percent(max_differences);
        let first = first.unwrap_or_default();
        Err(format!("{different} of {compared} compared answers differ ({share}, allowed are {allowed}){first}"))
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} was {}, is {}", self.field, self.was, self.is)
    }
}

/// A share for people: `2.5%`.
pub fn percent(share: f64) -> String {
    format!("{}%", (share * 1000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(field: &str) -> Difference {
        Difference { field: field.into(), was: "a".into(), is: "b".into() }
    }

    fn comparison(route: &str, differs: &[&str], noise: &[&str]) -> Comparison {
        Comparison {
            route: route.into(),
            example: format!("{route}?q=*"),
            differences: differs.iter().map(|field| difference(field)).collect(),
            noise: noise.iter().map(|&field| field.into()).collect(),
            took: [Duration::from_millis(10), Duration::from_millis(20)],
        }
    }

    #[test]
    fn a_difference_counts_until_the_active_color_shows_it_too() {
        let mut results = Results::default();
        assert_eq!(results.add(comparison("GET /", &[], &[])), Sameness::Same);
        assert_eq!(results.add(comparison("GET /", &["$.ad"], &[])), Sameness::Different);
        assert_eq!(results.add(comparison("GET /other", &["$.ad"], &[])), Sameness::Different);
        assert_eq!(results.totals(), Totals { compared: 3, different: 2, noise: 0 });
        assert_eq!(results.add(comparison("GET /", &[], &["$.ad"])), Sameness::Same);
        assert_eq!(results.totals(), Totals { compared: 4, different: 1, noise: 1 }, "also what was counted before");
        assert_eq!(results.add(comparison("GET /", &["$.ad.image"], &[])), Sameness::Noise, "all below it");
        assert_eq!(results.add(comparison("GET /", &["$.add"], &[])), Sameness::Different, "another name");
        assert_eq!(results.add(comparison("GET /", &["$.ad", "status"], &[])), Sameness::Different);
        assert_eq!(results.findings()[0].route, "GET /");
        assert_eq!(results.findings()[0].different, 2);
    }

    #[test]
    fn the_gate_needs_enough_and_says_what_came_first() {
        let mut results = Results::default();
        results.add(comparison("GET /noise", &["body"], &["body"]));
        results.add(comparison("GET /b", &["status"], &[]));
        results.add(comparison("GET /a", &["header location"], &[]));
        assert_eq!(results.gate(4, 0.0), Ok(()), "three are too few");
        results.add(comparison("GET /", &[], &[]));
        assert_eq!(results.gate(4, 0.5), Ok(()), "half are allowed");
        let why = results.gate(4, 0.4).unwrap_err();
        assert_eq!(
            why,
            "2 of 4 compared answers differ (50%, allowed are 40%); the first is GET /b?q=*: status was a, is b"
        );
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut results = Results::default();
        for n in 0..3_000 {
            results.add(comparison(&format!("GET /{n}"), &[], &[]));
            results.add(comparison("GET /one", &[&format!("$.{n}")], &[]));
        }
        assert!(results.routes.len() <= ROUTES_MAX + 1 && results.latencies.len() <= LATENCIES_MAX);
        assert!(results.routes.values().all(|route| route.kinds.len() <= KINDS_MAX + 1));
        assert_eq!(results.totals(), Totals { compared: 6_000, different: 3_000, noise: 0 });
        assert_eq!(results.medians(), Some([Duration::from_millis(10), Duration::from_millis(20)]));
    }
}
