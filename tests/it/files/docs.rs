//! What `docs/runbook.md` names is there.

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

#[test]
fn lead_to_headings_that_are_there() {
    let runbook = text("docs/runbook.md");
    let anchor = |heading: &str| -> String {
        let kept = heading.trim_matches(['#', ' ']).to_lowercase();
        let kept = kept.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let headings: Vec<_> = runbook.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    for link in runbook.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(headings.iter().any(|heading| heading == link), "#{link} is not among {headings:?}");
    }
}
