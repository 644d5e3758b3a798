//! Keeps the house: which layer may name which, also in the map, a header in every file, no file too long, no
//! `unwrap()` in the product.
//!
//! It reads the source as text, without comments and strings. Paths through `super` stay within a layer and are not
//! looked at.

use std::path::{Path, PathBuf};

/// What each layer may name besides itself. A layer that is missing here is a finding: somebody has to place it.
const LAYERS: [(&str, &[&str]); 20] = [
    ("domain", &[]),
    ("os", &[]),
    ("http2", &[]),
    ("proxy_protocol", &[]),
    ("docker", &[]),
    ("handover", &["os"]),
    ("http_client", &["http2", "proxy_protocol"]),
    ("tls", &["os"]),
    ("config", &["domain", "http_client", "proxy_protocol", "tls"]),
    ("ledger", &["config", "os"]),
    ("api", &["config", "domain", "http_client"]),
    ("routing", &["config", "domain", "http2"]),
    ("http1", &["domain", "http2", "proxy", "routing"]),
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
const LINES_MAX: usize = 800;

/// As in `rustfmt.toml`.
const WIDTH_MAX: usize = 120;

#[test]
fn layers_name_only_the_layers_below_them() {
    let mut findings = Vec::new();
    for file in sources() {
        let Some(layer) = file.layer() else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            findings.push(format!("{}:1: the layer `{layer}` has no place in tests/it/tidy.rs", file.shown()));
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
fn the_map_says_what_each_layer_may_name() {
    let map = include_str!("../../docs/architecture.md");
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
    for file in sources().iter().filter(|file| file.path != Path::new("serve.rs")) {
        let named = named_layers(&file.code);
        let line_of = |layer: &str| named.iter().find(|(_, name)| name == layer).map(|(line, _)| line);
        if let (Some(line), Some(other)) = (line_of("proxy"), line_of("control")) {
            findings.push(format!("{}:{line}: names `proxy`, and `control` in line {other}", file.shown()));
        }
    }
    assert!(findings.is_empty(), "only src/serve.rs knows both planes:\n{}", findings.join("\n"));
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
        if lines > LINES_MAX {
            findings.push(format!("{}:{lines}: more than {LINES_MAX} lines", file.shown()));
        }
    }
    assert!(findings.is_empty(), "split by subject:\n{}", findings.join("\n"));
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

/// One file of `src`.
struct Source {
    /// Relative to `src`.
    path: PathBuf,
    text: String,
    /// The text with comments and the content of strings blanked out, line for line.
    code: String,
}

impl Source {
    /// The layer it belongs to; none for the two roots of the crate.
    fn layer(&self) -> Option<&str> {
        let first = self.path.iter().next()?.to_str()?;
        let layer = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(layer, "main" | "lib")).then_some(layer)
    }

    /// `tests.rs` and what is below `tests/` is compiled for tests only.
    fn is_test(&self) -> bool {
        self.path.iter().any(|part| part == "tests" || part == "tests.rs")
    }

    fn shown(&self) -> String {
        format!("src/{}", self.path.display())
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file can be read");
                let code = code_only(&text);
                found.push(Source {
                    path: path.strip_prefix(&root).expect("it was found there").to_owned(),
                    text,
                    code,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 10, "src was not found at {}", root.display());
    found
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

/// Blanks comments and the content of strings and characters; line breaks stay.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| may_prefix(&out)) {
            length
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        let taken = if skipped == 0 { c.len_utf8() } else { skipped };
        if skipped == 0 {
            out.push(c);
        } else {
            out.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
            out.push(' ');
        }
        rest = &rest[taken..];
    }
    out
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let step = &text.as_bytes()[at..];
        if step.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if step.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of `r"…"`, `r#"…"#` and so on, if one begins here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let content = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = text.len() - content.len();
    Some(begin + content.find(&end).map_or(content.len(), |at| at + end.len()))
}

/// Whether what was read so far ends in nothing, or in the `b` or `c` of `br"…"` and `cr"…"`: then an `r` may begin a
/// literal.
fn may_prefix(read: &str) -> bool {
    let word = read.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
    matches!(word, None | Some("" | "b" | "c"))
}

/// The length of a literal in `quote`s with backslash escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text, '\''),
        _ => 0,
    }
}

/// Blanks every item that a `#[cfg(test)]` stands before; line breaks stay.
fn without_test_modules(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let mut depth = 0_usize;
        let end = rest[at..].char_indices().find_map(|(offset, c)| {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                _ => {}
            }
            (depth == 0 && matches!(c, '}' | ';')).then_some(at + offset + 1)
        });
        let end = end.unwrap_or(rest.len());
        out.extend(rest[at..end].chars().filter(|&c| c == '\n'));
        rest = &rest[end..];
    }
    out + rest
}
