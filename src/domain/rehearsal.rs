//! What a rehearsal has shown: where the idle color answers otherwise than the active one, and whether that is noise.
//!
//! What the *active* color shows in one answer and not in the next is noise on that route, from then on and for what
//! was compared before. So nothing is decided while answers come in; the counts are made of what is known when they are
//! asked for. Noise is what was seen, not the field: a status that flaps between 200 and 404 excuses no 500.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

/// Routes that are told apart; what more there are goes under one name.
const ROUTES_MAX: usize = 200;
/// Fields of one route that are known to change.
const FIELDS_MAX: usize = 200;
/// Values of one field that are known as noise.
const VALUES_MAX: usize = 32;
/// Sets of differences that are told apart on one route.
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
    /// The value in the active color's response.
    pub was: String,
    /// The value in the idle color's response.
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
    /// In what other answers of the active color differ.
    pub noise: Noise,
    /// The response times of the active and the idle color.
    pub took: [Duration; 2],
}

/// The result of one comparison, as far as it is known at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// No difference.
    Same,
    /// A difference that counts.
    Different,
    /// Nothing but what differs on the active color as well.
    Noise,
}

/// What the active color was seen to show in turns: values, and types of JSON, by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noise(BTreeMap<String, BTreeSet<String>>);

impl Noise {
    /// Takes in a difference between two answers of the active color.
    pub fn add(&mut self, seen: &Difference) {
        let words = [&seen.was, &seen.is].into_iter().flat_map(|value| words_of(value)).map(str::to_owned);
        self.extend(seen.field.clone(), words);
    }

    /// Whether the idle color shows nothing in it that the active one was not seen to show. Of a header it is enough
    /// that it changes: its values may be new each time.
    pub fn covers(&self, found: &Difference) -> bool {
        let is_seen = |seen: &BTreeSet<String>| words_of(&found.is).all(|word| seen.contains(word));
        self.0.get(&found.field).is_some_and(|seen| found.is_header() || is_seen(seen))
    }

    /// Whether it covers all of `found`.
    pub fn covers_all(&self, found: &[Difference]) -> bool {
        found.iter().all(|found| self.covers(found))
    }

    /// Fields, and what was seen in them: `null or string`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(field, seen)| (&**field, seen.iter().cloned().collect::<Vec<_>>().join(OR)))
    }

    fn merge(&mut self, other: Noise) {
        other.0.into_iter().for_each(|(field, seen)| self.extend(field, seen.into_iter()));
    }

    fn extend(&mut self, field: String, words: impl Iterator<Item = String>) {
        if self.0.len() < FIELDS_MAX || self.0.contains_key(&field) {
            let seen = self.0.entry(field).or_default();
            let room = VALUES_MAX.saturating_sub(seen.len());
            seen.extend(words.take(room));
        }
    }
}

/// Between the types that stand at one path.
pub const OR: &str = " or ";

fn words_of(value: &str) -> impl Iterator<Item = &str> {
    value.split(OR)
}

impl Difference {
    fn is_header(&self) -> bool {
        self.field.starts_with("header ")
    }

    /// The key by which two differences are the same.
    fn key(&self) -> String {
        if self.is_header() { self.field.clone() } else { format!("{} {}", self.field, self.is) }
    }
}

/// Comparisons that showed the same set of differing fields on one route.
#[derive(Debug)]
struct DifferenceSet {
    count: u64,
    /// Its first one, counted from the first of all.
    first: u64,
    example: String,
    differences: Vec<Difference>,
}

#[derive(Debug, Default)]
struct RouteResults {
    same: u64,
    kinds: BTreeMap<Vec<String>, DifferenceSet>,
    noise: Noise,
}

impl RouteResults {
    /// The kinds that count, with those of their differences that do.
    fn counted(&self) -> impl Iterator<Item = (&DifferenceSet, Vec<&Difference>)> {
        self.kinds.values().filter_map(|kind| {
            let counted: Vec<_> = kind.differences.iter().filter(|found| !self.noise.covers(found)).collect();
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
    routes: BTreeMap<String, RouteResults>,
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
pub struct DifferingRoute {
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
        route.noise.merge(noise);
        if differences.is_empty() {
            route.same += 1;
            return Sameness::Same;
        }
        let is_noise = route.noise.covers_all(&differences);
        let mut key: Vec<_> = differences.iter().map(Difference::key).collect();
        if route.kinds.len() >= KINDS_MAX && !route.kinds.contains_key(&key) {
            key = vec![REST.to_owned()];
        }
        let fresh = DifferenceSet { count: 0, first: self.compared, example, differences };
        route.kinds.entry(key).or_insert(fresh).count += 1;
        if is_noise { Sameness::Noise } else { Sameness::Different }
    }

    /// Whether all of `found` is known as noise on `route`.
    pub fn knows_as_noise(&self, route: &str, found: &[Difference]) -> bool {
        self.routes.get(route).is_some_and(|route| route.noise.covers_all(found))
    }

    /// The numbers.
    pub fn totals(&self) -> Totals {
        let differing = |route: &RouteResults| route.kinds.values().map(|kind| kind.count).sum::<u64>();
        let counted = |route: &RouteResults| route.counted().map(|(kind, _)| kind.count).sum::<u64>();
        let different = self.routes.values().map(counted).sum();
        let noise = self.routes.values().map(differing).sum::<u64>() - different;
        Totals { compared: self.compared, different, noise }
    }

    /// The routes with differences, those with the most first.
    pub fn findings(&self) -> Vec<DifferingRoute> {
        let finding = |(name, route): (&String, &RouteResults)| {
            let different = route.counted().map(|(kind, _)| kind.count).sum();
            let (kind, differences) = route.counted().max_by_key(|(kind, _)| kind.count)?;
            let differences = differences.into_iter().cloned().collect();
            let (route, compared, example) = (name.clone(), route.compared(), kind.example.clone());
            Some(DifferingRoute { route, compared, different, example, differences })
        };
        let mut findings: Vec<_> = self.routes.iter().filter_map(finding).collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.different));
        findings
    }

    /// What is noise: route, field, and what was seen in it.
    pub fn noise<'a>(&'a self) -> impl Iterator<Item = (&'a str, &'a str, String)> {
        let of_route = |(name, route): (&'a String, &'a RouteResults)| {
            route.noise.iter().map(move |(field, seen)| (&**name, field, seen))
        };
        self.routes.iter().flat_map(of_route)
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
    /// More than `max_differences` (a share) of at least `min_requests` differ.
    pub fn gate(&self, min_requests: u64, max_differences: f64) -> Result<(), TooManyDifferences> {
        let totals = self.totals();
        if totals.compared < min_requests || totals.share() <= max_differences {
            return Ok(());
        }
        let counted = self.routes.values().flat_map(RouteResults::counted);
        let first = counted.min_by_key(|(kind, _)| kind.first).map(|(kind, differences)| FirstDifference {
            example: kind.example.clone(),
            difference: differences.first().map(|found| (*found).clone()),
        });
        let first = first.map(Box::new);
        Err(TooManyDifferences { totals, allowed_share: max_differences, first })
    }
}

/// Says why a rehearsal keeps a gate closed.
#[derive(Clone, Debug, PartialEq)]
pub struct TooManyDifferences {
    /// The numbers of the rehearsal.
    pub totals: Totals,
    /// The share of differing requests that would be allowed.
    pub allowed_share: f64,
    /// The difference that was found first; boxed, so that an error that nearly never is stays small.
    pub first: Option<Box<FirstDifference>>,
}

/// A request that the colors answered differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstDifference {
    /// Its method and path.
    pub example: String,
    /// In what the responses differ.
    pub difference: Option<Difference>,
}

impl fmt::Display for TooManyDifferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { compared, different, .. } = self.totals;
        let (share, allowed) = (percent(self.totals.share()), percent(self.allowed_share));
        write!(f, "{different} of {compared} compared responses differ ({share}, {allowed} allowed)")?;
        let Some(FirstDifference { example, difference }) = self.first.as_deref() else { return Ok(()) };
        let what = difference.as_ref().map_or(String::new(), ToString::to_string);
        write!(f, "; the first is {example}: {what}")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

    /// `field was is`
    fn difference(text: &str) -> Difference {
        let words: Vec<_> = text.split(' ').collect();
        let [field, was, is] = words[..] else { panic!("three words in {text}") };
        Difference { field: field.replace('_', " "), was: was.replace('|', OR), is: is.replace('|', OR) }
    }

    fn comparison(route: &str, differs: &[&str], noise: &[&str]) -> Comparison {
        let mut seen = Noise::default();
        noise.iter().for_each(|text| seen.add(&difference(text)));
        Comparison {
            route: route.into(),
            example: format!("{route}?q=*"),
            differences: differs.iter().map(|text| difference(text)).collect(),
            noise: seen,
            took: [Duration::from_millis(10), Duration::from_millis(20)],
        }
    }

    #[test]
    fn a_difference_counts_until_the_active_color_shows_it_too() {
        let mut results = Results::default();
        let ad = "$.ad missing object";
        assert_eq!(results.add(comparison("GET /", &[], &[])), Sameness::Same);
        assert_eq!(results.add(comparison("GET /", &[ad], &[])), Sameness::Different);
        assert_eq!(results.add(comparison("GET /other", &[ad], &[])), Sameness::Different);
        assert_eq!(results.totals(), Totals { compared: 3, different: 2, noise: 0 });
        assert_eq!(results.add(comparison("GET /", &[], &["$.ad object missing"])), Sameness::Same);
        assert_eq!(results.totals(), Totals { compared: 4, different: 1, noise: 1 }, "also what was counted before");
        assert_eq!(results.add(comparison("GET /", &[ad, "status 200 500"], &[])), Sameness::Different);
        assert_eq!(results.findings()[0].differences, [difference("status 200 500")], "without the noise in it");
    }

    #[test]
    fn noise_excuses_only_what_the_active_color_was_seen_to_show() {
        for (noise, found, want) in [
            ("status 200 404", "status 200 404", true),
            ("status 200 404", "status 404 200", true),
            ("status 200 404", "status 200 500", false),
            ("$.a number null|number", "$.a number null", true),
            ("$.a number null|number", "$.a number missing", false),
            ("$.a missing object", "$.a.b string number", false),
            ("header_location /a/1 /a/2", "header_location /a/1 /a/3", true),
            ("header_location /a/1 /a/2", "header_etag 1 2", false),
            ("body JSON empty", "body JSON empty", true),
        ] {
            let mut seen = Noise::default();
            seen.add(&difference(noise));
            assert_eq!(seen.covers(&difference(found)), want, "{noise}, {found}");
        }
    }

    #[test]
    fn the_gate_needs_enough_and_says_what_came_first() {
        let mut results = Results::default();
        results.add(comparison("GET /noise", &["body JSON empty"], &["body empty JSON"]));
        results.add(comparison("GET /b", &["status 200 500"], &[]));
        results.add(comparison("GET /a", &["header_location a b"], &[]));
        assert_eq!(results.gate(4, 0.0), Ok(()), "three are too few");
        results.add(comparison("GET /", &[], &[]));
        assert_eq!(results.gate(4, 0.5), Ok(()), "half are allowed");
        let why = results.gate(4, 0.4).unwrap_err().to_string();
        assert_eq!(
            why,
            "2 of 4 compared responses differ (50%, 40% allowed); the first is GET /b?q=*: status was 200, is 500"
        );
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut results = Results::default();
        for n in 0..3_000 {
            results.add(comparison(&format!("GET /{n}"), &[], &[]));
            results.add(comparison("GET /two", &[], &[&format!("$.{n} string missing")]));
            results.add(comparison("GET /one", &[&format!("$.{n} string null")], &[&format!("$.b {n} null")]));
        }
        assert!(results.routes.len() <= ROUTES_MAX + 1 && results.latencies.len() <= LATENCIES_MAX);
        assert!(results.routes.values().all(|route| route.kinds.len() <= KINDS_MAX + 1));
        assert!(results.routes["GET /two"].noise.0.len() <= FIELDS_MAX);
        assert!(results.routes["GET /one"].noise.0["$.b"].len() <= VALUES_MAX);
        assert_eq!(results.totals(), Totals { compared: 9_000, different: 3_000, noise: 0 });
        assert_eq!(results.medians(), Some([Duration::from_millis(10), Duration::from_millis(20)]));
    }
}
