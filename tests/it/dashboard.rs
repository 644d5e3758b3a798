//! The dashboard in a real browser: what its script makes of the status.

use std::process::Command;

use super::harness::{Cutover, Setup, Upstream, have};

/// The text that a browser shows after the page's script has run.
fn shown(cutover: &Cutover) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=3000"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    let output = command.arg("--dump-dom").arg(format!("http://{}/", cutover.admin_address())).output().unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && dom.contains("<body"), "{output:?}");
    let mut text = String::new();
    let mut hidden = false;
    for piece in dom.split('<') {
        let (tag, words) = piece.split_once('>').unwrap_or(("", piece));
        hidden = tag.starts_with("style") || tag.starts_with("script") || (hidden && !tag.starts_with('/'));
        if !hidden {
            text += words;
            text.push(' ');
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn shows_a_browser_who_is_active_and_what_goes_on() {
    if !have("chromium") {
        return;
    }
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).start();
    let page = shown(&cutover);
    assert!(page.contains("app steady epoch 1 blue takes every request; green is ready to flip to"), "{page}");
    assert!(
        page.contains("blue ● active") && page.contains("green ○ idle") && page.contains("Flip to green"),
        "{page}"
    );
    cutover.must_flip("green");
    let page = shown(&cutover);
    assert!(page.contains("app watching epoch 2 green takes every new request and is watched"), "{page}");
    assert!(page.contains("green ● active") && page.contains("flip app: blue -&gt; green"), "{page}");
}
