//! Which file of `src` imports which, and the circles among them.
//!
//! A path is followed to the file that defines its name: through the folders, and through `pub use` of a folder's
//! `mod.rs`. A `mod` line and a re-export are no imports, and neither is what only tests import.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, without_test_modules};

/// A module's path below the crate, such as `["routing", "lease"]`; the crate's root is empty.
type Module = Vec<String>;

/// The imports among the files of `src`.
pub(super) struct Imports {
    /// Where a module stands, as shown to people.
    files: BTreeMap<Module, String>,
    /// The names that a module passes on by `pub use`, with the path that each stands for.
    reexports: BTreeMap<Module, Vec<(String, Vec<String>)>>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Imports {
    pub(super) fn of(sources: &[Source]) -> Self {
        let product: Vec<_> = sources.iter().filter(|file| !file.is_test()).collect();
        let code: Vec<_> = product.iter().map(|file| (module_of(file), without_test_modules(&file.code))).collect();
        let files = product.iter().map(|file| (module_of(file), file.shown())).collect();
        let mut imports = Imports { files, reexports: BTreeMap::new(), edges: BTreeMap::new() };
        for (module, code) in &code {
            for used in uses(code).into_iter().filter(|used| used.is_public) {
                let target = imports.absolute(module, &used.path);
                let name = used.alias.or_else(|| used.path.last().cloned()).unwrap_or_default();
                imports.reexports.entry(module.clone()).or_default().extend(target.map(|target| (name, target)));
            }
        }
        for (module, code) in &code {
            let from = imports.files[module].clone();
            let to = imports.named_files(module, code).into_iter().filter(|to| *to != from).collect();
            imports.edges.insert(from, to);
        }
        imports
    }

    /// The circles: the largest sets of files that each reach all others.
    pub(super) fn circles(&self) -> Vec<BTreeSet<&str>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.edges.keys().map(|from| (from.as_str(), self.reached_from(from))).collect();
        let mut circles: Vec<BTreeSet<&str>> = Vec::new();
        for (from, to) in &reached {
            let circle: BTreeSet<&str> = to.iter().copied().filter(|to| reached[to].contains(from)).collect();
            if circle.len() > 1 && !circles.contains(&circle) {
                circles.push(circle);
            }
        }
        circles
    }

    fn reached_from(&self, from: &str) -> BTreeSet<&str> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for to in &self.edges[file] {
                if reached.insert(to.as_str()) {
                    next.push(to);
                }
            }
        }
        reached
    }

    /// Every file that `code` in `module` names something of.
    fn named_files(&self, module: &Module, code: &str) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        for used in uses(code).into_iter().filter(|used| !used.is_public) {
            let Some(path) = self.absolute(module, &used.path) else { continue };
            if self.files.contains_key(&path) {
                // A module was imported: what counts is what is then taken from it.
                let local = used.alias.or_else(|| used.path.last().cloned()).unwrap_or_default();
                for name in names_after(code, &local) {
                    named.extend(self.file_of(&[path.clone(), vec![name]].concat()));
                }
            } else {
                named.extend(self.file_of(&path));
            }
        }
        for path in inline_paths(code) {
            named.extend(self.absolute(module, &path).and_then(|path| self.file_of(&path)));
        }
        named
    }

    /// The path from the crate's root; `None` for what is not ours.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Vec<String>> {
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module, &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let base = module.get(..module.len().checked_sub(ups)?)?;
                Some([base, &path[ups..]].concat())
            }
            first => {
                let child = [module.as_slice(), &[first.to_owned()]].concat();
                self.files.contains_key(&child).then(|| [module, path].concat())
            }
        }
    }

    /// The file that defines what `path` ends with.
    fn file_of(&self, path: &[String]) -> Option<String> {
        let depth = (0..=path.len()).rev().find(|&depth| self.files.contains_key(&path[..depth]))?;
        let module = path[..depth].to_vec();
        let name = path.get(depth);
        let reexported = |name: &String| {
            let passed_on = self.reexports.get(&module)?;
            let (_, target) = passed_on.iter().find(|(known, _)| known == name)?;
            self.file_of(&[target.as_slice(), &path[depth + 1..]].concat())
        };
        name.and_then(reexported).or_else(|| self.files.get(&module).cloned())
    }
}

fn module_of(file: &Source) -> Module {
    let mut parts: Module = file.path.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// One leaf of a `use`.
struct Used {
    is_public: bool,
    path: Vec<String>,
    alias: Option<String>,
}

/// The leaves of every `use` in `code`.
fn uses(code: &str) -> Vec<Used> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("use ") {
        let line = &code[code[..start].rfind('\n').map_or(0, |end| end + 1)..start];
        let is_public = line.trim_start().starts_with("pub");
        if !line.trim().is_empty() && !is_public {
            continue;
        }
        let tree = &code[start + 4..start + code[start..].find(';').unwrap_or(code.len() - start)];
        let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        found.extend(leaves(&tree).into_iter().map(|(path, alias)| Used { is_public, path, alias }));
    }
    found
}

/// The paths of a `use` tree, each with its alias.
fn leaves(tree: &str) -> Vec<(Vec<String>, Option<String>)> {
    let parts =
        |path: &str| path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let Some((prefix, inner)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
        let mut path: Vec<String> = parts(path);
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        return vec![(path, alias.map(|alias| alias.trim().to_owned()))];
    };
    let prefix: Vec<String> = parts(prefix);
    let inner = &inner[..inner.rfind('}').unwrap_or(inner.len())];
    let (mut depth, mut begin, mut pieces) = (0_usize, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                pieces.push(&inner[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&inner[begin..]);
    let inner = pieces.into_iter().filter(|piece| !piece.trim().is_empty()).flat_map(leaves);
    inner.map(|(path, alias)| ([prefix.clone(), path].concat(), alias)).collect()
}

/// The names that follow `module::` in `code`.
fn names_after(code: &str, module: &str) -> BTreeSet<String> {
    let begins = format!("{module}::");
    let is_whole = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let after = code.match_indices(&begins).filter(|(at, _)| is_whole(*at)).map(|(at, _)| &code[at + begins.len()..]);
    after.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

/// Paths that begin with `crate` or `super` and stand in no `use`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = &code[..at];
            let line = &before[before.rfind('\n').map_or(0, |end| end + 1)..];
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
                || line.trim_start().starts_with("use ")
                || line.contains("pub(in ")
                || line.trim_start().starts_with("pub") && line.contains("use ")
            {
                continue;
            }
            let path: String =
                code[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
            found.push(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
        }
    }
    found
}
