//! What one answer was, and in what two of them differ: status, chosen headers, kind of body, shape of JSON.
//!
//! Values are not compared, and none is told but status, types and the headers that hold no secrets.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::rehearsal::{Difference, OR};
use crate::ledger::redact::without_values;

/// Differences told of one answer.
const DIFFERENCES_MAX: usize = 20;
/// Paths of one document that are compared.
const PATHS_MAX: usize = 2_000;
/// What lies deeper than a path of so many bytes is not compared.
const PATH_BYTES_MAX: usize = 1_000;
/// A longer header value or JSON key is told in part.
const TOLD_CHARS: usize = 80;

/// What a color answered.
#[derive(Debug)]
pub(super) enum ColorResponse {
    Whole {
        status: u16,
        /// In the order of `rehearse.headers`.
        headers: Vec<Option<String>>,
        body: Body,
    },
    /// None, or it broke off.
    Missing(String),
}

#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Json(Shape),
    /// Text, images, JSON that is none.
    Other,
    /// Longer than is read.
    Long,
    /// An event stream: without end, and not read.
    Stream,
}

impl Body {
    fn word(&self) -> &'static str {
        match self {
            Body::Empty => "empty",
            Body::Json(_) => "JSON",
            Body::Other => "not JSON",
            Body::Long => "too long to compare",
            Body::Stream => "an event stream",
        }
    }
}

/// The types that stand at each path of a JSON document; the elements of an array share one path.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shape(BTreeMap<String, u8>);

const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

impl Shape {
    pub(super) fn of(value: &Value) -> Self {
        let mut shape = Shape::default();
        shape.add(&mut "$".to_owned(), value);
        shape
    }

    fn add(&mut self, path: &mut String, value: &Value) {
        let kind = match value {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Number(_) => 2,
            Value::String(_) => 3,
            Value::Array(_) => 4,
            Value::Object(_) => 5,
        };
        let is_full = self.0.len() >= PATHS_MAX || path.len() > PATH_BYTES_MAX;
        match self.0.get_mut(path.as_str()) {
            Some(types) => *types |= 1 << kind,
            None if is_full => return,
            None => drop(self.0.insert(path.clone(), 1 << kind)),
        }
        let length = path.len();
        match value {
            Value::Array(elements) => {
                path.push_str("[]");
                elements.iter().for_each(|element| self.add(path, element));
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    path.push('.');
                    path.extend(key.chars().take(TOLD_CHARS));
                    self.add(path, value);
                    path.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        path.truncate(length);
    }

    fn types(&self, path: &str) -> String {
        let types = self.0.get(path).copied().unwrap_or(0);
        let named: Vec<_> = (0..TYPES.len()).filter(|at| types & (1 << at) != 0).map(|at| TYPES[at]).collect();
        if named.is_empty() { "missing".into() } else { named.join(OR) }
    }

    /// Only the topmost of differing paths: below it nothing can be the same.
    fn compare(&self, new: &Shape, found: &mut Vec<Difference>) {
        let first = found.len();
        let removed = self.0.keys().filter(|path| !new.0.contains_key(*path));
        let other = new.0.iter().filter(|(path, types)| self.0.get(*path) != Some(types)).map(|(path, _)| path);
        let mut paths: Vec<_> = removed.chain(other).collect();
        paths.sort_unstable_by_key(|path| (path.matches(['.', '[']).count(), *path));
        for path in paths {
            let is_below = |above: &Difference| {
                path.strip_prefix(above.field.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
            };
            if found.len() >= first + DIFFERENCES_MAX {
                return;
            }
            if !found[first..].iter().any(is_below) {
                found.push(Difference { field: path.clone(), was: self.types(path), is: new.types(path) });
            }
        }
    }
}

/// In what `new` differs from `old`. A status that differs stands for all the rest: an error page has another body.
pub(super) fn compare(names: &[String], old: &ColorResponse, new: &ColorResponse) -> Vec<Difference> {
    let (ColorResponse::Whole { status, headers, body }, ColorResponse::Whole { status: s, headers: h, body: b }) =
        (old, new)
    else {
        let told = |answer: &ColorResponse| match answer {
            ColorResponse::Whole { status, .. } => status.to_string(),
            ColorResponse::Missing(why) => format!("no response ({why})"),
        };
        let both_missing = matches!((old, new), (ColorResponse::Missing(_), ColorResponse::Missing(_)));
        let difference = Difference { field: "status".into(), was: told(old), is: told(new) };
        return if both_missing { Vec::new() } else { vec![difference] };
    };
    if status != s {
        return vec![Difference { field: "status".into(), was: status.to_string(), is: s.to_string() }];
    }
    let mut found = Vec::new();
    for ((name, was), is) in names.iter().zip(headers).zip(h).filter(|((_, was), is)| was != is) {
        let field = format!("header {name}");
        found.push(Difference { field, was: told_header(name, was), is: told_header(name, is) });
    }
    match (body, b) {
        (Body::Json(was), Body::Json(is)) => was.compare(is, &mut found),
        (was, is) if was.word() == is.word() => {}
        (was, is) => found.push(Difference { field: "body".into(), was: was.word().into(), is: is.word().into() }),
    }
    found
}

fn told_header(name: &str, value: &Option<String>) -> String {
    let Some(value) = value else { return "missing".into() };
    let told = match name {
        "content-type" | "cache-control" => value.clone(),
        "location" => without_values(value),
        _ => return "another value".into(),
    };
    told.chars().take(TOLD_CHARS).collect()
}

/// A path with `*` in place of what looks like an id: `/users/42/cards/5f3a-…` is `/users/*/cards/*`.
pub(super) fn route_of(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let is_id = |segment: &str| {
        let has_digit = segment.bytes().any(|byte| byte.is_ascii_digit());
        let is_number = segment.bytes().all(|byte| byte.is_ascii_digit());
        let is_long = segment.len() >= 8 && segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        has_digit && (is_number || is_long || segment.len() >= 20)
    };
    let segments: Vec<_> = path.split('/').map(|segment| if is_id(segment) { "*" } else { segment }).collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::control::service::rehearsal::compare::*;

    fn whole(status: u16, header: Option<&str>, body: Body) -> ColorResponse {
        ColorResponse::Whole { status, headers: vec![header.map(str::to_owned)], body }
    }

    fn json(value: &Value) -> ColorResponse {
        whole(200, None, Body::Json(Shape::of(value)))
    }

    fn told(name: &str, old: &ColorResponse, new: &ColorResponse) -> String {
        let found: Vec<_> = compare(&[name.into()], old, new).iter().map(ToString::to_string).collect();
        found.join("; ")
    }

    #[test]
    fn values_may_differ_and_types_may_not() {
        let old = json!({"id": 1, "tags": ["a"], "items": [{"price": 1}, {"price": 2, "sale": true}], "x-y": 0});
        for (new, want) in [
            (
                json!({"id": 7, "tags": [], "items": [{"price": 3.5, "sale": false}], "x-y": 9}),
                "$.tags[] was string, is missing",
            ),
            (json!({"id": 7, "tags": ["b", "c"], "items": [{"price": 3.5, "sale": false}], "x-y": 9}), ""),
            (
                json!({"id": "7", "tags": ["b"], "items": [{"price": null, "sale": true}, {"price": 1}], "x-y": 9}),
                "$.id was number, is string; $.items[].price was number, is null or number",
            ),
            (
                json!({"tags": ["b"], "items": null, "x-y": {"z": 1}}),
                "$.id was number, is missing; $.items was array, is null; $.x-y was number, is object",
            ),
            (json!([old.clone()]), "$ was object, is array"),
        ] {
            assert_eq!(told("x", &json(&old), &json(&new)), want);
        }
    }

    #[test]
    fn a_shape_has_an_end() {
        let wide: Value = (0..5_000).map(|n| (format!("key{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
        assert_eq!(Shape::of(&wide).0.len(), PATHS_MAX);
        let deep = (0..100).fold(json!(1), |inner, _| json!({"a-rather-long-key-for-a-document": inner}));
        assert!(Shape::of(&deep).0.keys().all(|path| path.len() <= PATH_BYTES_MAX));
    }

    #[test]
    fn a_status_stands_for_the_rest() {
        let (found, error) = (whole(200, Some("a"), Body::Other), whole(500, Some("b"), Body::Empty));
        assert_eq!(told("content-type", &found, &error), "status was 200, is 500");
        let missing = || ColorResponse::Missing("timed out after 5s".into());
        assert_eq!(told("x", &found, &missing()), "status was 200, is no response (timed out after 5s)");
        assert_eq!(told("x", &missing(), &missing()), "");
    }

    #[test]
    fn headers_are_told_without_secrets() {
        let of = |value: &str| whole(302, Some(value), Body::Empty);
        for (name, old, new, want) in [
            ("location", "/in?token=1", "/on?token=2&x#y", "header location was /in?token=*, is /on?token=*&*"),
            ("set-cookie", "id=1", "id=2", "header set-cookie was another value, is another value"),
            ("content-type", "a", "b", "header content-type was a, is b"),
        ] {
            assert_eq!(told(name, &of(old), &of(new)), want);
        }
        let none = whole(302, None, Body::Other);
        assert_eq!(
            told("etag", &of("1"), &none),
            "header etag was another value, is missing; body was empty, is not JSON"
        );
    }

    #[test]
    fn a_route_has_no_ids() {
        for (target, want) in [
            ("/users/42/cards?x=1", "/users/*/cards"),
            ("/v1/cards/5f3a9c01-77aa", "/v1/cards/*"),
            ("/deadbeef/feedback", "/deadbeef/feedback"),
            ("/k/AbCdEfGhIjKlMnOpQrSt7", "/k/*"),
            ("/", "/"),
        ] {
            assert_eq!(route_of(target), want);
        }
    }
}
