//! Keeps the house: layers and the permissions between them, no circles between folders, one subject per file, names
//! that mean one thing, a map that is true, a header in every file, no `unwrap()` in the product.
//!
//! It reads the source as text, without comments and strings.

mod imports;
mod source;

use std::collections::{BTreeMap, BTreeSet};

use imports::Imports;
use source::{code_only, sources, without_test_modules};

/// What each layer may name besides itself. A layer that is missing here is a finding: somebody has to place it.
const LAYERS: [(&str, &[&str]); 20] = [
    ("domain", &[]),
    ("os", &[]),
    ("http1", &[]),
    ("http2", &["http1"]),
    ("proxy_protocol", &[]),
    ("docker", &[]),
    ("handover", &["os"]),
    ("http_client", &["http2", "proxy_protocol"]),
    ("tls", &["os"]),
    ("config", &["domain", "http_client", "proxy_protocol", "tls"]),
    ("ledger", &["config", "os"]),
    ("api", &["config", "domain", "http_client"]),
    ("routing", &["config", "domain", "http1", "http2"]),
    ("proxy", &["config", "domain", "http1", "http2", "os", "proxy_protocol", "routing", "tls"]),
    (
        "control",
        &[
            "api",
            "config",
            "docker",
            "domain",
            "handover",
            "http_client",
            "ledger",
            "os",
            "proxy_protocol",
            "routing",
            "tls",
        ],
    ),
    ("admin", &["api", "config", "control", "domain", "handover", "routing"]),
    ("demo", &["api", "config", "domain", "http_client"]),
    // A client of the API and of Docker, never inside the proxy.
    ("deploy", &["api", "config", "docker", "domain", "http_client", "ledger", "os", "proxy_protocol"]),
    ("cli", &["api", "config", "demo", "deploy", "docker", "domain", "handover", "ledger", "os", "serve"]),
    ("serve", &["admin", "api", "config", "control", "handover", "os", "proxy", "routing", "tls"]),
];

/// A file that grows past this has more than one subject.
const LINES_MAX: usize = 500;

/// Files that may be longer, each with the reason.
const LONG_FILES: [(&str, &str); 2] = [
    ("src/admin/tests.rs", "every case asks the one server that the file sets up"),
    ("src/control/tests.rs", "every case runs the one control plane, with its upstreams, that the file sets up"),
];

/// Two files of one folder that import each other, each with the reason why they belong together.
const PAIRS: [(&str, &str, &str); 0] = [];

/// So many types may bear one name.
const NAMESAKES_MAX: usize = 2;

/// As in `rustfmt.toml`.
const WIDTH_MAX: usize = 120;

#[test]
fn layers_name_only_the_layers_below_them() {
    let mut findings = Vec::new();
    for file in sources() {
        let Some(layer) = file.layer() else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            findings.push(format!("{}:1: the layer `{layer}` has no place in tests/it/tidy", file.shown()));
            continue;
        };
        for (line, named) in named_layers(&file.code) {
            if named != layer && !allowed.contains(&named.as_str()) {
                findings.push(format!("{}:{line}: `{layer}` must not name `{named}`", file.shown()));
            }
        }
    }
    assert!(
        findings.is_empty(),
        "the layers are broken; move the code, or settle the rule anew:\n{}",
        findings.join("\n")
    );
}

#[test]
fn every_permission_is_in_use() {
    let sources = sources();
    let mut findings = Vec::new();
    for (layer, allowed) in LAYERS {
        let files = sources.iter().filter(|file| file.layer() == Some(layer));
        let named: BTreeSet<_> = files.flat_map(|file| named_layers(&file.code)).map(|(_, named)| named).collect();
        findings.extend(
            allowed
                .iter()
                .filter(|allowed| !named.contains(**allowed))
                .map(|allowed| format!("`{layer}` may name `{allowed}` and does not")),
        );
    }
    assert!(findings.is_empty(), "take the permissions away:\n{}", findings.join("\n"));
}

#[test]
fn no_circle_leaves_its_folder() {
    let sources = sources();
    let imports = Imports::of(&sources);
    let folder = |file: &str| file.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let mut findings = Vec::new();
    for circle in imports.circles() {
        let files: Vec<_> = circle.iter().copied().collect();
        let known = |a: &str, b: &str| PAIRS.iter().any(|(one, other, _)| (*one, *other) == (a, b));
        let is_pair = matches!(files[..], [a, b] if folder(a) == folder(b) && known(a, b));
        if !is_pair {
            findings.push(files.join(" ↔ "));
        }
    }
    assert!(
        findings.is_empty(),
        "files that import each other in a circle; move what both need below them, or list a pair of one folder with \
         its reason:\n{}",
        findings.join("\n")
    );
}

#[test]
fn a_type_name_means_one_thing() {
    let mut bearers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        for (line, name) in type_names(&without_test_modules(&file.code)) {
            bearers.entry(name).or_default().push(format!("{}:{line}", file.shown()));
        }
    }
    let crowded = bearers.iter().filter(|(_, places)| places.len() > NAMESAKES_MAX);
    let findings: Vec<_> = crowded.map(|(name, places)| format!("`{name}`: {}", places.join(", "))).collect();
    assert!(findings.is_empty(), "one name, many things:\n{}", findings.join("\n"));
}

#[test]
fn the_entry_points_exist() {
    let map = include_str!("../../../docs/architecture.md");
    let (_, section) = map.split_once("## Entry points").expect("docs/architecture.md has a section `Entry points`");
    let section = section.split("\n## ").next().expect("a split has a first part");
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .map(|line| line.split('`').skip(1).step_by(2).collect())
        .collect();
    assert!(rows.len() >= 10, "ten entry points or more, and not {}", rows.len());
    let sources = sources();
    let mut findings = Vec::new();
    for row in rows {
        let [path, function, ..] = row[..] else { panic!("a row names a file and a function: {row:?}") };
        let Some(file) = sources.iter().find(|file| file.shown() == path) else {
            findings.push(format!("{path} is not there"));
            continue;
        };
        let (owner, name) = function.rsplit_once("::").map_or((None, function), |(owner, name)| (Some(owner), name));
        let has = |word: &str| {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            file.code.match_indices(word).any(|(at, _)| ends(&file.code[at + word.len()..]))
        };
        if !has(&format!("fn {name}")) || owner.is_some_and(|owner| !has(owner)) {
            findings.push(format!("{path} has no `{function}`"));
        }
    }
    assert!(findings.is_empty(), "docs/architecture.md, `Entry points`:\n{}", findings.join("\n"));
}

#[test]
fn the_map_says_what_each_layer_may_name() {
    let map = include_str!("../../../docs/architecture.md");
    for (layer, allowed) in LAYERS {
        let begins = [format!("| `{layer}/`"), format!("| `{layer}.rs`")];
        let row = map.lines().find(|line| begins.iter().any(|begin| line.starts_with(begin)));
        let row = row.unwrap_or_else(|| panic!("docs/architecture.md has no row for `{layer}`"));
        let last = row.trim_end_matches(" |").rsplit(" | ").next().expect("a row has columns");
        let mut said: Vec<_> = last.split('`').skip(1).step_by(2).collect();
        let mut allowed = allowed.to_vec();
        said.sort_unstable();
        allowed.sort_unstable();
        assert_eq!(said, allowed, "docs/architecture.md about `{layer}`");
    }
}

#[test]
fn only_serve_names_both_planes() {
    let mut findings = Vec::new();
    for file in sources().iter().filter(|file| file.layer() != Some("serve")) {
        let named = named_layers(&file.code);
        let line_of = |layer: &str| named.iter().find(|(_, name)| name == layer).map(|(line, _)| line);
        if let (Some(line), Some(other)) = (line_of("proxy"), line_of("control")) {
            findings.push(format!("{}:{line}: names `proxy`, and `control` in line {other}", file.shown()));
        }
    }
    assert!(findings.is_empty(), "only serve knows both planes:\n{}", findings.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is() {
    let mut findings = Vec::new();
    for file in sources().iter().filter(|file| !file.text.starts_with("//! ")) {
        findings.push(format!("{}:1: does not start with `//! `", file.shown()));
    }
    assert!(findings.is_empty(), "a header is missing:\n{}", findings.join("\n"));
}

#[test]
fn no_file_is_too_long_to_have_one_subject() {
    let mut findings = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        let is_listed = LONG_FILES.iter().any(|(path, _)| *path == file.shown());
        if lines > LINES_MAX && !is_listed {
            findings.push(format!("{}:{lines}: more than {LINES_MAX} lines", file.shown()));
        }
    }
    assert!(findings.is_empty(), "split by subject, or say why not in LONG_FILES:\n{}", findings.join("\n"));
}

#[test]
fn comments_keep_to_the_width_of_the_code() {
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let mut findings = Vec::new();
    for file in sources() {
        for (at, line) in file.text.lines().enumerate().filter(|(_, line)| is_comment(line)) {
            if line.chars().count() > WIDTH_MAX {
                findings.push(format!("{}:{}", file.shown(), at + 1));
            }
        }
    }
    assert!(findings.is_empty(), "wider than {WIDTH_MAX}, and rustfmt leaves comments alone:\n{}", findings.join("\n"));
}

#[test]
fn the_product_never_unwraps() {
    let mut findings = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        for (line, _) in without_test_modules(&file.code).lines().enumerate().filter(|(_, l)| l.contains(".unwrap()")) {
            findings.push(format!("{}:{}: `.unwrap()`", file.shown(), line + 1));
        }
    }
    assert!(
        findings.is_empty(),
        "say why it cannot fail, with expect(\"why\"), or handle it:\n{}",
        findings.join("\n")
    );
}

#[test]
fn the_reader_sees_paths_where_they_are_and_nowhere_else() {
    let code = code_only(
        "use crate::proxy::Fault; // crate::admin\n/* crate::cli /* crate::demo */ */ let a = '\"'; crate::status::x();\n\
         let b = \"crate::ledger \\\" crate::ledger\"; let c: &'static str = r#\"crate::lines \" \"#; br\"\\\";\n\
         use crate::{\n    clock,\n    control::{Handle, metrics},\n    switch::Route as domain,\n};\n\
         pub(in crate::config) fn f() { $crate::serve::g(); mycrate::cli::run(); }",
    );
    let named: Vec<_> = named_layers(&code);
    let named: Vec<_> = named.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(
        named,
        [(1, "proxy"), (2, "status"), (5, "clock"), (6, "control"), (7, "switch"), (9, "config"), (9, "serve")]
    );
    let kept = without_test_modules("a.unwrap();\n#[cfg(test)]\nmod tests {\n  b.unwrap(); { }\n}\nc.unwrap();\n");
    assert_eq!(kept, "a.unwrap();\n\n\n\n\nc.unwrap();\n");
    let kept = without_test_modules("#[cfg(test)]\nmod tests;\nc.unwrap();\n");
    assert_eq!(kept, "\n\nc.unwrap();\n");
}

/// `(line, layer)` of every `crate::layer…` and of every first name in `crate::{…}`.
fn named_layers(code: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (start, root) in code.match_indices("crate::") {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let at = start + root.len();
        let names = if code[at..].starts_with('{') { group(code, at) } else { vec![at] };
        named.extend(names.into_iter().map(|at| {
            let rest = &code[at..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            (code[..at].matches('\n').count() + 1, rest[..end].to_owned())
        }));
    }
    named.sort_by_key(|(line, _)| *line);
    named
}

/// Where the names of the outermost braces begin; `at` is the opening brace.
fn group(code: &str, at: usize) -> Vec<usize> {
    let (mut depth, mut expects_name, mut names) = (0_usize, false, Vec::new());
    for (offset, c) in code[at..].char_indices() {
        match c {
            '{' => {
                depth += 1;
                expects_name = depth == 1;
            }
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' => expects_name = depth == 1,
            c if expects_name && !c.is_whitespace() => {
                names.push(at + offset);
                expects_name = false;
            }
            _ => {}
        }
    }
    names
}

/// `(line, name)` of every struct, enum, union, trait and type alias that a module defines.
fn type_names(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let line = line.trim_start();
        let visible = line.strip_prefix("pub").map_or(line, |rest| {
            rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest).trim_start()
        });
        let definition =
            ["struct ", "enum ", "union ", "trait ", "type "].iter().find_map(|word| visible.strip_prefix(word));
        // An associated type, as in `type Err = …` of a trait, names nothing new.
        let is_associated =
            visible.starts_with("type ") && !code.lines().nth(at).is_some_and(|l| l == visible || l.starts_with("pub"));
        if let Some(rest) = definition.filter(|_| !is_associated) {
            found.push((at + 1, rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()));
        }
    }
    found
}
