//! What `docs/runbook.md` names is there, and so is whatever a page links to.

use super::*;

#[test]
fn name_files_that_are_there() {
    let runbook = text("docs/runbook.md");
    let made_later =
        ["deploy/.env", "deploy/.env.blue", "deploy/.env.green", "deploy/releases.log", "deploy/evidence/"];
    let is_path = |word: &&str| ["deploy/", "scripts/", ".github/"].iter().any(|folder| word.starts_with(folder));
    let words = runbook.split(|c: char| c.is_whitespace() || "`;|,()".contains(c)).filter(is_path);
    let words: BTreeSet<_> = words.map(|word| word.trim_end_matches(['.', ':'])).collect();
    assert!(words.len() > 12, "{words:?}");
    for word in words.into_iter().filter(|word| !made_later.contains(word) && !word.contains('*')) {
        assert!(root().join(word).exists(), "docs/runbook.md names {word}");
    }
}

/// Every page, from the root.
pub(super) fn pages() -> Vec<PathBuf> {
    let folders = [".", "docs", "docs/dev", "docs/decisions", "development_flow"];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let pages =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "md"));
    pages.collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    let anchor = |heading: &str| -> String {
        let kept = heading.trim_matches(['#', ' ']).to_lowercase();
        let kept = kept.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    page.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

#[test]
fn link_to_pages_and_headings_that_are_there() {
    let pages = pages();
    assert!(pages.len() > 25, "{pages:?}");
    let mut links = 0;
    for path in pages {
        let page = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        for link in page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let to = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(to.exists(), "{shown} links to {link}");
            if let Some(anchor) = anchor {
                let anchors = anchors(&fs::read_to_string(&to).unwrap());
                assert!(anchors.iter().any(|have| have == anchor), "{shown} links to {link}, not among {anchors:?}");
            }
        }
    }
    assert!(links > 100, "{links}");
}
